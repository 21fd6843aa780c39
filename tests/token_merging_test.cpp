// ToMe's matching and merging against its authors' numbers; AToM's schedules; what merging keeps.

#include "nn/token_merging.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <numeric>
#include <string>
#include <vector>

#include "nn/reference_vit.h"
#include "tensor/torch.h"
#include "tests/golden.h"
#include "tests/golden_vit.h"

namespace rep {
namespace {

using nlohmann::json;
using torch::Tensor;

/// ToMe's merge_wavg: the size-weighted mean, and the summed sizes [B, N].
Tensor merge_weighted(const Tensor& x, Tensor& sizes, const Matching& matching) {
  const Tensor mean = merge_mean(x, sizes, matching);
  sizes = merge_sizes(sizes, matching);
  return mean;
}

std::vector<int64_t> schedule(const std::string& kind, int64_t n, int64_t depth) {
  TokenMergingConfig config;
  config.kind = kind;
  config.n = n;
  return merging_schedule(config, depth);
}

// ---- matching and merging, against ToMe's own code ----

class TomeCaseTest : public ::testing::TestWithParam<size_t> {
 protected:
  void SetUp() override {
    const json cases = golden::load("tome.json")["cases"];
    ASSERT_LT(GetParam(), cases.size());
    c = cases[GetParam()];
    B = c["batch"];
    N = c["tokens"];
    r = c["r"];
    class_token = c["class_token"];
    x = golden::u(2001, {B, N, c["x_dim"]});
    metric = golden::u(2000, {B, N, c["metric_dim"]});
  }

  /// The complete tensor of a small case, or the record of a large one.
  void expect(const Tensor& actual, const std::string& key) {
    const json& expected = c["f32"][key];
    if (expected.is_object()) {
      golden::expect_record(actual, expected, key, 1e-6);
      return;
    }
    ASSERT_EQ(static_cast<size_t>(actual.numel()), expected.size()) << key;
    golden::expect_elements(actual, expected, key, 1e-6);
  }

  void expect_sizes(const Tensor& sizes, const std::string& key) {
    for (int64_t b = 0; b < B; ++b) {
      const json& expected = c["f32"][key][static_cast<size_t>(b)];
      ASSERT_EQ(static_cast<size_t>(sizes.size(1)), expected.size());
      golden::expect_elements(sizes[b], expected, key, 0);
    }
  }

  json c;
  int64_t B = 0, N = 0, r = 0;
  bool class_token = false;
  Tensor x, metric;
};

TEST_P(TomeCaseTest, EveryTokenGoesWhereTomeSendsIt) {
  const Matching matching = match_tokens(metric, r, class_token);
  EXPECT_EQ(matching.r, c["r_effective"].get<int64_t>());
  EXPECT_EQ(matching.tokens, N);
  const Tensor rows = matching.r > 0 ? matching.rows : torch::arange(N).expand({B, N});
  for (int64_t b = 0; b < B; ++b) {
    golden::expect_elements(rows[b], c["f32"]["source_argmax"][static_cast<size_t>(b)],
                            "image " + std::to_string(b), 0);
  }
}

TEST_P(TomeCaseTest, MeansMatchOverTwoRounds) {
  const Matching first = match_tokens(metric, r, class_token);
  Tensor sizes = torch::ones({B, N});
  const Tensor merged = merge_weighted(x, sizes, first);
  ASSERT_EQ(merged.sizes().vec(), c["f32"]["merged_shape"].get<std::vector<int64_t>>());
  expect(merged, "merged_wavg");
  expect_sizes(sizes, "size");

  const Tensor metric2 = golden::u(2002, {B, merged.size(1), c["metric_dim"]});
  const Tensor merged2 = merge_weighted(merged, sizes, match_tokens(metric2, r, class_token));
  ASSERT_EQ(merged2.sizes().vec(), c["f32"]["round2_shape"].get<std::vector<int64_t>>());
  expect(merged2, "round2_wavg");
  expect_sizes(sizes, "round2_size");
}

TEST_P(TomeCaseTest, PlainMeanMatches) {
  const Matching matching = match_tokens(metric, r, class_token);
  expect(merge_mean(x, torch::ones({B, N}), matching), "merged_mean_mode");
}

INSTANTIATE_TEST_SUITE_P(AuthorsNumbers, TomeCaseTest, ::testing::Range<size_t>(0, 4));

// ---- inside the ViT, against the ToMe-patched timm model ----

class TomeVitTest : public ::testing::TestWithParam<bool> {};

TEST_P(TomeVitTest, EightTokensABlockMatch) {
  torch::NoGradGuard no_grad;
  const bool proportional = GetParam();
  const json expected = golden::load(
      "tome.json")["vit_tiny_r8"][proportional ? "prop_attn_True" : "prop_attn_False"]["f32"];
  VisionTransformer vit = golden::make_vit();
  const Tensor images = golden::batch().images;
  ForwardPlan plan;
  plan.merge = schedule("tome", 8, 12);
  plan.proportional_attention = proportional;

  TokenStream stream;
  stream.x =
      torch::cat({vit->cls_token.expand({4, -1, -1}), vit->patch_embed->forward(images)}, 1) +
      vit->pos_embed;
  for (size_t block = 0; block < 12; ++block) {
    vit->blocks[block]->forward(stream, plan, static_cast<int64_t>(block));
    EXPECT_EQ(stream.x.size(1), expected["tokens_after_block"][block].get<int64_t>());
    EXPECT_EQ(golden::total(stream.sizes), 4 * 197) << "every token is in exactly one";
    golden::expect_relative(golden::l2(stream.x), expected["block_l2"][block],
                            "block " + std::to_string(block));
  }
  const Tensor features = vit->forward(images, plan).select(1, 0);
  golden::expect_rows(features, expected["cls_feature"], "feature");
  golden::expect_rows(vit->head(features), expected["logits"], "logits");
}

INSTANTIATE_TEST_SUITE_P(ProportionalAttention, TomeVitTest, ::testing::Bool());

// ---- what merging keeps, whatever the tokens ----

TEST(MergeTest, RemovesRTokensAndKeepsTheSizeWeightedMean) {
  torch::manual_seed(1);
  for (const bool class_token : {false, true}) {
    for (const int64_t N : {2, 3, 7, 16, 50}) {
      for (const int64_t r : {0, 1, 3, 8}) {
        const Tensor x = torch::randn({3, N, 5}, torch::kDouble);
        const Tensor sizes = torch::randint(1, 9, {3, N}, torch::kDouble);
        const Matching matching =
            match_tokens(torch::randn({3, N, 4}, torch::kDouble), r, class_token);
        ASSERT_EQ(matching.r, std::min(r, mergeable(N, class_token ? 1 : 0)));
        Tensor merged_sizes = sizes;
        const Tensor merged = merge_weighted(x, merged_sizes, matching);
        ASSERT_EQ(merged.size(1), N - matching.r);
        EXPECT_TRUE(torch::equal(merged_sizes.sum(1), sizes.sum(1)));
        const auto total = [](const Tensor& rows, const Tensor& sizes_of_rows) {
          return (rows * sizes_of_rows.unsqueeze(-1)).sum(1);
        };
        EXPECT_TRUE(torch::allclose(total(merged, merged_sizes), total(x, sizes), 0, 1e-12));
        // The same on floats, which are not LibTorch's operations.
        const Tensor floats =
            merge_mean(x.to(torch::kFloat), sizes.to(torch::kFloat), matching).to(torch::kDouble);
        EXPECT_TRUE(torch::allclose(floats, merged, 0, 1e-6));
      }
    }
  }
}

TEST(MergeTest, MergesAtMostHalfOfWhatMayMerge) {
  EXPECT_EQ(mergeable(197, 1), 98);
  EXPECT_EQ(mergeable(16, 0), 8);
  EXPECT_EQ(mergeable(9, 1), 4);
  EXPECT_EQ(mergeable(3, 1), 1);
  EXPECT_EQ(mergeable(2, 1), 0);
  EXPECT_EQ(mergeable(1, 1), 0);
  torch::manual_seed(2);
  EXPECT_EQ(match_tokens(torch::randn({1, 197, 8}), 1000, true).r, 98);
  EXPECT_EQ(match_tokens(torch::randn({1, 16, 8}), 1000, false).r, 8);
}

TEST(MergeTest, LikeTokensMergeByHand) {
  // A = tokens 0, 2, 4 and B = 1, 3, 5; 4 is 3's twin, then 2 is nearest to 1 (cosine 0.8).
  const Tensor metric =
      torch::tensor({{{1.0, 0.0}, {0.0, 2.0}, {0.6, 0.8}, {-1.0, 0.0}, {-3.0, 0.0}, {0.0, -1.0}}});
  const Tensor x = torch::tensor({1.0, 2.0, 4.0, 8.0, 16.0, 32.0}).view({1, 6, 1});
  const Tensor ones = torch::ones({1, 6});
  const Tensor one = merge_mean(x, ones, match_tokens(metric, 1, true));
  EXPECT_TRUE(torch::equal(one.flatten(), torch::tensor({1.0, 4.0, 2.0, 12.0, 32.0})));
  const Tensor two = merge_mean(x, ones, match_tokens(metric, 2, true));
  EXPECT_TRUE(torch::equal(two.flatten(), torch::tensor({1.0, 3.0, 12.0, 32.0})));
  const Tensor heavy = torch::tensor({{1.0, 1.0, 1.0, 1.0, 3.0, 1.0}});
  const Tensor weighted = merge_mean(x, heavy, match_tokens(metric, 2, true));
  EXPECT_TRUE(torch::equal(weighted.flatten(), torch::tensor({1.0, 3.0, 14.0, 32.0})));
  EXPECT_TRUE(torch::equal(merge_sizes(heavy, match_tokens(metric, 2, true)),
                           torch::tensor({{1.0, 2.0, 4.0, 1.0}})));
}

// [CLS], two prompts, then as above without token 0: prompts stay where they are, whatever they are
// like.
TEST(MergeTest, PromptsBelongToNoSide) {
  const Tensor metric = torch::tensor({{{1.0, 0.0},
                                        {-1.0, 0.0},
                                        {-1.0, 0.0},
                                        {0.0, 2.0},
                                        {0.6, 0.8},
                                        {-1.0, 0.0},
                                        {-3.0, 0.0},
                                        {0.0, -1.0}}});
  const Matching matching = match_tokens(metric, 2, true, 2);
  EXPECT_TRUE(torch::equal(matching.rows, torch::tensor({{0, 1, 2, 3, 3, 4, 4, 5}})));
}

TEST(MergeTest, GradientIsSharedByTheMergedAndTheChoiceHasNone) {
  torch::manual_seed(3);
  Tensor metric = torch::randn({2, 9, 4}).requires_grad_();
  const Matching matching = match_tokens(metric, 3, true);
  const Tensor weights = torch::randint(1, 5, {2, 9}).to(torch::kFloat);
  const Tensor upstream = torch::randn({2, 6, 3});
  // Token i of row o has weight_i / size_o of its gradient.
  const Tensor share = weights / merge_sizes(weights, matching).gather(1, matching.rows);
  const Tensor rows = matching.rows.unsqueeze(-1).expand({-1, -1, 3});
  const Tensor expected = upstream.gather(1, rows) * share.unsqueeze(-1);
  for (const auto type : {torch::kFloat, torch::kDouble}) {
    Tensor x = torch::randn({2, 9, 3}, type).requires_grad_();
    merge_mean(x, weights.to(type), matching).backward(upstream.to(type));
    EXPECT_TRUE(torch::allclose(x.grad().to(torch::kFloat), expected, 0, 1e-6));
  }
  EXPECT_FALSE(metric.grad().defined());
}

// ---- schedules (REP, Algorithm 1) ----

TEST(ScheduleTest, AtomGrowsFromNoneToTwiceN) {
  using Schedule = std::vector<int64_t>;
  EXPECT_EQ(schedule("atom", 8, 24), (Schedule{0, 0, 1, 2,  2,  3,  4,  4,  5,  6,  6,  7,
                                               8, 9, 9, 10, 11, 11, 12, 13, 13, 14, 15, 16}));
  EXPECT_EQ(schedule("atom", 8, 12), (Schedule{0, 1, 2, 4, 5, 7, 8, 10, 11, 13, 14, 16}));
  EXPECT_EQ(schedule("atom", 4, 12), (Schedule{0, 0, 1, 2, 2, 3, 4, 5, 5, 6, 7, 8}));
  EXPECT_EQ(schedule("tome", 8, 4), (Schedule{8, 8, 8, 8}));
  EXPECT_EQ(schedule("none", 8, 3), (Schedule{0, 0, 0}));
  EXPECT_EQ(schedule("atom", 8, 1), Schedule{0});
}

TEST(ScheduleTest, AtomTotalsAreTheDocumentedOnes) {
  struct Total {
    int64_t depth, n, sum;
  };
  for (const Total& t : {Total{24, 8, 181}, Total{24, 6, 133}, Total{24, 4, 85}, Total{12, 8, 91},
                         Total{12, 6, 67}, Total{12, 4, 43}}) {
    const auto merge = schedule("atom", t.n, t.depth);
    EXPECT_EQ(std::accumulate(merge.begin(), merge.end(), int64_t{0}), t.sum)
        << "depth " << t.depth << ", n " << t.n;
    EXPECT_EQ(merge.front(), 0);
    EXPECT_EQ(merge.back(), 2 * t.n);
  }
}

// ---- prompts and token counts in a small ViT ----

VisionTransformer small_vit() {
  torch::manual_seed(4);
  VitOptions options;
  options.image_size = 32;
  options.patch_size = 8;
  options.embed_dim = 24;
  options.depth = 4;
  VisionTransformer vit(options);
  torch::NoGradGuard no_grad;
  for (auto& parameter : vit->parameters()) parameter.normal_(0, 0.3);
  return vit;
}

TEST(VitMergingTest, ClassTokenAndPromptsPassAMergeUntouched) {
  torch::NoGradGuard no_grad;
  VisionTransformer vit = small_vit();
  const Tensor images = torch::rand({2, 3, 32, 32});
  ForwardPlan plan;
  plan.prompts = torch::randn({2, 5, 24});
  const Tensor whole = vit->forward(images, plan);
  ASSERT_EQ(whole.size(1), 1 + 5 + 16);
  // After the last block's attention nothing mixes tokens, so that only merged tokens may differ.
  plan.merge = {0, 0, 0, 6};
  const Tensor merged = vit->forward(images, plan);
  ASSERT_EQ(merged.size(1), 1 + 5 + 10);
  EXPECT_TRUE(torch::allclose(merged.narrow(1, 0, 6), whole.narrow(1, 0, 6), 0, 1e-6));
  EXPECT_FALSE(torch::allclose(merged.narrow(1, 6, 10), whole.narrow(1, 6, 10), 0, 1e-3));
}

TEST(VitMergingTest, SizesCountImageTokensOnly) {
  torch::NoGradGuard no_grad;
  VisionTransformer vit = small_vit();
  ForwardPlan plan;
  plan.merge = {3, 3, 3, 3};
  TokenStream stream;
  stream.x = torch::randn({2, 1 + 5 + 16, 24});
  stream.prompts = 5;
  for (size_t block = 0; block < 4; ++block) {
    vit->blocks[block]->forward(stream, plan, static_cast<int64_t>(block));
    ASSERT_EQ(stream.sizes.sizes(), stream.x.sizes().slice(0, 2));
    EXPECT_TRUE(torch::equal(stream.sizes.narrow(1, 0, 6), torch::ones({2, 6})));
    EXPECT_TRUE(torch::equal(stream.sizes.sum(1), torch::full({2}, 22.0)));
  }
}

TEST(VitMergingTest, WeightingByTheSizeMattersFromTheSecondMergeOn) {
  torch::NoGradGuard no_grad;
  VisionTransformer vit = small_vit();
  const Tensor images = torch::rand({2, 3, 32, 32});
  for (const bool twice : {false, true}) {
    ForwardPlan weighted, plain;
    weighted.merge = plain.merge = {0, 0, 7, twice ? 4 : 0};
    plain.size_weighted = false;
    const bool same =
        torch::allclose(vit->forward(images, weighted), vit->forward(images, plain), 0, 1e-5);
    EXPECT_EQ(same, !twice);
  }
}

TEST(VitMergingTest, PredictedTokenCountsAreTheExecutedOnes) {
  torch::NoGradGuard no_grad;
  VisionTransformer vit = small_vit();
  const std::vector<std::vector<int64_t>> merges{
      {}, {1, 2, 3, 4}, {100, 100, 100, 100}, {0, 5, 7, 7}, {8, 0, 8, 8}};
  const std::vector<std::vector<bool>> skips{
      {}, {false, true, false, true}, {true, false, false, false}, {true, true, true, true}};
  for (const auto& merge : merges) {
    for (const auto& skip : skips) {
      for (const int64_t L : {0, 5}) {
        ForwardPlan plan;
        plan.merge = merge;
        plan.skip = skip;
        const auto predicted = tokens_per_block(vit->options, plan, L);
        TokenStream stream;
        stream.x = torch::randn({2, 1 + L + 16, 24});
        stream.prompts = L;
        for (int64_t block = 0; block < 4; ++block) {
          const auto b = static_cast<size_t>(block);
          EXPECT_EQ(predicted[b], plan.skips(block) ? 0 : stream.x.size(1));
          if (!plan.skips(block)) vit->blocks[b]->forward(stream, plan, block);
        }
        if (L > 0) plan.prompts = torch::randn({2, L, 24});
        EXPECT_EQ(vit->forward(torch::rand({2, 3, 32, 32}), plan).size(1), stream.x.size(1));
      }
    }
  }
}

// What a pass is for comes out the same, with its gradients, when its last block makes nothing
// else.
TEST(VitOutputsTest, AreThoseOfTheWholePass) {
  VisionTransformer vit = small_vit();
  const Tensor images = torch::rand({2, 3, 32, 32});
  const std::vector<std::vector<bool>> skips{
      {}, {false, true, false, true}, {false, false, true, true}, {true, true, true, true}};
  for (const VitOperations* operations : {&kFusedOperations, &kReferenceOperations}) {
    vit->compute_with(*operations);
    for (const bool prefixed : {false, true}) {
      for (const auto& skip : skips) {
        ForwardPlan plan;
        plan.prompts = torch::randn({2, 5, 24}).set_requires_grad(true);
        if (prefixed) plan.prefixes.assign(4, torch::randn({2, 2, 3, 24}));
        plan.merge = {0, 3, 3, 4};
        plan.proportional_attention = prefixed;
        plan.skip = skip;
        const Tensor whole = vit->forward(images, plan).narrow(1, 1, 5);
        plan.outputs = {1, 5};
        const Tensor wanted = vit->forward(images, plan);
        EXPECT_TRUE(torch::allclose(wanted, whole, 1e-5, 1e-5));
        const Tensor up = torch::randn_like(whole);
        const Tensor gradient = torch::autograd::grad({wanted}, {plan.prompts}, {up})[0];
        const Tensor expected = torch::autograd::grad({whole}, {plan.prompts}, {up})[0];
        EXPECT_TRUE(torch::allclose(gradient, expected, 1e-4, 1e-4));
        EXPECT_TRUE(torch::allclose(vit->features(images, plan),
                                    vit->forward(images,
                                                 [&] {
                                                   ForwardPlan all = plan;
                                                   all.outputs = {};
                                                   return all;
                                                 }())
                                        .select(1, 0),
                                    1e-5, 1e-5));
      }
    }
  }
}

TEST(VitMergingTest, AtomShortensVitLargeAsDocumented) {
  // REP-L2P on ViT-L: 1 + 25 + 196 tokens enter, 169 a block on average, and 41 leave.
  const VitOptions options = vit_options("vit_large_patch16_224");
  ForwardPlan plan;
  plan.merge = schedule("atom", 8, options.depth);
  EXPECT_EQ(tokens_per_block(options, plan, 25),
            (std::vector<int64_t>{222, 222, 222, 221, 219, 217, 214, 210, 206, 201, 195, 189,
                                  182, 174, 165, 156, 146, 135, 124, 112, 99,  86,  72,  57}));
}

}  // namespace
}  // namespace rep
