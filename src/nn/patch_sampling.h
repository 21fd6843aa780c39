#pragma once

#include <torch/types.h>

#include <cstdint>

#include "core/config.h"
#include "nn/layer_dropping.h"

namespace rep {

/// Whether `token_merging` takes image tokens away before the first block: cps or patch_dropout.
bool samples_patches(const TokenMergingConfig& config);
/// Whether it needs to know what the query pass attends to.
bool needs_patch_scores(const TokenMergingConfig& config);
/// floor(P (1 - ratio)) of P patches, all of them where nothing is sampled.
int64_t kept_patches(const TokenMergingConfig& config, int64_t patches);

/// What [CLS] attends to in a block, of the joint projection qkv [B, 1 + P, 3 D] in it: the sum
/// over heads of its softmax attention on each patch, times the length of the patch's value over
/// all heads where `times_values`. Without [CLS]'s own entry: [B, P].
torch::Tensor patch_scores(const torch::Tensor& qkv, int64_t heads, bool times_values);

/// Uniform numbers in (0, 1), one for every image and patch: double [B, P]. Those of an image are a
/// function of the run's seed, the step and `indices`, its position in the data set; of images that
/// share one (made or mixed ones, which have none) also of their order in the batch.
torch::Tensor patch_uniforms(const StepTime& time, const torch::Tensor& indices, int64_t patches);

/// The patches that stay, rising: int64 [B, k], on the scores' device. cps: those with the largest
/// s_j / temperature - ln(-ln U_j), which are k draws without replacement from softmax(s /
/// temperature), or the largest s_j; patch_dropout: those with the smallest U_j, scores undefined.
torch::Tensor pick_patches(const TokenMergingConfig& config, const torch::Tensor& scores,
                           const torch::Tensor& uniforms);

}  // namespace rep
