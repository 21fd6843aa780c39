#pragma once

#include <torch/types.h>

#include <cstdint>
#include <string>
#include <vector>

#include "methods/class_gaussians.h"
#include "tensor/state.h"

namespace rep {

/// What is kept of the classes' features, to draw from later. multi_centroid: k-means groups of
/// diagonal Gaussians; variance: one such; covariance: one full Gaussian.
class FeatureStatistics {
 public:
  FeatureStatistics(const std::string& kind, int64_t centroids, int64_t num_classes, int64_t dim,
                    const torch::Device& device);
  /// From all features [n, D] of a class.
  void fit(const torch::Tensor& features, int64_t label);
  /// Every centroid of every known class [n, D], on the device; undefined when none is known.
  torch::Tensor centroids() const;
  /// One draw for each label (int64 [n] on the CPU): [n, D], every usable group of a class being as
  /// likely. Groups of a single image are not drawn from, unless their class has no other.
  torch::Tensor sample(const torch::Tensor& labels) const;
  void state(State& s);

 private:
  std::string kind_;
  int64_t centroids_;
  torch::Device device_;
  std::vector<torch::Tensor> means_, variances_;  // per class [k, D] on the CPU, or undefined
  ClassGaussians gaussians_;                      // for covariance only
  mutable torch::Tensor all_;                     // centroids(), until something changes
};

}  // namespace rep
