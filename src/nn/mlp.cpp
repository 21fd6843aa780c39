// The second half of a block, x + mlp(norm(x)), without the copies that a chain of separate
// operations keeps: when the weights are frozen only x's gradient is wanted, and it needs x and the
// GELU's input.
#include "nn/mlp.h"

#include <array>

#include "tensor/products.h"

namespace rep {

namespace {

// The weights as their products take them.
struct Weights {
  torch::Tensor norm_weight, norm_bias, fc1, fc1_bias, fc2, fc2_bias;
  double eps = 0;
};

struct Normed {
  torch::Tensor y, mean, rstd;
};

Normed normalise(const torch::Tensor& x, const Weights& w) {
  auto [y, mean, rstd] =
      torch::native_layer_norm(x, {x.size(-1)}, w.norm_weight, w.norm_bias, w.eps);
  return {y, mean, rstd};
}

torch::Tensor hidden(const torch::Tensor& normed, const Weights& w) {  // [B N, hidden]
  const auto type = w.fc1.scalar_type();
  return product(normed.flatten(0, -2).to(type), w.fc1.t(), type, w.fc1_bias);
}

struct FrozenMlp : torch::autograd::Function<FrozenMlp> {
  static torch::Tensor forward(torch::autograd::AutogradContext* ctx, const torch::Tensor& x,
                               const torch::Tensor& norm_weight, const torch::Tensor& norm_bias,
                               const torch::Tensor& fc1, const torch::Tensor& fc1_bias,
                               const torch::Tensor& fc2, const torch::Tensor& fc2_bias, double eps,
                               bool recompute) {
    const Weights w{norm_weight, norm_bias, fc1, fc1_bias, fc2, fc2_bias, eps};
    Normed normed = normalise(x, w);
    torch::Tensor before = hidden(normed.y, w);
    normed.y.reset();
    const bool keep = x.requires_grad() && !recompute;
    const torch::Tensor after = keep ? torch::gelu(before) : torch::gelu_(before);
    if (!keep) before.reset();
    torch::Tensor out = x + w.fc2_bias;
    add_product(out.flatten(0, -2), after, w.fc2.t());
    ctx->save_for_backward(
        {x, before, normed.mean, normed.rstd, norm_weight, norm_bias, fc1, fc1_bias, fc2});
    ctx->saved_data["eps"] = eps;
    return out;
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* ctx,
                                                 torch::autograd::variable_list grads) {
    const auto saved = ctx->get_saved_variables();
    const torch::Tensor &x = saved[0], &mean = saved[2], &rstd = saved[3];
    const Weights w{
        saved[4], saved[5], saved[6], saved[7], saved[8], {}, ctx->saved_data["eps"].toDouble()};
    const torch::Tensor grad = grads[0].contiguous();
    const torch::Tensor before = saved[1].defined() ? saved[1] : hidden(normalise(x, w).y, w);
    const auto type = w.fc2.scalar_type();
    torch::Tensor inner = product(grad.flatten(0, -2).to(type), w.fc2, type);
    inner = torch::gelu_backward(inner, before);
    inner = product(inner, w.fc1, x.scalar_type()).view_as(x);
    torch::Tensor dx = std::get<0>(
        torch::native_layer_norm_backward(inner, x, {x.size(-1)}, mean, rstd, w.norm_weight,
                                          w.norm_bias, std::array<bool, 3>{true, false, false}));
    dx.add_(grad);
    return {dx, {}, {}, {}, {}, {}, {}, {}, {}};
  }
};

using Project = torch::Tensor(const torch::Tensor&, const torch::Tensor&, const torch::Tensor&);

torch::Tensor step_by_step(const torch::Tensor& x, torch::nn::LayerNorm& norm, Mlp& mlp,
                           Project* project) {
  const auto through = [&](const torch::nn::Linear& layer, const torch::Tensor& input) {
    return project(input, layer->weight, layer->bias);
  };
  return x + through(mlp->fc2, torch::gelu(through(mlp->fc1, norm->forward(x))));
}

bool trains(const torch::nn::Module& module) {
  for (const auto& parameter : module.parameters()) {
    if (parameter.requires_grad()) return true;
  }
  return false;
}

}  // namespace

MlpImpl::MlpImpl(int64_t dim, int64_t hidden) {
  fc1 = register_module("fc1", make_linear(dim, hidden));
  fc2 = register_module("fc2", make_linear(hidden, dim));
}

torch::Tensor residual_mlp_by_the_book(const torch::Tensor& x, torch::nn::LayerNorm& norm,
                                       Mlp& mlp) {
  return step_by_step(x, norm, mlp, project_by_the_book);
}

torch::Tensor residual_mlp(const torch::Tensor& x, torch::nn::LayerNorm& norm, Mlp& mlp,
                           bool recompute) {
  if (torch::GradMode::is_enabled() && (trains(*norm) || trains(*mlp))) {
    return step_by_step(x, norm, mlp, project);
  }
  return FrozenMlp::apply(x.contiguous(), norm->weight, norm->bias, mlp->fc1->weight,
                          mlp->fc1->bias, mlp->fc2->weight, mlp->fc2->bias, norm->options.eps(),
                          recompute);
}

}  // namespace rep
