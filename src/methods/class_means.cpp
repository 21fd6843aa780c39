#include "methods/class_means.h"

#include <limits>

#include "methods/cosine_head.h"
#include "tensor/torch.h"

namespace rep {

ClassMeans::ClassMeans(int64_t num_classes, int64_t dim, torch::Device device)
    : means_(torch::zeros({num_classes, dim}, device)),
      counts_(torch::zeros({num_classes}, device)) {}

void ClassMeans::fit(const Task& task, const std::function<void(const Take&)>& each) {
  torch::NoGradGuard no_grad;
  const int64_t first = task.first_label, size = task.last_label() - first;
  torch::Tensor sums = means_.to(torch::kDouble);  // of the images before
  sums.mul_(counts_.unsqueeze(1));
  each([&](const torch::Tensor& features, const torch::Tensor& labels) {
    sums.index_add_(0, labels, features.to(torch::kDouble));
    counts_.index_add_(0, labels, torch::ones_like(labels, counts_.options()));
  });
  means_.narrow(0, first, size)
      .copy_(sums.narrow(0, first, size) /
             counts_.narrow(0, first, size).clamp_min(1).unsqueeze(1));
}

torch::Tensor ClassMeans::logits(const torch::Tensor& features) const {
  return cosines(features, means_)
      .masked_fill(counts_.eq(0), -std::numeric_limits<float>::infinity());
}

void ClassMeans::state(State& s) {
  s("mean", means_);
  s("count", counts_);
}

}  // namespace rep
