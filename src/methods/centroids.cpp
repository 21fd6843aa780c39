#include "methods/centroids.h"

#include <vector>

#include "tensor/torch.h"

namespace rep {

namespace {

constexpr int64_t kMaxIterations = 300;  // scikit-learn's

// Squared distances of points [n, D] to centres [k, D]: [n, k].
torch::Tensor squared_distances(const torch::Tensor& x, const torch::Tensor& centres) {
  return (x.square().sum(1, /*keepdim=*/true) + centres.square().sum(1) -
          2 * torch::mm(x, centres.t()))
      .clamp_min(0);
}

// The first centre is any point, each next one a point drawn in proportion to its squared distance
// from the nearest centre so far.
torch::Tensor plus_plus_start(const torch::Tensor& x, int64_t k) {
  const int64_t n = x.size(0);
  std::vector<torch::Tensor> centres{x[torch::randint(n, {1}, torch::kLong).item<int64_t>()]};
  // Differences rather than squared_distances(): a point that is a centre must be at exactly 0.
  const auto distances = [&] { return (x - centres.back()).square().sum(1); };
  torch::Tensor nearest = distances();
  while (static_cast<int64_t>(centres.size()) < k && nearest.max().item<double>() > 0) {
    centres.push_back(x[torch::multinomial(nearest, 1).item<int64_t>()]);
    nearest = torch::minimum(nearest, distances());
  }
  return torch::stack(centres);
}

}  // namespace

Centroids k_means(const torch::Tensor& points, int64_t k) {
  torch::NoGradGuard no_grad;
  const torch::Tensor x = points.to(torch::kCPU, torch::kDouble);
  torch::Tensor centres = plus_plus_start(x, k);
  torch::Tensor members, counts, assigned;  // [n, k] of 0 and 1, [k, 1], int64 [n]
  for (int64_t i = 0; i < kMaxIterations; ++i) {
    const torch::Tensor before = assigned;
    assigned = squared_distances(x, centres).argmin(1);
    if (before.defined() && assigned.equal(before)) break;
    members = torch::one_hot(assigned, centres.size(0)).to(torch::kDouble);
    counts = members.sum(0).unsqueeze(1);
    // A group that lost all its points stays where it was.
    centres = torch::where(counts > 0, torch::mm(members.t(), x) / counts.clamp_min(1), centres);
  }
  const torch::Tensor kept = (counts.squeeze(1) > 0).nonzero().squeeze(1);
  const torch::Tensor deviations = (x - centres.index_select(0, assigned)).square();
  const torch::Tensor variances = torch::mm(members.t(), deviations) / counts.clamp_min(1);
  return {centres.index_select(0, kept), variances.index_select(0, kept)};
}

}  // namespace rep
