#pragma once

#include <torch/types.h>

#include <cstdint>
#include <string>
#include <vector>

#include "kernels/low_rank_products.h"
#include "kernels/token_rows.h"
#include "tensor/state.h"

namespace rep {

/// What low-rank branches make of one frozen block (LoRA, Hu et al., arXiv 2106.09685).
struct BlockBranches {
  LowRankPairs qkv, fc1, fc2;  // beside the block's layers; rows of qkv are [q | k | v]
  torch::Tensor qkv_weight;    // [3 D, D] in the place of the block's own; undefined: its own
};

/// The pairs of a layer whose input's norm was folded into its weight: what was `down` of norm(x)
/// is down diag(w), and a bias, of (x - mean) / deviation. Unchanged where `norm` has no weight.
LowRankPairs after_folded_norm(LowRankPairs pairs, const Norm& norm);

/// One branch in every block of a ViT: thin pairs beside some of q, k, v, fc1 and fc2.
class Lora {
 public:
  struct Options {
    int64_t rank = 10;
    std::vector<std::string> targets;  // of q, k, v, fc1, fc2
    bool shared_down = false;          // one `down` for all of q, k and v
  };
  /// Throws Error for another target.
  static void check_targets(const std::vector<std::string>& targets, const std::string& key);

  /// None.
  Lora() = default;
  /// down: torch.nn.Linear's U(+-1 / sqrt in), up: 0, so that at first nothing changes.
  Lora(int64_t depth, int64_t dim, int64_t mlp_dim, const Options& options, torch::Device device);

  int64_t depth() const { return static_cast<int64_t>(blocks_.size()); }
  int64_t targets() const { return static_cast<int64_t>(options_.targets.size()); }
  torch::Tensor& down(int64_t block, int64_t target) { return at(block, target).down; }
  torch::Tensor& up(int64_t block, int64_t target) { return at(block, target).up; }
  std::vector<torch::Tensor> downs() const;  // each once
  std::vector<torch::Tensor> ups() const;
  int64_t numel() const;
  void freeze();
  /// Puts the branch beside the block's layers; a pair's output times `gain` where that is defined,
  /// a scalar tensor.
  void add_to(BlockBranches& branches, int64_t block, const torch::Tensor& gain = {}) const;
  void state(State& s);

 private:
  struct Target {
    torch::Tensor down, up;
  };
  Target& at(int64_t block, int64_t target) {
    return blocks_[static_cast<size_t>(block)][static_cast<size_t>(target)];
  }
  Options options_;
  int64_t dim_ = 0;
  std::vector<std::vector<Target>> blocks_;  // [K][targets]
};

/// Pairs that add to the same outputs as one of their ranks' sum.
LowRankPairs joined(const LowRankPairs& pairs);

/// Moves the pairs beside qkv into a weight of its own: one plain product at test. Pairs beside a
/// weight of bf16 stay, since its seven bits would round small branches away.
void fold_qkv(BlockBranches& branches, const torch::Tensor& own_weight);

}  // namespace rep
