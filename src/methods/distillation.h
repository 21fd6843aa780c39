#pragma once

#include <torch/types.h>

namespace rep {

/// Knowledge distillation (Hinton et al., arXiv 1503.02531) of logits [B, C]: the mean over the
/// batch of -sum_c p_c log q_c, p and q the softmax of teacher / T and student / T. Not multiplied
/// by T^2.
inline torch::Tensor distillation(const torch::Tensor& student, const torch::Tensor& teacher,
                                  double temperature) {
  return -(torch::softmax(teacher / temperature, 1) * torch::log_softmax(student / temperature, 1))
              .sum(1)
              .mean();
}

}  // namespace rep
