#include "nn/reference_vit.h"

#include <cmath>

namespace rep {

namespace {

// x W^T + b
torch::Tensor reference_linear(const torch::Tensor& x, const torch::Tensor& weight,
                               const torch::Tensor& bias) {
  const auto type = weight.scalar_type();
  return torch::linear(x.to(type), weight, bias.to(type)).to(x.scalar_type());
}

// Pairs are part of the weight.
torch::Tensor reference_normed_linear(const torch::Tensor& x, const torch::nn::LayerNorm& norm,
                                      const torch::nn::Linear& linear, const LowRankPairs& pairs,
                                      const torch::Tensor& other) {
  const torch::Tensor normed = torch::layer_norm(x, norm->options.normalized_shape(), norm->weight,
                                                 norm->bias, norm->options.eps());
  return reference_linear(normed, folded(other.defined() ? other : linear->weight, pairs),
                          folded_bias(linear->bias, pairs));
}

// softmax(q k^T / sqrt(d) + log sizes) v, head by head
torch::Tensor reference_attention(const torch::Tensor& qkv, int64_t heads,
                                  const torch::Tensor& prefix, const torch::Tensor& log_sizes,
                                  TokenRange queries) {
  const int64_t B = qkv.size(0), N = qkv.size(1), d = qkv.size(2) / 3 / heads;
  const torch::Tensor parts = qkv.view({B, N, 3, heads, d}).permute({2, 0, 3, 1, 4});
  torch::Tensor q = parts[0], k = parts[1], v = parts[2], bias = log_sizes;
  if (queries.count > 0) q = q.narrow(2, queries.first, queries.count);
  if (prefix.defined()) {
    const int64_t L = prefix.size(2);
    const torch::Tensor rows =
        prefix.to(qkv.scalar_type()).view({B, 2, L, heads, d}).permute({1, 0, 3, 2, 4});
    k = torch::cat({rows[0], k}, 2);
    v = torch::cat({rows[1], v}, 2);
    if (bias.defined()) bias = torch::cat({torch::zeros({B, L}, bias.options()), bias}, 1);
  }
  torch::Tensor weights =
      torch::matmul(q * (1.0 / std::sqrt(static_cast<double>(d))), k.transpose(-2, -1));
  if (bias.defined()) weights = weights + bias.unsqueeze(1).unsqueeze(1);
  return torch::matmul(weights.softmax(-1), v).transpose(1, 2).flatten(2);
}

// x + gamma fc2(gelu(fc1(norm(x)))); everything is kept
torch::Tensor reference_residual_mlp(const torch::Tensor& x, torch::nn::LayerNorm& norm, Mlp& mlp,
                                     double /*recompute*/, const torch::Tensor& gamma,
                                     const LowRankPairs& fc1, const LowRankPairs& fc2) {
  const torch::Tensor before = reference_normed_linear(x, norm, mlp->fc1, fc1, {});
  const torch::Tensor hidden =
      mlp->gelu == Gelu::kExact ? torch::gelu(before) : before * torch::sigmoid(1.702 * before);
  const torch::Tensor out = reference_linear(hidden, folded(mlp->fc2->weight, fc2), mlp->fc2->bias);
  return gamma.defined() ? x + gamma * out : x + out;
}

}  // namespace

const VitOperations kReferenceOperations{reference_linear, reference_normed_linear,
                                         reference_attention, reference_residual_mlp,
                                         /*shortens_last_block=*/false};

torch::Tensor reference_features(Backbone& backbone, const torch::Tensor& images) {
  const c10::InferenceMode inference;
  auto* const vit = dynamic_cast<VisionTransformerImpl*>(&backbone);
  if (!vit) return backbone.features(images);
  const VitOperations& own = vit->compute_with(kReferenceOperations);
  const torch::Tensor features = vit->features(images);
  vit->compute_with(own);
  return features;
}

}  // namespace rep
