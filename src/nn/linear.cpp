#include "nn/linear.h"

#include "tensor/products.h"

namespace rep {

namespace {

torch::Tensor rows_of(const torch::Tensor& x) { return x.flatten(0, -2); }

struct Projection : torch::autograd::Function<Projection> {
  static torch::Tensor forward(torch::autograd::AutogradContext* ctx, const torch::Tensor& x,
                               const torch::Tensor& weight, const torch::Tensor& bias) {
    ctx->save_for_backward({weight.requires_grad() ? x : torch::Tensor(),
                            x.requires_grad() ? weight : torch::Tensor()});
    ctx->saved_data["bias"] = bias.requires_grad();
    std::vector<int64_t> sizes = x.sizes().vec();
    sizes.back() = weight.size(0);
    return product(rows_of(x).to(weight.scalar_type()), weight.t(), x.scalar_type(), bias)
        .view(sizes);
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* ctx,
                                                 torch::autograd::variable_list grads) {
    const auto saved = ctx->get_saved_variables();
    const torch::Tensor &x = saved[0], &weight = saved[1], &grad = grads[0];
    const torch::Tensor rows = rows_of(grad.contiguous());
    torch::Tensor dx, d_weight, d_bias;
    if (weight.defined()) {
      std::vector<int64_t> sizes = grad.sizes().vec();
      sizes.back() = weight.size(1);
      dx = product(rows.to(weight.scalar_type()), weight, grad.scalar_type()).view(sizes);
    }
    if (x.defined()) d_weight = product(rows.t(), rows_of(x), grad.scalar_type());
    if (ctx->saved_data["bias"].toBool()) d_bias = rows.sum(0);
    return {dx, d_weight, d_bias};
  }
};

}  // namespace

torch::nn::Linear make_linear(int64_t in, int64_t out) {
  return torch::nn::Linear(torch::nn::LinearOptions(in, out));
}

torch::Tensor project(const torch::Tensor& x, const torch::Tensor& weight,
                      const torch::Tensor& bias) {
  return Projection::apply(x.contiguous(), weight, bias);
}

torch::Tensor project_by_the_book(const torch::Tensor& x, const torch::Tensor& weight,
                                  const torch::Tensor& bias) {
  return torch::linear(x.to(weight.scalar_type()), weight, bias).to(x.scalar_type());
}

}  // namespace rep
