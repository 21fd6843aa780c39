// The ViT against timm's numbers: features, logits, loss, every gradient and four steps of SGD.

#include <gtest/gtest.h>
#include <torch/nn/functional/loss.h>

#include <cstdint>
#include <string>
#include <vector>

#include "nn/vit.h"
#include "tensor/optimizer.h"
#include "tensor/torch.h"
#include "tests/golden.h"
#include "tests/golden_vit.h"

namespace rep {
namespace {

using nlohmann::json;
using torch::Tensor;
namespace F = torch::nn::functional;

class VitGoldenTest : public ::testing::Test {
 protected:
  void SetUp() override {
    file = golden::load("vit_tiny_plain.json");
    reference = file["ref"]["f32"];
    vit = golden::make_vit();
    batch = golden::batch();
  }

  Tensor logits() { return vit->head(vit->features(batch.images)); }

  /// The tokens that enter block 0, [4, 197, 192].
  TokenStream first_tokens() {
    const Tensor patches = vit->patch_embed->forward(batch.images);
    const Tensor cls = vit->cls_token.expand({patches.size(0), -1, -1});
    return {torch::cat({cls, patches}, 1) + vit->pos_embed, {}, 0};
  }

  json file, reference;
  VisionTransformer vit{nullptr};
  Batch batch;
};

TEST(GoldenGeneratorTest, GivesTheReferenceIntegers) {
  const json check = golden::load("vit_tiny_plain.json")["generator_check"];
  for (const uint32_t seed : {0u, 7u, 1000u}) {
    const json& expected = check["k16(seed=" + std::to_string(seed) + ",n=8)"];
    for (uint32_t i = 0; i < 8; ++i) EXPECT_EQ(golden::k16(seed, i), expected[i].get<int32_t>());
  }
}

TEST_F(VitGoldenTest, ParametersHaveTimmsNamesOrderAndShapes) {
  const auto parameters = vit->named_parameters();
  ASSERT_EQ(parameters.size(), 152u);
  for (size_t i = 0; i < parameters.size(); ++i) {
    const json& line = file["params"][i];
    EXPECT_EQ(parameters[i].key(), line["name"].get<std::string>());
    EXPECT_EQ(parameters[i].value().sizes().vec(), line["shape"].get<std::vector<int64_t>>());
  }
}

// Guards the tests themselves: what they feed is what the reference was fed.
TEST_F(VitGoldenTest, ParametersAndInputHaveTheReferenceChecksums) {
  const auto parameters = vit->named_parameters();
  for (const auto& line : file["params"]) {
    const std::string name = line["name"];
    const double unit = std::ldexp(1.0, line["exp2"].get<int>() - 15);
    const Tensor integers =
        (parameters[name].detach().to(torch::kDouble) - line["offset"].get<double>()) / unit;
    EXPECT_EQ(golden::total(integers), line["int_sum"].get<double>()) << name;
    golden::expect_elements(parameters[name], line["first4"], name, 0);
  }
  golden::expect_record(batch.images, file["input"], "input", 1e-9);
  golden::expect_elements(batch.images[0][1][100], file["input"]["image0_c1_row100_first8"],
                          "row 100 of image 0", 0);
}

TEST_F(VitGoldenTest, PatchEmbeddingMatches) {
  torch::NoGradGuard no_grad;
  golden::expect_record(vit->patch_embed->forward(batch.images), reference["patch_embed"],
                        "patches");
}

TEST_F(VitGoldenTest, EveryBlockMatches) {
  torch::NoGradGuard no_grad;
  TokenStream stream = first_tokens();
  for (size_t block = 0; block < 12; ++block) {
    vit->blocks[block]->forward(stream, {}, static_cast<int64_t>(block));
    const Tensor& tokens = stream.x;
    const json& expected = reference["blocks"][block];
    const std::string what = "block " + std::to_string(block);
    golden::expect_relative(golden::l2(tokens), expected["l2"], what);
    golden::expect_elements(tokens[0][0], expected["cls0_first8"], what);
    for (int64_t b = 0; b < 4; ++b) {
      golden::expect_relative(golden::l2(tokens[b][0]), expected["cls_l2"][static_cast<size_t>(b)],
                              what + ", [CLS] of image " + std::to_string(b));
    }
  }
}

TEST_F(VitGoldenTest, TokensFeaturesAndLogitsMatch) {
  torch::NoGradGuard no_grad;
  golden::expect_record(vit->forward(batch.images), reference["all_tokens"], "tokens");
  const Tensor features = vit->features(batch.images);
  golden::expect_rows(features, reference["cls_feature"], "feature");
  golden::expect_rows(vit->head(features), reference["logits"], "logits");
}

TEST_F(VitGoldenTest, LossAndEveryGradientMatch) {
  vit->train_last_blocks(vit->options.depth);
  const Tensor loss = F::cross_entropy(logits(), batch.labels);
  golden::expect_relative(loss.item<double>(), reference["ce_loss"], "loss");
  loss.backward();
  for (const auto& parameter : vit->named_parameters()) {
    const json& expected = reference["grads"][parameter.key()];
    const Tensor gradient = parameter.value().grad();
    ASSERT_TRUE(gradient.defined()) << parameter.key();
    golden::expect_relative(golden::l2(gradient), expected["l2"], parameter.key());
    golden::expect_elements(gradient, expected["first8"], parameter.key(), 5e-6);
  }
}

TEST_F(VitGoldenTest, FourStepsOfSgdMatch) {
  vit->train_last_blocks(vit->options.depth);
  OptimizerConfig config;
  config.name = "sgd";
  config.lr = 0.01;
  config.momentum = 0.9;
  Optimizer optimizer(config, vit->parameters());
  for (const double expected : reference["sgd_losses"]) {
    optimizer.zero_grad();
    const Tensor loss = F::cross_entropy(logits(), batch.labels);
    golden::expect_relative(loss.item<double>(), expected, "loss");
    loss.backward();
    optimizer.step();
  }
}

TEST_F(VitGoldenTest, SkippedBlocksAreTheIdentity) {
  torch::NoGradGuard no_grad;
  ForwardPlan plan;
  plan.skip.assign(12, true);
  plan.skip[3] = plan.skip[7] = false;
  TokenStream stream = first_tokens();
  vit->blocks[3]->forward(stream, {}, 3);
  vit->blocks[7]->forward(stream, {}, 7);
  const Tensor by_hand = vit->norm->forward(stream.x);
  EXPECT_TRUE(torch::allclose(vit->forward(batch.images, plan), by_hand, 0, 1e-6));
}

TEST_F(VitGoldenTest, OnlyTheLastBlocksTrain) {
  vit->train_last_blocks(2);
  F::cross_entropy(logits(), batch.labels).backward();
  for (const auto& parameter : vit->named_parameters()) {
    const std::string& name = parameter.key();
    if (name.rfind("head.", 0) == 0) continue;
    const bool last = name.rfind("blocks.10.", 0) == 0 || name.rfind("blocks.11.", 0) == 0 ||
                      name.rfind("norm.", 0) == 0;
    EXPECT_EQ(parameter.value().grad().defined(), last) << name;
    if (last) {
      golden::expect_relative(golden::l2(parameter.value().grad()), reference["grads"][name]["l2"],
                              name);
    }
  }
}

// DualPrompt's prefixes: keys and values in front of the attention's own, in blocks 0 to 4.
TEST_F(VitGoldenTest, PrefixesMatchDualPrompt) {
  torch::NoGradGuard no_grad;
  const json expected = golden::load("dualprompt.json")["permuted"]["f32"];
  const Tensor general = golden::u(310, {2, 2, 5, 192});     // [layer, key | value, L, D]
  const Tensor expert = golden::u(311, {3, 2, 10, 5, 192});  // [layer, key | value, pool, L, D]
  for (const char* stage : {"train_task0", "eval"}) {
    const int64_t entry = expected[stage]["prompt_idx"][0][0];
    ForwardPlan plan;
    plan.prefixes.resize(12);
    for (size_t block = 0; block < 5; ++block) {
      const auto layer = static_cast<int64_t>(block);
      const Tensor prefix = block < 2 ? general[layer] : expert[layer - 2].select(1, entry);
      plan.prefixes[block] = prefix.unsqueeze(0).expand({4, -1, -1, -1});
    }
    const Tensor features = vit->forward(batch.images, plan).select(1, 0);
    golden::expect_rows(features, expected[stage]["pre_logits"], stage);
    golden::expect_rows(vit->head(features), expected[stage]["logits"], stage);
  }
}

// L2P's prompts: tokens between [CLS] and the patches, at [CLS]'s position.
TEST_F(VitGoldenTest, PromptsMatchL2p) {
  torch::NoGradGuard no_grad;
  const json file_l2p = golden::load("l2p.json");
  const Tensor pool = golden::u(300, {10, 5, 192});
  for (const char* selection : {"batchwise", "per_image"}) {
    const json& expected = file_l2p[selection]["f32"];
    std::vector<Tensor> prompts;
    for (const auto& entries : expected["prompt_idx"]) {
      const auto indices = entries.get<std::vector<int64_t>>();
      prompts.push_back(pool.index_select(0, torch::tensor(indices)).reshape({25, 192}));
    }
    ForwardPlan plan;
    plan.prompts = torch::stack(prompts);
    const Tensor tokens = vit->forward(batch.images, plan);
    ASSERT_EQ(tokens.size(1), 222);
    const Tensor pooled = tokens.slice(1, 1, 26).mean(1);
    golden::expect_rows(pooled, expected["pre_logits"], selection);
    golden::expect_rows(vit->head(pooled), expected["logits"], selection);
  }
}

}  // namespace
}  // namespace rep
