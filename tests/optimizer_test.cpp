// Adam, AdamW and SGD against LibTorch's own and by hand; clipping; resuming.

#include "tensor/optimizer.h"

#include <gtest/gtest.h>
#include <torch/optim/adam.h>
#include <torch/optim/adamw.h>
#include <torch/optim/sgd.h>

#include <cmath>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "tensor/torch.h"
#include "tests/golden.h"

namespace rep {
namespace {

using torch::Tensor;

std::vector<Tensor> parameters() {
  torch::manual_seed(7);
  std::vector<Tensor> list;
  for (const std::vector<int64_t>& shape : {std::vector<int64_t>{3, 5}, {4}, {2, 2, 2}}) {
    list.push_back(torch::randn(shape).set_requires_grad(true));
  }
  return list;
}

std::vector<Tensor> copies(const std::vector<Tensor>& list) {
  std::vector<Tensor> copied;
  for (const auto& t : list) copied.push_back(t.detach().clone().set_requires_grad(true));
  return copied;
}

/// Gradients of wildly different sizes, the same for both lists; the second parameter has none in
/// the first two steps.
void give_gradients(int64_t step, std::vector<Tensor>& ours, std::vector<Tensor>& theirs) {
  torch::manual_seed(static_cast<uint64_t>(100 + step));
  for (size_t i = 0; i < ours.size(); ++i) {
    const Tensor gradient = torch::randn_like(ours[i]) * std::pow(10.0, static_cast<double>(i) - 3);
    if (i == 1 && step < 2) continue;
    ours[i].mutable_grad() = gradient.clone();
    theirs[i].mutable_grad() = gradient.clone();
  }
}

struct Case {
  const char* description;
  OptimizerConfig config;
};

std::unique_ptr<torch::optim::Optimizer> libtorchs(const OptimizerConfig& c,
                                                   const std::vector<Tensor>& list) {
  if (c.name == "sgd") {
    return std::make_unique<torch::optim::SGD>(
        list, torch::optim::SGDOptions(c.lr).momentum(c.momentum).weight_decay(c.weight_decay));
  }
  const auto betas = std::make_tuple(c.beta1, c.beta2);
  if (c.name == "adamw") {
    return std::make_unique<torch::optim::AdamW>(
        list,
        torch::optim::AdamWOptions(c.lr).betas(betas).eps(c.eps).weight_decay(c.weight_decay));
  }
  return std::make_unique<torch::optim::Adam>(
      list, torch::optim::AdamOptions(c.lr).betas(betas).eps(c.eps).weight_decay(c.weight_decay));
}

OptimizerConfig config(const std::string& name, double lr, double weight_decay = 0,
                       double momentum = 0) {
  OptimizerConfig c;
  c.name = name;
  c.lr = lr;
  c.weight_decay = weight_decay;
  c.momentum = momentum;
  return c;
}

OptimizerConfig other_betas() {
  OptimizerConfig c = config("adam", 0.01);
  c.beta1 = 0.8;
  c.beta2 = 0.95;
  c.eps = 1e-3;
  return c;
}

class OptimizerTest : public ::testing::TestWithParam<Case> {};

TEST_P(OptimizerTest, TenStepsEqualLibTorchs) {
  std::vector<Tensor> ours = parameters(), theirs = copies(ours);
  const std::vector<Tensor> start = copies(ours);
  Optimizer optimizer(GetParam().config, ours);
  const auto reference = libtorchs(GetParam().config, theirs);
  for (int64_t step = 0; step < 10; ++step) {
    give_gradients(step, ours, theirs);
    optimizer.step();
    reference->step();
    for (size_t i = 0; i < ours.size(); ++i) {
      EXPECT_TRUE(torch::allclose(ours[i], theirs[i], /*rtol=*/0, /*atol=*/1e-7))
          << "step " << step << ", parameter " << i << ", off by "
          << (ours[i] - theirs[i]).abs().max().item<double>();
    }
    if (step == 1) {
      EXPECT_TRUE(torch::equal(ours[1], start[1])) << "moved without a gradient";
    }
  }
  for (size_t i = 0; i < ours.size(); ++i)
    EXPECT_FALSE(torch::allclose(ours[i], start[i], 0, 1e-4));
}

TEST_P(OptimizerTest, GoesOnFromItsStateAsIfNothingHappened) {
  std::vector<Tensor> whole = parameters(), unused = copies(whole);
  Optimizer uninterrupted(GetParam().config, whole);
  uninterrupted.set_lr(0.02);
  std::vector<Tensor> resumed;
  std::unique_ptr<Optimizer> second;
  for (int64_t step = 0; step < 8; ++step) {
    if (step == 4) {
      State saved;
      uninterrupted.state(saved);
      NamedTensors tensors;
      for (const auto& [name, tensor] : saved.tensors()) tensors.emplace_back(name, tensor.clone());
      resumed = copies(whole);
      second = std::make_unique<Optimizer>(GetParam().config, resumed);
      State given(tensors, saved.values());
      second->state(given);
    }
    give_gradients(step, whole, step < 4 ? unused : resumed);
    uninterrupted.step();
    if (second) second->step();
  }
  for (size_t i = 0; i < whole.size(); ++i) EXPECT_TRUE(torch::equal(whole[i], resumed[i])) << i;
}

INSTANTIATE_TEST_SUITE_P(
    Kinds, OptimizerTest,
    ::testing::Values(Case{"adam", config("adam", 0.01)},
                      Case{"adam_with_decay", config("adam", 0.01, 0.1)},
                      Case{"adam_with_other_betas", other_betas()},
                      Case{"adamw", config("adamw", 0.01, 0.1)}, Case{"sgd", config("sgd", 0.1)},
                      Case{"sgd_with_momentum", config("sgd", 0.1, 0, 0.9)},
                      Case{"sgd_with_momentum_and_decay", config("sgd", 0.1, 0.01, 0.9)}),
    [](const auto& test) { return test.param.description; });

// ---- by hand ----

Tensor after_one_step(const OptimizerConfig& c, double start, double gradient) {
  Tensor p = torch::full({1}, start, torch::kDouble).set_requires_grad(true);
  p.mutable_grad() = torch::full({1}, gradient, torch::kDouble);
  Optimizer(c, {p}).step();
  return p.detach();
}

TEST(FirstStepTest, AdamMovesByTheLearningRateAgainstTheSign) {
  // m/(1-b1) = g and sqrt(v/(1-b2)) = |g|: p - lr g / (|g| + eps)
  EXPECT_NEAR(after_one_step(config("adam", 0.1), 1, 2.0).item<double>(), 1 - 0.1 * 2 / (2 + 1e-8),
              1e-12);
  EXPECT_NEAR(after_one_step(config("adam", 0.1), 1, -1e-8).item<double>(), 1 + 0.05, 1e-12);
}

TEST(FirstStepTest, AdamDecaysThroughTheGradientAndAdamwBesideIt) {
  EXPECT_NEAR(after_one_step(config("adam", 0.1, 0.5), 1, -0.5).item<double>(), 1, 1e-12);
  EXPECT_NEAR(after_one_step(config("adamw", 0.1, 0.5), 1, -0.5).item<double>(),
              1 * (1 - 0.1 * 0.5) + 0.1 * 0.5 / (0.5 + 1e-8), 1e-12);
}

TEST(FirstStepTest, SgdFollowsTheDecayedGradient) {
  EXPECT_NEAR(after_one_step(config("sgd", 0.1, 0.5, 0.9), 2, 3).item<double>(),
              2 - 0.1 * (3 + 0.5 * 2), 1e-12);
}

TEST(OptimizerSmallTest, LearningRateCanChangeBetweenSteps) {
  Tensor p = torch::zeros({1}, torch::kDouble).set_requires_grad(true);
  Optimizer optimizer(config("sgd", 1), {p});
  for (const double lr : {1.0, 0.25}) {
    optimizer.set_lr(lr);
    p.mutable_grad() = torch::ones({1}, torch::kDouble);
    optimizer.step();
  }
  EXPECT_EQ(p.item<double>(), -1.25);
}

TEST(OptimizerSmallTest, ZeroGradUndefinesGradients) {
  std::vector<Tensor> list = parameters();
  for (auto& p : list) p.mutable_grad() = torch::ones_like(p);
  Optimizer optimizer(config("adam", 0.1), list);
  optimizer.zero_grad();
  for (const auto& p : list) EXPECT_FALSE(p.grad().defined());
}

// ---- rows that do not train ----

TEST_P(OptimizerTest, MovesNoRowOutsideOfThoseThatTrain) {
  std::vector<Tensor> some = parameters(), whole = copies(some);
  const std::vector<Tensor> start = copies(some);
  // Of [3, 5] the second row, of [4] the last two, of [2, 2, 2] the first of the last dimension.
  const std::vector<TrainedRows> rows{{0, 1, 2}, {0, 2, 4}, {2, 0, 1}};
  OptimizerConfig config = GetParam().config;
  Optimizer of_rows(config, some, {}, rows), of_all(config, whole);
  const auto part = [&](const Tensor& t, size_t i) {
    return t.narrow(rows[i].dim, rows[i].first, rows[i].last - rows[i].first);
  };
  for (int64_t step = 2; step < 6; ++step) {
    give_gradients(step, some, whole);
    for (size_t i = 0; i < some.size(); ++i) {  // the loss sees the rows that train
      Tensor gradient = torch::zeros_like(some[i]);
      part(gradient, i).copy_(part(some[i].grad(), i));
      some[i].mutable_grad() = gradient;
    }
    of_rows.step();
    of_all.step();
  }
  for (size_t i = 0; i < some.size(); ++i) {
    EXPECT_TRUE(part(some[i], i).allclose(part(whole[i], i), 0, 1e-7)) << i;
    Tensor rest = some[i].detach() - start[i].detach();
    part(rest, i).zero_();
    EXPECT_TRUE(rest.eq(0).all().item<bool>()) << i << ": " << rest;
  }
}

// ---- schedules ----

std::vector<double> rates(const std::string& schedule, double base, int64_t epochs) {
  TrainConfig train;
  train.schedule = schedule;
  train.epochs = epochs;
  train.optimizer.lr = base;
  std::vector<double> rates;
  for (int64_t epoch = 0; epoch < epochs; ++epoch) rates.push_back(scheduled_lr(train, epoch));
  return rates;
}

// Against rates that the authors' code printed for some of the epochs.
void expect_published_rates(const std::string& file, const std::string& list,
                            const std::vector<double>& rates) {
  const auto golden = golden::load(file);
  const auto epochs = golden["lr_epochs_shown"].get<std::vector<size_t>>();
  const auto published = golden[list].get<std::vector<double>>();
  ASSERT_EQ(epochs.size(), published.size());
  for (size_t i = 0; i < epochs.size(); ++i) {
    EXPECT_NEAR(rates.at(epochs[i]), published[i], 1e-12 + 1e-9 * published[i]) << epochs[i];
  }
}

TEST(ScheduleTest, CodaIsAnEpochLateAsItsAuthorsCode) {
  expect_published_rates("apt.json", "lr_by_epoch_of_30", rates("coda", 0.004, 30));
}

TEST(ScheduleTest, CodaWithoutLagIsCpsPrompts) {
  expect_published_rates("cps.json", "lr_by_epoch_of_20", rates("coda_no_lag", 0.001, 20));
}

TEST(ScheduleTest, CodaStaysAtTheBaseRateForTwoEpochs) {
  const double third = std::cos(99 * M_PI / 400);  // half of nearly a quarter wave
  EXPECT_EQ(rates("coda", 1, 1), (std::vector<double>{1}));
  EXPECT_EQ(rates("coda", 1, 2), (std::vector<double>{1, 1}));
  EXPECT_EQ(rates("coda", 1, 3), (std::vector<double>{1, 1, third}));
  EXPECT_EQ(rates("coda_no_lag", 1, 1), (std::vector<double>{1}));
  EXPECT_EQ(rates("coda_no_lag", 1, 3), (std::vector<double>{1, third, std::cos(99 * M_PI / 200)}));
}

TEST(ScheduleTest, CosineFallsToZeroAfterTheLastEpoch) {
  const auto found = rates("cosine", 2, 4);
  const double root = std::sqrt(0.5);
  const std::vector<double> expected{2, 1 + root, 1, 1 - root};
  for (size_t e = 0; e < 4; ++e) EXPECT_NEAR(found[e], expected[e], 1e-12) << e;
  EXPECT_EQ(rates("constant", 2, 2), (std::vector<double>{2, 2}));
}

// ---- clipping ----

/// Gradients (3, 4), (12) and none: norm 13.
std::vector<Tensor> with_norm_thirteen() {
  std::vector<Tensor> list;
  for (const int64_t size : {2, 1, 1}) {
    list.push_back(torch::zeros({size}).set_requires_grad(true));
  }
  list[0].mutable_grad() = torch::tensor({3.0f, 4.0f});
  list[1].mutable_grad() = torch::tensor({12.0f});
  return list;
}

TEST(ClipGradNormTest, ScalesTheJointNormDown) {
  const auto list = with_norm_thirteen();
  clip_grad_norm(list, 6.5);
  EXPECT_TRUE(torch::allclose(list[0].grad(), torch::tensor({1.5f, 2.0f}), 0, 1e-6));
  EXPECT_TRUE(torch::allclose(list[1].grad(), torch::tensor({6.0f}), 0, 2e-6));
  EXPECT_FALSE(list[2].grad().defined());
}

TEST(ClipGradNormTest, LeavesSmallerGradientsAlone) {
  const auto list = with_norm_thirteen();
  clip_grad_norm(list, 13.5);
  EXPECT_TRUE(torch::equal(list[0].grad(), torch::tensor({3.0f, 4.0f})));
  EXPECT_TRUE(torch::equal(list[1].grad(), torch::tensor({12.0f})));
}

}  // namespace
}  // namespace rep
