// A ViT's parts: patches, attention, and the block, which merges tokens between its two halves and
// carries what methods put into it.
#include "nn/token_merging.h"
#include "nn/vit.h"

namespace rep {

namespace {

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

torch::nn::LayerNorm make_norm(const VitOptions& options) {
  return torch::nn::LayerNorm(
      torch::nn::LayerNormOptions({options.embed_dim}).eps(options.layer_norm_eps));
}

torch::Tensor only(TokenRange range, const torch::Tensor& x) {
  return range.count > 0 ? x.narrow(1, range.first, range.count) : x;
}

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

void BlockImpl::multiply_in_bf16() {
  fold(*this, "norm1", norm1, folded1, attn->qkv);
  fold(*this, "norm2", norm2, folded2, mlp->fc1);
  torch::Tensor of_attention;  // beside whose projection nothing stands
  fold(*this, "ls1", ls1, of_attention, attn->proj);
  fold(*this, "ls2", ls2, folded_gamma, mlp->fc2);
  for (auto& linear : {attn->qkv, attn->proj, mlp->fc1, mlp->fc2}) {
    TORCH_CHECK(!linear->weight.requires_grad(), "weights that train stay in fp32");
    linear->weight.set_data(linear->weight.to(torch::kBFloat16));
  }
}

}  // namespace rep
