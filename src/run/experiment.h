#pragma once

#include <memory>
#include <string>

#include "core/config.h"
#include "core/progress.h"
#include "run/finished_run.h"
#include "run/result.h"
#include "tensor/world.h"

namespace rep {

struct RunOptions {
  std::string output;  // the run's folder
  bool resume = false;
  std::shared_ptr<World> world = std::make_shared<World>();  // the run's processes
  const FinishedRun* continues = nullptr;  // a run whose next task this one learns (run/learn.h)
};

/// Runs one experiment from beginning to end, or from where its checkpoint left off. `config` has
/// passed read_experiment. Throws Error and Interrupted; the last checkpoint is good in either
/// case.
Result run_experiment(const Config& config, const RunOptions& options, Progress& progress);

}  // namespace rep
