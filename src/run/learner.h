#pragma once

#include <torch/types.h>

#include <memory>
#include <string>
#include <vector>

#include "core/config.h"
#include "core/json.h"
#include "core/progress.h"
#include "data/stream.h"
#include "data/task_images.h"
#include "methods/method.h"
#include "nn/efficiency.h"
#include "nn/vit.h"
#include "tensor/world.h"

namespace rep {

/// Everything that learns: the frozen models, one copy of each, REP around them, and the method.
struct Learner {
  /// `train`: the training images, lent to the method task by task; `folder`: where it may leave
  /// pictures, "" for nowhere.
  Learner(const Config& config, const Stream& stream, const Dataset& train,
          const torch::Device& device, const std::string& folder = "");

  torch::Device device;
  std::shared_ptr<Backbone> backbone;
  VisionTransformer query_backbone{nullptr};  // empty: the backbone itself answers queries
  std::unique_ptr<Efficiency> efficiency;
  std::unique_ptr<TaskImages> images;
  std::unique_ptr<Method> method;
  std::shared_ptr<World> world = std::make_shared<World>();  // who learns beside this process
  RoomConfig made_for;  // classes and tasks: the stream's, or stream.room_for
  Json inputs;          // "weights", and "query_weights" when there is a query model

  /// Why a step over parts of a batch would not come to a step over the batch; "": it would.
  std::string why_batches_stay_whole(const Config& config) const;
  /// Learns beside the other processes of `world`. Throws Error where that, or a micro-batch, would
  /// not come to the same as whole batches in one process.
  void join(std::shared_ptr<World> processes, const Config& config);
  /// From a stored image to the network's input.
  Transform transform(const Config& config, bool train) const;
  /// What a run needs to go on from here.
  void state(State& s);
  /// Of what learning carries from task to task.
  int64_t state_bytes();
  /// {"total", "trainable"}
  Json parameters();
};

/// What is to be said of the weights in Learner::inputs, a line each: what was found in a file, and
/// pixels that it was not trained with.
std::vector<std::string> remarks(const Json& inputs);
/// The same, and warnings of weights that are none.
void report_inputs(const Json& inputs, Progress& progress);

}  // namespace rep
