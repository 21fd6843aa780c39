// L2P, as `rep run` makes it, against l2p-pytorch: selection, loss, gradients, three steps of
// training.

#include <gtest/gtest.h>
#include <yaml-cpp/yaml.h>

#include <cmath>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "core/error.h"
#include "methods/method.h"
#include "nn/efficiency.h"
#include "tensor/optimizer.h"
#include "tensor/torch.h"
#include "tests/golden.h"
#include "tests/golden_method.h"

namespace rep {
namespace {

using nlohmann::json;
using torch::Tensor;

/// L2P over the reference ViT with the reference's prompts, keys and head, in a first task of the
/// classes 0 to 9.
class ReferenceL2p : public golden::GoldenMethod {
 public:
  explicit ReferenceL2p(const std::string& options)
      : GoldenMethod(
            options, 0,
            {{"prompt", golden::u(300, {10, 5, 192})}, {"prompt_key", golden::u(301, {10, 192})}}) {
  }

  /// By its name in l2p-pytorch.
  Tensor parameter(const std::string& name) {
    return parameters.at(name.rfind("prompt.", 0) == 0 ? name.substr(7) : name);
  }
};

const std::vector<std::string> kTrained{"prompt.prompt", "prompt.prompt_key", "head.weight",
                                        "head.bias"};

class L2pTest : public ::testing::TestWithParam<std::string> {
 protected:
  void SetUp() override {
    file = golden::load("l2p.json");
    expected = file[GetParam()]["f32"];
  }

  std::string options(const std::string& more = "") {
    return "{name: l2p, selection: " + GetParam() + more + "}";
  }

  json file, expected;
  Batch batch = golden::batch();
};

TEST_P(L2pTest, QueryAndSimilarityMatch) {
  ReferenceL2p l2p(options());
  const Tensor query = l2p.efficiency.train_query(batch.images, batch.indices);
  EXPECT_FALSE(query.requires_grad());
  golden::expect_rows(query, expected["query"], "query");
  const Tensor keys = l2p.parameter("prompt.prompt_key").detach();
  const Tensor cosine = torch::cosine_similarity(query.unsqueeze(1), keys.unsqueeze(0), 2);
  for (int64_t b = 0; b < 4; ++b) {
    golden::expect_elements(cosine[b], expected["similarity"][static_cast<size_t>(b)], "cosine",
                            1e-6);
  }
}

TEST_P(L2pTest, LogitsMatch) {
  torch::NoGradGuard no_grad;
  ReferenceL2p l2p(options());
  golden::expect_rows(l2p.method->predict(batch), expected["logits"], "logits");
}

TEST_P(L2pTest, LossMatchesAndPullIsItsSumOfCosines) {
  torch::NoGradGuard no_grad;
  const double loss = ReferenceL2p(options()).method->loss(batch).item<double>();
  golden::expect_relative(loss, expected["loss"], "loss");
  const double alone = ReferenceL2p(options(", pull_weight: 0")).method->loss(batch).item<double>();
  EXPECT_NEAR((alone - loss) / 0.1, expected["reduce_sim"].get<double>(), 1e-5);
}

TEST_P(L2pTest, GradientsMatchAndReachOnlyTheChosen) {
  ReferenceL2p l2p(options());
  l2p.method->loss(batch).backward();
  double squares = 0;
  for (const auto& name : kTrained) {
    const Tensor gradient = l2p.parameter(name).grad();
    ASSERT_TRUE(gradient.defined()) << name;
    golden::expect_record(gradient, expected["grads"][name], name, 2e-6);
    squares += std::pow(golden::l2(gradient), 2);
  }
  golden::expect_relative(std::sqrt(squares), expected["grad_total_norm"], "total norm");

  const Tensor prompt = l2p.parameter("prompt.prompt").grad();
  const Tensor key = l2p.parameter("prompt.prompt_key").grad();
  std::vector<bool> chosen(10, false);
  for (const auto& ids : expected["prompt_idx"]) {
    for (const size_t id : ids) chosen[id] = true;
  }
  for (int64_t row = 0; row < 10; ++row) {
    const auto i = static_cast<size_t>(row);
    const std::string what = "pool entry " + std::to_string(row);
    golden::expect_relative(golden::l2(prompt[row]), expected["grad_prompt_row_l2"][i], what);
    golden::expect_elements(prompt[row], expected["grad_prompt_row_first8"][i], what, 2e-6);
    golden::expect_relative(golden::l2(key[row]), expected["grad_key_row_l2"][i], what + " key");
    EXPECT_EQ(golden::l2(prompt[row]) > 0, chosen[i]) << what;
  }
}

INSTANTIATE_TEST_SUITE_P(Selections, L2pTest, ::testing::Values("batchwise", "per_image"),
                         [](const auto& test) { return test.param; });

TEST(L2pTrainingTest, ThreeStepsOfAdamWithClippingMatch) {
  const json file = golden::load("l2p.json");
  const json& training = file["train_3_steps_batchwise"];
  const Batch batch = golden::batch();
  ReferenceL2p l2p("{name: l2p, selection: batchwise}");
  OptimizerConfig config;  // Adam
  config.lr = training["lr"];
  Optimizer optimizer(config, l2p.method->parameters());
  for (size_t step = 0; step < 3; ++step) {
    const json& expected = training["steps"][step];
    optimizer.zero_grad();
    const Tensor loss = l2p.method->loss(batch);
    golden::expect_relative(loss.item<double>(), expected["loss_before_step"], "loss");
    loss.backward();
    clip_grad_norm(l2p.method->parameters(), training["clip_grad_norm"]);
    optimizer.step();
    for (const auto& name : kTrained) {
      golden::expect_record(l2p.parameter(name), expected["after_step"][name],
                            name + " after step " + std::to_string(step));
    }
  }
  torch::NoGradGuard no_grad;
  golden::expect_rows(l2p.method->predict(batch), file["eval_after_3_steps"]["logits"], "logits");
}

TEST(L2pTrainingTest, SecondImplementationAgrees) {
  const json expected = golden::load("pilot_crosscheck.json");  // LAMDA-PILOT
  ReferenceL2p l2p("{name: l2p, selection: batchwise}");
  const Tensor loss = l2p.method->loss(golden::batch());
  golden::expect_relative(loss.item<double>(), expected["pilot_loss"], "loss");
  loss.backward();
  golden::expect_relative(golden::l2(l2p.parameter("prompt.prompt").grad()),
                          expected["grad_prompt_l2"], "prompt gradient");
}

TEST(L2pOptionsTest, MoreChosenThanPooledIsRefused) {
  EXPECT_THROW(ReferenceL2p("{name: l2p, pool_size: 3, top_k: 4}"), Error);
}

}  // namespace
}  // namespace rep
