#include "study/sweep.h"

#include <iostream>
#include <memory>

#include "cli/commands.h"
#include "cli/override_flags.h"
#include "core/error.h"
#include "core/interrupt.h"
#include "core/numbers.h"
#include "run/inputs.h"
#include "run/setup.h"
#include "study/selection.h"
#include "study/slurm.h"

namespace rep {

namespace {

struct Arguments {
  SweepOptions options;
  SlurmOptions slurm;
  OverrideFlags flags;
  std::string engine = "local", status, select;
  bool dry_run = false;
};

void refuse_slurm_options(const SlurmOptions& slurm) {
  for (const auto& [name, value] : {std::pair{"--time", slurm.time},
                                    {"--partition", slurm.partition},
                                    {"--gres", slurm.gres}}) {
    if (value.empty()) continue;
    throw Error(std::string(name) + ": is for --engine slurm; add that, or remove it");
  }
}

void refuse_with_select(const Arguments& arguments) {
  if (arguments.engine != "local") {
    throw Error(
        "--select: waits for the runs to choose among them, which --engine slurm does not; submit "
        "them with --set stream.validation=0.2, then repeat with --select and --engine local");
  }
  for (const std::string& axis : arguments.options.grid) {
    if (axis.rfind("stream.validation=", 0) != 0) continue;
    throw Error(
        "--grid stream.validation: accuracies on different validation images do not compare; "
        "give one share with --set");
  }
}

void sweep(Arguments& arguments) {
  SweepOptions& options = arguments.options;
  if (!arguments.status.empty()) {
    std::cout << describe_status(arguments.status);
    return;
  }
  const bool in_slurm = arguments.engine == "slurm";
  if (!in_slurm) refuse_slurm_options(arguments.slurm);
  options.set = arguments.flags.overrides();
  if (options.configs.empty()) throw CLI::RequiredError("configs");
  const bool selects = !arguments.select.empty();
  if (selects) refuse_with_select(arguments);
  options.on_validation = selects;
  const ExperimentReader reader{read_experiment, InputDigests()};
  if (selects && !arguments.dry_run) {
    catch_interrupts();
    Progress progress(Progress::Verbosity::kNormal, options.output + "/sweep.log");
    select_and_test(options, reader, progress);
    return;
  }
  const std::vector<SweepRun> runs = plan_sweep(options, reader);
  if (arguments.dry_run) {
    std::cout << (in_slurm ? describe_batch(options, arguments.slurm, runs)
                           : describe_sweep(options, runs));
    if (selects) {
      std::cout << "then the best setting of each configuration, with stream.validation=0\n";
    }
    return;
  }
  catch_interrupts();
  Progress progress(Progress::Verbosity::kNormal, options.output + "/sweep.log");
  if (in_slurm) {
    submit_sweep(options, arguments.slurm, runs, progress);
  } else {
    run_sweep(options, runs, progress);
  }
}

/// Seeds up to the first word that is not a number; from there on experiments.
void take_seeds(const std::vector<std::string>& words, Arguments& arguments) {
  for (const std::string& word : words) {
    const auto seed = parse_number<int64_t>(word);
    if (seed && *seed < 0) throw Error("--seeds: " + word + " is negative");
    if (seed) {
      arguments.options.seeds.push_back(*seed);
    } else {
      arguments.options.configs.push_back(word);
    }
  }
}

void add_slurm_options(CLI::App& command, Arguments& arguments) {
  command
      .add_option("--engine", arguments.engine,
                  "local: processes on this machine, waited for; slurm: a job array of sbatch, "
                  "submitted and left alone")
      ->check(CLI::IsMember({"local", "slurm"}))
      ->capture_default_str();
  SlurmOptions& slurm = arguments.slurm;
  const std::string group =
      "With --engine slurm (cores: what the configurations say of threads, "
      "or 1; sbatch's environment variables work, too)";
  command.add_option("--time", slurm.time, "Of a run, e.g. 4:00:00; out of it, it is requeued")
      ->group(group);
  command.add_option("--partition", slurm.partition, "Where the runs are queued")->group(group);
  command.add_option("--gres", slurm.gres, "Of a run, e.g. gpu:1")->group(group);
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
      "Example: rep sweep configs/quickstart.yaml --seeds 1,2 --grid train.epochs=1,2 --output "
      "results/rates");
  CLI::Option* configs = command->add_option("configs", options.configs, "Experiments (YAML)");
  command
      ->add_option("--grid", options.grid,
                   "Try these values of a key, each with each other's; commas within [], {} or "
                   "quotes do not separate")
      ->type_name("KEY=V1,V2,...")
      ->allow_extra_args(false);
  command
      ->add_option_function<std::vector<std::string>>(
          "--seeds",
          [arguments](const std::vector<std::string>& words) { take_seeds(words, *arguments); },
          "The runs' seeds: 1,2,3 or 1 2 3 [as configured]")
      ->delimiter(',')
      ->type_name("INT...");
  arguments->flags.add_to(*command);
  command
      ->add_option("--jobs", options.jobs,
                   "Runs at a time, which share the cores where the configuration does not say "
                   "threads [half the cores, at least 1; what SLURM allows]")
      ->check(kPositiveCount);
  command->add_option("--output", options.output, "Holds a folder for each run")
      ->capture_default_str();
  command->add_flag("--dry-run", arguments->dry_run,
                    "List the runs and how far they are, or print the batch script; run nothing");
  command
      ->add_option("--select", arguments->select,
                   "validation: run all on a share of the training images (stream.validation, or "
                   "0.2), choose the best setting of each configuration, and test that alone")
      ->check(CLI::IsMember({"validation"}));
  add_slurm_options(*command, *arguments);
  command
      ->add_option_function<std::string>(
          "--status", [arguments](const std::string& output) { arguments->status = output; },
          "How far each run of the sweep into this folder is: new, queued, running, unfinished, "
          "failed (and why) or finished")
      ->type_name("OUTPUT")
      ->trigger_on_parse()
      ->excludes(configs);
  command->callback([arguments] { sweep(*arguments); });
}

}  // namespace rep
