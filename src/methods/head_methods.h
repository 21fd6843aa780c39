#pragma once

#include <string>

#include "methods/network.h"
#include "tensor/torch.h"

namespace rep {

/// What pre-training trains by, too.
constexpr const char* kFinetuneName = "finetune";

/// A Network trained by cross-entropy: the plain learner that no_prompt, linear_probe, finetune and
/// joint are settings of.
class HeadMethod : public Method {
 public:
  HeadMethod(const MethodContext& context, const NetworkOptions& options)
      : options_(options), network_(context, options), num_classes_(context.num_classes) {}
  void begin_task(const Task& task) override {
    trained_ = ClassRange::of(task, options_.logits, num_classes_);
  }
  std::vector<torch::Tensor> parameters() override { return network_.parameters(); }
  std::vector<TrainedRows> trained_rows() override { return network_.trained_rows(trained_); }
  std::vector<torch::Tensor> head_parameters() override { return network_.head_parameters(); }
  torch::Tensor loss(const Batch& batch) override {
    return cross_entropy(network_.logits(network_.train_input(batch)), batch);
  }
  torch::Tensor predict(const Batch& batch) override {
    return network_.logits(network_.test_input(batch));
  }
  bool has_unseen_logits() const override { return true; }
  bool learns_repeated_classes() const override { return true; }
  bool predicts_within_task() const override { return true; }
  bool loss_is_within_task() const override { return options_.logits == "current"; }
  bool can_share_batches() const override { return true; }
  void state(State& s) override {
    network_.state(s);
    trained_.state(s);
  }

 protected:
  /// Of a method whose loss has terms for the classes before, too.
  std::vector<TrainedRows> rows_of_seen() const {
    return network_.trained_rows({0, trained_.last});
  }
  torch::Tensor cross_entropy(const torch::Tensor& logits, const Batch& batch) const {
    return Classifier::loss(logits, batch.labels, trained_.first, trained_.last);
  }

  NetworkOptions options_;
  Network network_;
  int64_t num_classes_;
  ClassRange trained_;
};

}  // namespace rep
