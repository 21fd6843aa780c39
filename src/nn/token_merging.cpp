// ToMe: Token Merging (Bolya et al., arXiv 2210.09461) and REP's AToM (arXiv 2406.04772, Algorithm
// 1). The idea in three lines: in every block, tokens whose attention keys are alike are averaged
// into one; ToMe takes the same number from each block, AToM none from the first and most from the
// last, and never touches prompts. Differs from ToMe's code: matching and merging are pure
// functions of tensors.
#include "nn/token_merging.h"

#include <algorithm>
#include <limits>
#include <tuple>

#include "tensor/torch.h"

namespace rep {

namespace {

torch::Tensor evens(const torch::Tensor& x) { return x.slice(1, 0, x.size(1), 2); }
torch::Tensor odds(const torch::Tensor& x) { return x.slice(1, 1, x.size(1), 2); }

}  // namespace

int64_t mergeable(int64_t tokens, int64_t fixed) {
  return std::max<int64_t>(0, (tokens - fixed) / 2);
}

Matching match_tokens(const torch::Tensor& metric, int64_t r, bool class_token) {
  torch::NoGradGuard no_grad;
  Matching matching;
  matching.tokens = metric.size(1);
  matching.r = std::min(r, mergeable(matching.tokens, class_token ? 1 : 0));
  if (matching.r <= 0) {
    matching.r = 0;
    return matching;
  }
  const torch::Tensor unit = metric / metric.norm(2, -1, /*keepdim=*/true);
  const torch::Tensor a = evens(unit), b = odds(unit);
  const torch::Tensor scores = torch::bmm(a, b.transpose(1, 2));
  if (class_token) scores.select(1, 0).fill_(-std::numeric_limits<float>::infinity());
  const auto [best, partner] = scores.max(-1);  // [B, |A|]
  const torch::Tensor order = best.argsort(-1, /*descending=*/true);
  const int64_t A = order.size(1);
  torch::Tensor kept = order.narrow(1, matching.r, A - matching.r);
  if (class_token) kept = std::get<0>(kept.sort(1));
  const torch::Tensor source = order.narrow(1, 0, matching.r);
  matching.kept = kept.unsqueeze(-1);
  matching.source = source.unsqueeze(-1);
  matching.target = partner.gather(1, source).unsqueeze(-1);
  return matching;
}

torch::Tensor merge_sum(const torch::Tensor& x, const Matching& matching) {
  if (matching.r == 0) return x;
  const int64_t d = x.size(2);
  const torch::Tensor a = evens(x), b = odds(x);
  const torch::Tensor kept = a.gather(1, matching.kept.expand({-1, -1, d}));
  const torch::Tensor moved = a.gather(1, matching.source.expand({-1, -1, d}));
  return torch::cat({kept, b.scatter_add(1, matching.target.expand({-1, -1, d}), moved)}, 1);
}

std::vector<int64_t> merging_schedule(const TokenMergingConfig& config, int64_t depth) {
  std::vector<int64_t> merge(static_cast<size_t>(depth), 0);
  if (config.kind == "none") return merge;
  for (int64_t i = 0; i < depth; ++i) {
    // AToM: delta (l - 1) with delta = r_max / (K - 1), rounded down; in whole numbers, so exact.
    const int64_t r_max = 2 * config.n;
    merge[static_cast<size_t>(i)] =
        config.kind == "tome" ? config.n : (depth > 1 ? r_max * i / (depth - 1) : 0);
  }
  return merge;
}

}  // namespace rep
