#pragma once

#include "kernels/linear.h"
#include "kernels/low_rank_products.h"
#include "kernels/token_rows.h"
#include "tensor/torch.h"

namespace rep {

/// fc1, GELU, fc2; parameters fc1.{weight,bias}, fc2.{weight,bias}.
struct MlpImpl : torch::nn::Module {
  MlpImpl(int64_t dim, int64_t hidden, Gelu gelu = Gelu::kExact);
  Gelu gelu;
  torch::nn::Linear fc1{nullptr}, fc2{nullptr};
};
TORCH_MODULE(Mlp);

/// The pairs of a layer whose outputs are scaled by gamma [D], undefined: 1.
LowRankPairs scaled(LowRankPairs pairs, const torch::Tensor& gamma);

/// x + gamma mlp(norm(x)), x [B, N, D]; gamma [D] is LayerScale's (Touvron et al., arXiv
/// 2103.17239), 1 where undefined. Where nothing of it trains, one step forward and one backward:
/// the sum is made in place and nothing but x and the GELU's input [B, N, hidden] is kept for the
/// gradient of x, and of that input at most the share `recompute` (0 to 1) is computed again
/// instead of kept. Pairs stand beside fc1 and fc2 and may train.
torch::Tensor residual_mlp(const torch::Tensor& x, torch::nn::LayerNorm& norm, Mlp& mlp,
                           double recompute, const torch::Tensor& gamma = {},
                           const LowRankPairs& fc1 = {}, const LowRankPairs& fc2 = {});

}  // namespace rep
