#pragma once

#include <torch/types.h>

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "core/config.h"
#include "core/registry.h"
#include "data/loader.h"
#include "data/stream.h"
#include "data/task_images.h"
#include "nn/efficiency.h"
#include "nn/vit.h"
#include "tensor/optimizer.h"
#include "tensor/state.h"

namespace rep {

/// What a method is made from.
struct MethodContext {
  const Section& options;              // read with read_section<...Options>
  std::shared_ptr<Backbone> backbone;  // frozen, unless backbone.trainable says otherwise
  Efficiency& efficiency;              // queries and plans; REP when it is configured
  const TaskImages& images;            // the task's, outside of the loop's batches
  int64_t num_classes;                 // of the whole stream, or of stream.room_for
  int64_t num_tasks;
  int64_t seed;
  torch::Device device;
  std::string folder;  // where pictures for people may go; "": nowhere

  /// The backbone of a method that needs tokens. Throws Error when it is no ViT.
  VisionTransformer vit() const {
    auto vit = std::dynamic_pointer_cast<VisionTransformerImpl>(backbone);
    if (!vit) {
      throw Error("method: " + options.name +
                  " needs a vision transformer; name one as backbone (rep list backbones)");
    }
    if (vit->options.feature != Feature::kClass) {
      throw Error("method: " + options.name +
                  " reads [CLS] and prompts, not what this backbone's feature is made of; take "
                  "another backbone, or backbone.feature: class where it has one");
    }
    return vit;
  }
};

/// What a task is trained on: samples, and the data set that their indices count in.
struct TrainingSet {
  const Dataset* data;
  std::vector<Sample> samples;
};

/// A way to learn a stream of tasks. It owns its loss and its state, nothing else: the loop, the
/// optimiser, the backbone and the measuring are shared. Labels are positions in the stream's class
/// order, so a task's classes are [first_label, last_label()) and everything seen is [0,
/// last_label()). Only of a method that learns_repeated_classes() do tasks share classes.
class Method {
 public:
  virtual ~Method() = default;
  virtual void begin_task(const Task&) {}
  /// The task's own images, unless the method has others to train on. Called after begin_task, and
  /// again when a task is resumed in its middle.
  virtual TrainingSet training_set(const Dataset& train, const Task& task) {
    return {&train, task.train};
  }
  /// Prompt tokens that a training step carries through the blocks beside the image's.
  virtual int64_t prompt_tokens() const { return 0; }
  /// What the optimiser may touch, this task. Called after begin_task; empty: there is nothing to
  /// step, and the task has no training steps.
  virtual std::vector<torch::Tensor> parameters() = 0;
  /// Those of parameters() that make logits of the ViT's feature: what the second phase of
  /// train.decoupled trains alone. Empty: it cannot.
  virtual std::vector<torch::Tensor> head_parameters() { return {}; }
  /// Parameters of earlier tasks that the method keeps beside these (Progressive Networks'
  /// columns).
  virtual int64_t frozen_parameters() { return 0; }
  /// A factor on the learning rate for each of parameters(); empty: 1 for all.
  virtual std::vector<double> lr_factors() { return {}; }
  /// What of each of parameters() trains, this task; empty: all of all. Rows of classes or tasks
  /// that have no part in the loss must not be moved by weight decay.
  virtual std::vector<TrainedRows> trained_rows() { return {}; }
  /// Scalar to minimise.
  virtual torch::Tensor loss(const Batch& batch) = 0;
  /// After backward, before gradients are clipped; after the optimiser's step.
  virtual void after_backward() {}
  virtual void after_step() {}
  /// Logits of every class of the stream [B, C]; the caller looks at the seen ones only, unless
  /// has_unseen_logits().
  virtual torch::Tensor predict(const Batch& batch) = 0;
  /// Whether an image's logits depend on the images beside it in its batch.
  virtual bool predicts_by_batch() const { return false; }
  /// Whether state() of a method made for fewer classes or tasks can be read into one made for
  /// more: where a tensor's sizes say so, the old rows and columns lead and the others keep their
  /// initial values. Otherwise `rep learn` needs stream.room_for.
  virtual bool can_grow() const { return false; }
  /// Whether the training loss knows no classes but the task's own: of a task of one class it is
  /// constant, and teaches nothing.
  virtual bool loss_is_within_task() const { return false; }
  /// Whether the head has weights for every class of the stream from the start, so that a test may
  /// score among all of them (eval.classes: all). Otherwise an unseen class's logits say nothing.
  virtual bool has_unseen_logits() const { return false; }
  /// Whether it learns right what a later task brings of classes that earlier ones had, too
  /// (streams of domains and blurred ones). Not where end_task() replaces what it knows of the
  /// task's classes or a part of the network is made for them.
  virtual bool learns_repeated_classes() const { return false; }
  /// Whether predict() answers with what was learned so far in the middle of a task; otherwise only
  /// end_task() makes the task's answers.
  virtual bool predicts_within_task() const { return false; }
  virtual void end_task(const Task&) {}
  /// Whether a batch may come in parts, each with a process of its own or one after another
  /// (train.micro_batch_size): the loss is a mean over images (and of what depends on none), an
  /// image's logits depend on no other, and nothing else is learned from a batch.
  virtual bool can_share_batches() const { return false; }
  /// Everything the method carries from task to task and needs to go on in the middle of one.
  virtual void state(State& s) = 0;

  // What is asked before a run, or in a rehearsal that shows a method few of a task's images.

  /// Images that training_set() has in a run of this stream when it comes to `task`; -1 where that
  /// depends on their bytes.
  virtual int64_t training_images(const Stream&, const Task& task) const {
    return static_cast<int64_t>(task.train.size());
  }
  /// Bytes by which state() grows until all that the method stores of a stream of so many training
  /// images is full.
  virtual int64_t bytes_until_full(int64_t /*images*/) const { return 0; }
};

struct MethodKind {
  static constexpr const char* kKind = "method";
  std::unique_ptr<Method> (*make)(const MethodContext& context);
  SectionOptions (*options)(const Section& section);  // throws Error on unknown keys
  Json (*describe)();                                 // the options (describe_fields)
  void (*rearrange)(Stream& stream) = nullptr;  // what the method sees of it; null: all, as it is
  bool trains_norms = false;                    // of a backbone that is frozen otherwise
};

/// The last line of a method's file: registers name, citation, options and factory.
template <class M, class Options>
MethodKind method_kind() {
  return {[](const MethodContext& context) -> std::unique_ptr<Method> {
            return std::make_unique<M>(context, read_section<Options>(context.options));
          },
          [](const Section& section) { return section_json<Options>(section); },
          describe_fields<Options>};
}

}  // namespace rep
