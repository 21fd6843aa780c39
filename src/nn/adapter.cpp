#include "nn/adapter.h"

#include <cmath>

#include "kernels/low_rank_products.h"
#include "tensor/torch.h"

namespace rep {

torch::Tensor add_adapter(const Adapter& adapter, const torch::Tensor& x, const torch::Tensor& y) {
  Bottleneck bottleneck{adapter.down_weight, adapter.down_bias, adapter.up_weight,
                        adapter.up_bias,     adapter.scale,     {}};
  if (adapter.dropout > 0) {
    const int64_t rows = x.numel() / x.size(-1), r = adapter.down_weight.size(0);
    const double keep = 1 - adapter.dropout;
    bottleneck.mask = torch::rand({rows, r}).lt(keep).to(x.device(), torch::kFloat) / keep;
  }
  return add_bottleneck(y, adapter.in_series ? y - x : x, bottleneck);
}

AdapterSet::AdapterSet(int64_t depth, int64_t dim, const Options& options, torch::Device device) {
  const double bound = 1 / std::sqrt(static_cast<double>(dim));
  const auto zeros = [&](at::IntArrayRef shape) {
    return torch::zeros(shape, device).set_requires_grad(true);
  };
  const int64_t r = options.bottleneck;
  for (int64_t i = 0; i < depth; ++i) {
    const torch::Tensor down = ((torch::rand({r, dim}) * 2 - 1) * bound).to(device);
    blocks_.push_back({down.set_requires_grad(true), zeros({r}), zeros({dim, r}), zeros({dim}),
                       options.scale, options.dropout, options.in_series});
  }
}

std::vector<Adapter> AdapterSet::for_testing() const {
  std::vector<Adapter> blocks = blocks_;
  for (Adapter& adapter : blocks) adapter.dropout = 0;
  return blocks;
}

std::vector<torch::Tensor> AdapterSet::parameters() const {
  std::vector<torch::Tensor> all;
  for (const Adapter& a : blocks_) {
    all.insert(all.end(), {a.down_weight, a.down_bias, a.up_weight, a.up_bias});
  }
  return all;
}

int64_t AdapterSet::numel() const {
  int64_t sum = 0;
  for (const auto& parameter : parameters()) sum += parameter.numel();
  return sum;
}

void AdapterSet::freeze() {
  for (auto& parameter : parameters()) parameter.set_requires_grad(false);
}

void AdapterSet::state(State& s) {
  for (size_t i = 0; i < blocks_.size(); ++i) {
    s.scope("adapter." + std::to_string(i), [&](State& inner) {
      inner("down.weight", blocks_[i].down_weight);
      inner("down.bias", blocks_[i].down_bias);
      inner("up.weight", blocks_[i].up_weight);
      inner("up.bias", blocks_[i].up_bias);
    });
  }
}

}  // namespace rep
