// DualPrompt and CODA-Prompt, as `rep run` makes them, against their published code: logits,
// losses, gradients, three steps of training.
#include <gtest/gtest.h>
#include <yaml-cpp/yaml.h>

#include <map>
#include <memory>
#include <string>
#include <vector>

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

using Reference = golden::GoldenMethod;

// Three steps on the golden batch; `names`: ours -> the published code's.
void expect_training(Reference& reference, const json& training,
                     const std::map<std::string, std::string>& names, double clip) {
  OptimizerConfig config;
  config.lr = training["lr"];
  Optimizer optimizer(config, reference.method->parameters());
  for (size_t step = 0; step < 3; ++step) {
    const json& expected = training["steps"][step];
    optimizer.zero_grad();
    const Tensor loss = reference.method->loss(golden::batch());
    golden::expect_relative(loss.item<double>(), expected["loss_before_step"], "loss");
    loss.backward();
    if (clip > 0) clip_grad_norm(optimizer.parameters(), clip);
    optimizer.step();
    for (const auto& [ours, theirs] : names) {
      if (!expected["after_step"].contains(theirs)) continue;  // CODA's layers 1 to 3 are not kept
      const json& record = expected["after_step"][theirs];
      const Tensor& value = reference.parameters.at(ours);
      golden::expect_relative(golden::l2(value), record["l2"], ours);
      golden::expect_elements(value.flatten(), record["first"], ours);
    }
  }
}

// ---- DualPrompt ----

Reference dualprompt(const std::string& options = "") {
  return Reference("{name: dualprompt, selection: batchwise" + options + "}", 0,
                   {{"g_prompt", golden::u(310, {2, 2, 5, 192})},
                    {"e_prompt", golden::u(311, {3, 2, 10, 5, 192})},
                    {"prompt_key", golden::u(312, {10, 192})}});
}

const std::map<std::string, std::string> kDualNames{{"g_prompt", "g_prompt"},
                                                    {"e_prompt", "e_prompt.prompt"},
                                                    {"prompt_key", "e_prompt.prompt_key"},
                                                    {"head.weight", "head.weight"},
                                                    {"head.bias", "head.bias"}};

class DualPromptTest : public ::testing::TestWithParam<std::string> {
 protected:
  void SetUp() override {
    file = golden::load("dualprompt.json");
    expected = file[GetParam()]["f32"];
  }
  std::string options() const {
    return GetParam() == "published" ? ", published_reshape: true" : "";
  }
  json file, expected;
};

TEST_P(DualPromptTest, LossAndGradientsMatch) {
  Reference reference = dualprompt(options());
  const Tensor loss = reference.method->loss(golden::batch());
  golden::expect_relative(loss.item<double>(), expected["train_task0"]["loss"], "loss");
  loss.backward();
  for (const auto& [ours, theirs] : kDualNames) {
    const json& record = expected["train_task0"]["grads"][theirs];
    const Tensor gradient = reference.parameters.at(ours).grad();
    ASSERT_TRUE(gradient.defined()) << ours;
    golden::expect_relative(golden::l2(gradient), record["l2"], ours);
    golden::expect_elements(gradient.flatten(), record["first"], ours, 2e-6);
  }
}

TEST_P(DualPromptTest, TestLogitsMatch) {
  torch::NoGradGuard no_grad;
  golden::expect_rows(dualprompt(options()).method->predict(golden::batch()),
                      expected["eval"]["logits"], "logits");
}

TEST_P(DualPromptTest, ThreeStepsOfAdamWithClippingMatch) {
  Reference reference = dualprompt(options());
  const json& training = file["train_3_steps_" + GetParam()];
  expect_training(reference, training, kDualNames, training["clip_grad_norm"]);
}

INSTANTIATE_TEST_SUITE_P(Reshapes, DualPromptTest, ::testing::Values("permuted", "published"),
                         [](const auto& test) { return test.param; });

TEST(DualPromptSelection, PerImageDoesNotDependOnTheBatch) {
  torch::NoGradGuard no_grad;
  Reference reference("{name: dualprompt}", 0, {});
  const Batch all = golden::batch();
  const Tensor together = reference.method->predict(all);
  for (int64_t i = 0; i < 4; ++i) {
    const Batch one{all.images.narrow(0, i, 1), all.labels.narrow(0, i, 1), {}};
    EXPECT_TRUE(reference.method->predict(one)[0].allclose(together[i], 1e-4, 1e-4));
  }
}

// ---- CODA-Prompt ----

Reference coda(int64_t task) {
  std::map<std::string, Tensor> values;
  for (uint32_t layer = 0; layer < 5; ++layer) {
    const std::string l = std::to_string(layer);
    values["prompt." + l] = golden::u(400 + 10 * layer, {100, 8, 192}, -5);
    values["prompt_key." + l] = golden::u(401 + 10 * layer, {100, 192}, -3);
    values["attention." + l] = golden::u(402 + 10 * layer, {100, 192}, -3);
  }
  return Reference("{name: coda_prompt, ortho_weight: 0.1}", task, values);
}

std::map<std::string, std::string> coda_names() {
  std::map<std::string, std::string> names{{"head.weight", "last.weight"},
                                           {"head.bias", "last.bias"}};
  for (int layer = 0; layer < 5; ++layer) {
    const std::string l = std::to_string(layer);
    names["prompt." + l] = "prompt.e_p_" + l;
    names["prompt_key." + l] = "prompt.e_k_" + l;
    names["attention." + l] = "prompt.e_a_" + l;
  }
  return names;
}

class CodaTest : public ::testing::TestWithParam<int64_t> {
 protected:
  void SetUp() override {
    file = golden::load("coda.json");
    expected = file["task_count_" + std::to_string(GetParam())]["f32"];
    batch = golden::batch();
    batch.labels = batch.labels + 10 * GetParam();
  }
  json file, expected;
  Batch batch;
};

TEST_P(CodaTest, LossAndGradientsMatch) {
  Reference reference = coda(GetParam());
  const Tensor loss = reference.method->loss(batch);
  golden::expect_relative(loss.item<double>(), expected["loss"], "loss");
  loss.backward();
  for (const auto& [ours, theirs] : coda_names()) {
    const json& record = expected["grads"][theirs];
    const Tensor gradient = reference.parameters.at(ours).grad();
    ASSERT_TRUE(gradient.defined()) << ours;
    golden::expect_relative(golden::l2(gradient), record["l2"], ours, 2e-5);
    if (!record.contains("first8_of_new_rows")) {  // the head
      golden::expect_elements(gradient.flatten(), record["first"], ours, 2e-6);
      continue;
    }
    golden::expect_elements(gradient[10 * GetParam()].flatten(), record["first8_of_new_rows"], ours,
                            2e-6);
    EXPECT_EQ(golden::l2(gradient.narrow(0, 0, 10 * GetParam())), 0) << ours << ", past rows";
  }
}

TEST_P(CodaTest, TestLogitsMatch) {
  torch::NoGradGuard no_grad;
  const Tensor logits = coda(GetParam()).method->predict(batch);
  golden::expect_rows(logits, expected["logits_eval"], "logits");
}

INSTANTIATE_TEST_SUITE_P(Tasks, CodaTest, ::testing::Values(0, 2),
                         [](const auto& test) { return std::to_string(test.param); });

TEST(CodaTraining, ThreeStepsOfAdamMatch) {
  Reference reference = coda(0);
  expect_training(reference, golden::load("coda.json")["train_3_steps_task0"], coda_names(), 0);
}

// By hand: fresh components have unit length, are orthogonal to all before, and later ones are
// zero.
TEST(CodaComponents, GrowByGramSchmidt) {
  Reference reference("{name: coda_prompt}", 3, {});
  const Tensor keys = reference.parameters.at("prompt_key.0").detach();
  EXPECT_EQ(golden::l2(keys.narrow(0, 40, 60)), 0);
  EXPECT_EQ(golden::l2(keys.narrow(0, 0, 30)), 0) << "rows of tasks that were not begun";
  const Tensor fresh = keys.narrow(0, 30, 10);
  EXPECT_TRUE(torch::mm(fresh, fresh.t()).allclose(torch::eye(10), 1e-5, 1e-5));
}

}  // namespace
}  // namespace rep
