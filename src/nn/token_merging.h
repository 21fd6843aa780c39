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
  torch::Tensor kept;    // int64 [B, |A|-r, 1]: A tokens that stay
  torch::Tensor source;  // int64 [B, r, 1]: A tokens that are merged
  torch::Tensor target;  // int64 [B, r, 1]: the B token each is merged into
  int64_t tokens = 0;    // N before
  int64_t r = 0;         // tokens removed
};

/// metric [B, N, d]. With `class_token`, token 0 is never merged and stays first. r is cut to half
/// of the tokens that may be merged.
Matching match_tokens(const torch::Tensor& metric, int64_t r, bool class_token);

/// x [B, N, d] -> sums over merged tokens [B, N-r, d], in ToMe's order [kept A | B].
torch::Tensor merge_sum(const torch::Tensor& x, const Matching& matching);

/// The most that can merge out of `tokens` of which `fixed` may not: what match_tokens cuts r to.
int64_t mergeable(int64_t tokens, int64_t fixed);

/// Tokens to merge in each block. atom: REP Algorithm 1, min(r_max (l-1)/(K-1), r_max) rounded
/// down, r_max = 2 n; tome: n in every block; none: all 0.
std::vector<int64_t> merging_schedule(const TokenMergingConfig& config, int64_t depth);

}  // namespace rep
