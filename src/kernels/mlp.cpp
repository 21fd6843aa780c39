// The second half of a block, x + mlp(norm(x)), without the copies that a chain of separate
// operations keeps: when the weights are frozen only x's gradient is wanted, and it needs x and the
// GELU's input. The hidden units go through in parts, so that nothing else as large as that input
// is ever there.
#include "kernels/mlp.h"

#include <algorithm>

#include "kernels/products.h"
#include "kernels/token_rows.h"
#include "tensor/meter.h"

namespace rep {

namespace {

// The weights as their products take them.
struct Weights {
  Norm norm;
  torch::Tensor fc1, fc1_bias, fc2;

  torch::ScalarType type() const { return fc1.scalar_type(); }
  // Hidden units of a part: as many as keep a product at full speed.
  int64_t width() const { return fc1.size(1) >= 512 ? fc1.size(1) : fc1.size(0); }

  // Calls work(part of these weights, where it ends) for one part of the hidden units after the
  // other.
  template <class Work>
  void for_parts(const Work& work) const {
    const int64_t hidden = fc1.size(0);
    for (int64_t first = 0; first < hidden; first += width()) {
      const int64_t count = std::min(width(), hidden - first);
      work(Weights{norm, fc1.narrow(0, first, count), fc1_bias.narrow(0, first, count),
                   fc2.narrow(1, first, count)},
           first + count);
    }
  }
  torch::Tensor before_gelu(const torch::Tensor& normed) const {  // [B N, hidden]
    return product(normed, fc1.t(), type(), fc1_bias);
  }
};

struct FrozenMlp : torch::autograd::Function<FrozenMlp> {
  static torch::Tensor forward(torch::autograd::AutogradContext* ctx, const torch::Tensor& x,
                               const Weights& w, const torch::Tensor& fc2_bias, double recompute) {
    NormMemory memory;
    const torch::Tensor normed = normalised(x, w.norm, w.type(), &memory);
    torch::autograd::variable_list saved{memory.rows, memory.scales, w.norm.weight, w.norm.bias,
                                         w.fc1,       w.fc1_bias,    w.fc2};
    const torch::Tensor out = x + fc2_bias;
    const auto again = static_cast<int64_t>(recompute * static_cast<double>(w.fc1.size(0)));
    w.for_parts([&](const Weights& part, int64_t end) {
      const torch::Tensor before = part.before_gelu(normed);
      if (x.requires_grad()) saved.push_back(end <= again ? torch::Tensor() : before);
      add_product(out.flatten(0, -2), gelu_of(before), part.fc2.t());
    });
    ctx->save_for_backward(saved);
    ctx->saved_data["eps"] = w.norm.eps;
    return out;
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* ctx,
                                                 torch::autograd::variable_list grads) {
    const auto saved = ctx->get_saved_variables();
    const NormMemory memory{saved[0], saved[1]};
    const Weights w{
        {saved[2], saved[3], ctx->saved_data["eps"].toDouble()}, saved[4], saved[5], saved[6]};
    auto kept = saved.begin() + 7;
    const torch::Tensor normed =
        kept->defined() ? torch::Tensor() : normalised(memory, w.norm, w.type());
    const torch::Tensor grad = grads[0].contiguous();
    const torch::Tensor rows = grad.flatten(0, -2).to(w.type());
    torch::Tensor slope;  // of the norm's output
    w.for_parts([&](const Weights& part, int64_t) {
      torch::Tensor before = *kept++;
      if (!before.defined()) {
        const UncountedMacs again;
        before = part.before_gelu(normed);
      }
      torch::Tensor inner = product(rows, part.fc2, w.type());
      to_gelu_gradient(before, inner);
      if (slope.defined()) {
        add_product(slope, inner, part.fc1);
      } else {
        slope = product(inner, part.fc1, grad.scalar_type());
      }
    });
    const torch::Tensor dx = norm_gradient(slope, memory, w.norm, grad);
    return {dx.view_as(grad), {}, {}, {}};
  }
};

torch::Tensor op_by_op(const torch::Tensor& x, torch::nn::LayerNorm& norm, Mlp& mlp) {
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

torch::Tensor residual_mlp(const torch::Tensor& x, torch::nn::LayerNorm& norm, Mlp& mlp,
                           double recompute) {
  if (trains(*norm) || trains(*mlp)) return op_by_op(x, norm, mlp);
  const Weights weights{numbers_of(norm), mlp->fc1->weight, mlp->fc1->bias, mlp->fc2->weight};
  return FrozenMlp::apply(x.contiguous(), weights, mlp->fc2->bias, recompute);
}

}  // namespace rep
