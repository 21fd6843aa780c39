#pragma once

#include <torch/types.h>

#include <cstdint>
#include <string>
#include <vector>

#include "methods/classifier.h"
#include "methods/method.h"

namespace rep {

/// Options of every method that trains a Network; its struct derives from this and its fields()
/// begins with network_fields(visit).
struct NetworkOptions {
  std::string logits = "seen";
  int64_t hidden = 0;
  template <class Visitor>
  void network_fields(Visitor&& visit) {
    visit("logits", logits, one_of({"current", "seen", "all"}),
          doc("Classes that a training loss sees. current: the task's own; seen: those so far; "
              "all: of the whole stream."));
    visit("hidden", hidden, at_least(0),
          doc("Width of a ReLU layer between feature and classifier; 0: none.", "units"));
  }
};

/// The model of the families without prompts: the backbone, a hidden layer if asked for, and one
/// linear classifier over all classes of the stream. As much of the backbone trains as
/// backbone.trainable says; a frozen one's features are computed without a gradient, and once a run
/// where they never change.
class Network {
 public:
  Network(const MethodContext& context, const NetworkOptions& options,
          Classifier::Init init = Classifier::Init::kNormal);

  /// What the trained part of the network sees of a batch, and how: features when the backbone is
  /// frozen, else the images. Made once a batch, whoever looks at it.
  struct Input {
    torch::Tensor x;
    ForwardPlan plan;
    bool training = false;  // batch norm follows the batch
  };
  Input train_input(const Batch& batch);
  /// Training images in their fixed view, for statistics, teachers and Fisher information.
  Input fixed_input(const Batch& batch);
  Input test_input(const Batch& batch);

  /// What the classifier sees [B, D], and its logits [B, C].
  torch::Tensor features(const Input& input);
  torch::Tensor logits(const Input& input) { return head_.logits(features(input)); }
  Classifier& head() { return head_; }

  bool frozen() const { return trained_backbone_.empty(); }
  int64_t feature_dim() const { return hidden_ > 0 ? hidden_ : backbone_->feature_dim(); }
  std::vector<torch::Tensor> parameters() const;
  /// What a loss over these classes trains of each.
  std::vector<TrainedRows> trained_rows(const ClassRange& classes) const;
  /// Those behind the backbone.
  std::vector<torch::Tensor> head_parameters() const;
  /// Everything a copy of the network needs: the parameters, and batch norm's running statistics.
  std::vector<torch::Tensor> values() const;
  std::vector<torch::Tensor> copy_values() const;
  /// Runs `f` with the network as it was when `values` were copied, without gradients. Before the
  /// batch's own forward: the tensors of a graph must not change under it.
  template <class F>
  auto as(const std::vector<torch::Tensor>& values, F&& f) {
    const Exchange exchange(*this, values);
    return f();
  }
  void set_values(const std::vector<torch::Tensor>& values);
  /// Anew: the backbone as in `first_values` (a copy made at the beginning), the rest drawn afresh.
  void reset(const std::vector<torch::Tensor>& first_values);

  void state(State& s);

 private:
  struct Exchange {
    Exchange(Network& network, const std::vector<torch::Tensor>& values);
    ~Exchange();
    torch::NoGradGuard no_grad;
    std::vector<torch::Tensor> targets, own;
  };

  void draw_hidden();

  std::shared_ptr<Backbone> backbone_;
  Efficiency& efficiency_;
  int64_t hidden_;
  Classifier head_;
  torch::Tensor hidden_weight_, hidden_bias_;  // [hidden, D], [hidden]; undefined without
  std::vector<torch::Tensor> trained_backbone_;
};

/// Both batches, one after the other.
Batch joined(const Batch& a, const Batch& b);

}  // namespace rep
