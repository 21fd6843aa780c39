#pragma once

#include <torch/types.h>

#include <memory>

#include "core/config.h"
#include "core/json.h"
#include "data/stream.h"
#include "methods/method.h"
#include "nn/efficiency.h"
#include "nn/vit.h"

namespace rep {

/// Everything that learns: the frozen models, one copy of each, REP around them, and the method.
struct Learner {
  Learner(const Config& config, const Stream& stream, const torch::Device& device);

  torch::Device device;
  VisionTransformer backbone{nullptr}, query_backbone{nullptr};
  std::unique_ptr<Efficiency> efficiency;
  std::unique_ptr<Method> method;
  Json inputs;  // "weights", and "query_weights" when there is a query model

  /// What is carried from task to task.
  void state(State& s);
  int64_t state_bytes();
  /// {"total", "trainable"}
  Json parameters();
};

}  // namespace rep
