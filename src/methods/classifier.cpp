#include "methods/classifier.h"

#include <cmath>

#include "tensor/torch.h"

namespace rep {

Classifier::Classifier(int64_t dim, int64_t num_classes, const torch::Device& device, Init init)
    : init_(init),
      weight_(torch::empty({num_classes, dim}, device).set_requires_grad(true)),
      bias_(torch::empty({num_classes}, device).set_requires_grad(true)) {
  reset();
}

void Classifier::reset() {
  torch::NoGradGuard no_grad;
  // Drawn on the CPU: the same numbers whatever the device.
  if (init_ == Init::kNormal) {
    weight_.copy_(torch::randn(weight_.sizes()) * 0.02);
    bias_.zero_();
  } else if (init_ == Init::kKaiming) {
    const double bound = std::sqrt(3 / static_cast<double>(weight_.size(1)));
    weight_.copy_((torch::rand(weight_.sizes()) * 2 - 1) * bound);
    bias_.zero_();
  } else {
    const double bound = 1 / std::sqrt(static_cast<double>(weight_.size(1)));
    weight_.copy_((torch::rand(weight_.sizes()) * 2 - 1) * bound);
    bias_.copy_((torch::rand(bias_.sizes()) * 2 - 1) * bound);
  }
}

torch::Tensor Classifier::logits(const torch::Tensor& features) const {
  return torch::linear(features, weight_, bias_);
}

torch::Tensor Classifier::loss(const torch::Tensor& logits, const torch::Tensor& labels,
                               int64_t first, int64_t last) {
  return torch::cross_entropy_loss(logits.narrow(1, first, last - first), labels - first);
}

void Classifier::state(State& s) {
  s("head.weight", weight_);
  s("head.bias", bias_);
}

}  // namespace rep
