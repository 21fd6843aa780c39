#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "core/config.h"
#include "core/json.h"
#include "core/registry.h"
#include "kernels/attention.h"
#include "nn/adapter.h"
#include "nn/lora.h"
#include "tensor/torch.h"

namespace rep {

/// Asks a pass for what [CLS] attends to in the last block (nn/patch_sampling.h).
struct PatchScoreRequest {
  bool times_values = true;
  torch::Tensor scores;  // the answer, [B, patches]
};

/// Everything that may differ between two passes of one frozen ViT.
struct ForwardPlan {
  torch::Tensor prompts;                // [B, L, D] put between [CLS] and the image tokens (L2P)
  std::vector<torch::Tensor> prefixes;  // per block, keys and values [B, 2, L, D] before its own
                                        // (DualPrompt, CODA-Prompt); empty, or undefined in places
  /// A prefix that depends on the block's own input x [B, N, D] (ConvPrompt); asked for the blocks
  /// that run, in their order, where `prefixes` has none.
  std::function<torch::Tensor(const torch::Tensor& x, int64_t block)> make_prefix;
  std::vector<torch::Tensor> class_offsets;  // per block, added to [CLS]'s key and value, [2, D]
                                             // (APT); empty, or undefined in places
  torch::Tensor kept_patches;  // int64 [B, k], rising: those that enter the first block
                               // (nn/patch_sampling.h); undefined: all
  PatchScoreRequest* patch_scores = nullptr;
  std::vector<Adapter> adapters;        // per block; empty: none
  std::vector<BlockBranches> branches;  // per block: LoRA's; empty: none
  /// Is shown norm1(x) [B N, D], fp32, of the blocks that run, in their order (statistics).
  std::function<void(const torch::Tensor& normed, int64_t block)> observe;
  std::vector<int64_t> merge;           // per block, image tokens merged away between attention and
                                        // MLP; [CLS] and prompts never are; empty: none
  std::vector<bool> skip;               // per block: identity; empty: none
  std::vector<bool> detach;             // per block: it runs, and the gradient goes around it: its
                                        // residual branches are constants; empty: none
  std::vector<double> scale;            // per block, on its residual branches; empty: 1
  bool proportional_attention = false;  // attention logits + log(size of the key's token)
  bool size_weighted = true;            // merged token = size-weighted mean
  TokenRange outputs;                   // of [CLS | prompts | extra], the only tokens that the last
                                        // block computes, which changes no value of them

  bool skips(int64_t block) const { return !skip.empty() && skip[static_cast<size_t>(block)]; }
  bool detaches(int64_t block) const {
    return !detach.empty() && detach[static_cast<size_t>(block)];
  }
  double scale_of(int64_t block) const {
    return scale.empty() ? 1 : scale[static_cast<size_t>(block)];
  }
  int64_t merges(int64_t block) const {
    return merge.empty() ? 0 : merge[static_cast<size_t>(block)];
  }
};

/// What turns images into features.
class Backbone : public torch::nn::Module {
 public:
  /// images [B, 3, S, S] -> [B, D]. A model without blocks of tokens refuses a plan that merges,
  /// skips or prompts by never being given one (nn/efficiency.h).
  virtual torch::Tensor features(const torch::Tensor& images, const ForwardPlan& plan) = 0;
  torch::Tensor features(const torch::Tensor& images) { return features(images, ForwardPlan{}); }
  virtual int64_t feature_dim() const = 0;
  virtual int64_t image_size() const = 0;
  /// No gradients for anything, or only for the last `blocks` blocks and what comes after them
  /// (blocks == depth(): everything).
  virtual void train_last_blocks(int64_t blocks) = 0;
  virtual int64_t depth() const = 0;
  /// The fewest images that a batch to train on may have.
  virtual int64_t min_training_batch() const { return 1; }
};

/// Backbones that are made alike, each by its own name.
struct BackboneFamily {
  static constexpr const char* kKind = "backbone family";
  /// Names and citations of its members.
  std::vector<std::pair<std::string, std::string>> (*members)();
  // Of the member that the configuration names, before there are weights. They throw Error.
  int64_t (*depth)(const BackboneConfig& config);
  int64_t (*image_size)(const BackboneConfig& config);
  /// With its weights, frozen but for what `config.trainable` says, in fp32. `inputs` receives
  /// {"path", "sha256", "bytes"}. With `in_bf16`, of a frozen ViT, as multiply_in_bf16 leaves it,
  /// and no second copy of all its weights is ever there.
  std::shared_ptr<Backbone> (*make)(const BackboneConfig& config, Json* inputs, bool in_bf16);
  bool has_tokens;  // which prompts, merging and layer dropping need
};

/// Throws Error, with a suggestion, when no family has a member of that name.
const BackboneFamily& family_of(const std::string& backbone);

/// BackboneFamily::members of what Registry<Options> holds.
template <class Options>
std::vector<std::pair<std::string, std::string>> members_of() {
  std::vector<std::pair<std::string, std::string>> members;
  for (const auto& [name, entry] : Registry<Options>::get().entries()) {
    members.emplace_back(name, entry.citation);
  }
  return members;
}

/// config.trainable as a number of last blocks. Throws Error.
int64_t trainable_blocks(const BackboneConfig& config, int64_t depth);

}  // namespace rep
