#include "methods/key_matching.h"

#include "tensor/torch.h"

namespace rep {

namespace {

// x / sqrt(max(sum x^2, 1e-12)), rows
torch::Tensor l2_normalise(const torch::Tensor& x) {
  return x * x.square().sum(-1, /*keepdim=*/true).clamp_min(1e-12).rsqrt();
}

}  // namespace

torch::Tensor KeyMatch::pull(const torch::Tensor& rows) const {
  return cosine.gather(1, rows).sum() / static_cast<double>(rows.size(0));
}

KeyMatch match_keys(const torch::Tensor& query, const torch::Tensor& keys, int64_t top_k,
                    bool batchwise) {
  KeyMatch match;
  match.cosine = torch::mm(l2_normalise(query), l2_normalise(keys).t());
  match.ids = std::get<1>(match.cosine.detach().topk(top_k));
  if (batchwise) {
    // Rows that nobody chose count 0 and may still fill up the vote.
    const torch::Tensor votes = torch::bincount(match.ids.flatten(), {}, keys.size(0));
    match.ids = std::get<1>(votes.topk(top_k)).expand({query.size(0), top_k});
  }
  return match;
}

}  // namespace rep
