#pragma once

#include "tensor/torch.h"

namespace rep {

/// What a frozen block does to every token by itself. Arithmetic is in fp32 whatever the type of
/// storage; on the CPU each is one pass over its tensors, on all threads.

/// A layer norm's numbers, none of which trains: weight and bias [D], both undefined where they are
/// folded into the layer that follows.
struct Norm {
  torch::Tensor weight, bias;
  double eps = 0;
};
inline Norm numbers_of(const torch::nn::LayerNorm& norm) {
  return {norm->weight, norm->bias, norm->options.eps()};
}

/// What the gradient of a norm's input needs: that input, or of a folded norm what came out, which
/// the layer after it has made anyway, in bf16 in half the bytes.
struct NormMemory {
  torch::Tensor rows;    // x [.., D], fp32, or normalised(x) [rows, D]
  torch::Tensor scales;  // fp32 [rows], 1 / sqrt(variance + eps) of the latter; else undefined
};

/// (x - mean) / sqrt(variance + eps) * weight + bias of every row of x [.., D], fp32: [rows, D] in
/// `type`, fp32 or bf16. Fills `memory` where given.
torch::Tensor normalised(const torch::Tensor& x, const Norm& norm, torch::ScalarType type,
                         NormMemory* memory = nullptr);
/// The same again.
torch::Tensor normalised(const NormMemory& memory, const Norm& norm, torch::ScalarType type);

/// The gradient of x, given that of normalised(x), dy [rows, D], plus `residual` where defined; all
/// fp32, of the sizes of memory.rows.
torch::Tensor norm_gradient(const torch::Tensor& dy, const NormMemory& memory, const Norm& norm,
                            const torch::Tensor& residual = {});

/// The activation of a ViT's MLPs: x times the probability of less than x, of
enum class Gelu {
  kExact,  // the normal distribution (Hendrycks and Gimpel, arXiv 1606.08415)
  kQuick,  // the logistic one: x sigmoid(1.702 x), with which OpenAI trained CLIP
};

/// Of fp32 or bf16.
torch::Tensor gelu_of(const torch::Tensor& x, Gelu kind = Gelu::kExact);

/// g *= gelu'(x), both of one type and size.
void to_gelu_gradient(const torch::Tensor& x, torch::Tensor& g, Gelu kind = Gelu::kExact);

}  // namespace rep
