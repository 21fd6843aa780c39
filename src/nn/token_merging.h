#pragma once

#include <torch/types.h>

#include <cstdint>
#include <vector>

#include "core/config.h"

namespace rep {

/// Bipartite soft matching (ToMe, Bolya 2210.09461, section 3): which tokens are merged into which.
/// Tokens are split alternately into A (even) and B (odd); each A token points at its most similar
/// B token (cosine of `metric`); the r most similar edges merge. No gradient flows through the
/// choice.
struct Matching {
  torch::Tensor rows;  // int64 [B, N]: where each token goes, in ToMe's order [kept A | B];
                       // undefined when nothing merges
  int64_t tokens = 0;  // N before
  int64_t r = 0;       // tokens removed
};

/// metric [B, N, d]. With `class_token`, token 0 is never merged and stays first; neither are the
/// `prompts` tokens that follow it, which belong to no side. r is cut to half of the tokens that
/// may be merged.
Matching match_tokens(const torch::Tensor& metric, int64_t r, bool class_token,
                      int64_t prompts = 0);

/// What tokens stand for, sizes [B, N], summed over those that merge: [B, N-r].
torch::Tensor merge_sizes(const torch::Tensor& sizes, const Matching& matching);

/// x [B, N, D] -> means over merged tokens, weighted by weights [B, N] > 0 (which get no gradient):
/// [B, N-r, D]. A token that merges with none comes out in its own bits.
torch::Tensor merge_mean(const torch::Tensor& x, const torch::Tensor& weights,
                         const Matching& matching);

/// The most that can merge out of `tokens` of which `fixed` may not: what match_tokens cuts r to.
int64_t mergeable(int64_t tokens, int64_t fixed);

/// Tokens to merge in each block. atom: REP Algorithm 1, min(r_max (l-1)/(K-1), r_max) rounded
/// down, r_max = 2 n; tome: n in every block; none: all 0.
std::vector<int64_t> merging_schedule(const TokenMergingConfig& config, int64_t depth);

}  // namespace rep
