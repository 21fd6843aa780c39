#include <iostream>
#include <memory>
#include <utility>

#include "cli/commands.h"
#include "cli/override_flags.h"
#include "cli/run_and_report.h"
#include "data/stream.h"
#include "run/loops.h"
#include "run/session.h"
#include "run/setup.h"

namespace rep {

namespace {

struct Arguments {
  std::string config, output, device;
  OverrideFlags flags;
  int64_t seed = -1;
  bool resume = false, save_predictions = false, dry_run = false, quiet = false, verbose = false;
};

std::vector<std::string> overrides(const Arguments& arguments) {
  std::vector<std::string> all = arguments.flags.overrides();
  if (arguments.seed >= 0) all.push_back("seed=" + std::to_string(arguments.seed));
  if (!arguments.device.empty()) all.push_back("device=" + arguments.device);
  if (arguments.save_predictions) all.emplace_back("eval.predictions=top5");
  return all;
}

// What would run, without running it: the effective configuration and the stream.
void print_plan(const Config& config) {
  const Scenario scenario = open_scenario(config, torch::kCPU);
  Json tasks = Json::array();
  for (const Task& task : scenario.stream.tasks) {
    const auto images = static_cast<int64_t>(task.train.size());
    tasks.push_back({{"index", task.index},
                     {"classes", task.classes},
                     {"train_images", images},
                     {"test_images", task.test.size()},
                     {"iterations", steps_of_task(config.train, images)}});
  }
  std::cout << to_text(Json{{"config", to_json(config)}, {"tasks", tasks}}, 1) << "\n";
}

void run(const Arguments& arguments) {
  Config config = read_experiment(arguments.config, overrides(arguments));
  if (arguments.dry_run) return print_plan(config);

  const std::string output = arguments.output.empty()
                                 ? "results/" + config.name + "-s" + std::to_string(config.seed)
                                 : arguments.output;
  run_and_report(std::move(config), {output, arguments.resume, arguments.quiet, arguments.verbose});
}

}  // namespace

void add_run_command(CLI::App& app) {
  auto arguments = std::make_shared<Arguments>();
  CLI::App* command = app.add_subcommand("run", "Run one experiment");
  command->footer(
      "Example: rep run configs/quickstart.yaml --set train.epochs=2 --seed 1 --output "
      "results/try\n"
      "Every key: rep list keys");
  command->add_option("config", arguments->config, "The experiment (YAML)")->required();
  arguments->flags.add_to(*command);
  command->add_option("--seed", arguments->seed, "The run's seed")->check(kCount);
  command->add_option("--output", arguments->output, "The run's folder [results/NAME-sSEED]");
  command->add_option("--device", arguments->device, "auto, cpu, cuda or cuda:N");
  command->add_flag("--resume", arguments->resume, "Go on with the run in the output folder");
  command->add_flag("--save-predictions", arguments->save_predictions,
                    "Write the likeliest classes of every test image to DIR/predictions "
                    "(eval.predictions=top5; logits keeps all logits)");
  command->add_flag("--dry-run", arguments->dry_run,
                    "Print the effective configuration and the tasks; train nothing");
  auto* quiet = command->add_flag("-q,--quiet", arguments->quiet, "Warnings only");
  command->add_flag("-v,--verbose", arguments->verbose, "More lines")->excludes(quiet);
  command->callback([arguments] { run(*arguments); });
}

}  // namespace rep
