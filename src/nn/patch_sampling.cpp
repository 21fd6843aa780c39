// Critical patch sampling (CPS-Prompt, arXiv 2604.07399, section 3) and PatchDropout (Liu et al.,
// arXiv 2208.07220). The idea in three lines: in training only part of an image's patches enter the
// ViT, new ones at every step; PatchDropout draws them evenly, CPS by what [CLS] attends to in the
// last block of the query pass; their positions are added before. Differs from CPS-Prompt's code:
// the k draws without replacement are the k largest perturbed scores (Gumbel top-k), the same
// distribution, and where a probability would be 0 in single precision theirs fills up with the
// first patches.
#include "nn/patch_sampling.h"

#include <cmath>
#include <map>

#include "core/random.h"
#include "tensor/torch.h"

namespace rep {

bool samples_patches(const TokenMergingConfig& config) {
  return config.kind == "cps" || config.kind == "patch_dropout";
}

bool needs_patch_scores(const TokenMergingConfig& config) { return config.kind == "cps"; }

int64_t kept_patches(const TokenMergingConfig& config, int64_t patches) {
  if (!samples_patches(config)) return patches;
  return static_cast<int64_t>(static_cast<double>(patches) * (1 - config.ratio));
}

torch::Tensor patch_scores(const torch::Tensor& qkv, int64_t heads, bool times_values) {
  torch::NoGradGuard no_grad;
  const torch::Tensor parts = qkv.to(torch::kFloat).unflatten(-1, {3, heads, -1});
  const torch::Tensor query = parts.select(1, 0).select(1, 0);          // [B, H, d]
  const torch::Tensor keys = parts.select(2, 1).permute({0, 2, 3, 1});  // [B, H, d, N]
  const double scale = 1 / std::sqrt(static_cast<double>(query.size(-1)));
  const torch::Tensor attention =
      torch::matmul((query * scale).unsqueeze(2), keys).squeeze(2).softmax(-1).sum(1);  // [B, N]
  const int64_t patches = attention.size(1) - 1;
  const torch::Tensor scores = attention.narrow(1, 1, patches);
  if (!times_values) return scores;
  return scores * parts.select(2, 2).narrow(1, 1, patches).flatten(2).norm(2, -1);
}

torch::Tensor patch_uniforms(const StepTime& time, const torch::Tensor& indices, int64_t patches) {
  const torch::Tensor uniforms = torch::empty({indices.size(0), patches}, torch::kDouble);
  double* out = uniforms.data_ptr<double>();
  const torch::Tensor positions = indices.contiguous();
  const int64_t* position = positions.data_ptr<int64_t>();
  const auto key = [](int64_t value) { return static_cast<uint64_t>(value); };
  std::map<int64_t, uint64_t> times;  // that a position has come by in the batch
  for (int64_t b = 0; b < indices.size(0); ++b) {
    const uint64_t seed = key(time.seed), use = static_cast<uint64_t>(RandomUse::kPatchSampling),
                   task = key(time.task), step = key(time.task_iteration), image = key(position[b]),
                   again = times[position[b]]++;
    Random random = again == 0 ? Random({seed, use, task, step, image})
                               : Random({seed, use, task, step, image, again});
    // Half of the smallest step added: never 0.
    for (int64_t j = 0; j < patches; ++j) *out++ = random.uniform() + 0x1.0p-54;
  }
  return uniforms;
}

torch::Tensor pick_patches(const TokenMergingConfig& config, const torch::Tensor& scores,
                           const torch::Tensor& uniforms) {
  torch::NoGradGuard no_grad;
  torch::Tensor keys;
  if (config.kind == "patch_dropout") {
    keys = -uniforms;
  } else {
    keys = scores.to(torch::kDouble);
    if (config.pick == "sample") {
      keys = keys / config.temperature - uniforms.to(scores.device()).log().neg().log();
    }
  }
  const int64_t k = kept_patches(config, keys.size(1));
  return std::get<0>(std::get<1>(keys.topk(k)).sort(1));
}

}  // namespace rep
