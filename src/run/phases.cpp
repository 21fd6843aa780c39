#include "run/phases.h"

#include <algorithm>

#include "core/error.h"
#include "tensor/torch.h"

namespace rep {

Phases::Phases(Efficiency& efficiency, Method& method, const DecoupledConfig& config,
               int64_t first_head_step)
    : efficiency_(efficiency), config_(config), first_head_step_(first_head_step) {
  if (config.phase_ratio == 1) return;
  parameters_ = method.parameters();
  const std::vector<torch::Tensor> head = method.head_parameters();
  if (!parameters_.empty() && head.empty()) {
    throw Error(
        "train.decoupled: this method has no head that could train alone; set phase_ratio to 1");
  }
  for (const torch::Tensor& p : parameters_) {
    is_head_.push_back(std::any_of(head.begin(), head.end(),
                                   [&](const torch::Tensor& h) { return h.is_same(p); }));
  }
}

Phases::~Phases() {
  efficiency_.train_head_only(false);
  for (const torch::Tensor& p : parameters_) p.set_requires_grad(true);
}

void Phases::at(int64_t step) {
  if (parameters_.empty()) return;
  const bool head_only = step >= first_head_step_;
  efficiency_.train_head_only(head_only);
  for (size_t i = 0; i < parameters_.size(); ++i) {
    parameters_[i].set_requires_grad(is_head_[i] ? head_only || config_.train_head_in_phase1
                                                 : !head_only);
  }
}

}  // namespace rep
