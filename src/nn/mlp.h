#pragma once

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
/// of x; with `recompute` that input is computed again instead of kept.
torch::Tensor residual_mlp(const torch::Tensor& x, torch::nn::LayerNorm& norm, Mlp& mlp,
                           bool recompute);

/// The same, op by op.
torch::Tensor residual_mlp_by_the_book(const torch::Tensor& x, torch::nn::LayerNorm& norm,
                                       Mlp& mlp);

/// y = x W^T + b, in the type that the weights have (bf16: their products, summed in fp32 by the
/// libraries) and returned in x's.
torch::Tensor project(const torch::Tensor& x, torch::nn::Linear& linear);

/// A linear layer without the redundant default initialisation: VisionTransformer draws all
/// weights.
torch::nn::Linear make_linear(int64_t in, int64_t out);

}  // namespace rep
