#include "methods/prompt_components.h"

#include <string>
#include <vector>

#include "core/error.h"
#include "tensor/torch.h"

namespace rep {

ComponentRange::ComponentRange(const MethodContext& context, int64_t pool_size,
                               int64_t prompt_length)
    : per_task_(pool_size / context.num_tasks) {
  const std::string pool = "method: pool_size " + std::to_string(pool_size);
  if (per_task_ == 0) {
    throw Error(pool + " leaves no component for each of " + std::to_string(context.num_tasks) +
                " tasks; make it at least that");
  }
  const int64_t rows = per_task_ * context.num_tasks;
  const int64_t width = context.vit()->options.embed_dim;
  if (rows > width) {
    throw Error(pool + " makes " + std::to_string(rows) + " components, and only " +
                std::to_string(width) +
                " can be orthogonal in the backbone's width; make it at most that");
  }
  if (prompt_length % 2 != 0) {
    throw Error("method: prompt_length " + std::to_string(prompt_length) +
                " must be even: half of the rows are keys, half values");
  }
}

void ComponentRange::begin_task(const Task& task) {
  first_ = task.index * per_task_;
  last_ = first_ + per_task_;
}

void ComponentRange::make_fresh(torch::Tensor& components) const {
  gram_schmidt(components, first_, last_);
}

torch::Tensor ComponentRange::live(const torch::Tensor& components) const {
  const torch::Tensor own = components.narrow(0, first_, last_ - first_);
  if (first_ == 0) return own;
  return torch::cat({components.narrow(0, 0, first_).detach(), own});
}

void ComponentRange::state(State& s) {
  s("first_component", first_);
  s("last_component", last_);
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
