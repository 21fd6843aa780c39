#pragma once

#include <string>

#include "core/config.h"
#include "run/finished_run.h"

namespace rep {

/// How a command that trains was asked to run.
struct Running {
  std::string output;  // the run's folder
  bool resume = false, quiet = false, verbose = false;
  const FinishedRun* continues = nullptr;  // as RunOptions has it
};

/// Runs the experiment in its folder, draws its progress and prints a summary; the log goes to
/// run.log. Throws what run_experiment() throws.
void run_and_report(Config config, const Running& running);

}  // namespace rep
