#include "study/sweep.h"

#include <iostream>
#include <memory>

#include "cli/commands.h"
#include "cli/override_flags.h"
#include "core/interrupt.h"

namespace rep {

namespace {

struct Arguments {
  SweepOptions options;
  OverrideFlags flags;
  bool dry_run = false;
};

void sweep(Arguments& arguments) {
  SweepOptions& options = arguments.options;
  options.set = arguments.flags.overrides();
  const std::vector<SweepRun> runs = plan_sweep(options);
  if (arguments.dry_run) {
    std::cout << describe_sweep(options, runs);
    return;
  }
  catch_interrupts();
  Progress progress(Progress::Verbosity::kNormal, options.output + "/sweep.log");
  run_sweep(options, runs, progress);
}

}  // namespace

void add_sweep_command(CLI::App& app) {
  auto arguments = std::make_shared<Arguments>();
  SweepOptions& options = arguments->options;
  options.output = "results/sweep";
  CLI::App* command = app.add_subcommand("sweep", "Run configurations x grid x seeds");
  command->footer(
      "Repeated or widened, a sweep runs only what is not finished, and goes on with what was\n"
      "stopped. One run that fails does not stop the others.\n"
      "Example: rep sweep configs/cifar100/l2p.yaml configs/cifar100/er.yaml --seeds 1,2,3 \\\n"
      "           --grid train.optimizer.lr=0.001,0.01 --output results/rates");
  command->add_option("configs", options.configs, "Experiments (YAML)")->required();
  command
      ->add_option("--grid", options.grid,
                   "Try these values of a key, each with each other's; commas within [], {} or "
                   "quotes do not separate")
      ->type_name("KEY=V1,V2,...")
      ->allow_extra_args(false);
  command->add_option("--seeds", options.seeds, "The runs' seeds, e.g. 1,2,3 [as configured]")
      ->delimiter(',')
      ->allow_extra_args(false)
      ->check(CLI::NonNegativeNumber);
  arguments->flags.add_to(*command);
  command
      ->add_option("--jobs", options.jobs,
                   "Runs at a time, which share the cores where the configuration does not say "
                   "threads [half the cores, at least 1]")
      ->check(CLI::PositiveNumber);
  command->add_option("--output", options.output, "Holds a folder for each run")
      ->capture_default_str();
  command->add_flag("--dry-run", arguments->dry_run,
                    "List the runs (new, unfinished or finished); run nothing");
  command->callback([arguments] { sweep(*arguments); });
}

}  // namespace rep
