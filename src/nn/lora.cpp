#include "nn/lora.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "core/error.h"
#include "tensor/torch.h"

namespace rep {

namespace {

const std::array<const char*, 5> kTargets{"q", "k", "v", "fc1", "fc2"};

int64_t place_of(const std::string& target) {
  return std::find(kTargets.begin(), kTargets.end(), target) - kTargets.begin();
}
bool is_in_attention(const std::string& target) { return place_of(target) < 3; }

torch::Tensor random_down(int64_t rank, int64_t in, torch::Device device) {
  const double bound = 1 / std::sqrt(static_cast<double>(in));
  return ((torch::rand({rank, in}) * 2 - 1) * bound).to(device).set_requires_grad(true);
}

}  // namespace

LowRankPairs after_folded_norm(LowRankPairs pairs, const Norm& norm) {
  if (!norm.weight.defined()) return pairs;
  for (LowRankPair& pair : pairs) {
    const torch::Tensor bias = torch::mv(pair.down, norm.bias);
    pair.bias = pair.bias.defined() ? pair.bias + bias : bias;
    pair.down = pair.down * norm.weight;
  }
  return pairs;
}

void Lora::check_targets(const std::vector<std::string>& targets, const std::string& key) {
  if (targets.empty()) throw Error(key + ": name at least one of q, k, v, fc1, fc2");
  for (size_t i = 0; i < targets.size(); ++i) {
    const bool twice = std::count(targets.begin(), targets.end(), targets[i]) > 1;
    if (place_of(targets[i]) < static_cast<int64_t>(kTargets.size()) && !twice) continue;
    throw Error(key + ": '" + targets[i] +
                (twice ? "' is named twice" : "' is none of q, k, v, fc1, fc2"));
  }
}

Lora::Lora(int64_t depth, int64_t dim, int64_t mlp_dim, const Options& options,
           torch::Device device)
    : options_(options), dim_(dim) {
  for (int64_t i = 0; i < depth; ++i) {
    std::vector<Target> block;
    torch::Tensor shared;
    for (const std::string& name : options.targets) {
      torch::Tensor down;
      if (options.shared_down && is_in_attention(name)) {
        if (!shared.defined()) shared = random_down(options.rank, dim, device);
        down = shared;
      } else {
        down = random_down(options.rank, name == "fc2" ? mlp_dim : dim, device);
      }
      const int64_t out = name == "fc1" ? mlp_dim : dim;
      block.push_back({down, torch::zeros({out, options.rank}, device).set_requires_grad(true)});
    }
    blocks_.push_back(std::move(block));
  }
}

std::vector<torch::Tensor> Lora::downs() const {
  std::vector<torch::Tensor> all;
  for (const auto& block : blocks_) {
    for (const Target& target : block) {
      const auto same = [&](const torch::Tensor& t) { return t.is_same(target.down); };
      if (std::none_of(all.begin(), all.end(), same)) all.push_back(target.down);
    }
  }
  return all;
}

std::vector<torch::Tensor> Lora::ups() const {
  std::vector<torch::Tensor> all;
  for (const auto& block : blocks_) {
    for (const Target& target : block) all.push_back(target.up);
  }
  return all;
}

int64_t Lora::numel() const {
  int64_t sum = 0;
  for (const auto& t : downs()) sum += t.numel();
  for (const auto& t : ups()) sum += t.numel();
  return sum;
}

void Lora::freeze() {
  for (auto& t : downs()) t.set_requires_grad(false);
  for (auto& t : ups()) t.set_requires_grad(false);
}

void Lora::add_to(BlockBranches& branches, int64_t block, const torch::Tensor& gain) const {
  const auto& targets = blocks_[static_cast<size_t>(block)];
  for (size_t i = 0; i < targets.size(); ++i) {
    const int64_t place = place_of(options_.targets[i]);
    LowRankPairs& pairs = place < 3 ? branches.qkv : place == 3 ? branches.fc1 : branches.fc2;
    LowRankPair pair{targets[i].down, targets[i].up, place < 3 ? place * dim_ : 0, {}, {}};
    if (gain.defined()) pair.gains = gain.expand({targets[i].down.size(0)});
    // Neighbours with one `down` are one pair.
    if (!pairs.empty() && pairs.back().down.is_same(pair.down) &&
        pairs.back().first + pairs.back().up.size(0) == pair.first) {
      pairs.back().up = torch::cat({pairs.back().up, pair.up});
    } else {
      pairs.push_back(pair);
    }
  }
}

void Lora::state(State& s) {
  for (size_t i = 0; i < blocks_.size(); ++i) {
    for (size_t j = 0; j < blocks_[i].size(); ++j) {
      Target& target = blocks_[i][j];
      s.scope(std::to_string(i) + "." + options_.targets[j], [&](State& inner) {
        bool again = false;
        for (size_t k = 0; k < j; ++k) again |= target.down.is_same(blocks_[i][k].down);
        if (!again) inner("down", target.down);
        inner("up", target.up);
      });
    }
  }
}

LowRankPairs joined(const LowRankPairs& pairs) {
  const auto gains_of = [](const LowRankPair& pair) {
    return pair.gains.defined() ? pair.gains
                                : torch::ones({pair.down.size(0)}, pair.down.options());
  };
  LowRankPairs all;
  for (const LowRankPair& pair : pairs) {
    TORCH_CHECK(!pair.bias.defined(), "pairs are joined before they are put into a pass");
    const auto found = std::find_if(all.begin(), all.end(), [&](const LowRankPair& other) {
      return other.first == pair.first && other.up.size(0) == pair.up.size(0);
    });
    if (found == all.end()) {
      all.push_back(pair);
      continue;
    }
    if (found->gains.defined() || pair.gains.defined()) {
      found->gains = torch::cat({gains_of(*found), gains_of(pair)});
    }
    found->down = torch::cat({found->down, pair.down});
    found->up = torch::cat({found->up, pair.up}, 1);
  }
  return all;
}

void fold_qkv(BlockBranches& branches, const torch::Tensor& own_weight) {
  const torch::Tensor& weight = branches.qkv_weight.defined() ? branches.qkv_weight : own_weight;
  if (branches.qkv.empty() || weight.scalar_type() != torch::kFloat) return;
  const torch::NoGradGuard no_grad;
  branches.qkv_weight = folded(weight, branches.qkv);
  branches.qkv.clear();
}

}  // namespace rep
