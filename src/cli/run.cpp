#include <cmath>
#include <cstdio>
#include <iostream>
#include <memory>
#include <optional>

#include "cli/commands.h"
#include "cli/human.h"
#include "cli/override_flags.h"
#include "core/interrupt.h"
#include "core/progress.h"
#include "data/stream.h"
#include "run/experiment.h"
#include "run/loops.h"
#include "run/pretrain.h"
#include "run/run_folder.h"
#include "run/session.h"
#include "run/setup.h"
#include "tensor/device.h"
#include "tensor/meter.h"

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

// A short table of the main figures of a result.
std::string summary(const Json& json) {
  const Json &metrics = json["metrics"], &cost = json["cost"]["total"];
  if (metrics.empty()) return "no task was finished\n";
  const Json& train = cost["macs"]["train"];
  const double train_macs = train["select"].get<double>() + train["forward"].get<double>() +
                            train["backward"].get<double>();
  std::string text;
  if (json["evaluated_on"] == "validation") text += "  of validation images:\n";
  const auto row = [&](const char* name, double value, const char* unit) {
    if (std::isnan(value)) return;  // joint learning forgets nothing
    char line[96];
    std::snprintf(line, sizeof line, "  %-30s %9.2f %s\n", name, value, unit);
    text += line;
  };
  const auto large = [&](const char* name, double value, const char* unit) {
    char line[96];
    std::snprintf(line, sizeof line, "  %-30s %10s%s\n", name, human(value).c_str(), unit);
    text += line;
  };
  row("average accuracy", metrics["average_accuracy"], "%");
  row("average incremental accuracy", metrics["average_incremental_accuracy"], "%");
  row("forgetting", metrics["forgetting"], "points");
  if (metrics.contains("anytime_auc")) row("any-time accuracy (AUC)", metrics["anytime_auc"], "%");
  if (metrics.contains("task_incremental")) {
    row("task-incremental accuracy", metrics["task_incremental"]["average_accuracy"], "%");
  }
  large("training", 2 * train_macs, "FLOP");
  large("testing", 2 * cost["macs"]["eval"].get<double>(), "FLOP");
  large("peak tensor memory", cost["peak_tensor_bytes"], "B");
  large("carried between tasks", json["cost"]["state_bytes"], "B");
  row("training time", cost["seconds"]["train"], "s");
  row("testing time", cost["seconds"]["eval"], "s");
  return text;
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
  catch_interrupts();
  install_meter();
  const int64_t threads = set_threads(config.threads, World::processes_on_this_machine());
  const auto world = std::make_shared<World>(World::join());
  const auto verbosity = arguments.quiet || !world->writes() ? Progress::Verbosity::kQuiet
                         : arguments.verbose                 ? Progress::Verbosity::kVerbose
                                                             : Progress::Verbosity::kNormal;
  // Before anything is opened or pre-trained: two processes in one folder would spoil it.
  std::optional<FileLock> lock;
  if (world->writes()) lock.emplace(lock_run_folder(output));
  Progress progress(verbosity, world->writes() ? output + "/run.log" : "");
  const std::string blas = blas_name();
  progress.detail("threads " + std::to_string(threads) + ", BLAS " + blas);
  if (blas.empty()) {
    progress.warn(
        "LibTorch uses the slow reference BLAS; install libopenblas0-openmp, and matrix "
        "products run several times faster");
  }
  if (!world->writes()) world->wait();  // the first one pre-trains for all
  resolve_pretrained(config, &progress);
  if (world->writes()) world->wait();
  const Result result = run_experiment(config, {output, arguments.resume, world}, progress);
  progress.info(summary(result.to_json()) + "  result: " + output + "/result.json");
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
