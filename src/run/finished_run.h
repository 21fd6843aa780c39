#pragma once

#include <torch/types.h>

#include <string>
#include <vector>

#include "core/config.h"
#include "core/json.h"
#include "data/stream.h"
#include "tensor/state.h"

namespace rep {

/// What a run's folder holds once the run is complete. To open it takes its weights, but not its
/// data: classes and their names are in the result.
struct FinishedRun {
  std::string path;                      // the folder
  Json result;                           // result.json
  Config config;                         // as it ran, with what was overridden
  Stream stream;                         // its tasks, without images
  std::vector<std::string> class_names;  // by class id of its data set; "": in none of its tasks
  RoomConfig made_for;                   // as Learner has it

  std::string checkpoint_path() const { return path + "/checkpoint/state.safetensors"; }
};

/// Throws Error when there is no run in the folder, or one that is not complete.
FinishedRun read_finished_run(const std::string& path,
                              const std::vector<std::string>& overrides = {});

/// The run's checkpoint, of which scope "learner" is Learner::state(), as a resume reads it.
/// `loaded` is Learner::inputs. Throws Error when the checkpoint was made with other weights, or
/// with another configuration than `run.config`: what an override may change is what a resume may.
State open_checkpoint(const FinishedRun& run, const Json& loaded, const torch::Device& device);

}  // namespace rep
