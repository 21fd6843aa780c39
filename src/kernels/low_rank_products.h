#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "tensor/torch.h"

namespace rep {

/// A low-rank update of a frozen layer, y += ((x down^T + bias) * gains) up^T (LoRA, Hu et
/// al., arXiv 2106.09685): two thin products a row, whatever the layer's size. fp32.
struct LowRankPair {
  torch::Tensor down;   // [r, in]
  torch::Tensor up;     // [out, r]
  int64_t first = 0;    // of the layer's outputs, that it adds to
  torch::Tensor bias;   // [r]; undefined: 0
  torch::Tensor gains;  // [r]; undefined: 1
};
using LowRankPairs = std::vector<LowRankPair>;

/// The layer's weight [out, in] and bias [out] with the pairs folded in, differentiable in the
/// pairs.
torch::Tensor folded(const torch::Tensor& weight, const LowRankPairs& pairs);
torch::Tensor folded_bias(const torch::Tensor& bias, const LowRankPairs& pairs);

/// The pairs of one layer inside an autograd function, forward and backward: the function takes
/// tensors() as inputs, keeps what kept() lists, and returns gradients() for those inputs.
class LowRankProducts {
 public:
  explicit LowRankProducts(const LowRankPairs& pairs);
  /// From tensors() and, once the forward pass was made, kept().
  LowRankProducts(at::TensorList tensors, std::vector<int64_t> firsts);
  static constexpr int64_t kTensors = 4;  // a pair, undefined ones as empty

  const std::vector<torch::Tensor>& tensors() const { return tensors_; }
  const std::vector<int64_t>& firsts() const { return firsts_; }
  bool train() const;
  /// y [rows, out] += the products of x [rows, in], in place. Types may be fp32 or bf16.
  void add(const torch::Tensor& y, const torch::Tensor& x);
  /// tensors(), and what add() made on the way.
  std::vector<torch::Tensor> kept() const;
  /// Given dy [rows, out]: dx [rows, in] += the pairs' share, in place, where dx is defined. `x`
  /// computes x, and is called only where a `down` trains.
  torch::autograd::variable_list gradients(const torch::Tensor& dy, const torch::Tensor& dx,
                                           const std::function<torch::Tensor()>& x) const;

 private:
  size_t size() const { return firsts_.size(); }
  const torch::Tensor& tensor(size_t pair, int64_t which) const;

  std::vector<torch::Tensor> tensors_;  // down, up, bias, gains of each
  std::vector<torch::Tensor> inner_;    // x down^T + bias of each, fp32 [rows, r]
  std::vector<int64_t> firsts_;
};

/// A bottleneck in parallel or in series with a layer: y + scale (relu(x down^T + down_bias) *
/// mask) up^T + scale up_bias (Houlsby et al., arXiv 1902.00751), keeping one copy of its hidden
/// units [.., r], for the gradient. `mask` [rows, r] is dropout's: undefined, or 0 and 1 / (1 - p).
struct Bottleneck {
  torch::Tensor down, down_bias;  // [r, in], [r]
  torch::Tensor up, up_bias;      // [out, r], [out]
  double scale = 1;
  torch::Tensor mask;
};
torch::Tensor add_bottleneck(const torch::Tensor& y, const torch::Tensor& x,
                             const Bottleneck& bottleneck);

}  // namespace rep
