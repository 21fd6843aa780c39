#pragma once

#include <torch/types.h>

#include <vector>

#include "tensor/state.h"

namespace rep {

/// sum_i importance_i (parameter_i - anchor_i)^2 + constant: what holds important parameters where
/// they were. Its size never grows: see add().
class QuadraticPenalty {
 public:
  /// Holds nothing yet.
  explicit QuadraticPenalty(const std::vector<torch::Tensor>& parameters);

  /// Whether there is anything to hold.
  bool active() const { return active_; }
  torch::Tensor value(const std::vector<torch::Tensor>& parameters) const;
  /// Of value() by parameter i.
  torch::Tensor gradient(const std::vector<torch::Tensor>& parameters, size_t i) const;

  /// One term more, importance (parameter - at)^2, with its own anchor. Two such terms are one, by
  /// completing the square: F1 (x - a)^2 + F2 (x - b)^2
  ///   = (F1 + F2) (x - m)^2 + F1 F2 / (F1 + F2) (b - a)^2,  m = a + F2 / (F1 + F2) (b - a),
  /// so the sum over any number of tasks is kept exactly, as one importance, one anchor and one
  /// constant. (The same as keeping sum F and sum F a, without the cancellation of large numbers.)
  void add(const std::vector<torch::Tensor>& importance, const std::vector<torch::Tensor>& at);
  /// The whole penalty anew, around `at`.
  void set(const std::vector<torch::Tensor>& importance, const std::vector<torch::Tensor>& at);

  const std::vector<torch::Tensor>& importance() const { return importance_; }
  void state(State& s);

 private:
  std::vector<torch::Tensor> importance_, anchor_;  // of each parameter, in its shape
  double constant_ = 0;
  bool active_ = false;
};

}  // namespace rep
