#include "kernels/linear.h"

#include <algorithm>

#include "kernels/products.h"
#include "kernels/token_rows.h"
#include "tensor/device.h"

namespace rep {

namespace {

torch::Tensor rows_of(const torch::Tensor& x) { return x.flatten(0, -2); }

// Of a projection's result: bf16 is for products, sums are fp32.
torch::ScalarType sum_type(torch::ScalarType type) {
  return c10::promoteTypes(type, torch::kFloat);
}

// Rows of y as the rows of x lie.
torch::Tensor as_in(const torch::Tensor& x, const torch::Tensor& y) {
  std::vector<int64_t> sizes = x.sizes().vec();
  sizes.back() = y.size(-1);
  return y.view(sizes);
}

thread_local bool g_untouched = false;

// As many numbers as uniform_() fills so many floats with.
void draw_into_nothing(int64_t count) {
  const torch::Tensor chunk = torch::empty({int64_t{1} << 16});
  for (; count > 0; count -= chunk.numel()) {
    chunk.narrow(0, 0, std::min(count, chunk.numel())).uniform_();
  }
}

struct Projection : torch::autograd::Function<Projection> {
  static torch::Tensor forward(torch::autograd::AutogradContext* ctx, const torch::Tensor& x,
                               const torch::Tensor& weight, const torch::Tensor& bias) {
    ctx->save_for_backward({weight.requires_grad() ? x : torch::Tensor(),
                            x.requires_grad() ? weight : torch::Tensor()});
    ctx->saved_data["bias"] = bias.requires_grad();
    ctx->saved_data["type"] = static_cast<int64_t>(x.scalar_type());
    return as_in(x, product(rows_of(x).to(weight.scalar_type()), weight.t(),
                            sum_type(x.scalar_type()), bias));
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* ctx,
                                                 torch::autograd::variable_list grads) {
    const auto saved = ctx->get_saved_variables();
    const torch::Tensor &x = saved[0], &weight = saved[1], &grad = grads[0];
    const torch::Tensor rows = rows_of(grad.contiguous());
    torch::Tensor dx, d_weight, d_bias;
    if (weight.defined()) {
      const auto type = static_cast<torch::ScalarType>(ctx->saved_data["type"].toInt());
      dx = as_in(grad, product(rows.to(weight.scalar_type()), weight, type));
    }
    if (x.defined()) d_weight = product(rows.t(), rows_of(x), grad.scalar_type());
    if (ctx->saved_data["bias"].toBool()) d_bias = rows.sum(0);
    return {dx, d_weight, d_bias};
  }
};

struct FrozenNormedProjection : torch::autograd::Function<FrozenNormedProjection> {
  static torch::Tensor forward(torch::autograd::AutogradContext* ctx, const torch::Tensor& x,
                               const Norm& norm, const torch::Tensor& weight,
                               const torch::Tensor& bias, const at::TensorList& beside,
                               const std::vector<int64_t>& firsts) {
    NormMemory memory;
    const torch::Tensor normed = normalised(x, norm, weight.scalar_type(), &memory);
    const torch::Tensor y = product(normed, weight.t(), weight.scalar_type(), bias);
    LowRankProducts pairs(beside, firsts);
    pairs.add(y, normed);
    torch::autograd::variable_list saved{memory.rows, memory.scales, norm.weight, norm.bias,
                                         weight};
    const auto kept = pairs.kept();
    saved.insert(saved.end(), kept.begin(), kept.end());
    ctx->save_for_backward(saved);
    ctx->saved_data["eps"] = norm.eps;
    ctx->saved_data["type"] = static_cast<int64_t>(x.scalar_type());
    ctx->saved_data["x"] = x.requires_grad();
    ctx->saved_data["firsts"] = firsts;
    return as_in(x, y);
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* ctx,
                                                 torch::autograd::variable_list grads) {
    const auto saved = ctx->get_saved_variables();
    const NormMemory memory{saved[0], saved[1]};
    const Norm norm{saved[2], saved[3], ctx->saved_data["eps"].toDouble()};
    const torch::Tensor& weight = saved[4];
    const auto type = static_cast<torch::ScalarType>(ctx->saved_data["type"].toInt());
    const torch::Tensor rows = rows_of(grads[0].contiguous()).to(weight.scalar_type());
    const LowRankProducts pairs(at::TensorList(saved).slice(5),
                                ctx->saved_data["firsts"].toIntVector());
    torch::autograd::variable_list all{{}, {}, {}, {}};
    torch::Tensor slope;  // of the norm's output
    if (ctx->saved_data["x"].toBool()) slope = product(rows, weight, type);
    const auto beside = pairs.gradients(
        rows, slope, [&] { return normalised(memory, norm, weight.scalar_type()); });
    if (slope.defined()) all[0] = as_in(grads[0], norm_gradient(slope, memory, norm));
    all.insert(all.end(), beside.begin(), beside.end());
    all.emplace_back();
    return all;
  }
};

}  // namespace

bool trains(const torch::nn::Module& module) {
  if (!torch::GradMode::is_enabled()) return false;
  for (const auto& parameter : module.parameters()) {
    if (parameter.requires_grad()) return true;
  }
  return false;
}

torch::nn::Linear make_linear(int64_t in, int64_t out) {
  if (!g_untouched) return torch::nn::Linear(torch::nn::LinearOptions(in, out));
  const torch::Tensor before = rng_state(torch::kCPU);
  torch::nn::Linear linear(torch::nn::LinearOptions(1, 1));
  set_rng_state(torch::kCPU, before);
  linear->weight.set_data(torch::empty({out, in}));
  linear->bias.set_data(torch::empty({out}));
  linear->options.in_features(in).out_features(out);
  draw_into_nothing(in * out);
  draw_into_nothing(out);
  return linear;
}

UntouchedLinears::UntouchedLinears() : outer_(g_untouched) { g_untouched = true; }
UntouchedLinears::~UntouchedLinears() { g_untouched = outer_; }

torch::Tensor project(const torch::Tensor& x, const torch::Tensor& weight,
                      const torch::Tensor& bias) {
  return Projection::apply(x.contiguous(), weight, bias);
}

torch::Tensor project_normed(const torch::Tensor& x, const torch::nn::LayerNorm& norm,
                             const torch::nn::Linear& linear, const LowRankPairs& pairs,
                             const torch::Tensor& other) {
  const torch::Tensor& weight = other.defined() ? other : linear->weight;
  if (trains(*norm) || trains(*linear)) {
    return project(torch::layer_norm(x, norm->options.normalized_shape(), norm->weight, norm->bias,
                                     norm->options.eps()),
                   folded(weight, pairs), folded_bias(linear->bias, pairs));
  }
  const LowRankProducts beside(pairs);
  return FrozenNormedProjection::apply(x.contiguous(), numbers_of(norm), weight, linear->bias,
                                       at::TensorList(beside.tensors()), beside.firsts());
}

}  // namespace rep
