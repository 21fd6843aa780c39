#pragma once

#include <torch/types.h>

#include <cstdint>
#include <string>
#include <vector>

#include "tensor/state.h"

namespace rep {

/// A bottleneck of a block's MLP h(x) = mlp(norm2(x)): a(v) = scale (up drop(relu(down v))), in
/// parallel x + h(x) + a(x) (AdaptFormer, Chen et al., arXiv 2205.13535) or in series
/// x + h(x) + a(h(x)) (Houlsby et al., arXiv 1902.00751).
struct Adapter {
  torch::Tensor down_weight, down_bias;  // [r, D], [r]
  torch::Tensor up_weight, up_bias;      // [D, r], [D]
  double scale = 0.1;
  double dropout = 0;  // of the hidden units, drawn from torch's default generator on the CPU
  bool in_series = false;
};

/// Given x [B, N, D] and x + h(x): with the adapter's part.
torch::Tensor add_adapter(const Adapter& adapter, const torch::Tensor& x, const torch::Tensor& y);

/// One adapter in every block, all trained together.
class AdapterSet {
 public:
  struct Options {
    int64_t bottleneck = 64;
    double scale = 0.1;
    double dropout = 0;
    bool in_series = false;
  };
  /// None.
  AdapterSet() = default;
  /// down: torch.nn.Linear's U(+-1 / sqrt D), everything else 0, so that at first nothing changes.
  AdapterSet(int64_t depth, int64_t dim, const Options& options, torch::Device device);

  bool empty() const { return blocks_.empty(); }
  /// For a ForwardPlan: with dropout in training steps, without elsewhere.
  std::vector<Adapter> for_training() const { return blocks_; }
  std::vector<Adapter> for_testing() const;
  std::vector<torch::Tensor> parameters() const;
  int64_t numel() const;
  void freeze();
  void state(State& s);

 private:
  std::vector<Adapter> blocks_;
};

}  // namespace rep
