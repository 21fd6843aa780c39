#pragma once

#include <torch/types.h>

#include <cstdint>
#include <vector>

#include "tensor/state.h"

namespace rep {

/// What is kept of a class instead of its images: the Gaussian of its features, to draw from when a
/// classifier is aligned over tasks (SLCA, HiDe-Prompt). Of the covariance only the Cholesky factor
/// stays: all that drawing needs.
class ClassGaussians {
 public:
  /// Added to the diagonal of every covariance: a class with fewer images than dimensions has a
  /// singular one.
  static constexpr double kJitter = 1e-4;

  ClassGaussians(int64_t num_classes, int64_t dim, torch::Device device);

  /// Mean and unbiased covariance of a class's features [n, D], n >= 1, computed in double
  /// precision; what was known of the class is forgotten.
  void fit(const torch::Tensor& features, int64_t label);
  bool knows(int64_t label) const { return factors_[static_cast<size_t>(label)].defined(); }

  const torch::Tensor& means() const { return means_; }  // [C, D]; zero where nothing is known
  const torch::Tensor& factor(int64_t label) const {     // lower triangular, [D, D]
    return factors_[static_cast<size_t>(label)];
  }

  /// One draw for each of `labels` (int64 [n] on the CPU, all known): [n, D]. The noise is drawn on
  /// the CPU, row by row in the order of `labels`.
  torch::Tensor sample(const torch::Tensor& labels, at::Generator generator) const;
  /// From torch's default generator, which checkpoints hold.
  torch::Tensor sample(const torch::Tensor& labels) const;

  void state(State& s);

 private:
  torch::Device device_;
  torch::Tensor means_;
  std::vector<torch::Tensor> factors_;  // per class, undefined where nothing is known
};

}  // namespace rep
