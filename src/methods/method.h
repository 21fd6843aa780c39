#pragma once

#include <torch/types.h>

#include <cstdint>
#include <memory>
#include <vector>

#include "core/config.h"
#include "core/registry.h"
#include "data/loader.h"
#include "data/stream.h"
#include "nn/efficiency.h"
#include "nn/vit.h"
#include "tensor/state.h"

namespace rep {

/// What a method is made from.
struct MethodContext {
  const Section& options;      // read with read_section<...Options>
  VisionTransformer backbone;  // frozen, unless backbone.trainable says otherwise
  Efficiency& efficiency;      // queries and plans; REP when it is configured
  int64_t num_classes;         // of the whole stream
  int64_t num_tasks;
  torch::Device device;
};

/// A way to learn a stream of tasks. It owns its loss and its state, nothing else: the loop, the
/// optimiser, the ViT and the measuring are shared. Labels are positions in the stream's class
/// order, so a task's classes are [first_label, last_label()) and everything seen is [0,
/// last_label()).
class Method {
 public:
  virtual ~Method() = default;
  virtual void begin_task(const Task&) {}
  /// What the optimiser may touch, this task. Called after begin_task.
  virtual std::vector<torch::Tensor> parameters() = 0;
  /// Scalar to minimise.
  virtual torch::Tensor loss(const Batch& batch) = 0;
  /// Logits of every class of the stream [B, C]; the caller looks at the seen ones only.
  virtual torch::Tensor predict(const Batch& batch) = 0;
  virtual void end_task(const Task&) {}
  /// Everything the method carries from task to task and needs to go on in the middle of one.
  virtual void state(State& s) = 0;
};

struct MethodKind {
  static constexpr const char* kKind = "method";
  std::unique_ptr<Method> (*make)(const MethodContext& context);
  Json (*options)(const Section& section);  // the effective options; throws Error on unknown keys
};

/// The last line of a method's file: registers name, citation, options and factory.
template <class M, class Options>
MethodKind method_kind() {
  return {[](const MethodContext& context) -> std::unique_ptr<Method> {
            return std::make_unique<M>(context, read_section<Options>(context.options));
          },
          [](const Section& section) { return section_json<Options>(section); }};
}

}  // namespace rep
