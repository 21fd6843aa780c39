// APT and OS-Prompt, as `rep run` makes them, against their authors' code (golden/apt.json,
// golden/os_prompt.json): features, losses, gradients, three steps of training, what a task's end
// does.
#include <gtest/gtest.h>

#include <map>
#include <string>
#include <vector>

#include "core/error.h"
#include "methods/method.h"
#include "methods/prompt_components.h"
#include "nn/efficiency.h"
#include "nn/reference_vit.h"
#include "tensor/optimizer.h"
#include "tensor/torch.h"
#include "tests/golden_method.h"

namespace rep {
namespace {

using nlohmann::json;
using torch::Tensor;
using Reference = golden::GoldenMethod;

constexpr double kStepped = 2e-6;  // parameters after steps

Batch batch_of(int64_t task) {
  Batch batch = golden::batch();
  batch.labels = batch.labels + 10 * task;
  return batch;
}

void expect_matrix(const Tensor& actual, const json& expected, const std::string& what,
                   double tolerance = golden::kElement) {
  for (int64_t b = 0; b < actual.size(0); ++b) {
    golden::expect_elements(actual[b], expected[static_cast<size_t>(b)], what, tolerance);
  }
}

// Prompts' gradients are 1e-6 to 1e-4 in size: relative, with a floor.
void expect_small(const Tensor& actual, const json& leading, const std::string& what) {
  const auto expected = leading.get<std::vector<double>>();
  const Tensor flat = actual.detach().to(torch::kDouble).flatten();
  for (size_t i = 0; i < expected.size(); ++i) {
    EXPECT_NEAR(flat[static_cast<int64_t>(i)].item<double>(), expected[i],
                1e-3 * std::abs(expected[i]) + 1e-9)
        << what << ", element " << i;
  }
}

// ---- APT ----

Reference apt(int64_t task, const std::string& options = "", const EfficiencyConfig& rep = {}) {
  const Tensor prompt = golden::u(task == 0 ? 3000 : 3001, {24, 192}, -2);
  return Reference("{name: apt" + options + "}", task,
                   {{"prompt", prompt}, {"merged_prompt", golden::u(3002, {24, 192}, -2)}}, rep);
}

Task task_of(int64_t index) {
  Task task;
  task.index = index;
  task.first_label = 10 * index;
  task.classes.resize(10);
  return task;
}

class AptTest : public ::testing::TestWithParam<int64_t> {
 protected:
  int64_t task = GetParam(), seen = 10 * (GetParam() + 1);
  Batch batch = batch_of(task);
  json expected = golden::load("apt.json")["task_" + std::to_string(task)]["f32"];
};

TEST_P(AptTest, FeaturesMatchWithVectorsInEveryBlock) {
  torch::NoGradGuard no_grad;
  VisionTransformer vit = golden::make_vit(0);
  ForwardPlan plan;
  plan.class_offsets =
      golden::u(task == 0 ? 3000 : 3001, {24, 192}, -2).view({12, 2, 192}).unbind(0);
  golden::expect_rows(vit->features(batch.images, plan), expected["cls_feature"], "feature");
  vit->compute_with(kReferenceOperations);
  golden::expect_rows(vit->features(batch.images, plan), expected["cls_feature"], "op by op");
}

TEST_P(AptTest, LossAndGradientsMatch) {
  Reference reference = apt(task);
  const Tensor loss = reference.method->loss(batch);
  golden::expect_relative(loss.item<double>(), expected["loss"], "loss");
  loss.backward();
  EXPECT_EQ(reference.method->parameters().size(), 2U) << "vectors and the head's weights";
  const json& grads = expected["grads"];
  const Tensor prompt = reference.parameters.at("prompt").grad();
  expect_small(prompt, grads["prompt"]["first"], "vectors");
  for (int64_t row = 0; row < 24; ++row) {
    golden::expect_relative(golden::l2(prompt[row]),
                            grads["prompt_row_l2"][static_cast<size_t>(row)],
                            "row " + std::to_string(row), 2e-5);
  }
  const Tensor head = reference.parameters.at("head.weight").grad();
  golden::expect_relative(golden::l2(head), grads["head.weight"]["l2"], "head");
  golden::expect_elements(head[10 * task], grads["head.weight_current_rows_first8"], "head", 2e-6);
  EXPECT_EQ(golden::l2(head.narrow(0, 0, 10 * task)), 0);
  EXPECT_EQ(golden::l2(head.narrow(0, seen, 100 - seen)), 0);
}

TEST_P(AptTest, ThreeStepsAndTheMergeAtTheTasksEndMatch) {
  Reference reference = apt(task);
  if (task > 0) {
    torch::NoGradGuard no_grad;
    expect_matrix(reference.method->predict(batch).narrow(1, 0, seen),
                  expected["logits_test_before_training"], "logits of the merged vectors");
  }
  OptimizerConfig config;
  config.lr = 0.004;
  Optimizer optimizer(config, reference.method->parameters());
  for (const json& step : expected["steps"]) {
    optimizer.zero_grad();
    const Tensor loss = reference.method->loss(batch);
    golden::expect_relative(loss.item<double>(), step["loss_before_step"], "loss");
    loss.backward();
    optimizer.step();
    if (!step.contains("after_step")) continue;
    const Tensor prompt = reference.parameters.at("prompt");
    golden::expect_relative(golden::l2(prompt), step["after_step"]["prompt"]["l2"], "vectors");
    golden::expect_elements(prompt, step["after_step"]["prompt"]["first"], "vectors", kStepped);
    golden::expect_elements(reference.parameters.at("head.weight"),
                            step["after_step"]["head.weight"]["first"], "head", kStepped);
  }
  reference.method->end_task(task_of(task));
  golden::expect_elements(reference.parameters.at("prompt"), expected["prompt_after_task"]["first"],
                          "training goes on from what was trained", kStepped);
  State state;
  reference.method->state(state);
  for (const auto& [name, tensor] : state.tensors()) {
    if (name != "merged_prompt") continue;
    golden::expect_record(tensor, expected["merged_after_task"], "merged", kStepped);
    golden::expect_elements(tensor[1], expected["merged_after_task_row_1_first8"], "merged",
                            kStepped);
  }
  torch::NoGradGuard no_grad;
  expect_matrix(reference.method->predict(batch).narrow(1, 0, seen),
                expected["logits_test_after_task"], "logits");
}

INSTANTIATE_TEST_SUITE_P(Tasks, AptTest, ::testing::Values(0, 2),
                         [](const auto& test) { return std::to_string(test.param); });

TEST(Apt, Bf16AddsTheSameVectorsButForRounding) {
  VisionTransformer vit = golden::make_vit(0), half = golden::make_vit(0);
  vit->train_last_blocks(0);
  half->train_last_blocks(0);
  half->multiply_in_bf16();
  const Batch batch = golden::batch();
  const auto gradient = [&](VisionTransformer& backbone, Tensor& feature) {
    const Tensor prompt = (golden::u(3000, {24, 192}, 0) * 4).set_requires_grad(true);
    ForwardPlan plan;
    plan.class_offsets = prompt.view({12, 2, 192}).unbind(0);
    feature = backbone->features(batch.images, plan);
    (feature * golden::u(77, {4, 192})).sum().backward();
    return prompt.grad();
  };
  Tensor full_feature, half_feature;
  const Tensor full = gradient(vit, full_feature), rounded = gradient(half, half_feature);
  const auto off = [](const Tensor& a, const Tensor& b) {
    return ((a - b).norm() / b.norm()).item<double>();
  };
  EXPECT_LT(off(half_feature, full_feature), 0.03);
  EXPECT_LT(off(rounded, full), 0.15);
  // Without the vectors the feature is another one by far.
  EXPECT_GT(off(vit->features(batch.images), full_feature), 0.1);
}

TEST(Apt, ADroppedBlockLeavesItsVectorsAZeroGradient) {
  EfficiencyConfig rep;
  rep.layer_dropping.kind = "random";
  rep.layer_dropping.keep = 0.5;
  Reference reference = apt(0, "", rep);
  reference.efficiency.set_time({1, 0, 4, 4});
  reference.method->loss(batch_of(0)).backward();
  const Tensor gradient = reference.parameters.at("prompt").grad().view({12, 2, 192});
  int64_t dropped = 0;
  for (int64_t block = 0; block < 12; ++block) {
    const bool ran = reference.efficiency.train_tokens(0).forward[static_cast<size_t>(block)] > 0;
    dropped += !ran;
    EXPECT_EQ(golden::l2(gradient[block]) > 0, ran) << block;
  }
  EXPECT_GT(dropped, 0);
}

TEST(Apt, ListedLayersOnlyAndOtherHeadsTrainWhatTheySay) {
  Reference some("{name: apt, layers: [0, 3], head: linear, feature_norm: trained}", 0, {});
  EXPECT_EQ(some.parameters.at("prompt").sizes(), (std::vector<int64_t>{4, 192}));
  some.method->loss(batch_of(0)).backward();
  for (const char* name : {"prompt", "head.weight", "head.bias", "norm.weight", "norm.bias"}) {
    EXPECT_GT(golden::l2(some.parameters.at(name).grad()), 0) << name;
  }
  EXPECT_THROW(Reference("{name: apt, layers: [12]}", 0, {}), Error);
}

// ---- OS-Prompt ----

std::map<std::string, Tensor> os_values() {
  std::map<std::string, Tensor> values;
  for (uint32_t layer = 0; layer < 5; ++layer) {
    const std::string l = std::to_string(layer);
    values["prompt." + l] = golden::u(3100 + 10 * layer, {100, 8, 192}, -5);
    values["prompt_key." + l] = golden::u(3101 + 10 * layer, {100, 192}, -3);
  }
  return values;
}

struct OsCase {
  std::string name, options;
  int64_t task;
};

class OsPromptTest : public ::testing::TestWithParam<OsCase> {
 protected:
  int64_t task = GetParam().task, seen = 10 * (GetParam().task + 1);
  Batch batch = batch_of(task);
  json expected = golden::load("os_prompt.json")[GetParam().name]["f32"];
  Reference reference{"{name: os_prompt" + GetParam().options + "}", task, os_values()};
  std::map<std::string, std::string> names() const {
    std::map<std::string, std::string> names;
    for (int layer = 0; layer < 5; ++layer) {
      const std::string l = std::to_string(layer);
      names["prompt." + l] = "p_" + l;
      names["prompt_key." + l] = "k_" + l;
    }
    return names;
  }
};

TEST_P(OsPromptTest, LossAndGradientsMatch) {
  const Tensor loss = reference.method->loss(batch);
  golden::expect_relative(loss.item<double>(), expected["loss"], "loss");
  loss.backward();
  for (const auto& [ours, theirs] : names()) {
    const json& record = expected["grads"][theirs];
    const Tensor gradient = reference.parameters.at(ours).grad();
    golden::expect_relative(golden::l2(gradient), record["l2"], ours, 2e-5);
    expect_small(gradient[10 * task], record["first8_of_new_rows"], ours);
    EXPECT_EQ(golden::l2(gradient.narrow(0, 0, 10 * task)), 0) << ours << ", past rows";
    EXPECT_EQ(golden::l2(gradient.narrow(0, seen, 100 - seen)), 0) << ours << ", future rows";
  }
  const Tensor weight = reference.parameters.at("head.weight").grad();
  golden::expect_relative(golden::l2(weight), expected["grads"]["head.weight"]["l2"], "head");
  golden::expect_elements(weight[10 * task], expected["grads"]["head.weight"]["first8_of_row_10t"],
                          "head", 2e-6);
  const Tensor bias = reference.parameters.at("head.bias").grad();
  golden::expect_elements(bias.narrow(0, 10 * task, 10),
                          expected["grads"]["head.bias"]["first8_from_10t"], "bias", 2e-6);
}

TEST_P(OsPromptTest, ThreeStepsOfAdamMatch) {
  if (!expected.contains("steps")) GTEST_SKIP() << "no steps are kept of this case";
  OptimizerConfig config;
  config.lr = 0.001;
  Optimizer optimizer(config, reference.method->parameters());
  for (const json& step : expected["steps"]) {
    optimizer.zero_grad();
    const Tensor loss = reference.method->loss(batch);
    golden::expect_relative(loss.item<double>(), step["loss_before_step"], "loss");
    loss.backward();
    optimizer.step();
    for (const auto& [ours, theirs] : names()) {
      if (!step.contains("after_step") || !step["after_step"].contains(theirs)) continue;
      const json& record = step["after_step"][theirs];
      const Tensor value = reference.parameters.at(ours);
      golden::expect_relative(golden::l2(value), record["l2"], ours);
      golden::expect_elements(value[10 * task], record["first8_of_new_rows"], ours, kStepped);
    }
  }
  torch::NoGradGuard no_grad;
  expect_matrix(reference.method->predict(batch).narrow(1, 0, seen),
                expected["logits_test_after_3_steps"], "logits");
}

INSTANTIATE_TEST_SUITE_P(Cases, OsPromptTest,
                         ::testing::Values(OsCase{"task_0", "", 0}, OsCase{"task_2", "", 2},
                                           OsCase{"pp_token_mse_task_2",
                                                  ", qr: {weight: 0.1, form: token_mse}", 2},
                                           OsCase{"pp_softmax_task_2", ", qr: {weight: 10}", 2}),
                         [](const auto& test) { return test.param.name; });

TEST(OsPrompt, DetachedQueriesLeaveLowerLayersOtherGradients) {
  const auto gradient = [](const std::string& more) {
    Reference reference("{name: os_prompt, qr: {weight: 0.1, form: token_mse}" + more + "}", 2,
                        os_values());
    reference.method->loss(batch_of(2)).backward();
    return reference.parameters.at("prompt.0").grad().clone();
  };
  const Tensor whole = gradient(""), detached = gradient(", query_grad: false");
  const double change = golden::l2(whole - detached) / golden::l2(whole);
  EXPECT_GT(change, 0.005);  // 1 to 4 % (GOLDEN.md)
  EXPECT_LT(change, 0.2);
}

TEST(OsPrompt, ComponentsOfANewTaskBeginOrthogonal) {
  const json expected = golden::load("os_prompt.json")["gram_schmidt_task_1"]["f32"];
  const auto values = os_values();
  for (const uint32_t layer : {0U, 4U}) {  // what was recorded
    const std::string l = std::to_string(layer);
    const auto check = [&](const std::string& ours, const std::string& theirs, uint32_t seed,
                           int64_t width) {
      Tensor x = values.at(ours + l).clone();
      gram_schmidt(x, 10, 20, golden::u(seed + 10 * layer, {10, width}));
      const json& record = expected[theirs + l];
      for (const int64_t row : {10, 19}) {
        golden::expect_elements(x[row], record["row_" + std::to_string(row)]["first"], theirs + l,
                                1e-6);
      }
      golden::expect_relative(golden::l2(x.narrow(0, 0, 10)), record["rows_0_9_l2"], "old rows");
      EXPECT_EQ(golden::l2(x.narrow(0, 20, 80)), 0);
    };
    check("prompt_key.", "k_", 3160, 192);
    check("prompt.", "p_", 3161, 1536);
  }
}

TEST(OsPrompt, ADroppedLayersComponentsGetNoGradient) {
  EfficiencyConfig rep;
  rep.layer_dropping.kind = "random";
  rep.layer_dropping.keep = 0.5;
  Reference reference("{name: os_prompt, qr: {weight: 1}}", 0, os_values(), rep);
  reference.efficiency.set_time({1, 0, 4, 4});
  reference.method->loss(batch_of(0)).backward();
  int64_t dropped = 0;
  for (size_t block = 0; block < 5; ++block) {
    const bool ran = reference.efficiency.train_tokens(0).forward[block] > 0;
    dropped += !ran;
    EXPECT_EQ(reference.parameters.at("prompt." + std::to_string(block)).grad().defined(), ran);
    EXPECT_EQ(reference.parameters.at("prompt_key." + std::to_string(block)).grad().defined(), ran);
  }
  EXPECT_GT(dropped, 0);
}

}  // namespace
}  // namespace rep
