#pragma once

#include <string>

#include "core/config.h"
#include "core/progress.h"
#include "run/result.h"

namespace rep {

struct RunOptions {
  std::string output;  // the run's folder
  bool resume = false;
};

/// Runs one experiment from beginning to end, or from where its checkpoint left off. `config` has
/// passed read_experiment. Throws Error and Interrupted; the last checkpoint is good in either
/// case.
Result run_experiment(const Config& config, const RunOptions& options, Progress& progress);

}  // namespace rep
