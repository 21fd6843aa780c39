#pragma once

#include "kernels/low_rank_products.h"
#include "tensor/torch.h"

namespace rep {

/// y = x W^T + b, x [.., in], in the type that the weights have (bf16: their products, summed in
/// fp32) and returned in x's, or fp32 for x of bf16. Keeps x for the gradient of W only where W
/// trains, and W for that of x.
torch::Tensor project(const torch::Tensor& x, const torch::Tensor& weight,
                      const torch::Tensor& bias);

/// linear(norm(x)). Where neither trains, what the norm needs is all that is kept for the gradient
/// of x, and the result is in the weights' type. `pairs` stand beside the layer and may train; a
/// defined `weight` stands in the place of the layer's own.
torch::Tensor project_normed(const torch::Tensor& x, const torch::nn::LayerNorm& norm,
                             const torch::nn::Linear& linear, const LowRankPairs& pairs = {},
                             const torch::Tensor& weight = {});

/// Whether a gradient of one of the module's parameters is wanted.
bool trains(const torch::nn::Module& module);

/// A linear layer without the redundant default initialisation: VisionTransformer draws all
/// weights.
torch::nn::Linear make_linear(int64_t in, int64_t out);

/// While it lives, this thread's make_linear leaves the memory of its layers untouched, so that
/// none is resident before it is written to. The numbers that would have been there are drawn all
/// the same: whatever is drawn later stays as it is.
class UntouchedLinears {
 public:
  UntouchedLinears();
  ~UntouchedLinears();
  UntouchedLinears(const UntouchedLinears&) = delete;
  UntouchedLinears& operator=(const UntouchedLinears&) = delete;

 private:
  bool outer_;
};

}  // namespace rep
