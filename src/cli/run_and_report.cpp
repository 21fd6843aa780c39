#include "cli/run_and_report.h"

#include <cmath>
#include <cstdio>
#include <memory>
#include <optional>

#include "cli/human.h"
#include "core/interrupt.h"
#include "core/progress.h"
#include "run/experiment.h"
#include "run/pretrain.h"
#include "run/run_folder.h"
#include "tensor/device.h"
#include "tensor/meter.h"

namespace rep {

namespace {

// A short table of the main figures of a result.
std::string summary(const Json& json) {
  const Json &metrics = json["metrics"], &cost = json["cost"]["total"];
  if (metrics.empty()) return "no task was finished\n";
  const Json& train = cost["macs"]["train"];
  const double train_macs = train["select"].get<double>() + train["forward"].get<double>() +
                            train["backward"].get<double>();
  std::string text;
  if (json.value("evaluated_on", "") == "validation") text += "  of validation images:\n";
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

}  // namespace

void run_and_report(Config config, const Running& running) {
  catch_interrupts();
  install_meter();
  const int64_t threads = set_threads(config.threads, World::processes_on_this_machine());
  const auto world = std::make_shared<World>(World::join());
  const auto verbosity = running.quiet || !world->writes() ? Progress::Verbosity::kQuiet
                         : running.verbose                 ? Progress::Verbosity::kVerbose
                                                           : Progress::Verbosity::kNormal;
  // Before anything is opened or pre-trained: two processes in one folder would spoil it.
  std::optional<FileLock> lock;
  if (world->writes()) lock.emplace(lock_run_folder(running.output));
  Progress progress(verbosity, world->writes() ? running.output + "/run.log" : "");
  const std::string blas = blas_name();
  progress.detail("threads " + std::to_string(threads) + ", BLAS " + blas);
  if (blas.empty()) {
    progress.warn(
        "LibTorch uses the slow reference BLAS; install libopenblas0-openmp, and matrix "
        "products run several times faster");
  }
  // One process pre-trains for all. The others wait for its lock, which has no time limit.
  resolve_pretrained(config, &progress);
  const Result result =
      run_experiment(config, {running.output, running.resume, world, running.continues}, progress);
  progress.info(summary(result.to_json()) + "  result: " + running.output + "/result.json");
}

}  // namespace rep
