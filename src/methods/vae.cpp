#include "methods/vae.h"

#include <cmath>

#include "tensor/torch.h"

namespace rep {

namespace {

torch::Tensor trained_tensor(const torch::Tensor& values, const torch::Device& device) {
  return values.to(device).set_requires_grad(true);
}

// U(+-1/sqrt(fan_in)): the weights and biases of torch.nn.Linear and Conv2d.
torch::Tensor uniform(at::IntArrayRef shape, int64_t fan_in, const torch::Device& device) {
  const double bound = 1 / std::sqrt(static_cast<double>(fan_in));
  return trained_tensor((torch::rand(shape) * 2 - 1) * bound, device);
}

torch::Tensor half_squared_error(const torch::Tensor& x, const torch::Tensor& y) {
  return (x - y).square().flatten(1).mean(1) / 2;
}

}  // namespace

torch::Tensor log_normal(const torch::Tensor& z, const torch::Tensor& mean,
                         const torch::Tensor& logvar) {
  return -((z - mean).square() * (-logvar).exp() + logvar).sum(-1) / 2;
}

torch::Tensor log_mixture(const torch::Tensor& z, const torch::Tensor& weights,
                          const torch::Tensor& means, const torch::Tensor& logvars) {
  const torch::Tensor log_p = log_normal(z.unsqueeze(1), means, logvars);  // [B, C]
  return torch::logsumexp(log_p + weights.log(), 1);  // a weight of 0: -inf, and no gradient
}

torch::Tensor kl_to_standard_normal(const torch::Tensor& mean, const torch::Tensor& logvar) {
  return (mean.square() + logvar.exp() - 1 - logvar).sum(1) / 2;
}

torch::Tensor sample_normal(const torch::Tensor& mean, const torch::Tensor& logvar) {
  return mean + (logvar / 2).exp() * torch::randn(mean.sizes()).to(mean.device());
}

Dense::Dense(int64_t in, int64_t out, const torch::Device& device, bool with_bias)
    : weight(uniform({out, in}, in, device)) {
  if (with_bias) bias = uniform({out}, in, device);
}

torch::Tensor Dense::operator()(const torch::Tensor& x) const {
  return torch::linear(x, weight, bias);
}

void Dense::each_tensor(const std::string& name, const TensorVisitor& visit) {
  visit(name + ".weight", weight);
  visit(name + ".bias", bias);
}

ConvLayer::ConvLayer(int64_t in, int64_t out, int64_t kernel, int64_t stride_, bool transposed_,
                     bool last_, const torch::Device& device)
    : stride(stride_), transposed(transposed_), last(last_) {
  const int64_t area = kernel * kernel;
  weight = transposed ? uniform({in, out, kernel, kernel}, out * area, device)
                      : uniform({out, in, kernel, kernel}, in * area, device);
  if (last) {
    bias = uniform({out}, (transposed ? out : in) * area, device);
    return;
  }
  norm_weight = trained_tensor(torch::ones({out}), device);
  norm_bias = trained_tensor(torch::zeros({out}), device);
  mean = torch::zeros({out}, device);
  variance = torch::ones({out}, device);
}

torch::Tensor ConvLayer::operator()(const torch::Tensor& x, bool training) const {
  const torch::Tensor y = transposed ? torch::conv_transpose2d(x, weight, bias, stride, 1)
                                     : torch::conv2d(x, weight, bias, stride, 1);
  if (last) return y;
  return torch::relu(torch::batch_norm(y, norm_weight, norm_bias, mean, variance, training,
                                       /*momentum=*/0.1, /*eps=*/1e-5, /*cudnn_enabled=*/true));
}

void ConvLayer::each_tensor(const std::string& name, const TensorVisitor& visit) {
  visit(name + ".weight", weight);
  visit(name + ".bias", bias);
  visit(name + ".norm_weight", norm_weight);
  visit(name + ".norm_bias", norm_bias);
  visit(name + ".mean", mean);
  visit(name + ".variance", variance);
}

GatedVae::GatedVae(const Sizes& sizes, const torch::Device& device) {
  const auto [D, H, Z, C, gate] = sizes;
  encoder1 = Dense(D, H, device);
  encoder2 = Dense(H, H, device);
  head = Dense(H, C, device);
  mean = Dense(H, Z, device);
  logvar = Dense(H, Z, device, /*with_bias=*/false);
  decoder1 = Dense(Z, H, device);
  decoder2 = Dense(H, H, device);
  decoder3 = Dense(H, D, device);
  prior_mean = trained_tensor(torch::randn({C, Z}), device);
  prior_logvar = trained_tensor(torch::randn({C, Z}), device);
  gates1 = torch::rand({C, H}).ge(gate).to(torch::kFloat).to(device);
  gates2 = torch::rand({C, H}).ge(gate).to(torch::kFloat).to(device);
}

torch::Tensor GatedVae::encode(const torch::Tensor& x) const {
  return torch::relu(encoder2(torch::relu(encoder1(x))));
}

torch::Tensor GatedVae::decode(const torch::Tensor& z, const torch::Tensor& weights) const {
  const auto open = [&](const torch::Tensor& gates) {
    return torch::mm(weights, gates.narrow(0, 0, weights.size(1)));  // [B, H]
  };
  const torch::Tensor h = torch::relu(open(gates1) * decoder1(z));
  return decoder3(torch::relu(open(gates2) * decoder2(h)));
}

torch::Tensor GatedVae::generative_loss(const torch::Tensor& x, const torch::Tensor& h,
                                        const torch::Tensor& weights) const {
  const torch::Tensor z_mean = mean(h), z_logvar = logvar(h);
  const torch::Tensor z = sample_normal(z_mean, z_logvar);
  const int64_t classes = weights.size(1);
  const torch::Tensor variational =
      log_normal(z, z_mean, z_logvar) -
      log_mixture(z, weights, prior_mean.narrow(0, 0, classes), prior_logvar.narrow(0, 0, classes));
  return half_squared_error(x, decode(z, weights)) + variational / static_cast<double>(x.size(1));
}

torch::Tensor GatedVae::sample(const torch::Tensor& classes) const {
  torch::NoGradGuard no_grad;
  const torch::Tensor z =
      sample_normal(prior_mean.index_select(0, classes), prior_logvar.index_select(0, classes));
  return decode(z, torch::one_hot(classes, prior_mean.size(0)).to(torch::kFloat));
}

void GatedVae::each_tensor(const TensorVisitor& visit) {
  encoder1.each_tensor("encoder1", visit);
  encoder2.each_tensor("encoder2", visit);
  head.each_tensor("head", visit);
  mean.each_tensor("mean", visit);
  logvar.each_tensor("logvar", visit);
  decoder1.each_tensor("decoder1", visit);
  decoder2.each_tensor("decoder2", visit);
  decoder3.each_tensor("decoder3", visit);
  visit("prior_mean", prior_mean);
  visit("prior_logvar", prior_logvar);
  visit("gates1", gates1);
  visit("gates2", gates2);
}

ConvVae::ConvVae(int64_t size, int64_t hidden, int64_t latent, const torch::Device& device)
    : coarse(size / 16) {
  const int64_t channels[] = {3, 16, 32, 64, 128, 256};
  for (int i = 0; i < 5; ++i) {
    down.emplace_back(channels[i], channels[i + 1], 3, i == 0 ? 1 : 2, /*transposed=*/false,
                      /*last=*/i == 4, device);
  }
  const int64_t flat = 256 * coarse * coarse;
  encoder1 = Dense(flat, hidden, device);
  encoder2 = Dense(hidden, hidden, device);
  mean = Dense(hidden, latent, device);
  logvar = Dense(hidden, latent, device, /*with_bias=*/false);
  decoder1 = Dense(latent, hidden, device);
  decoder2 = Dense(hidden, hidden, device);
  decoder3 = Dense(hidden, flat, device);
  for (int i = 4; i >= 0; --i) {
    up.emplace_back(channels[i + 1], channels[i], i == 0 ? 3 : 4, i == 0 ? 1 : 2,
                    /*transposed=*/true, /*last=*/i == 0, device);
  }
}

torch::Tensor ConvVae::loss(const torch::Tensor& pictures) const {
  torch::Tensor x = pictures;
  for (const ConvLayer& layer : down) x = layer(x, /*training=*/true);
  x = torch::relu(encoder2(torch::relu(encoder1(x.flatten(1)))));
  const torch::Tensor z_mean = mean(x), z_logvar = logvar(x);
  const torch::Tensor decoded = decode(sample_normal(z_mean, z_logvar), /*training=*/true);
  return half_squared_error(pictures, decoded) +
         kl_to_standard_normal(z_mean, z_logvar) / static_cast<double>(pictures[0].numel());
}

torch::Tensor ConvVae::decode(const torch::Tensor& z, bool training) const {
  torch::Tensor x = torch::relu(decoder2(torch::relu(decoder1(z))));
  x = torch::relu(decoder3(x)).view({z.size(0), 256, coarse, coarse});
  for (const ConvLayer& layer : up) x = layer(x, training);
  return x;
}

void ConvVae::each_tensor(const TensorVisitor& visit) {
  for (size_t i = 0; i < down.size(); ++i) down[i].each_tensor("down" + std::to_string(i), visit);
  encoder1.each_tensor("encoder1", visit);
  encoder2.each_tensor("encoder2", visit);
  mean.each_tensor("mean", visit);
  logvar.each_tensor("logvar", visit);
  decoder1.each_tensor("decoder1", visit);
  decoder2.each_tensor("decoder2", visit);
  decoder3.each_tensor("decoder3", visit);
  for (size_t i = 0; i < up.size(); ++i) up[i].each_tensor("up" + std::to_string(i), visit);
}

}  // namespace rep
