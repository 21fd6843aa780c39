#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "core/registry.h"
#include "kernels/attention.h"
#include "kernels/linear.h"
#include "kernels/mlp.h"
#include "nn/backbone.h"
#include "nn/recorded_passes.h"
#include "tensor/torch.h"

namespace rep {

// The shape alphabet of the whole program: B images, N tokens (with [CLS]), D width, H heads, L
// prompt tokens, C classes, M pool entries, T tasks, K depth (blocks).

/// How positions of another grid are resampled; bicubic all, and none the same.
enum class Positions {
  kBicubicAntialias,  // timm from 0.9 on, open_clip, DINOv2 with registers
  kBicubic,           // timm 0.6, DeiT, MAE; transformers' CLIP and DINOv2
  kBicubicOffset,     // DINO, iBOT, DINOv2: at a scale of (n + 0.1) / old n
};

/// What of an image's tokens its feature is.
enum class Feature {
  kClass,                 // [CLS], normed
  kClassAndDistillation,  // the mean of [CLS] and of the distillation token, normed
  kPatches,               // the mean of the image tokens: of normed ones, or normed by fc_norm
};

/// Sizes of a vision transformer (Dosovitskiy 2010.11929), with timm's names, and what families add
/// (nn/vit_backbones.cpp).
struct VitOptions {
  static constexpr const char* kKind = "backbone";
  int64_t image_size = 224, patch_size = 16;
  int64_t embed_dim = 192, depth = 12, num_heads = 3;
  int64_t mlp_ratio = 4;
  int64_t num_classes = 0;  // 0: no head of its own
  double layer_norm_eps = 1e-6;
  bool layer_scale = false;  // x + gamma * branch (Touvron 2103.17239); blocks.N.ls1, ls2
  bool norm_pre = false;     // of all tokens before block 0
  bool patch_bias = true;
  bool class_position = true;  // [CLS] has a row of pos_embed
  bool distilled = false;      // a second token, with a position, that learned from a teacher
  bool fc_norm = false;        // the norm is of the patches' mean, and is called so
  int64_t registers = 0;       // tokens without a position (Darcet 2309.16588)
  Gelu gelu = Gelu::kExact;
  Feature feature = Feature::kClass;
  Positions positions = Positions::kBicubicAntialias;
  std::string normalise;  // of the pixels that it was trained with; "": the weights decide

  int64_t grid() const { return image_size / patch_size; }
  int64_t num_patches() const { return grid() * grid(); }
  /// Rows of pos_embed before the patches'.
  int64_t position_tokens() const { return (class_position ? 1 : 0) + (distilled ? 1 : 0); }
  /// Tokens of the model's own beside [CLS].
  int64_t extra_tokens() const { return (distilled ? 1 : 0) + registers; }
};

/// What a pass computes with.
struct VitOperations {
  decltype(&rep::project) project;
  decltype(&rep::project_normed) project_normed;
  decltype(&rep::attend) attend;
  decltype(&rep::residual_mlp) residual_mlp;
  bool shortens_last_block;  // which then makes only the tokens that the pass is for
};
/// This program's own kernels, fused; nn/reference_vit.h has others.
extern const VitOperations kFusedOperations;

/// Non-overlapping patches to tokens; parameters proj.{weight [D, 3, P, P], bias}.
struct PatchEmbedImpl : torch::nn::Module {
  explicit PatchEmbedImpl(const VitOptions& options);
  /// [B, 3, S, S] -> [B, patches, D], row by row.
  torch::Tensor forward(const torch::Tensor& images);
  const VitOperations* operations = &kFusedOperations;
  int64_t patch_size;
  torch::nn::Conv2d proj{nullptr};
};
TORCH_MODULE(PatchEmbed);

/// Multi-head self-attention (kernels/attention.h); parameters qkv.{weight,bias},
/// proj.{weight,bias}.
struct AttentionImpl : torch::nn::Module {
  AttentionImpl(int64_t dim, int64_t heads);
  /// Of norm(x), x [B, N, D]; prefix undefined or [B, 2, L, D]; log_sizes undefined or [B, N]. Of
  /// the queries in `queries` only, where it names some. `metric`, when wanted, receives the keys
  /// averaged over heads [B, N, D/H], prefix keys excluded. `class_offset`, undefined or [2, D], is
  /// added to key and value of token 0; `scores`, when wanted, are filled in.
  torch::Tensor forward(const torch::Tensor& x, torch::nn::LayerNorm& norm,
                        const torch::Tensor& prefix, const torch::Tensor& class_offset,
                        const torch::Tensor& log_sizes, TokenRange queries, torch::Tensor* metric,
                        PatchScoreRequest* scores, const BlockBranches& branches = {});
  const VitOperations* operations = &kFusedOperations;
  int64_t heads;
  torch::nn::Linear qkv{nullptr}, proj{nullptr};
};
TORCH_MODULE(Attention);

/// The tokens of a pass on their way through the blocks.
struct TokenStream {
  torch::Tensor x;      // [B, N, D], in the order [CLS | prompts | extra | image tokens]
  torch::Tensor sizes;  // [B, N]: image tokens that each stands for; undefined until a merge
  int64_t prompts = 0;  // L
  int64_t extra = 0;    // the distillation token and registers, which never merge
  int64_t before_image() const { return 1 + prompts + extra; }
};

/// A factor for every channel of a branch; parameter gamma [D].
struct LayerScaleImpl : torch::nn::Module {
  explicit LayerScaleImpl(int64_t dim);
  torch::Tensor gamma;
};
TORCH_MODULE(LayerScale);

/// The tokens of x [B, N, D] in the range; all of them where it is empty.
torch::Tensor only(TokenRange range, const torch::Tensor& x);

/// A layer norm over the channels, as the options say.
torch::nn::LayerNorm make_norm(const VitOptions& options);

/// Pre-norm block: x + attn(norm1(x)), merge, x + mlp(norm2(x)); with LayerScale, x + ls1 attn(..),
/// x + ls2 mlp(..).
struct BlockImpl : torch::nn::Module {
  explicit BlockImpl(const VitOptions& options);
  /// Runs block number `index` of `plan` on the stream in place. Where `outputs` names tokens, only
  /// those come out, and nothing is merged: what is merged would come out of no block.
  void forward(TokenStream& stream, const ForwardPlan& plan, int64_t index, TokenRange outputs = {},
               PatchScoreRequest* scores = nullptr);
  /// Converts its linear layers (VisionTransformerImpl::multiply_in_bf16).
  void multiply_in_bf16();
  const VitOperations* operations = &kFusedOperations;
  double recompute = 0;  // share of a frozen MLP: made again for the backward pass, and not kept
  torch::nn::LayerNorm norm1{nullptr}, norm2{nullptr};
  Norm folded1, folded2;  // what of them was folded into the layers behind them
  Attention attn{nullptr};
  Mlp mlp{nullptr};
  LayerScale ls1{nullptr}, ls2{nullptr};  // only where options.layer_scale
  torch::Tensor folded_gamma;             // ls2's, once it is folded into fc2

 private:
  torch::Tensor attention_input(const torch::Tensor& x) const;
};
TORCH_MODULE(Block);

/// The ViT itself. Parameter names equal timm's, so that checkpoints load without a table.
struct VisionTransformerImpl : Backbone {
  /// Calls `drawn`, where given, for one block after the other when its weights are drawn, before
  /// the next block's memory is touched.
  using Drawn = std::function<void(VisionTransformerImpl& vit, int64_t block)>;
  explicit VisionTransformerImpl(const VitOptions& options, const Drawn& drawn = {});

  /// images [B, 3, S, S] -> every token after the final norm, [B, N', D], in the order
  /// [CLS | prompts | extra | image tokens left], or those of plan.outputs. A prompt gets [CLS]'s
  /// position added (l2p-pytorch).
  torch::Tensor forward(const torch::Tensor& images, const ForwardPlan& plan = {});
  using Backbone::features;
  /// images -> the feature, as options.feature says, after the final norm, [B, D].
  torch::Tensor features(const torch::Tensor& images, const ForwardPlan& plan) override;
  int64_t feature_dim() const override { return options.embed_dim; }
  int64_t image_size() const override { return options.image_size; }
  int64_t depth() const override { return options.depth; }
  void train_last_blocks(int64_t blocks) override;
  /// The share, 0 to 1, of the inside of a frozen MLP that is made again for the backward pass
  /// instead of kept: all of it is a third of what a step holds, and a tenth more of its time or
  /// two.
  void recompute_mlps(double share);
  /// Of a frozen ViT's blocks so many in a row keep only what enters them for the gradient, and run
  /// again in the backward pass, to the same bits (nn/block_recompute.h); 0: none. The last of a
  /// pass keep what they make: their gradient is the first that is wanted.
  void recompute_blocks(int64_t count) { recomputed_blocks_ = count; }
  /// Converts the blocks' linear layers, all frozen, to bf16, with the weights and biases of norms
  /// that do not train (by now: a method may train them) folded in: products run in it, everything
  /// else stays in fp32. Half the memory for weights; fast only where the processor multiplies
  /// bf16.
  void multiply_in_bf16();
  /// From now on, and for weights as and where they are now, passes of the frozen ViT whose shapes
  /// repeat are recorded; nothing changes where the recorder is empty.
  void record_passes(Recorder recorder);
  /// From now on; only passes of its own kernels are recorded. Returns the operations before.
  const VitOperations& compute_with(const VitOperations& operations);

  const VitOptions options;
  torch::Tensor cls_token, pos_embed;   // [1, 1, D], [1, position_tokens + patches, D]
  torch::Tensor dist_token, reg_token;  // [1, 1, D], [1, registers, D]; where there are some
  PatchEmbed patch_embed{nullptr};
  torch::nn::LayerNorm norm_pre{nullptr};  // only where options.norm_pre
  std::vector<Block> blocks;
  torch::nn::LayerNorm norm{nullptr};
  torch::nn::Linear head{nullptr};  // only when options.num_classes > 0

 private:
  void check_images(const torch::Tensor& images) const;
  TokenStream embed(const torch::Tensor& images, const ForwardPlan& plan);
  /// After the last block that runs: all tokens, or plan.outputs.
  TokenStream run_blocks(const torch::Tensor& images, const ForwardPlan& plan);
  torch::Tensor pass(const torch::Tensor& images, const ForwardPlan& plan);
  torch::Tensor mean_of_patches(const torch::Tensor& images, const ForwardPlan& plan);
  const VitOperations* operations_ = &kFusedOperations;
  int64_t recomputed_blocks_ = 0;
  std::unique_ptr<RecordedPasses> recorded_;
};
TORCH_MODULE(VisionTransformer);

/// The registered sizes, by name (vit_tiny_patch16_224, ...), with optional other image/patch
/// sizes.
VitOptions vit_options(const std::string& name, int64_t image_size = 0, int64_t patch_size = 0);

/// The member of the family that the configuration names (BackboneFamily::make).
VisionTransformer make_vit(const BackboneConfig& config, Json* inputs, bool in_bf16 = false);

/// Throws Error naming the configuration's key where one of `blocks` is none of the ViT's.
void check_blocks(const VitOptions& options, const std::string& key,
                  const std::vector<int64_t>& blocks);

/// Tokens that enter each block, for a plan, `prompts` prompt tokens and `patches` of the image:
/// arithmetic only. Blocks that are skipped count 0 tokens. Size depth.
std::vector<int64_t> tokens_per_block(const VitOptions& options, const ForwardPlan& plan,
                                      int64_t prompts, int64_t patches);
inline std::vector<int64_t> tokens_per_block(const VitOptions& options, const ForwardPlan& plan,
                                             int64_t prompts) {
  return tokens_per_block(options, plan, prompts, options.num_patches());
}

}  // namespace rep
