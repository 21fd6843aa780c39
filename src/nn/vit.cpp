// Vision transformer (Dosovitskiy et al., arXiv 2010.11929), in timm's layout.
// The idea in three lines: an image is cut into patches, each a token; pre-norm blocks of
// self-attention and MLP transform all tokens; the [CLS] token after the final norm is the image's
// feature. Differs from timm: one forward takes a ForwardPlan, so that prompts, prefixes, merged
// tokens and skipped blocks need no second copy of the model.
#include "nn/vit.h"

#include <optional>
#include <string>
#include <utility>

#include "nn/block_recompute.h"
#include "nn/patch_sampling.h"
#include "nn/token_merging.h"

namespace rep {

namespace {

// The rows of image tokens x [B, P, D] or [1, P, D] that are kept: [B, k, D].
torch::Tensor pick(const torch::Tensor& x, const torch::Tensor& kept) {
  return x.gather(1, kept.unsqueeze(-1).expand({-1, -1, x.size(2)}));
}

}  // namespace

VisionTransformerImpl::VisionTransformerImpl(const VitOptions& options_, const Drawn& drawn)
    : options(options_) {
  const int64_t D = options.embed_dim;
  TORCH_CHECK(D % options.num_heads == 0, "width ", D, " is no multiple of ", options.num_heads,
              " heads");
  cls_token = register_parameter("cls_token", torch::randn({1, 1, D}) * 1e-6);
  pos_embed = register_parameter(
      "pos_embed", torch::randn({1, options.position_tokens() + options.num_patches(), D}) * 0.02);
  if (options.distilled) dist_token = register_parameter("dist_token", torch::zeros({1, 1, D}));
  if (options.registers > 0) {
    reg_token = register_parameter("reg_token", torch::zeros({1, options.registers, D}));
  }
  patch_embed = register_module("patch_embed", PatchEmbed(options));
  if (options.norm_pre) norm_pre = register_module("norm_pre", make_norm(options));
  torch::nn::ModuleList list;
  {
    std::optional<UntouchedLinears> later;
    if (drawn) later.emplace();
    for (int64_t i = 0; i < options.depth; ++i) {
      blocks.push_back(Block(options));
      list->push_back(blocks.back());
    }
  }
  register_module("blocks", list);
  norm = register_module(options.fc_norm ? "fc_norm" : "norm", make_norm(options));
  if (options.num_classes > 0) {
    head = register_module("head", make_linear(D, options.num_classes));
  }
  // timm's initialisation: N(0, 0.02), zero biases; norms and scales start as the identity.
  torch::NoGradGuard no_grad;
  const auto draw = [](const std::string& name, torch::Tensor& parameter) {
    if (name.find("norm") != std::string::npos || name.find(".gamma") != std::string::npos) return;
    if (parameter.dim() >= 2 && name != "cls_token" && name != "pos_embed") {
      parameter.normal_(0, 0.02);
    } else if (parameter.dim() == 1) {
      parameter.zero_();
    }
  };
  const std::string of_blocks = "blocks.";
  int64_t at = -1;  // the block whose parameters are being drawn
  for (auto& item : named_parameters()) {
    const bool in_block = item.key().rfind(of_blocks, 0) == 0;
    const int64_t block = in_block ? std::stoll(item.key().substr(of_blocks.size())) : -1;
    if (block != at && at >= 0 && drawn) drawn(*this, at);
    at = block;
    draw(item.key(), item.value());
  }
}

void VisionTransformerImpl::check_images(const torch::Tensor& images) const {
  TORCH_CHECK(images.dim() == 4 && images.size(2) == options.image_size &&
                  images.size(3) == options.image_size,
              "images are ", images.sizes(), ", the ViT takes [B, 3, ", options.image_size, ", ",
              options.image_size, "]");
}

torch::Tensor VisionTransformerImpl::forward(const torch::Tensor& images, const ForwardPlan& plan) {
  check_images(images);
  const bool may_be_recorded = recorded_ && operations_ == &kFusedOperations && !trains(*this);
  return may_be_recorded ? (*recorded_)(images, plan) : pass(images, plan);
}

TokenStream VisionTransformerImpl::embed(const torch::Tensor& images, const ForwardPlan& plan) {
  const int64_t B = images.size(0), rows = options.position_tokens();
  // Prompts get the position of [CLS].
  const auto placed = [&](const torch::Tensor& x) {
    return options.class_position ? x + pos_embed.narrow(1, 0, 1) : x;
  };
  std::vector<torch::Tensor> parts{placed(cls_token).expand({B, -1, -1})};
  if (plan.prompts.defined()) parts.push_back(placed(plan.prompts));
  if (options.distilled) {
    parts.push_back((dist_token + pos_embed.narrow(1, rows - 1, 1)).expand({B, -1, -1}));
  }
  if (options.registers > 0) parts.push_back(reg_token.expand({B, -1, -1}));
  torch::Tensor patches =
      patch_embed->forward(images) + pos_embed.narrow(1, rows, options.num_patches());
  if (plan.kept_patches.defined()) patches = pick(patches, plan.kept_patches);
  parts.push_back(patches);
  TokenStream stream;
  stream.x = torch::cat(parts, 1);
  stream.prompts = plan.prompts.defined() ? plan.prompts.size(1) : 0;
  stream.extra = options.extra_tokens();
  if (options.norm_pre) stream.x = norm_pre->forward(stream.x);
  return stream;
}

TokenStream VisionTransformerImpl::run_blocks(const torch::Tensor& images,
                                              const ForwardPlan& plan) {
  TokenStream stream = embed(images, plan);
  TORCH_CHECK(plan.outputs.first + plan.outputs.count <= stream.before_image(), "outputs ",
              plan.outputs.first, " + ", plan.outputs.count, " are not all of [CLS] and ",
              stream.before_image() - 1, " tokens behind it, whose places no merging moves");
  std::vector<int64_t> running;
  for (int64_t i = 0; i < options.depth; ++i) {
    if (!plan.skips(i)) running.push_back(i);
  }
  // Else the outputs are taken at the end.
  const bool early = !running.empty() && operations_->shortens_last_block;
  const int64_t last = running.empty() ? -1 : running.back();
  const auto run = [this, early, last](TokenStream& tokens, const ForwardPlan& with,
                                       const std::vector<int64_t>& indices) {
    for (const int64_t i : indices) {
      blocks[static_cast<size_t>(i)]->forward(tokens, with, i,
                                              early && i == last ? with.outputs : TokenRange{},
                                              i == last ? with.patch_scores : nullptr);
    }
  };
  const bool again = recomputed_blocks_ > 0 && torch::GradMode::is_enabled() && !trains(*this) &&
                     can_run_again(plan);
  auto next = running.begin();
  while (again && running.end() - next > recomputed_blocks_) {
    const std::vector<int64_t> group(next, next + recomputed_blocks_);
    run_keeping_input(stream, plan, group, run);
    next += recomputed_blocks_;
  }
  run(stream, plan, {next, running.end()});
  if (plan.patch_scores) {  // of patches alone
    torch::Tensor& scores = plan.patch_scores->scores;
    const int64_t others = stream.before_image() - 1;
    scores = scores.narrow(1, others, scores.size(1) - others);
  }
  if (!early) stream.x = only(plan.outputs, stream.x);
  return stream;
}

torch::Tensor VisionTransformerImpl::pass(const torch::Tensor& images, const ForwardPlan& plan) {
  return norm->forward(run_blocks(images, plan).x);
}

torch::Tensor VisionTransformerImpl::mean_of_patches(const torch::Tensor& images,
                                                     const ForwardPlan& plan) {
  check_images(images);
  const TokenStream stream = run_blocks(images, plan);
  const int64_t first = stream.before_image(), count = stream.x.size(1) - first;
  torch::Tensor patches = stream.x.narrow(1, first, count);
  if (!options.fc_norm) patches = norm->forward(patches);
  torch::Tensor mean = patches.mean(1);
  if (stream.sizes.defined()) {  // a token that stands for several counts as often
    const torch::Tensor sizes = stream.sizes.narrow(1, first, count).unsqueeze(2);
    mean = (patches * sizes).sum(1) / sizes.sum(1);
  }
  return options.fc_norm ? norm->forward(mean) : mean;
}

torch::Tensor VisionTransformerImpl::features(const torch::Tensor& images,
                                              const ForwardPlan& plan) {
  ForwardPlan for_feature = plan;
  for_feature.outputs = {};
  if (options.feature == Feature::kPatches) return mean_of_patches(images, for_feature);
  const bool both = options.feature == Feature::kClassAndDistillation;
  const int64_t second = 1 + (plan.prompts.defined() ? plan.prompts.size(1) : 0);
  for_feature.outputs = {0, both ? second + 1 : 1};
  const torch::Tensor tokens = forward(images, for_feature);
  const torch::Tensor of_class = tokens.select(1, 0);
  return both ? (of_class + tokens.select(1, second)) / 2 : of_class;
}

void VisionTransformerImpl::recompute_mlps(double share) {
  for (auto& block : blocks) block->recompute = share;
}

void VisionTransformerImpl::multiply_in_bf16() {
  for (Block& block : blocks) block->multiply_in_bf16();
}

void VisionTransformerImpl::record_passes(Recorder recorder) {
  if (!recorder) return;
  recorded_ = std::make_unique<RecordedPasses>(
      [this](const torch::Tensor& images, const ForwardPlan& plan) { return pass(images, plan); },
      std::move(recorder));
}

const VitOperations& VisionTransformerImpl::compute_with(const VitOperations& operations) {
  patch_embed->operations = &operations;
  for (auto& block : blocks) block->operations = block->attn->operations = &operations;
  return *std::exchange(operations_, &operations);
}

void VisionTransformerImpl::train_last_blocks(int64_t count) {
  for (auto& parameter : parameters()) parameter.set_requires_grad(count >= options.depth);
  if (count <= 0) return;
  for (auto& parameter : norm->parameters()) parameter.set_requires_grad(true);
  for (int64_t i = std::max<int64_t>(0, options.depth - count); i < options.depth; ++i) {
    for (auto& parameter : blocks[static_cast<size_t>(i)]->parameters()) {
      parameter.set_requires_grad(true);
    }
  }
}

void check_blocks(const VitOptions& options, const std::string& key,
                  const std::vector<int64_t>& blocks) {
  for (const int64_t block : blocks) {
    if (block >= 0 && block < options.depth) continue;
    throw Error(key + ": block " + std::to_string(block) +
                " is not there; the backbone has blocks 0 to " + std::to_string(options.depth - 1));
  }
}

std::vector<int64_t> tokens_per_block(const VitOptions& options, const ForwardPlan& plan,
                                      int64_t prompts, int64_t patches) {
  std::vector<int64_t> tokens(static_cast<size_t>(options.depth), 0);
  int64_t image_tokens = patches;
  for (int64_t i = 0; i < options.depth; ++i) {
    if (plan.skips(i)) continue;
    tokens[static_cast<size_t>(i)] = 1 + prompts + options.extra_tokens() + image_tokens;
    image_tokens -= std::min(plan.merges(i), mergeable(1 + image_tokens, 1));
  }
  return tokens;
}

}  // namespace rep
