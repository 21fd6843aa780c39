#pragma once

#include <torch/types.h>

#include <cstdint>
#include <vector>

#include "core/config.h"
#include "methods/method.h"
#include "nn/efficiency.h"

namespace rep {

/// The two phases of a task's training (train.decoupled): which of the method's parameters train.
/// What a phase leaves alone gets no gradient, not one of zero, so that the optimiser passes it
/// over, momentum and all. At its end everything trains again.
class Phases {
 public:
  /// From step `first_head_step` on the head trains alone. Throws Error where there is none.
  Phases(Efficiency& efficiency, Method& method, const DecoupledConfig& config,
         int64_t first_head_step);
  ~Phases();
  Phases(const Phases&) = delete;
  Phases& operator=(const Phases&) = delete;
  /// Before a step's loss.
  void at(int64_t step);

 private:
  Efficiency& efficiency_;
  DecoupledConfig config_;
  int64_t first_head_step_;
  std::vector<torch::Tensor> parameters_;  // empty: one phase
  std::vector<bool> is_head_;
};

}  // namespace rep
