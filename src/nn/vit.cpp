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

torch::nn::LayerNorm make_norm(const VitOptions& options) {
  return torch::nn::LayerNorm(
      torch::nn::LayerNormOptions({options.embed_dim}).eps(options.layer_norm_eps));
}

// W (n w + b) + c = (W diag(w)) n + (W b + c): the layer takes over the norm's numbers, which then
// has none.
void fold(BlockImpl& block, const char* name, torch::nn::LayerNorm& norm, Norm& numbers,
          torch::nn::Linear& linear) {
  if (!norm->weight.defined() || norm->weight.requires_grad()) return;
  numbers = numbers_of(norm);
  const torch::NoGradGuard no_grad;
  linear->bias += torch::mv(linear->weight, norm->bias);
  linear->weight *= norm->weight;
  norm = block.replace_module(
      name, torch::nn::LayerNorm(torch::nn::LayerNormOptions(norm->options.normalized_shape())
                                     .eps(norm->options.eps())
                                     .elementwise_affine(false)));
}

// gamma (W x + b) = (diag(gamma) W) x + gamma b: the layer takes over the scale, likewise.
void fold(BlockImpl& block, const char* name, LayerScale& scale, torch::Tensor& gamma,
          torch::nn::Linear& linear) {
  if (scale.is_empty() || scale->gamma.requires_grad()) return;
  gamma = scale->gamma;
  const torch::NoGradGuard no_grad;
  linear->weight *= scale->gamma.unsqueeze(1);
  linear->bias *= scale->gamma;
  block.unregister_module(name);
  scale = LayerScale(nullptr);
}

torch::Tensor gamma_of(const LayerScale& scale) {
  return scale.is_empty() ? torch::Tensor() : scale->gamma;
}

torch::Tensor only(TokenRange range, const torch::Tensor& x) {
  return range.count > 0 ? x.narrow(1, range.first, range.count) : x;
}

// Adds [2, D] to key and value of token 0 of qkv [B, N, 3 D], in place: nobody else keeps this
// projection. The gradient passes through, and is summed over images for the offset alone.
struct ClassOffset : torch::autograd::Function<ClassOffset> {
  static torch::Tensor forward(torch::autograd::AutogradContext*, const torch::Tensor& qkv,
                               const torch::Tensor& offset) {
    const int64_t D = offset.size(1);
    const torch::Tensor out = qkv.variable_data();  // the same memory
    out.select(1, 0).narrow(1, D, 2 * D).add_(offset.flatten());
    return out;
  }
  static torch::autograd::variable_list backward(torch::autograd::AutogradContext*,
                                                 torch::autograd::variable_list grads) {
    const int64_t D = grads[0].size(2) / 3;
    const torch::Tensor own = grads[0].select(1, 0).narrow(1, D, 2 * D);
    return {grads[0], own.sum(0, /*keepdim=*/false, torch::kFloat).view({2, D})};
  }
};

// The rows of image tokens x [B, P, D] or [1, P, D] that are kept: [B, k, D].
torch::Tensor pick(const torch::Tensor& x, const torch::Tensor& kept) {
  return x.gather(1, kept.unsqueeze(-1).expand({-1, -1, x.size(2)}));
}

// Merges r image tokens of the stream; the sizes of what each token stands for go along.
void merge(TokenStream& stream, const torch::Tensor& metric, int64_t r, bool size_weighted) {
  const Matching matching =
      match_tokens(metric, r, /*class_token=*/true, stream.before_image() - 1);
  if (matching.r == 0) return;
  const torch::Tensor sizes = stream.sizes.defined()
                                  ? stream.sizes
                                  : torch::ones(metric.sizes().slice(0, 2), stream.x.options());
  stream.x = merge_mean(stream.x, size_weighted ? sizes : torch::ones_like(sizes), matching);
  stream.sizes = merge_sizes(sizes, matching);
}

// `value`, which was computed without a gradient, with that of x.
struct AroundFunction : torch::autograd::Function<AroundFunction> {
  static torch::Tensor forward(torch::autograd::AutogradContext*, const torch::Tensor&,
                               const torch::Tensor& value) {
    return value.detach();
  }
  static torch::autograd::variable_list backward(torch::autograd::AutogradContext*,
                                                 torch::autograd::variable_list grads) {
    return {grads[0], {}};
  }
};

}  // namespace

const VitOperations kFusedOperations{project, project_normed, attend, residual_mlp,
                                     /*shortens_last_block=*/true};

PatchEmbedImpl::PatchEmbedImpl(const VitOptions& options) : patch_size(options.patch_size) {
  proj = register_module(
      "proj", torch::nn::Conv2d(torch::nn::Conv2dOptions(3, options.embed_dim, options.patch_size)
                                    .stride(options.patch_size)
                                    .bias(options.patch_bias)));
}

torch::Tensor PatchEmbedImpl::forward(const torch::Tensor& images) {
  // A convolution whose stride is its kernel is one matrix product over patches: same sums, and on
  // the CPU without the convolution's unfolding of overlaps.
  const int64_t B = images.size(0), P = patch_size;
  const int64_t rows = images.size(2) / P, columns = images.size(3) / P;
  const torch::Tensor patches = images.reshape({B, 3, rows, P, columns, P})
                                    .permute({0, 2, 4, 1, 3, 5})
                                    .reshape({B, rows * columns, 3 * P * P});
  const torch::Tensor bias =
      proj->bias.defined() ? proj->bias : torch::zeros({proj->weight.size(0)}, patches.options());
  return operations->project(patches, proj->weight.flatten(1), bias);
}

LayerScaleImpl::LayerScaleImpl(int64_t dim) {
  gamma = register_parameter("gamma", torch::ones({dim}));
}

AttentionImpl::AttentionImpl(int64_t dim, int64_t heads_) : heads(heads_) {
  qkv = register_module("qkv", make_linear(dim, 3 * dim));
  proj = register_module("proj", make_linear(dim, dim));
}

torch::Tensor AttentionImpl::forward(const torch::Tensor& x, torch::nn::LayerNorm& norm,
                                     const torch::Tensor& prefix, const torch::Tensor& class_offset,
                                     const torch::Tensor& log_sizes, TokenRange queries,
                                     torch::Tensor* metric, PatchScoreRequest* scores,
                                     const BlockBranches& branches) {
  torch::Tensor projected =
      operations->project_normed(x, norm, qkv, branches.qkv, branches.qkv_weight);
  if (metric) {
    const torch::Tensor keys = projected.detach().unflatten(-1, {3, heads, -1}).select(2, 1);
    *metric = keys.mean(2, /*keepdim=*/false, c10::promoteTypes(keys.scalar_type(), torch::kFloat));
  }
  if (scores) scores->scores = patch_scores(projected, heads, scores->times_values);
  if (class_offset.defined()) projected = ClassOffset::apply(projected, class_offset);
  const torch::Tensor mixed = operations->attend(projected, heads, prefix, log_sizes, queries);
  return operations->project(mixed, proj->weight, proj->bias);
}

BlockImpl::BlockImpl(const VitOptions& options) {
  norm1 = register_module("norm1", make_norm(options));
  attn = register_module("attn", Attention(options.embed_dim, options.num_heads));
  if (options.layer_scale) ls1 = register_module("ls1", LayerScale(options.embed_dim));
  norm2 = register_module("norm2", make_norm(options));
  mlp = register_module(
      "mlp", Mlp(options.embed_dim, options.embed_dim * options.mlp_ratio, options.gelu));
  if (options.layer_scale) ls2 = register_module("ls2", LayerScale(options.embed_dim));
}

void BlockImpl::forward(TokenStream& stream, const ForwardPlan& plan, int64_t index,
                        TokenRange outputs, PatchScoreRequest* scores) {
  const int64_t r = outputs.count > 0 ? 0 : plan.merges(index);
  const auto block = static_cast<size_t>(index);
  torch::Tensor prefix = plan.prefixes.empty() ? torch::Tensor() : plan.prefixes[block];
  if (!prefix.defined() && plan.make_prefix) prefix = plan.make_prefix(stream.x, index);
  const torch::Tensor offset =
      plan.class_offsets.empty() ? torch::Tensor() : plan.class_offsets[block];
  const torch::Tensor log_sizes =
      plan.proportional_attention && stream.sizes.defined() ? stream.sizes.log() : torch::Tensor();
  if (plan.observe) plan.observe(attention_input(stream.x), index);
  BlockBranches branches = plan.branches.empty() ? BlockBranches{} : plan.branches[block];
  branches.qkv = after_folded_norm(branches.qkv, folded1);
  branches.fc1 = after_folded_norm(branches.fc1, folded2);
  branches.fc2 = scaled(branches.fc2, folded_gamma);
  const bool detached = plan.detaches(index);
  const double scale = plan.scale_of(index);
  const auto input = [&] { return detached ? stream.x.detach() : stream.x; };  // of a branch
  torch::Tensor metric, mixed;
  {
    const torch::AutoGradMode branch(torch::GradMode::is_enabled() && !detached);
    mixed = attn->forward(input(), norm1, prefix, offset, log_sizes, outputs,
                          r > 0 ? &metric : nullptr, scores, branches);
  }
  const torch::Tensor unmixed = only(outputs, stream.x);
  stream.x = ls1.is_empty() ? torch::add(unmixed, mixed, scale)
                            : torch::addcmul(unmixed, mixed, ls1->gamma, scale);
  if (r > 0) merge(stream, metric, r, plan.size_weighted);
  const torch::Tensor before = stream.x;
  {
    const torch::AutoGradMode branch(torch::GradMode::is_enabled() && !detached);
    const torch::Tensor x = input();
    stream.x = operations->residual_mlp(x, norm2, mlp, recompute, gamma_of(ls2), branches.fc1,
                                        branches.fc2);
    if (!plan.adapters.empty()) stream.x = add_adapter(plan.adapters[block], x, stream.x);
  }
  if (scale != 1) stream.x = torch::lerp(before, stream.x, scale);
  if (detached && before.requires_grad()) stream.x = AroundFunction::apply(before, stream.x);
}

torch::Tensor BlockImpl::attention_input(const torch::Tensor& x) const {
  const torch::Tensor normed = normalised(x, numbers_of(norm1), torch::kFloat);
  return folded1.weight.defined() ? normed * folded1.weight + folded1.bias : normed;
}

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
  for (int64_t i = 0; i < options.depth; ++i) multiply_in_bf16(i);
}

void VisionTransformerImpl::multiply_in_bf16(int64_t index) {
  Block& block = blocks[static_cast<size_t>(index)];
  fold(*block, "norm1", block->norm1, block->folded1, block->attn->qkv);
  fold(*block, "norm2", block->norm2, block->folded2, block->mlp->fc1);
  torch::Tensor of_attention;  // beside whose projection nothing stands
  fold(*block, "ls1", block->ls1, of_attention, block->attn->proj);
  fold(*block, "ls2", block->ls2, block->folded_gamma, block->mlp->fc2);
  for (auto& linear : {block->attn->qkv, block->attn->proj, block->mlp->fc1, block->mlp->fc2}) {
    TORCH_CHECK(!linear->weight.requires_grad(), "weights that train stay in fp32");
    linear->weight.set_data(linear->weight.to(torch::kBFloat16));
  }
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
