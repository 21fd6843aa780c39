#pragma once

#include <cmath>
#include <vector>

#include "methods/classifier.h"
#include "tensor/torch.h"

namespace rep {

/// x [.., D] with its rows divided by their lengths, or by 1e-12 where they are shorter.
inline torch::Tensor unit_length(const torch::Tensor& x) {
  return torch::nn::functional::normalize(x, torch::nn::functional::NormalizeFuncOptions().dim(-1));
}

/// Cosines [B, C] of rows [B, D] and [C, D].
inline torch::Tensor cosines(const torch::Tensor& a, const torch::Tensor& b) {
  return torch::mm(unit_length(a), unit_length(b).t());
}

/// The head that adapters are trained with, and that is thrown away: logits sigma cos(f, w_c), a
/// learned sigma from 1 on, w ~ U(+-1 / sqrt D) (LAMDA-PILOT).
class CosineHead {
 public:
  /// None.
  CosineHead() = default;
  CosineHead(int64_t dim, int64_t num_classes, torch::Device device) {
    const double bound = 1 / std::sqrt(static_cast<double>(dim));
    weight_ =
        ((torch::rand({num_classes, dim}) * 2 - 1) * bound).to(device).set_requires_grad(true);
    sigma_ = torch::ones({}, device).set_requires_grad(true);
  }
  torch::Tensor logits(const torch::Tensor& features) const {
    return sigma_ * cosines(features, weight_);
  }
  std::vector<torch::Tensor> parameters() const { return {weight_, sigma_}; }
  void state(State& s) {
    s("head", weight_);
    s("scale", sigma_);
  }

 private:
  torch::Tensor weight_, sigma_;  // [C, D], scalar
};

}  // namespace rep
