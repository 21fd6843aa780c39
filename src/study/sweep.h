#pragma once

#include <string>
#include <vector>

#include "core/progress.h"
#include "study/sweep_plan.h"

namespace rep {

/// One line a run: its state as its folder tells it, and its command.
std::string describe_sweep(const SweepOptions& options, const std::vector<SweepRun>& runs);

/// Writes OUTPUT/sweep.json (schema below), then runs every run that has no complete result, each
/// as a process of its own, which goes on from what is in its folder. A folder that another sweep's
/// process is at work in is waited for. Throws Error at the end when runs failed, and Interrupted
/// when one arrived and all processes have saved.
///
/// sweep.json lists the runs of this and of earlier sweeps into the folder, as far as their folders
/// are there: {"runs": [{"directory", "config", "overrides": [..], "seed", "key"}]}, with
/// `directory` below that of sweep.json.
void run_sweep(const SweepOptions& options, const std::vector<SweepRun>& runs, Progress& progress);

}  // namespace rep
