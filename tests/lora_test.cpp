// LoRA's branches and adapters beside a frozen ViT's fused steps: what the same formulas give op by
// op, values and gradients.
#include "nn/lora.h"

#include <gtest/gtest.h>

#include <functional>
#include <string>
#include <vector>

#include "core/error.h"
#include "nn/adapter.h"
#include "nn/reference_vit.h"
#include "nn/vit.h"
#include "tensor/meter.h"
#include "tensor/torch.h"

namespace rep {
namespace {

using torch::Tensor;

void expect_close(const Tensor& actual, const Tensor& expected, const std::string& what,
                  double tolerance = 2e-5) {
  ASSERT_TRUE(actual.defined() && expected.defined()) << what;
  ASSERT_EQ(actual.sizes(), expected.sizes()) << what;
  const double scale = std::max(1e-3, expected.abs().max().item<double>());
  EXPECT_LT((actual - expected).abs().max().item<double>(), tolerance * scale) << what;
}

class BesideTheFrozenVit : public ::testing::Test {
 protected:
  void SetUp() override {
    install_meter();
    torch::manual_seed(11);
    vit = make();
    torch::manual_seed(12);
    images = torch::randn({3, 3, 32, 32});
    direction = torch::randn({3, 96});
  }
  static VisionTransformer make() {
    torch::manual_seed(11);
    VisionTransformer vit(vit_options("vit_nano"));
    const torch::NoGradGuard no_grad;
    for (auto& item : vit->named_parameters()) {
      const bool norm = item.key().find("norm") != std::string::npos;
      if (norm && item.value().dim() == 1) item.value().add_(torch::randn_like(item.value()) * 0.2);
      if (!norm && item.value().dim() == 2) item.value().mul_(4);
    }
    vit->train_last_blocks(0);
    return vit;
  }
  Lora branch(const std::vector<std::string>& targets, bool shared = false) const {
    Lora lora(6, 96, 384, {4, targets, shared}, torch::kCPU);
    const torch::NoGradGuard no_grad;
    for (auto& up : lora.ups()) up.copy_(torch::randn_like(up) * 0.1);
    return lora;
  }
  static std::vector<BlockBranches> beside(const Lora& lora, const Tensor& gain = {}) {
    std::vector<BlockBranches> all(6);
    for (int64_t i = 0; i < 6; ++i) lora.add_to(all[static_cast<size_t>(i)], i, gain);
    return all;
  }
  struct Result {
    Tensor features;
    std::vector<Tensor> gradients;
  };
  Result run(VisionTransformer& of, const ForwardPlan& plan, const std::vector<Tensor>& learned) {
    const Tensor features = of->features(images, plan);
    return {features.detach(),
            torch::autograd::grad({(features * direction).sum()}, learned, {}, {}, false,
                                  /*allow_unused=*/true)};
  }
  static void expect_same(const Result& actual, const Result& expected, double tolerance = 2e-5) {
    expect_close(actual.features, expected.features, "features", tolerance);
    // Through all blocks in another order of sums, which the number of threads moves, too.
    const double of_gradients = std::max(tolerance, 5e-5);
    for (size_t i = 0; i < actual.gradients.size(); ++i) {
      expect_close(actual.gradients[i], expected.gradients[i], "gradient " + std::to_string(i),
                   of_gradients);
    }
  }

  VisionTransformer vit{nullptr};
  Tensor images, direction;
};

// The branches as part of the weights, every block op by op in plain LibTorch.
Tensor with_weights_of(VisionTransformer& vit, const Tensor& images, const Lora& lora,
                       const std::vector<std::string>& targets, const Tensor& gain) {
  Lora copy = lora;
  const auto delta = [&](int64_t block, const std::string& name, const Tensor& weight) {
    for (size_t j = 0; j < targets.size(); ++j) {
      if (targets[j] != name) continue;
      const auto t = static_cast<int64_t>(j);
      return gain * torch::mm(copy.up(block, t), copy.down(block, t));
    }
    return torch::zeros_like(weight);
  };
  Tensor x =
      torch::cat(
          {vit->cls_token.expand({images.size(0), 1, -1}), vit->patch_embed->forward(images)}, 1) +
      vit->pos_embed;
  for (int64_t i = 0; i < 6; ++i) {
    auto& block = vit->blocks[static_cast<size_t>(i)];
    const auto rows = block->attn->qkv->weight.chunk(3), biases = block->attn->qkv->bias.chunk(3);
    const Tensor n = block->norm1->forward(x);
    std::vector<Tensor> parts;
    for (size_t p = 0; p < 3; ++p) {
      const std::string name(1, "qkv"[p]);
      parts.push_back(torch::linear(n, rows[p] + delta(i, name, rows[p]), biases[p])
                          .unflatten(-1, {3, 32})
                          .transpose(1, 2));
    }
    const Tensor weights =
        (torch::matmul(parts[0], parts[1].transpose(-2, -1)) / std::sqrt(32.0)).softmax(-1);
    const Tensor mixed = torch::matmul(weights, parts[2]).transpose(1, 2).flatten(2);
    x = x + torch::linear(mixed, block->attn->proj->weight, block->attn->proj->bias);
    const Tensor w1 = block->mlp->fc1->weight, w2 = block->mlp->fc2->weight;
    const Tensor hidden = torch::gelu(
        torch::linear(block->norm2->forward(x), w1 + delta(i, "fc1", w1), block->mlp->fc1->bias));
    x = x + torch::linear(hidden, w2 + delta(i, "fc2", w2), block->mlp->fc2->bias);
  }
  return vit->norm->forward(x).select(1, 0);
}

class EveryTarget : public BesideTheFrozenVit,
                    public ::testing::WithParamInterface<std::vector<std::string>> {};

TEST_P(EveryTarget, IsPartOfTheWeights) {
  for (const double share : {0.0, 1.0}) {
    vit->recompute_mlps(share);
    const Lora lora = branch(GetParam());
    const Tensor gain = torch::tensor(0.7).set_requires_grad(true);
    std::vector<Tensor> learned = lora.downs();
    for (const Tensor& up : lora.ups()) learned.push_back(up);
    learned.push_back(gain);
    ForwardPlan plan;
    plan.branches = beside(lora, gain);
    const Tensor features = with_weights_of(vit, images, lora, GetParam(), gain);
    const Result expected{features.detach(),
                          torch::autograd::grad({(features * direction).sum()}, learned)};
    expect_same(run(vit, plan, learned), expected);
    const VitOperations& own = vit->compute_with(kReferenceOperations);
    expect_same(run(vit, plan, learned), expected);
    vit->compute_with(own);
  }
}

INSTANTIATE_TEST_SUITE_P(Targets, EveryTarget,
                         ::testing::Values(std::vector<std::string>{"q"},
                                           std::vector<std::string>{"k", "v"},
                                           std::vector<std::string>{"q", "v"},
                                           std::vector<std::string>{"fc1"},
                                           std::vector<std::string>{"fc2"},
                                           std::vector<std::string>{"q", "k", "v", "fc1", "fc2"}),
                         [](const auto& test) {
                           std::string name;
                           for (const auto& target : test.param) name += target;
                           return name;
                         });

TEST_F(BesideTheFrozenVit, ASharedDownIsOneProductForNeighbours) {
  const Lora lora = branch({"k", "v"}, /*shared=*/true);
  EXPECT_EQ(lora.downs().size(), 6u);
  const auto branches = beside(lora);
  ASSERT_EQ(branches[0].qkv.size(), 1u);
  EXPECT_EQ(branches[0].qkv[0].first, 96);
  std::vector<Tensor> learned = lora.downs();
  for (const Tensor& up : lora.ups()) learned.push_back(up);
  ForwardPlan plan;
  plan.branches = branches;
  const Tensor features = with_weights_of(vit, images, lora, {"k", "v"}, torch::ones({}));
  expect_same(run(vit, plan, learned),
              {features.detach(), torch::autograd::grad({(features * direction).sum()}, learned)});
}

TEST_F(BesideTheFrozenVit, FoldsIntoOnePlainProduct) {
  const torch::NoGradGuard no_grad;
  const Lora first = branch({"q", "v"}), second = branch({"q", "v"});
  ForwardPlan thin, folded;
  thin.branches = beside(first);
  for (int64_t i = 0; i < 6; ++i) {
    const auto block = static_cast<size_t>(i);
    second.add_to(thin.branches[block], i, torch::tensor(0.5));
    folded.branches.push_back(thin.branches[block]);
    fold_qkv(folded.branches[block], vit->blocks[block]->attn->qkv->weight);
    EXPECT_TRUE(folded.branches[block].qkv.empty());
    EXPECT_EQ(joined(thin.branches[block].qkv).size(), 2u);
  }
  const Tensor plain = vit->features(images);
  const int64_t before = macs_so_far();
  const Tensor features = vit->features(images, folded);
  const int64_t macs = macs_so_far() - before;
  expect_close(vit->features(images, thin), features, "features");
  for (auto& branches : thin.branches) branches.qkv = joined(branches.qkv);
  expect_close(vit->features(images, thin), features, "joined");
  EXPECT_GT((features - plain).abs().max().item<double>(), 0.01);
  const int64_t start = macs_so_far();
  vit->features(images);
  EXPECT_EQ(macs, macs_so_far() - start) << "a merged pass costs what a plain one does";
}

TEST_F(BesideTheFrozenVit, TwoLowRankProductsATokenAreAllThatIsAdded) {
  const torch::NoGradGuard no_grad;
  ForwardPlan plan;
  plan.branches = beside(branch({"k", "v"}, true));
  const int64_t start = macs_so_far();
  vit->features(images);
  const int64_t plain = macs_so_far() - start;
  vit->features(images, plan);
  const int64_t tokens = 3 * 65, r = 4, D = 96;
  EXPECT_EQ(macs_so_far() - start - 2 * plain, 6 * tokens * (D * r + r * 2 * D));
}

TEST_F(BesideTheFrozenVit, MergesAndDropsAsTheViTWithTheSameWeightsDoes) {
  const Lora lora = branch({"k", "v"});
  ForwardPlan plan, plain;
  plain.merge = {0, 3, 6, 6, 0, 4};
  plain.skip = {false, true, false, false, true, false};
  plain.proportional_attention = true;
  plan = plain;
  plan.branches = beside(lora);
  VisionTransformer other = make();
  for (int64_t i = 0; i < 6; ++i) {
    const torch::NoGradGuard no_grad;
    auto& weight = other->blocks[static_cast<size_t>(i)]->attn->qkv->weight;
    weight.copy_(folded(weight, plan.branches[static_cast<size_t>(i)].qkv));
  }
  const Result result = run(vit, plan, lora.ups());
  expect_close(result.features, other->features(images, plain), "features");
  for (size_t i = 0; i < 12; ++i) {
    EXPECT_EQ(result.gradients[i].defined(), !plain.skip[i / 2]) << "block " << i / 2;
  }
}

TEST_F(BesideTheFrozenVit, RunsInBf16AsInFp32ButForRounding) {
  const Lora lora = branch({"q", "v", "fc1", "fc2"});
  std::vector<Tensor> learned = lora.downs();
  for (const Tensor& up : lora.ups()) learned.push_back(up);
  ForwardPlan plan;
  plan.branches = beside(lora);
  std::vector<Tensor> seen, seen_in_bf16;
  plan.observe = [&](const Tensor& x, int64_t) { seen.push_back(x.detach()); };
  const Result expected = run(vit, plan, learned);
  vit->multiply_in_bf16();
  plan.observe = [&](const Tensor& x, int64_t) { seen_in_bf16.push_back(x.detach()); };
  const Result result = run(vit, plan, learned);
  expect_close(result.features, expected.features, "features", 0.05);
  for (size_t i = 0; i < learned.size(); ++i) {
    const Tensor &g = result.gradients[i], &e = expected.gradients[i];
    EXPECT_LT((g - e).norm().item<double>(), 0.1 * e.norm().item<double>()) << i;
  }
  ASSERT_EQ(seen.size(), 6u);
  expect_close(seen_in_bf16[0], seen[0], "what a folded norm shows", 1e-5);
  // Weights of bf16 would round small branches away.
  BlockBranches branches = plan.branches[0];
  fold_qkv(branches, vit->blocks[0]->attn->qkv->weight);
  EXPECT_EQ(branches.qkv.size(), 2u);
}

TEST_F(BesideTheFrozenVit, ShowsTheInputsOfAttention) {
  const torch::NoGradGuard no_grad;
  std::vector<int64_t> blocks;
  Tensor first;
  ForwardPlan plan;
  plan.skip = {false, true, false, false, false, false};
  plan.observe = [&](const Tensor& x, int64_t block) {
    blocks.push_back(block);
    if (block == 0) first = x;
  };
  vit->features(images, plan);
  EXPECT_EQ(blocks, (std::vector<int64_t>{0, 2, 3, 4, 5}));
  const Tensor tokens =
      torch::cat({vit->cls_token.expand({3, 1, -1}), vit->patch_embed->forward(images)}, 1) +
      vit->pos_embed;
  expect_close(first, vit->blocks[0]->norm1->forward(tokens).flatten(0, 1), "tokens");
}

TEST(LoraTargets, MustBeKnownAndNamedOnce) {
  Lora::check_targets({"q", "fc2"}, "method.targets");
  for (const auto& wrong : {std::vector<std::string>{}, {"x"}, {"q", "q"}}) {
    EXPECT_THROW(Lora::check_targets(wrong, "method.targets"), Error);
  }
}

// ---- adapters ----

class AdapterTest : public BesideTheFrozenVit, public ::testing::WithParamInterface<bool> {
 protected:
  AdapterSet set(double dropout = 0) {
    AdapterSet adapters(6, 96, {8, 0.3, dropout, GetParam()}, torch::kCPU);
    const torch::NoGradGuard no_grad;
    for (auto& parameter : adapters.parameters()) {
      parameter.copy_(torch::randn_like(parameter) * 0.2);
    }
    return adapters;
  }
};

TEST_P(AdapterTest, IsItsFormula) {
  const AdapterSet adapters = set();
  const Tensor x = torch::randn({2, 5, 96}).set_requires_grad(true);
  auto& block = vit->blocks[2];
  const Adapter a = adapters.for_training()[2];
  std::vector<Tensor> learned{x, a.down_weight, a.down_bias, a.up_weight, a.up_bias};
  const auto slopes = [&](const Tensor& y) {
    return torch::autograd::grad({y.square().sum()}, learned);
  };
  const Tensor h =
      torch::linear(torch::gelu(torch::linear(block->norm2->forward(x), block->mlp->fc1->weight,
                                              block->mlp->fc1->bias)),
                    block->mlp->fc2->weight, block->mlp->fc2->bias);
  const Tensor expected =
      x + h +
      0.3 *
          torch::linear(torch::relu(torch::linear(GetParam() ? h : x, a.down_weight, a.down_bias)),
                        a.up_weight, a.up_bias);
  const Tensor actual = add_adapter(a, x, residual_mlp(x, block->norm2, block->mlp, 0));
  expect_close(actual, expected, "output");
  const auto is = slopes(actual), wanted = slopes(expected);
  for (size_t i = 0; i < is.size(); ++i) expect_close(is[i], wanted[i], std::to_string(i), 1e-4);
}

TEST_P(AdapterTest, StartsAsThePlainViT) {
  ForwardPlan plan;
  plan.adapters = AdapterSet(6, 96, {8, 0.3, 0.5, GetParam()}, torch::kCPU).for_training();
  expect_close(vit->features(images, plan).detach(), vit->features(images), "features", 1e-6);
}

TEST_P(AdapterTest, DropsHiddenUnitsInTrainingOnly) {
  const AdapterSet adapters = set(0.5);
  ForwardPlan training, testing;
  training.adapters = adapters.for_training();
  testing.adapters = adapters.for_testing();
  const torch::NoGradGuard no_grad;
  const Tensor fixed = vit->features(images, testing);
  EXPECT_TRUE(fixed.equal(vit->features(images, testing)));
  torch::manual_seed(1);
  const Tensor one = vit->features(images, training);
  EXPECT_FALSE(one.allclose(vit->features(images, training), 1e-4, 1e-4));
  torch::manual_seed(1);
  EXPECT_TRUE(one.equal(vit->features(images, training)));
  // In the mean over draws the hidden units are those of a test.
  Adapter a = adapters.for_training()[0];
  const Tensor x = torch::randn({40000, 1, 96}).narrow(0, 0, 1).expand({40000, 1, 96}).contiguous();
  const Tensor y = torch::zeros_like(x);
  const Tensor mean = add_adapter(a, x, y).mean(0);
  a.dropout = 0;
  expect_close(mean, add_adapter(a, x.narrow(0, 0, 1), y.narrow(0, 0, 1))[0], "mean", 0.03);
}

// What the MLP sees after a merge the adapter sees, too.
TEST_P(AdapterTest, SeesMergedTokensAndNoneOfADroppedBlock) {
  const AdapterSet adapters = set();
  ForwardPlan plan;
  plan.adapters = adapters.for_training();
  plan.merge = {0, 8, 8, 0, 8, 0};
  plan.skip = {false, false, false, true, false, false};
  const Result result = run(vit, plan, adapters.parameters());
  for (size_t i = 0; i < result.gradients.size(); ++i) {
    EXPECT_EQ(result.gradients[i].defined(), i / 4 != 3) << i;
  }
  // Block by block: the tokens after a block's merge and MLP, then the adapter by its formula. Of a
  // plan without adapters the tokens before the MLP are what an MLP of zeros lets through.
  VisionTransformer bare = make();
  {
    const torch::NoGradGuard no_grad;
    for (auto& block : bare->blocks) {
      block->mlp->fc2->weight.zero_();
      block->mlp->fc2->bias.zero_();
    }
  }
  const torch::NoGradGuard no_grad;
  ForwardPlan merging = plan;
  merging.adapters.clear();
  TokenStream stream;
  stream.x = torch::cat({vit->cls_token.expand({3, 1, -1}), vit->patch_embed->forward(images)}, 1) +
             vit->pos_embed;
  for (int64_t i = 0; i < 6; ++i) {
    if (plan.skips(i)) continue;
    const auto block = static_cast<size_t>(i);
    bare->blocks[block]->forward(stream, merging, i);
    auto& own = vit->blocks[block];
    const Tensor x = stream.x;
    stream.x = add_adapter(plan.adapters[block], x, residual_mlp(x, own->norm2, own->mlp, 0));
  }
  EXPECT_EQ(stream.x.size(1), 65 - 24);
  expect_close(result.features, vit->norm->forward(stream.x).select(1, 0), "features");
}

INSTANTIATE_TEST_SUITE_P(Places, AdapterTest, ::testing::Bool(), [](const auto& test) {
  return std::string(test.param ? "InSeries" : "InParallel");
});

}  // namespace
}  // namespace rep
