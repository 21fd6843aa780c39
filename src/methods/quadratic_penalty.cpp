#include "methods/quadratic_penalty.h"

#include "tensor/torch.h"

namespace rep {

QuadraticPenalty::QuadraticPenalty(const std::vector<torch::Tensor>& parameters) {
  torch::NoGradGuard no_grad;
  for (const auto& parameter : parameters) {
    importance_.push_back(torch::zeros_like(parameter));
    anchor_.push_back(torch::zeros_like(parameter));
  }
}

torch::Tensor QuadraticPenalty::value(const std::vector<torch::Tensor>& parameters) const {
  std::vector<torch::Tensor> sums;
  for (size_t i = 0; i < parameters.size(); ++i) {
    sums.push_back((importance_[i] * (parameters[i] - anchor_[i]).square()).sum());
  }
  return torch::stack(sums).sum() + constant_;
}

torch::Tensor QuadraticPenalty::gradient(const std::vector<torch::Tensor>& parameters,
                                         size_t i) const {
  return 2 * importance_[i] * (parameters[i] - anchor_[i]);
}

void QuadraticPenalty::add(const std::vector<torch::Tensor>& importance,
                           const std::vector<torch::Tensor>& at) {
  torch::NoGradGuard no_grad;
  for (size_t i = 0; i < importance_.size(); ++i) {
    const torch::Tensor total = importance_[i] + importance[i];
    // Where nothing matters any anchor will do: the latest.
    const torch::Tensor share = (importance[i] / total).masked_fill(total.eq(0), 1);
    const torch::Tensor apart = at[i] - anchor_[i];
    constant_ += (importance_[i] * share * apart.square()).sum().item<double>();
    anchor_[i].add_(share * apart);
    importance_[i].copy_(total);
  }
  active_ = true;
}

void QuadraticPenalty::set(const std::vector<torch::Tensor>& importance,
                           const std::vector<torch::Tensor>& at) {
  torch::NoGradGuard no_grad;
  for (size_t i = 0; i < importance_.size(); ++i) {
    importance_[i].copy_(importance[i]);
    anchor_[i].copy_(at[i]);
  }
  constant_ = 0;
  active_ = true;
}

void QuadraticPenalty::state(State& s) {
  s("importance", importance_);
  s("anchor", anchor_);
  s("penalty_constant", constant_);
  s("penalty_active", active_);
}

}  // namespace rep
