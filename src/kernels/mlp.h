#pragma once

#include "kernels/linear.h"
#include "kernels/low_rank_products.h"
#include "tensor/torch.h"

namespace rep {

/// fc1, exact GELU, fc2; parameters fc1.{weight,bias}, fc2.{weight,bias}.
struct MlpImpl : torch::nn::Module {
  MlpImpl(int64_t dim, int64_t hidden);
  torch::nn::Linear fc1{nullptr}, fc2{nullptr};
};
TORCH_MODULE(Mlp);

/// x + mlp(norm(x)), x [B, N, D]. Where neither trains, one step forward and one backward: the sum
/// is made in place and nothing but x and the GELU's input [B, N, hidden] is kept for the gradient
/// of x, and of that input at most the share `recompute` (0 to 1) is computed again instead of
/// kept. Pairs stand beside fc1 and fc2 and may train.
torch::Tensor residual_mlp(const torch::Tensor& x, torch::nn::LayerNorm& norm, Mlp& mlp,
                           double recompute, const LowRankPairs& fc1 = {},
                           const LowRankPairs& fc2 = {});

}  // namespace rep
