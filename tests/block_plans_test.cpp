// Blocks that the gradient goes around, and scaled ones, by algebra on a small random ViT.
#include <gtest/gtest.h>

#include <cstdint>
#include <string>
#include <tuple>
#include <vector>

#include "core/error.h"
#include "nn/efficiency.h"
#include "nn/vit.h"
#include "tensor/meter.h"
#include "tensor/torch.h"

namespace rep {
namespace {

using torch::Tensor;

constexpr int64_t kImages = 3, kDepth = 6, kPrompt = 4;

struct Rig {
  Rig() {
    torch::manual_seed(3);
    vit = VisionTransformer(vit_options("vit_nano"));
    {
      const torch::NoGradGuard no_grad;  // so that every branch counts
      for (auto& parameter : vit->parameters()) {
        if (parameter.dim() == 2) parameter.mul_(6);
      }
    }
    vit->train_last_blocks(0);
    images = torch::rand({kImages, 3, 32, 32});
    weights = torch::randn({kImages, 96});
    prompts = torch::randn({kImages, kPrompt, 96}).set_requires_grad(true);
    for (int64_t i = 0; i < kDepth; ++i) {
      prefixes.push_back(torch::randn({kImages, 2, kPrompt, 96}).set_requires_grad(true));
    }
  }
  ForwardPlan plan() const {
    ForwardPlan plan;
    plan.prompts = prompts;
    plan.prefixes = prefixes;
    return plan;
  }
  /// The features, and a weighted sum's gradients: of the prompts, then of each prefix.
  std::pair<Tensor, std::vector<Tensor>> pass(const ForwardPlan& plan) {
    const Tensor features = vit->features(images, plan);
    std::vector<Tensor> inputs{prompts};
    inputs.insert(inputs.end(), prefixes.begin(), prefixes.end());
    return {features.detach(),
            torch::autograd::grad({(features * weights).sum()}, inputs, {}, false, false, true)};
  }
  VisionTransformer vit{nullptr};
  Tensor images, weights, prompts;
  std::vector<Tensor> prefixes;
};

ForwardPlan detaching(ForwardPlan plan, std::vector<bool> blocks) {
  plan.detach = std::move(blocks);
  return plan;
}

class DetachedBlocks : public ::testing::Test {
 protected:
  static void SetUpTestSuite() { install_meter(); }
};

const std::vector<bool> kSome{true, false, true, true, false, true};

TEST_F(DetachedBlocks, RunForwardToTheSameBits) {
  Rig rig;
  for (const bool merging : {false, true}) {
    ForwardPlan plan = rig.plan();
    if (merging) plan.merge = {0, 4, 4, 8, 8, 8};
    plan.proportional_attention = merging;
    const auto [whole, ignored] = rig.pass(plan);
    EXPECT_TRUE(rig.pass(detaching(plan, kSome)).first.equal(whole)) << merging;
    const torch::NoGradGuard no_grad;
    EXPECT_TRUE(rig.vit->features(rig.images, detaching(plan, kSome)).equal(whole)) << merging;
  }
}

// The graph in which a detached block is x + constant, put together by hand.
TEST_F(DetachedBlocks, HaveTheGradientOfTheGraphWithoutTheirBranch) {
  Rig rig;
  const ForwardPlan plan = rig.plan();
  const auto [features, gradients] = rig.pass(detaching(plan, kSome));

  TokenStream stream;
  const Tensor first = rig.vit->pos_embed.narrow(1, 0, 1);
  stream.x =
      torch::cat({(rig.vit->cls_token + first).expand({kImages, -1, -1}), rig.prompts + first,
                  rig.vit->patch_embed->forward(rig.images) +
                      rig.vit->pos_embed.narrow(1, 1, rig.vit->options.num_patches())},
                 1);
  stream.prompts = kPrompt;
  for (int64_t i = 0; i < kDepth; ++i) {
    const Tensor before = stream.x;
    rig.vit->blocks[static_cast<size_t>(i)]->forward(stream, plan, i);
    if (kSome[static_cast<size_t>(i)]) stream.x = before + (stream.x - before).detach();
  }
  const Tensor expected = rig.vit->norm->forward(stream.x).select(1, 0);
  EXPECT_TRUE(features.allclose(expected.detach(), 1e-3, 1e-4));
  std::vector<Tensor> inputs{rig.prompts};
  inputs.insert(inputs.end(), rig.prefixes.begin(), rig.prefixes.end());
  const auto by_hand = torch::autograd::grad({(expected * rig.weights).sum()}, inputs, {}, false,
                                             false, /*allow_unused=*/true);
  for (size_t i = 0; i < inputs.size(); ++i) {
    ASSERT_EQ(gradients[i].defined(), by_hand[i].defined()) << i;
    EXPECT_EQ(gradients[i].defined(), i == 0 || !kSome[i - 1]) << "prefix of block " << i - 1;
    if (!gradients[i].defined()) continue;
    const double size = by_hand[i].abs().max().item<double>();
    EXPECT_GT(size, 0) << i;
    EXPECT_TRUE(gradients[i].allclose(by_hand[i], 1e-2, 1e-3 * size)) << i;
  }
}

// Where a block's branches are zero, whatever comes in, going around them changes nothing: what is
// left of the block is the merge, which the gradient goes through.
TEST_F(DetachedBlocks, LetTheGradientThroughTheirMerge) {
  Rig rig;
  {
    const torch::NoGradGuard no_grad;
    BlockImpl& block = *rig.vit->blocks[2];
    for (auto& linear : {block.attn->proj, block.mlp->fc2}) {
      linear->weight.zero_();
      linear->bias.zero_();
    }
  }
  ForwardPlan plan = rig.plan();
  plan.prefixes[2] = Tensor();
  plan.merge = {0, 0, 20, 0, 0, 0};
  const auto [features, whole] = rig.pass(plan);
  const auto [same, around] = rig.pass(detaching(plan, {false, false, true, false, false, false}));
  EXPECT_TRUE(same.equal(features));
  for (size_t i = 0; i < whole.size(); ++i) {
    if (!whole[i].defined()) continue;
    EXPECT_TRUE(around[i].allclose(whole[i], 1e-4, 1e-6)) << i;
  }
}

TEST_F(DetachedBlocks, CostNoBackwardPassAndKeepNothingForIt) {
  Rig rig;
  const auto backward_macs = [&](const std::vector<bool>& detach) {
    const Tensor tokens = rig.vit->forward(rig.images, detaching(rig.plan(), detach));
    const int64_t before = macs_so_far();
    tokens.sum().backward();
    return macs_so_far() - before;
  };
  const int64_t whole = backward_macs({});
  EXPECT_EQ(2 * backward_macs({true, false, true, false, true, false}), whole);
  EXPECT_EQ(backward_macs(std::vector<bool>(kDepth, true)), 0);

  const auto held_bytes = [&](const std::vector<bool>& detach) {
    const int64_t before = tensor_bytes();
    const Tensor tokens = rig.vit->forward(rig.images, detaching(rig.plan(), detach));
    return tensor_bytes() - before;
  };
  const int64_t all = held_bytes({}), half = held_bytes({true, false, true, false, true, false});
  const int64_t none = held_bytes(std::vector<bool>(kDepth, true));
  EXPECT_NEAR(static_cast<double>(all - half), static_cast<double>(half - none),
              0.02 * static_cast<double>(all));
  EXPECT_LT(none, all / 10);
}

// The same as a network whose branches end in scaled layers.
TEST(ScaledBlocks, HaveTheirResidualBranchesTimesTheFactor) {
  Rig rig, scaled;
  ForwardPlan plan = rig.plan(), with_factors = plan;
  with_factors.scale = {1, 2, 1, 1.25, 4, 1};
  {
    const torch::NoGradGuard no_grad;
    for (size_t i = 0; i < kDepth; ++i) {
      BlockImpl& block = *scaled.vit->blocks[i];
      for (auto& linear : {block.attn->proj, block.mlp->fc2}) {
        linear->weight.mul_(with_factors.scale[i]);
        linear->bias.mul_(with_factors.scale[i]);
      }
    }
  }
  const auto [found, gradients] = rig.pass(with_factors);
  scaled.prompts = rig.prompts;
  scaled.prefixes = rig.prefixes;
  const auto [expected, by_hand] = scaled.pass(plan);
  EXPECT_TRUE(found.allclose(expected, 1e-3, 1e-4));
  const Tensor plain = rig.pass(plan).first;
  EXPECT_FALSE(found.allclose(plain, 1e-2, 1e-2));
  for (size_t i = 0; i < by_hand.size(); ++i) {
    const double size = by_hand[i].abs().max().item<double>();
    EXPECT_TRUE(gradients[i].allclose(by_hand[i], 1e-2, 1e-3 * size)) << i;
  }
  plan.scale.assign(kDepth, 1);
  EXPECT_TRUE(rig.pass(plan).first.equal(plain)) << "a factor of 1 moves no bit";
}

EfficiencyConfig dropping_half() {
  EfficiencyConfig config;
  config.layer_dropping.kind = "random";
  config.layer_dropping.keep = 0.5;
  return config;
}

TEST(EfficiencyVariants, BackwardOnlyRunsEverythingAndLogsBothPasses) {
  Rig rig;
  EfficiencyConfig config = dropping_half();
  config.layer_dropping.backward_only = true;
  Efficiency efficiency(config, rig.vit.ptr(), VisionTransformer(nullptr), 5);
  int64_t in_backward = 0;
  StepLog log(kDepth);
  for (int64_t i = 0; i < 20; ++i) {
    efficiency.set_time({5, 0, i, i, 0});
    log.add(efficiency.planner.train_tokens({5, 0, i, i, 0}, 0));
    const ForwardPlan plan = efficiency.train_plan();
    for (int64_t block = 0; block < kDepth; ++block) {
      EXPECT_FALSE(plan.skips(block));
      in_backward += plan.detaches(block) ? 0 : 1;
    }
  }
  int64_t logged = 0;
  for (size_t block = 0; block < kDepth; ++block) {
    EXPECT_EQ(log.executions[block], 20);
    EXPECT_EQ(log.tokens[block], 20 * 65);
    EXPECT_EQ(log.backward_tokens[block], 65 * log.backward_executions[block]);
    logged += log.backward_executions[block];
  }
  EXPECT_EQ(logged, in_backward);
  EXPECT_GT(in_backward, 40);
  EXPECT_LT(in_backward, 80);
}

TEST(EfficiencyVariants, RescaleDividesWhatRunsByItsProbability) {
  Rig rig;
  EfficiencyConfig config = dropping_half();
  config.layer_dropping.rescale = true;
  config.layer_dropping.exempt_first = 1;
  Efficiency efficiency(config, rig.vit.ptr(), VisionTransformer(nullptr), 5);
  const ForwardPlan plan = efficiency.train_plan();
  EXPECT_EQ(plan.scale_of(0), 1) << "it always runs";
  for (int64_t block = 1; block < kDepth; ++block) {
    if (!plan.skips(block)) {
      EXPECT_EQ(plan.scale_of(block), 2) << block;
    }
  }
  EXPECT_TRUE(efficiency.test_plan().scale.empty());
}

TEST(EfficiencyVariants, PromptedBlocksMustLeaveOthersToDrop) {
  Rig rig;
  EfficiencyConfig config = dropping_half();
  config.layer_dropping.exempt_prompted = true;
  config.layer_dropping.exempt_first = 2;
  Efficiency efficiency(config, rig.vit.ptr(), VisionTransformer(nullptr), 5);
  efficiency.set_prompted_blocks({2, 3, 4, 5});
  try {
    efficiency.check_prompted_blocks("apt");
    ADD_FAILURE() << "taken";
  } catch (const Error& e) {
    EXPECT_STREQ(
        e.what(),
        "efficiency.layer_dropping.exempt_prompted: apt puts prompts into every block that "
        "could be dropped, so that none would be; set it to false, or name fewer blocks as "
        "method.layers");
  }
  efficiency.set_prompted_blocks({0, 3, 4, 5});
  EXPECT_NO_THROW(efficiency.check_prompted_blocks("apt"));
}

TEST(EfficiencyVariants, PromptedBlocksAreExemptAndWithoutAnyItIsAnError) {
  Rig rig;
  EfficiencyConfig config = dropping_half();
  config.layer_dropping.keep = 0;
  config.layer_dropping.exempt_prompted = true;
  Efficiency efficiency(config, rig.vit.ptr(), VisionTransformer(nullptr), 5);
  try {
    efficiency.check_prompted_blocks("l2p");
    ADD_FAILURE() << "taken";
  } catch (const Error& e) {
    EXPECT_STREQ(e.what(),
                 "efficiency.layer_dropping.exempt_prompted: l2p puts no prompts of their own into "
                 "blocks; set it to false, or take exempt_first");
  }
  efficiency.set_prompted_blocks({1, 4});
  EXPECT_NO_THROW(efficiency.check_prompted_blocks("dualprompt"));
  EXPECT_EQ(efficiency.train_plan().skip,
            (std::vector<bool>{true, false, true, true, false, true}));
}

// ---- blocks that are made again for the backward pass ----

class RecomputedBlocks : public DetachedBlocks {
 protected:
  // All that blocks can learn from.
  static ForwardPlan rich_plan(const Rig& rig) {
    ForwardPlan plan = rig.plan();
    plan.merge = {0, 4, 4, 8, 8, 8};
    plan.proportional_attention = true;
    plan.skip = {false, false, true, false, false, false};
    plan.detach = {false, true, false, false, false, false};
    plan.scale = {1, 1, 1, 1.5, 1, 1};
    for (int64_t i = 0; i < kDepth; ++i) {
      plan.adapters.push_back({learned({8, 96}), learned({8}), learned({96, 8}), learned({96})});
      plan.class_offsets.push_back(learned({2, 96}));
      BlockBranches branches;
      branches.qkv = {{learned({4, 96}), learned({96, 4}), 192, {}, learned({4})}};
      branches.fc2 = {{learned({4, 384}), learned({96, 4}), 0, {}, {}}};
      plan.branches.push_back(branches);
    }
    return plan;
  }
  static Tensor learned(at::IntArrayRef shape) {
    return (torch::randn(shape) / 5).set_requires_grad(true);
  }
  static std::vector<Tensor> learned_of(const ForwardPlan& plan) {
    std::vector<Tensor> all{plan.prompts};
    all.insert(all.end(), plan.prefixes.begin(), plan.prefixes.end());
    all.insert(all.end(), plan.class_offsets.begin(), plan.class_offsets.end());
    for (const Adapter& a : plan.adapters) {
      all.insert(all.end(), {a.down_weight, a.down_bias, a.up_weight, a.up_bias});
    }
    for (const BlockBranches& b : plan.branches) {
      all.insert(all.end(),
                 {b.qkv[0].down, b.qkv[0].up, b.qkv[0].gains, b.fc2[0].down, b.fc2[0].up});
    }
    return all;
  }
};

TEST_F(RecomputedBlocks, GiveTheSameBitsAndTheSameGradients) {
  Rig rig;
  const ForwardPlan plan = rich_plan(rig);
  const std::vector<Tensor> learned = learned_of(plan);
  const auto pass = [&](int64_t blocks) {
    rig.vit->recompute_blocks(blocks);
    const int64_t macs = macs_so_far();
    const Tensor features = rig.vit->features(rig.images, plan);
    auto gradients = torch::autograd::grad({(features * rig.weights).sum()}, learned, {}, false,
                                           false, /*allow_unused=*/true);
    return std::tuple(features.detach(), gradients, macs_so_far() - macs);
  };
  const auto [expected, slopes, macs] = pass(0);
  for (const int64_t blocks : {1, 2, 3, 4, 5, 100}) {
    const auto [features, gradients, again] = pass(blocks);
    EXPECT_TRUE(features.equal(expected)) << blocks;
    EXPECT_EQ(again, macs) << "what is made again is not counted";
    for (size_t i = 0; i < learned.size(); ++i) {
      ASSERT_EQ(gradients[i].defined(), slopes[i].defined()) << blocks << ", tensor " << i;
      if (!slopes[i].defined()) continue;
      EXPECT_TRUE(gradients[i].equal(slopes[i])) << blocks << ", " << i;
    }
  }
}

// Of the first blocks nothing wants a gradient then: neither their input nor what they are given.
TEST_F(RecomputedBlocks, LeaveOutThoseThatTheGradientGoesAround) {
  Rig rig;
  ForwardPlan plan = rich_plan(rig);
  plan.prompts = Tensor();
  plan.merge.clear();
  plan.skip.clear();
  plan.detach = {true, true, false, true, false, false};
  std::vector<Tensor> learned = learned_of(plan);
  learned.erase(learned.begin());  // the prompts
  const auto gradients = [&](int64_t blocks) {
    rig.vit->recompute_blocks(blocks);
    const Tensor features = rig.vit->features(rig.images, plan);
    return torch::autograd::grad({(features * rig.weights).sum()}, learned, {}, false, false,
                                 /*allow_unused=*/true);
  };
  const auto expected = gradients(0);
  for (const int64_t blocks : {1, 2, 3}) {
    const auto again = gradients(blocks);
    for (size_t i = 0; i < learned.size(); ++i) {
      ASSERT_EQ(again[i].defined(), expected[i].defined()) << blocks << ", tensor " << i;
      if (again[i].defined()) EXPECT_TRUE(again[i].equal(expected[i])) << blocks << ", " << i;
    }
  }
}

TEST_F(RecomputedBlocks, KeepOnlyWhatEntersThem) {
  Rig rig;
  const auto kept = [&](int64_t blocks) {
    rig.vit->recompute_blocks(blocks);
    const int64_t before = tensor_bytes();
    const Tensor features = rig.vit->features(rig.images, rig.plan());
    return tensor_bytes() - before;
  };
  const int64_t all = kept(0), one = kept(1), two = kept(2);
  // The last block keeps what it makes. Of two blocks in a row the second one's input goes, too.
  EXPECT_LT(one, all / 3);
  EXPECT_GT(one, all / 10);
  EXPECT_LT(two, all / 2);
  EXPECT_GT(two, one);
}

TEST_F(RecomputedBlocks, AreNoneWhereDropoutDraws) {
  Rig rig;
  ForwardPlan plan = rich_plan(rig);
  for (Adapter& adapter : plan.adapters) adapter.dropout = 0.5;
  const auto slope = [&](int64_t blocks) {
    rig.vit->recompute_blocks(blocks);
    torch::manual_seed(11);
    const Tensor features = rig.vit->features(rig.images, plan);
    return torch::autograd::grad({(features * rig.weights).sum()}, {rig.prompts})[0];
  };
  EXPECT_TRUE(slope(1).equal(slope(0)));
}

}  // namespace
}  // namespace rep
