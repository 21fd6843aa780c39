#pragma once

#include <string>
#include <vector>

#include "study/sweep_plan.h"

namespace rep {

/// How far a run of a sweep is. kQueued: in a batch system, not yet started.
enum class RunState { kNew, kQueued, kRunning, kUnfinished, kFailed, kFinished };

struct RunStanding {
  RunState state;
  std::string reason;  // one line; "" where there is nothing to say
};

/// "new", "queued", ... as people read it.
std::string word_of(RunState state);

/// From the run's folder alone, so never kQueued. Running is where a process holds FOLDER/lock;
/// failed is where FOLDER/failed says why, which the next attempt removes.
RunStanding standing_of(const std::string& folder);

/// The file in a run's folder that says why its last attempt failed.
constexpr char kFailedFile[] = "/failed";
/// The file in a run's folder that it goes on from.
constexpr char kCheckpointFile[] = "/checkpoint/state.safetensors";

/// The command line of a run, without the program; `folder` is the run's.
std::vector<std::string> arguments_of(const SweepRun& run, const std::string& folder);

/// As one word of a shell, whatever the bytes.
std::string shell_word(const std::string& text);

/// Adds the runs to OUTPUT/sweep.json (schema in study/sweep.h). Throws Error.
void write_manifest(const std::string& output, const std::vector<SweepRun>& runs);

/// The names of the folders that OUTPUT/sweep.json lists. Throws Error when there is none, and for
/// names that lead out of OUTPUT.
std::vector<std::string> read_manifest(const std::string& output);

}  // namespace rep
