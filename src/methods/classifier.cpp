#include "methods/classifier.h"

#include <torch/torch.h>

#include <cmath>

namespace rep {

Classifier::Classifier(int64_t dim, int64_t num_classes, const torch::Device& device, Init init) {
  if (init == Init::kNormal) {
    weight_ = torch::randn({num_classes, dim}) * 0.02;
    bias_ = torch::zeros({num_classes});
  } else {
    const double bound = 1 / std::sqrt(static_cast<double>(dim));
    weight_ = (torch::rand({num_classes, dim}) * 2 - 1) * bound;
    bias_ = (torch::rand({num_classes}) * 2 - 1) * bound;
  }
  weight_ = weight_.to(device).set_requires_grad(true);
  bias_ = bias_.to(device).set_requires_grad(true);
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
