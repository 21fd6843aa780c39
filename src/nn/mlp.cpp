// The second half of a block, x + mlp(norm(x)), without the copies that a chain of separate
// operations keeps: when the weights are frozen only x's gradient is wanted, and it needs x and the
// GELU's input. The hidden units go through in parts, so that nothing else as large as that input
// is ever there.
#include "nn/mlp.h"

#include <algorithm>

#include "nn/token_rows.h"
#include "tensor/products.h"

namespace rep {

namespace {

// The weights as their products take them.
struct Weights {
  Norm norm;
  torch::Tensor fc1, fc1_bias, fc2;

  torch::ScalarType type() const { return fc1.scalar_type(); }
  // Hidden units of a part: as many as keep a product at full speed.
  int64_t width() const { return fc1.size(1) >= 512 ? fc1.size(1) : fc1.size(0); }

  // Calls work(part of these weights) for one part of the hidden units after the other.
  template <class Work>
  void for_parts(const Work& work) const {
    const int64_t hidden = fc1.size(0);
    for (int64_t first = 0; first < hidden; first += width()) {
      const int64_t count = std::min(width(), hidden - first);
      work(Weights{norm, fc1.narrow(0, first, count), fc1_bias.narrow(0, first, count),
                   fc2.narrow(1, first, count)});
    }
  }
  torch::Tensor before_gelu(const torch::Tensor& normed) const {  // [B N, hidden]
    return product(normed, fc1.t(), type(), fc1_bias);
  }
};

struct FrozenMlp : torch::autograd::Function<FrozenMlp> {
  static torch::Tensor forward(torch::autograd::AutogradContext* ctx, const torch::Tensor& x,
                               const torch::Tensor& norm_weight, const torch::Tensor& norm_bias,
                               const torch::Tensor& fc1, const torch::Tensor& fc1_bias,
                               const torch::Tensor& fc2, const torch::Tensor& fc2_bias, double eps,
                               bool recompute) {
    const Weights w{{norm_weight, norm_bias, eps}, fc1, fc1_bias, fc2};
    torch::autograd::variable_list saved{x, norm_weight, norm_bias, fc1, fc1_bias, fc2};
    const torch::Tensor normed = normalised(x, w.norm, w.type());
    const torch::Tensor out = x + fc2_bias;
    w.for_parts([&](const Weights& part) {
      const torch::Tensor before = part.before_gelu(normed);
      if (x.requires_grad() && !recompute) saved.push_back(before);
      add_product(out.flatten(0, -2), gelu_of(before), part.fc2.t());
    });
    ctx->save_for_backward(saved);
    ctx->saved_data["eps"] = eps;
    return out;
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* ctx,
                                                 torch::autograd::variable_list grads) {
    const auto saved = ctx->get_saved_variables();
    const torch::Tensor& x = saved[0];
    const Weights w{
        {saved[1], saved[2], ctx->saved_data["eps"].toDouble()}, saved[3], saved[4], saved[5]};
    auto kept = saved.begin() + 6;
    const torch::Tensor normed =
        kept == saved.end() ? normalised(x, w.norm, w.type()) : torch::Tensor();
    const torch::Tensor grad = grads[0].contiguous();
    const torch::Tensor rows = grad.flatten(0, -2).to(w.type());
    torch::Tensor slope;  // of the norm's output
    w.for_parts([&](const Weights& part) {
      const torch::Tensor before = normed.defined() ? part.before_gelu(normed) : *kept++;
      torch::Tensor inner = product(rows, part.fc2, w.type());
      to_gelu_gradient(before, inner);
      if (slope.defined()) {
        add_product(slope, inner, part.fc1);
      } else {
        slope = product(inner, part.fc1, x.scalar_type());
      }
    });
    return {norm_gradient(slope, x, w.norm, grad), {}, {}, {}, {}, {}, {}, {}, {}};
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
  if (trains(*norm) || trains(*mlp)) {
    return step_by_step(x, norm, mlp, project);
  }
  return FrozenMlp::apply(x.contiguous(), norm->weight, norm->bias, mlp->fc1->weight,
                          mlp->fc1->bias, mlp->fc2->weight, mlp->fc2->bias, norm->options.eps(),
                          recompute);
}

}  // namespace rep
