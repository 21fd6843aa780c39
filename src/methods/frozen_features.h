#pragma once

#include <torch/types.h>

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "methods/method.h"

namespace rep {

/// Features of a set of images, and their labels: [n, D], int64 [n], on the method's device.
struct LabelledFeatures {
  torch::Tensor features, labels;
};

/// `feature` of the task's samples in their fixed view, in the samples' order, without gradients.
LabelledFeatures features_of(const TaskImages& images, const std::vector<Sample>& samples,
                             const std::function<torch::Tensor(const Batch&)>& feature);

/// Throws Error when backbone.trainable asks for a backbone that learns.
void require_frozen(const MethodContext& context);

/// The features that methods without gradient steps build their statistics on. Training and test
/// images take the same pass: when tokens are merged at test, they are merged for the statistics
/// too.
class FrozenFeatures {
 public:
  /// Throws Error when backbone.trainable asks for a backbone that learns.
  explicit FrozenFeatures(const MethodContext& context);
  /// [B, D] of training images in their fixed view, and of test images; `adapters` beside the
  /// blocks' MLPs when there are any.
  torch::Tensor fixed(const Batch& batch, const std::vector<Adapter>& adapters = {}) const {
    return of(batch, adapters, /*test=*/false);
  }
  torch::Tensor test(const Batch& batch, const std::vector<Adapter>& adapters = {}) const {
    return of(batch, adapters, /*test=*/true);
  }
  int64_t dim() const { return backbone_->feature_dim(); }

 private:
  torch::Tensor of(const Batch& batch, const std::vector<Adapter>& adapters, bool test) const;
  std::shared_ptr<Backbone> backbone_;
  Efficiency& efficiency_;
};

}  // namespace rep
