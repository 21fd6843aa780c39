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
  torch::Tensor gamma;  // [D], or undefined
  Gelu gelu = Gelu::kExact;

  torch::ScalarType type() const { return fc1.scalar_type(); }
  // Hidden units of a part: as many as keep a product at full speed.
  int64_t width_of_part() const { return fc1.size(1) >= 512 ? fc1.size(1) : fc1.size(0); }

  // Calls work(part of these weights, where it ends) for one part of the hidden units after the
  // other.
  template <class Work>
  void for_parts(bool at_once, const Work& work) const {
    const int64_t hidden = fc1.size(0), width = at_once ? hidden : width_of_part();
    for (int64_t first = 0; first < hidden; first += width) {
      const int64_t count = std::min(width, hidden - first);
      work(Weights{norm, fc1.narrow(0, first, count), fc1_bias.narrow(0, first, count),
                   scaled(fc2.narrow(1, first, count)), gamma, gelu},
           first + count);
    }
  }
  // gamma (W h) = (diag(gamma) W) h: a part of the weights is scaled, and not every token.
  torch::Tensor scaled(const torch::Tensor& rows) const {
    return gamma.defined() ? (rows * gamma.unsqueeze(1)).to(rows.scalar_type()) : rows;
  }
  torch::Tensor before_gelu(const torch::Tensor& normed) const {  // [B N, hidden]
    return product(normed, fc1.t(), type(), fc1_bias);
  }
};

// Pairs beside both layers: each layer in one part, since its pairs reach all of it.
struct Beside {
  LowRankProducts fc1, fc2;

  bool any() const { return !fc1.firsts().empty() || !fc2.firsts().empty(); }
  std::vector<torch::Tensor> kept() const { return both(fc1.kept(), fc2.kept()); }
  template <class T>
  static std::vector<T> both(std::vector<T> a, const std::vector<T>& b) {
    a.insert(a.end(), b.begin(), b.end());
    return a;
  }
};

struct FrozenMlp : torch::autograd::Function<FrozenMlp> {
  static constexpr int64_t kFixed = 8;  // saved tensors before those of the parts

  static torch::Tensor forward(torch::autograd::AutogradContext* ctx, const torch::Tensor& x,
                               const Weights& w, const torch::Tensor& fc2_bias, double recompute,
                               const at::TensorList& fc1_pairs,
                               const std::vector<int64_t>& fc1_firsts,
                               const at::TensorList& fc2_pairs,
                               const std::vector<int64_t>& fc2_firsts) {
    Beside beside{{fc1_pairs, fc1_firsts}, {fc2_pairs, fc2_firsts}};
    const bool keeps = x.requires_grad() || beside.fc1.train() || beside.fc2.train();
    NormMemory memory;
    const torch::Tensor normed = normalised(x, w.norm, w.type(), &memory);
    torch::autograd::variable_list befores;
    const torch::Tensor out = x + (w.gamma.defined() ? fc2_bias * w.gamma : fc2_bias);
    const auto again = static_cast<int64_t>(recompute * static_cast<double>(w.fc1.size(0)));
    w.for_parts(beside.any(), [&](const Weights& part, int64_t end) {
      const torch::Tensor before = part.before_gelu(normed);
      beside.fc1.add(before, normed);
      if (keeps) befores.push_back(end <= again ? torch::Tensor() : before);
      const torch::Tensor hidden = gelu_of(before, w.gelu);
      add_product(out.flatten(0, -2), hidden, part.fc2.t());
      beside.fc2.add(out.flatten(0, -2), hidden);
    });
    const torch::autograd::variable_list fixed{
        memory.rows, memory.scales, w.norm.weight, w.norm.bias, w.fc1, w.fc1_bias, w.fc2, w.gamma};
    ctx->save_for_backward(Beside::both(Beside::both(fixed, befores), beside.kept()));
    ctx->saved_data["eps"] = w.norm.eps;
    ctx->saved_data["gelu"] = static_cast<int64_t>(w.gelu);
    ctx->saved_data["parts"] = static_cast<int64_t>(befores.size());
    ctx->saved_data["fc1"] = fc1_firsts;
    ctx->saved_data["fc2"] = fc2_firsts;
    return out;
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* ctx,
                                                 torch::autograd::variable_list grads) {
    const auto saved = ctx->get_saved_variables();
    const NormMemory memory{saved[0], saved[1]};
    const Weights w{{saved[2], saved[3], ctx->saved_data["eps"].toDouble()},
                    saved[4],
                    saved[5],
                    saved[6],
                    saved[7],
                    static_cast<Gelu>(ctx->saved_data["gelu"].toInt())};
    auto kept = saved.begin() + kFixed;
    Beside beside = beside_of(ctx, saved);
    torch::Tensor normed;
    const auto normed_again = [&] {
      if (!normed.defined()) normed = normalised(memory, w.norm, w.type());
      return normed;
    };
    const torch::Tensor grad = grads[0].contiguous();
    const torch::Tensor rows = grad.flatten(0, -2).to(w.type());
    torch::Tensor slope;  // of the norm's output
    torch::autograd::variable_list d_fc1, d_fc2;
    w.for_parts(beside.any(), [&](const Weights& part, int64_t) {
      torch::Tensor before = *kept++;
      if (!before.defined()) {
        const UncountedMacs again;
        before = part.before_gelu(normed_again());
        LowRankProducts(beside.fc1).add(before, normed_again());
      }
      torch::Tensor inner = product(rows, part.fc2, w.type());
      d_fc2 = beside.fc2.gradients(rows, inner, [&] { return gelu_of(before, w.gelu); });
      to_gelu_gradient(before, inner, w.gelu);
      if (slope.defined()) {
        add_product(slope, inner, part.fc1);
      } else {
        slope = product(inner, part.fc1, grad.scalar_type());
      }
      d_fc1 = beside.fc1.gradients(inner, slope, normed_again);
    });
    const torch::Tensor dx = norm_gradient(slope, memory, w.norm, grad);
    torch::autograd::variable_list all{dx.view_as(grad), {}, {}, {}};
    all.insert(all.end(), d_fc1.begin(), d_fc1.end());
    all.emplace_back();
    all.insert(all.end(), d_fc2.begin(), d_fc2.end());
    all.emplace_back();
    return all;
  }

 private:
  static Beside beside_of(torch::autograd::AutogradContext* ctx,
                          const torch::autograd::variable_list& saved) {
    const auto fc1 = ctx->saved_data["fc1"].toIntVector(),
               fc2 = ctx->saved_data["fc2"].toIntVector();
    const size_t each = static_cast<size_t>(LowRankProducts::kTensors) + 1;  // and what add() made
    const auto first = static_cast<size_t>(kFixed + ctx->saved_data["parts"].toInt());
    const at::TensorList all(saved);
    return {{all.slice(first, each * fc1.size()), fc1},
            {all.slice(first + each * fc1.size()), fc2}};
  }
};

torch::Tensor op_by_op(const torch::Tensor& x, torch::nn::LayerNorm& norm, Mlp& mlp,
                       const torch::Tensor& gamma) {
  const auto through = [&](const torch::nn::Linear& layer, const torch::Tensor& input) {
    return project(input, layer->weight, layer->bias);
  };
  const torch::Tensor before = through(mlp->fc1, norm->forward(x));
  const torch::Tensor out =
      through(mlp->fc2, mlp->gelu == Gelu::kExact ? torch::gelu(before)
                                                  : before * torch::sigmoid(1.702 * before));
  return gamma.defined() ? torch::addcmul(x, out, gamma) : x + out;
}

}  // namespace

MlpImpl::MlpImpl(int64_t dim, int64_t hidden, Gelu gelu_) : gelu(gelu_) {
  fc1 = register_module("fc1", make_linear(dim, hidden));
  fc2 = register_module("fc2", make_linear(hidden, dim));
}

LowRankPairs scaled(LowRankPairs pairs, const torch::Tensor& gamma) {
  if (!gamma.defined()) return pairs;
  for (LowRankPair& pair : pairs) {
    pair.up = pair.up * gamma.narrow(0, pair.first, pair.up.size(0)).unsqueeze(1);
  }
  return pairs;
}

torch::Tensor residual_mlp(const torch::Tensor& x, torch::nn::LayerNorm& norm, Mlp& mlp,
                           double recompute, const torch::Tensor& gamma, const LowRankPairs& fc1,
                           const LowRankPairs& fc2) {
  const bool gamma_trains =
      torch::GradMode::is_enabled() && gamma.defined() && gamma.requires_grad();
  if (trains(*norm) || trains(*mlp) || gamma_trains) {
    TORCH_CHECK(fc1.empty() && fc2.empty(), "pairs stand beside an MLP that is frozen");
    return op_by_op(x, norm, mlp, gamma);
  }
  const Weights weights{numbers_of(norm), mlp->fc1->weight, mlp->fc1->bias, mlp->fc2->weight, gamma,
                        mlp->gelu};
  const LowRankProducts one(fc1), two(scaled(fc2, gamma));
  return FrozenMlp::apply(x.contiguous(), weights, mlp->fc2->bias, recompute,
                          at::TensorList(one.tensors()), one.firsts(),
                          at::TensorList(two.tensors()), two.firsts());
}

}  // namespace rep
