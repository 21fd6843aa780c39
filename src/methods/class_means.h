#pragma once

#include <torch/types.h>

#include <cstdint>
#include <functional>

#include "methods/method.h"

namespace rep {

/// The mean of every class's features, and an image's cosines with them: SimpleCIL's classifier
/// (Zhou et al., arXiv 2303.07338).
class ClassMeans {
 public:
  ClassMeans(int64_t num_classes, int64_t dim, torch::Device device);
  /// Takes up the task's images, also of classes that earlier tasks had; `each` calls its argument
  /// with features [B, dim] and labels of all their images, a batch at a time.
  using Take = std::function<void(const torch::Tensor& features, const torch::Tensor& labels)>;
  void fit(const Task& task, const std::function<void(const Take&)>& each);
  /// Cosines [B, C], -inf for classes without images.
  torch::Tensor logits(const torch::Tensor& features) const;
  void state(State& s);

 private:
  torch::Tensor means_, counts_;  // [C, dim], [C]
};

}  // namespace rep
