#include "kernels/low_rank_products.h"

#include <algorithm>
#include <utility>

#include "kernels/products.h"

namespace rep {

namespace {

enum Which : int64_t { kDown, kUp, kBias, kGains };

torch::Tensor or_empty(const torch::Tensor& t) { return t.defined() ? t : torch::empty({0}); }
bool is_there(const torch::Tensor& t) { return t.numel() > 0; }

torch::Tensor with_gains(const LowRankPair& pair) {
  return pair.gains.defined() ? pair.up * pair.gains : pair.up;
}

// y += a b^T, in y's type.
void add_to(const torch::Tensor& y, const torch::Tensor& a, const torch::Tensor& b) {
  if (y.scalar_type() == torch::kFloat) return add_product(y, a, b.t());
  const auto type = y.scalar_type();
  y.add_(product(a.to(type), b.to(type).t(), torch::kFloat));
}

}  // namespace

torch::Tensor folded(const torch::Tensor& weight, const LowRankPairs& pairs) {
  torch::Tensor sum = weight;
  for (const LowRankPair& pair : pairs) {
    const int64_t behind = weight.size(0) - pair.first - pair.up.size(0);
    const torch::Tensor part = torch::mm(with_gains(pair), pair.down);
    sum = sum + torch::constant_pad_nd(part, {0, 0, pair.first, behind});
  }
  return sum;
}

torch::Tensor folded_bias(const torch::Tensor& bias, const LowRankPairs& pairs) {
  torch::Tensor sum = bias;
  for (const LowRankPair& pair : pairs) {
    if (!pair.bias.defined()) continue;
    const int64_t behind = bias.size(0) - pair.first - pair.up.size(0);
    const torch::Tensor part = torch::mv(with_gains(pair), pair.bias);
    sum = sum + torch::constant_pad_nd(part, {pair.first, behind});
  }
  return sum;
}

LowRankProducts::LowRankProducts(const LowRankPairs& pairs) {
  for (const LowRankPair& pair : pairs) {
    for (const auto& t : {pair.down, pair.up, pair.bias, pair.gains}) {
      tensors_.push_back(or_empty(t));
    }
    firsts_.push_back(pair.first);
  }
}

LowRankProducts::LowRankProducts(at::TensorList tensors, std::vector<int64_t> firsts)
    : firsts_(std::move(firsts)) {
  const auto own = static_cast<size_t>(kTensors) * size();
  tensors_.assign(tensors.begin(), tensors.begin() + static_cast<int64_t>(own));
  inner_.assign(tensors.begin() + static_cast<int64_t>(own), tensors.end());
}

const torch::Tensor& LowRankProducts::tensor(size_t pair, int64_t which) const {
  return tensors_[pair * static_cast<size_t>(kTensors) + static_cast<size_t>(which)];
}

bool LowRankProducts::train() const {
  return std::any_of(tensors_.begin(), tensors_.end(),
                     [](const torch::Tensor& t) { return t.requires_grad(); });
}

void LowRankProducts::add(const torch::Tensor& y, const torch::Tensor& x) {
  inner_.clear();
  for (size_t i = 0; i < size(); ++i) {
    const torch::Tensor &down = tensor(i, kDown), &up = tensor(i, kUp), &bias = tensor(i, kBias);
    torch::Tensor inner = product(x, down.to(x.scalar_type()).t(), torch::kFloat);
    if (is_there(bias)) inner += bias;
    inner_.push_back(inner);
    if (is_there(tensor(i, kGains))) inner = inner * tensor(i, kGains);
    add_to(y.narrow(1, firsts_[i], up.size(0)), inner, up);
  }
}

std::vector<torch::Tensor> LowRankProducts::kept() const {
  std::vector<torch::Tensor> all = tensors_;
  all.insert(all.end(), inner_.begin(), inner_.end());
  return all;
}

torch::autograd::variable_list LowRankProducts::gradients(
    const torch::Tensor& dy, const torch::Tensor& dx,
    const std::function<torch::Tensor()>& make_x) const {
  torch::autograd::variable_list all;
  torch::Tensor x;
  for (size_t i = 0; i < size(); ++i) {
    const torch::Tensor &down = tensor(i, kDown), &up = tensor(i, kUp), &gains = tensor(i, kGains);
    const auto type = dy.scalar_type();
    const torch::Tensor slope = dy.narrow(1, firsts_[i], up.size(0)), &inner = inner_[i];
    torch::Tensor d_inner = product(slope, up.to(type), torch::kFloat);
    torch::Tensor d_down, d_up, d_bias, d_gains;
    if (up.requires_grad()) {
      const torch::Tensor scaled = is_there(gains) ? inner * gains : inner;
      d_up = product(slope.t(), scaled.to(type), torch::kFloat);
    }
    if (gains.requires_grad()) d_gains = (d_inner * inner).sum(0);
    if (is_there(gains)) d_inner = d_inner * gains;
    if (tensor(i, kBias).requires_grad()) d_bias = d_inner.sum(0);
    if (down.requires_grad()) {
      if (!x.defined()) x = make_x();
      d_down = product(d_inner.to(x.scalar_type()).t(), x, torch::kFloat);
    }
    if (dx.defined()) add_to(dx, d_inner, down.t());
    for (const auto& d : {d_down, d_up, d_bias, d_gains}) all.push_back(d);
  }
  return all;
}

namespace {

struct AddBottleneck : torch::autograd::Function<AddBottleneck> {
  static torch::Tensor forward(torch::autograd::AutogradContext* ctx, const torch::Tensor& y,
                               const torch::Tensor& x, const torch::Tensor& down,
                               const torch::Tensor& down_bias, const torch::Tensor& up,
                               const torch::Tensor& up_bias, const torch::Tensor& mask,
                               double scale) {
    torch::Tensor hidden = product(x.flatten(0, -2), down.t(), torch::kFloat, down_bias).relu_();
    if (is_there(mask)) hidden.mul_(mask);
    const torch::Tensor out = y + scale * up_bias;
    add_product(out.flatten(0, -2), hidden, (scale * up).t());
    ctx->save_for_backward({down.requires_grad() ? x : torch::Tensor(), down, up, hidden, mask});
    ctx->saved_data["scale"] = scale;
    ctx->saved_data["x"] = x.requires_grad();
    return out;
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* ctx,
                                                 torch::autograd::variable_list grads) {
    const auto saved = ctx->get_saved_variables();
    const torch::Tensor &x = saved[0], &down = saved[1], &up = saved[2], &hidden = saved[3];
    const double scale = ctx->saved_data["scale"].toDouble();
    const torch::Tensor slope = grads[0].contiguous().flatten(0, -2);
    torch::Tensor dx, d_down, d_up;
    // Where a unit is 0, by ReLU or by dropout, nothing goes back.
    torch::Tensor d_hidden = product(slope, scale * up, torch::kFloat).mul_(hidden > 0);
    if (is_there(saved[4])) d_hidden.mul_(saved[4]);
    if (up.requires_grad()) d_up = product(slope.t(), hidden, torch::kFloat).mul_(scale);
    if (x.defined()) d_down = product(d_hidden.t(), x.flatten(0, -2), torch::kFloat);
    if (ctx->saved_data["x"].toBool()) {
      std::vector<int64_t> sizes = grads[0].sizes().vec();
      sizes.back() = down.size(1);
      dx = product(d_hidden, down, torch::kFloat).view(sizes);
    }
    return {grads[0], dx, d_down, d_hidden.sum(0), d_up, slope.sum(0) * scale, {}, {}};
  }
};

}  // namespace

torch::Tensor add_bottleneck(const torch::Tensor& y, const torch::Tensor& x, const Bottleneck& b) {
  return AddBottleneck::apply(y, x.contiguous(), b.down, b.down_bias, b.up, b.up_bias,
                              or_empty(b.mask), b.scale);
}

}  // namespace rep
