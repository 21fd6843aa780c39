#pragma once

#include <torch/types.h>

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "tensor/state.h"

namespace rep {

// ---- diagonal Gaussians, by mean and logarithm of the variance ----

/// log N(z; mean, exp(logvar)) summed over the last dimension, without the constant in pi.
torch::Tensor log_normal(const torch::Tensor& z, const torch::Tensor& mean,
                         const torch::Tensor& logvar);
/// log sum_c weights[b, c] N(z_b; mean_c, exp(logvar_c)), without that constant: z [B, Z], weights
/// [B, C] (constants that sum to 1 a row), means and logvars [C, Z] -> [B].
torch::Tensor log_mixture(const torch::Tensor& z, const torch::Tensor& weights,
                          const torch::Tensor& means, const torch::Tensor& logvars);
/// KL(N(mean, exp(logvar)) || N(0, 1)) of each row: [B, Z] -> [B].
torch::Tensor kl_to_standard_normal(const torch::Tensor& mean, const torch::Tensor& logvar);
/// One draw a row, with a gradient to mean and logvar.
torch::Tensor sample_normal(const torch::Tensor& mean, const torch::Tensor& logvar);

// ---- models that are plain lists of tensors, so that a frozen copy is a copy ----

using TensorVisitor = std::function<void(const std::string& name, torch::Tensor& tensor)>;

template <class Model>
std::vector<torch::Tensor> parameters_of(Model& model) {
  std::vector<torch::Tensor> parameters;
  model.each_tensor([&](const std::string&, torch::Tensor& tensor) {
    if (tensor.defined() && tensor.requires_grad()) parameters.push_back(tensor);
  });
  return parameters;
}

/// The model as it is now, without gradients.
template <class Model>
Model frozen_copy(Model model) {
  model.each_tensor([](const std::string&, torch::Tensor& tensor) {
    if (tensor.defined()) tensor = tensor.detach().clone();
  });
  return model;
}

/// The model's form without its values: what a frozen copy is loaded into.
template <class Model>
Model without_values(Model model) {
  model.each_tensor([](const std::string&, torch::Tensor& tensor) { tensor = torch::Tensor(); });
  return model;
}

template <class Model>
void model_state(Model& model, State& s) {
  model.each_tensor([&](const std::string& name, torch::Tensor& tensor) { s(name, tensor); });
}

/// y = W x + b, initialised as torch.nn.Linear.
struct Dense {
  Dense() = default;
  Dense(int64_t in, int64_t out, const torch::Device& device, bool with_bias = true);
  torch::Tensor operator()(const torch::Tensor& x) const;
  void each_tensor(const std::string& name, const TensorVisitor& visit);
  torch::Tensor weight, bias;  // [out, in], [out] or undefined
};

/// A convolution (or its transpose), then batch norm and ReLU unless it is the last of its stack.
struct ConvLayer {
  ConvLayer() = default;
  ConvLayer(int64_t in, int64_t out, int64_t kernel, int64_t stride, bool transposed, bool last,
            const torch::Device& device);
  torch::Tensor operator()(const torch::Tensor& x, bool training) const;
  void each_tensor(const std::string& name, const TensorVisitor& visit);
  int64_t stride = 1;
  bool transposed = false, last = false;
  torch::Tensor weight;
  torch::Tensor bias;                                    // [out], of the last only
  torch::Tensor norm_weight, norm_bias, mean, variance;  // [out], of all others
};

// ---- the two auto-encoders ----

/// A classifier that can generate what it classifies: brain-inspired replay's network (van de Ven
/// et al. 2020) on feature vectors of length D. Encoder D -> H -> H; on its last layer sit the
/// classifier and the latent Gaussian; every class has a Gaussian of its own as prior; a random
/// part of the decoder's units is shut for each class.
struct GatedVae {
  struct Sizes {
    int64_t features, hidden, latent, classes;
    double gate;  // the share of a decoder layer's units that a class shuts
  };
  GatedVae() = default;
  GatedVae(const Sizes& sizes, const torch::Device& device);

  torch::Tensor encode(const torch::Tensor& x) const;                       // [B, D] -> [B, H]
  torch::Tensor classify(const torch::Tensor& h) const { return head(h); }  // [B, H] -> [B, C]
  /// Class weights [B, <= C] (one-hot or soft) open the gates in that proportion. -> [B, D]
  torch::Tensor decode(const torch::Tensor& z, const torch::Tensor& weights) const;
  /// Reconstruction plus variational loss, both a mean over the D features, of each row; h =
  /// encode(x). [B]
  torch::Tensor generative_loss(const torch::Tensor& x, const torch::Tensor& h,
                                const torch::Tensor& weights) const;
  /// Features of each class out of `classes` (int64 [B]), drawn from its prior, without gradients.
  torch::Tensor sample(const torch::Tensor& classes) const;

  void each_tensor(const TensorVisitor& visit);
  Dense encoder1, encoder2, head, mean, logvar, decoder1, decoder2, decoder3;
  torch::Tensor prior_mean, prior_logvar;  // [C, Z]
  torch::Tensor gates1, gates2;            // [C, H], 0 or 1, fixed
};

/// Deep generative replay's VAE on pictures of `size` x `size` (Shin et al. 2017), in the sizes of
/// van de Ven et al.: five convolutions down to 256 x size/16 x size/16, two dense layers, a latent
/// standard Gaussian, and all of it backwards. Its output is linear: pictures may be normalised.
struct ConvVae {
  ConvVae() = default;
  ConvVae(int64_t size, int64_t hidden, int64_t latent, const torch::Device& device);

  /// Half the squared error plus the KL divergence, both divided by the number of a picture's
  /// values, of each row. Batch norm follows the batch. [B, 3, size, size] -> [B]
  torch::Tensor loss(const torch::Tensor& pictures) const;
  /// z [B, Z] -> [B, 3, size, size]
  torch::Tensor decode(const torch::Tensor& z, bool training) const;

  void each_tensor(const TensorVisitor& visit);
  int64_t coarse = 0;  // size / 16
  std::vector<ConvLayer> down, up;
  Dense encoder1, encoder2, mean, logvar, decoder1, decoder2, decoder3;
};

}  // namespace rep
