#pragma once

#include <torch/types.h>

#include <cstdint>
#include <string>
#include <vector>

#include "data/stream.h"
#include "tensor/optimizer.h"
#include "tensor/state.h"

namespace rep {

/// A linear head over all classes of the stream, never re-created. The one place where training
/// logits are restricted to some classes.
class Classifier {
 public:
  /// kNormal: N(0, 0.02) weights, zero bias (timm). kUniform: both U(+-1/sqrt(D))
  /// (torch.nn.Linear). kKaiming: weights U(+-sqrt(3/D)), zero bias.
  enum class Init { kNormal, kUniform, kKaiming };
  Classifier(int64_t dim, int64_t num_classes, const torch::Device& device,
             Init init = Init::kNormal);

  /// [B, D] -> [B, C]
  torch::Tensor logits(const torch::Tensor& features) const;

  /// Mean cross-entropy in which only the classes [first, last) exist: the same as setting all
  /// other logits to -inf. Labels lie in that range.
  static torch::Tensor loss(const torch::Tensor& logits, const torch::Tensor& labels, int64_t first,
                            int64_t last);

  /// Fresh random weights, in place.
  void reset();
  std::vector<torch::Tensor> parameters() const { return {weight_, bias_}; }
  void state(State& s);

 private:
  Init init_;
  torch::Tensor weight_, bias_;  // [C, D], [C]
};

/// The classes that a training loss sees.
struct ClassRange {
  int64_t first = 0, last = 0;
  /// `logits: current`: the task's own classes; `seen`: every class so far; `all`: of the stream.
  static ClassRange of(const Task& task, const std::string& logits, int64_t num_classes = 0) {
    return {logits == "current" ? task.first_label : 0,
            logits == "all" ? num_classes : task.last_label()};
  }
  int64_t size() const { return last - first; }
  /// The rows of a classifier's parameters that such a loss trains, for both of them.
  std::vector<TrainedRows> rows() const { return std::vector<TrainedRows>(2, {0, first, last}); }
  void state(State& s) {
    s("first_label", first);
    s("last_label", last);
  }
};

}  // namespace rep
