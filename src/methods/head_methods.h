#pragma once

#include <torch/torch.h>

#include <string>

#include "methods/classifier.h"
#include "methods/method.h"

namespace rep {

struct HeadOptions {
  std::string logits;  // the classes a training loss sees: current (the task's own) | seen
  template <class Visitor>
  void fields(Visitor&& visit) {
    visit("logits", logits, one_of({"current", "seen"}));
  }
};

/// A linear head on the backbone's [CLS] feature, trained by cross-entropy; the backbone trains
/// along as far as backbone.trainable says. The plain learner that no_prompt, linear_probe and
/// finetune are settings of.
class HeadMethod : public Method {
 public:
  HeadMethod(const MethodContext& context, const HeadOptions& options);
  void begin_task(const Task& task) override { trained_ = ClassRange::of(task, options_.logits); }
  std::vector<torch::Tensor> parameters() override;
  torch::Tensor loss(const Batch& batch) override;
  torch::Tensor predict(const Batch& batch) override;
  void state(State& s) override;

 protected:
  HeadOptions options_;
  VisionTransformer backbone_;
  Efficiency& efficiency_;
  Classifier head_;
  ClassRange trained_;
};

}  // namespace rep
