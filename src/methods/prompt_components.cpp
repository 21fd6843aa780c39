#include "methods/prompt_components.h"

#include <vector>

#include "tensor/torch.h"

namespace rep {

torch::Tensor live_components(const torch::Tensor& components, int64_t first, int64_t last) {
  const torch::Tensor own = components.narrow(0, first, last - first);
  if (first == 0) return own;
  return torch::cat({components.narrow(0, 0, first).detach(), own});
}

void gram_schmidt(torch::Tensor& x, int64_t first, int64_t last, const torch::Tensor& draws) {
  torch::NoGradGuard no_grad;
  torch::Tensor rows = x.flatten(1);  // a view
  rows.narrow(0, last, rows.size(0) - last).zero_();
  for (int64_t k = first; k < last; ++k) {
    torch::Tensor row = draws[k - first];
    if (k > 0) {
      const torch::Tensor earlier = rows.narrow(0, 0, k);
      const torch::Tensor share = torch::mv(earlier, row) / earlier.square().sum(1).clamp_min(1e-8);
      row = row - torch::mv(earlier.t(), share);
    }
    rows[k].copy_(row);
  }
  torch::Tensor fresh = rows.narrow(0, first, last - first);
  fresh.div_(fresh.norm(2, 1, /*keepdim=*/true));
}

void gram_schmidt(torch::Tensor& x, int64_t first, int64_t last) {
  std::vector<torch::Tensor> draws;
  for (int64_t k = first; k < last; ++k) draws.push_back(torch::randn({x.numel() / x.size(0)}));
  gram_schmidt(x, first, last, torch::stack(draws).to(x.device()));
}

}  // namespace rep
