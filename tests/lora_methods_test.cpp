// InfLoRA and SD-LoRA: their authors' numbers, and what a task may change.
#include <gtest/gtest.h>
#include <yaml-cpp/yaml.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "core/error.h"
#include "methods/inflora.h"
#include "tensor/optimizer.h"
#include "tensor/torch.h"
#include "tests/golden_adapted.h"
#include "tests/method_lab.h"

namespace rep {
namespace {

using namespace golden;
using lab::Lab;
using lab::merging_and_dropping;

// ---- InfLoRA ----

class InfLoraGolden : public ::testing::Test {
 protected:
  json file = golden::load("inflora.json");
};

// The published code draws one down-projection for K and V; the numbers have one each.
TEST_F(InfLoraGolden, TwoBranchesGiveFeaturesLossAndGradients) {
  Ground ground;
  const json& expected = file["forward_two_tasks"]["f32"];
  std::vector<BlockBranches> branches(12), merged(12), first(12);
  std::vector<std::vector<Tensor>> ups;
  for (int64_t l = 0; l < 12; ++l) {
    const auto block = static_cast<size_t>(l);
    for (int64_t t = 0; t < 2; ++t) {
      const int64_t s = 5000 + 100 * l + 10 * t;
      const Tensor up_k = u(seed(s + 1), {192, 4}, -3), up_v = u(seed(s + 3), {192, 4}, -3);
      if (t == 1) ups.push_back({up_k.set_requires_grad(true), up_v.set_requires_grad(true)});
      branches[block].qkv.push_back({u(seed(s), {4, 192}, -4), up_k, 192, {}, {}});
      branches[block].qkv.push_back({u(seed(s + 2), {4, 192}, -4), up_v, 384, {}, {}});
      if (t == 0) first[block] = branches[block];
    }
    merged[block] = branches[block];
    fold_qkv(merged[block], ground.vit->blocks[block]->attn->qkv->weight);
  }
  const Tensor weight = head_rows("weight", 20).set_requires_grad(true);
  const Tensor bias = head_rows("bias", 20).set_requires_grad(true);
  const Batch batch = golden::batch();
  ForwardPlan plan;
  plan.branches = branches;
  const Tensor features = ground.vit->features(batch.images, plan);
  const Tensor logits = torch::linear(features, weight, bias);
  golden::expect_rows(features, expected["features"], "features");
  expect_matrix(logits.narrow(1, 10, 10), expected["logits_train"], "training logits");
  expect_matrix(logits, expected["logits_test"], "test logits");
  const Tensor loss = Classifier::loss(logits, batch.labels + 10, 10, 20);
  golden::expect_relative(loss.item<double>(), expected["loss"], "loss");
  loss.backward();
  for (int64_t l = 0; l < 12; ++l) {
    const std::string name = "image_encoder.blocks." + text(l) + ".attn.lora_B_";
    const auto& up = ups[static_cast<size_t>(l)];
    expect_gradient(up[0].grad(), expected["grads"][name + "k.1.weight"], name + "k");
    expect_gradient(up[1].grad(), expected["grads"][name + "v.1.weight"], name + "v");
  }
  expect_gradient(weight.grad().narrow(0, 10, 10), expected["grads"]["classifier_pool.1.weight"],
                  "head");
  expect_gradient(bias.grad().narrow(0, 10, 10), expected["grads"]["classifier_pool.1.bias"],
                  "head's bias");
  const torch::NoGradGuard no_grad;
  plan.branches = merged;
  EXPECT_TRUE(ground.vit->features(batch.images, plan).allclose(features, 0, 1e-5)) << "merged";
  plan.branches = first;
  expect_matrix(torch::linear(ground.vit->features(batch.images, plan), weight, bias),
                expected["task0_only_logits"], "with the first branch alone");
}

TEST_F(InfLoraGolden, MemoriesTakeUpGiveUpAndChangeSides) {
  std::vector<SubspaceMemory> memories(3, SubspaceMemory({true, true}));
  for (int64_t t = 0; t < 5; ++t) {
    const json& task = file["synthetic_dualgpm"]["f32"][static_cast<size_t>(t)];
    for (int64_t l = 0; l < 3; ++l) {
      const json& expected = task["layers"][static_cast<size_t>(l)];
      Tensor G = u(seed(5600 + 10 * t + l), {16, 24});
      for (int64_t i = 0; i < 16; ++i) G[i] *= std::exp2(-((i + 5 * t * (l + 1)) % 16 / 2));
      const Tensor C = torch::mm(G, G.t()) / 24;
      const std::string what = "task " + text(t) + ", layer " + text(l);
      golden::expect_record(C, expected["C"], what);
      SubspaceMemory& memory = memories[static_cast<size_t>(l)];
      memory.update(C, 0.9 + 0.1 * static_cast<double>(t) / 5);
      EXPECT_EQ(memory.columns(), expected["columns"].get<int64_t>()) << what;
      EXPECT_EQ(memory.is_free_space(), expected["type"] == "retain") << what;
      const Tensor F = memory.basis(), P = torch::mm(F, F.t());
      expect_matrix(P.narrow(0, 0, 4), expected["projector_upper_rows0_3"], what);
      EXPECT_TRUE(torch::mm(F.t(), F).allclose(torch::eye(memory.columns()), 0, 1e-5)) << what;
      EXPECT_LE(memory.columns(), 8);
      // A new branch lies in what is free.
      for (const int64_t rank : {3, 6}) {
        const Tensor A = memory.design_down(C, rank);
        ASSERT_EQ(A.sizes(), (std::vector<int64_t>{rank, 16}));
        // The directions of little energy are as far from F as it is rounded.
        EXPECT_TRUE(torch::mm(torch::mm(A, F), F.t())
                        .allclose(memory.is_free_space() ? A : torch::zeros_like(A), 0,
                                  rank == 3 ? 1e-5 : 1e-3))
            << what;
        const int64_t left = memory.is_free_space() ? F.size(1) : 16 - F.size(1);
        EXPECT_EQ(A.norm(2, 1).gt(0.5).sum().item<int64_t>(), std::min(rank, left)) << what;
      }
    }
  }
}

void expect_projector(const Tensor& P, const json& record, const std::string& what) {
  EXPECT_NEAR(P.trace().item<double>(), record["trace"].get<double>(), 1e-4) << what;
  golden::expect_elements(P[0], record["row0_first8"], what);
  golden::expect_elements(P[100], record["row100_first8"], what);
  const Tensor along = torch::mv(P, u(5990, {192}));
  golden::expect_elements(along, record["times_v_first8"], what);
  golden::expect_relative(golden::l2(along), record["times_v_l2"], what, 1e-4);
}

TEST_F(InfLoraGolden, ThreeTasksAsItsTrainingLoopRunsThem) {
  Ground ground;
  InfLoraOptions options;
  options.rank = 4;
  options.lamb = 0.945;
  InfLora method(ground.context("{name: inflora}"), options);
  replace(method,
          {{"head.weight", head_rows("weight", 100)}, {"head.bias", head_rows("bias", 100)}});
  const std::vector<std::vector<int64_t>> labels{{3, 1, 7, 0}, {2, 9, 4, 6}, {5, 8, 1, 3}};
  for (int64_t t = 0; t < 3; ++t) {
    const json& expected = file["sequence"]["f32"][static_cast<size_t>(t)];
    Batch batch = golden::batch(seed(t), labels[static_cast<size_t>(t)]);
    batch.labels = batch.labels + 10 * t;
    const auto images = [&](const std::function<void(const Batch&)>& visit) { visit(batch); };
    const Task task = task_of(t, 10 * t, 10);
    method.begin(task, images);
    const std::string prefix = "branch." + text(t) + ".";
    std::map<int64_t, Tensor> downs;
    for (const int64_t l : {0, 1, 11}) {
      const json& layer = expected["layers"][text(l)];
      const std::string what = "task " + text(t) + ", block " + text(l);
      const Tensor A = state_of(method, prefix + text(l) + ".k.down");
      downs[l] = A;
      expect_matrix(A.abs(), layer["A_abs_first4_of_each_row"], what, 5e-5);
      expect_projector(3 * torch::mm(A.t(), A), layer["A_projector_3AtA"], what + ", A");
    }
    OptimizerConfig config;
    Optimizer optimizer(config, method.parameters());
    for (size_t step = 0; step < 3; ++step) {
      optimizer.set_lr(expected["lr_of_each_step"][step]);
      optimizer.zero_grad();
      const Tensor loss = method.loss(batch);
      golden::expect_relative(loss.item<double>(), expected["losses"][step], "loss " + text(t));
      loss.backward();
      optimizer.step();
    }
    optimizer.zero_grad();
    method.end(task, images);
    for (size_t l = 0; l < 12; ++l) {
      const SubspaceMemory& memory = method.memories()[l];
      EXPECT_EQ(memory.columns(), expected["basis_columns_all_layers"][l].get<int64_t>()) << l;
      EXPECT_EQ(memory.is_free_space(), expected["types"][l] == "retain") << l;
    }
    for (const int64_t l : {0, 1, 11}) {
      const json& layer = expected["layers"][text(l)];
      const std::string what = "task " + text(t) + ", block " + text(l);
      const Tensor C = method.last_covariances()[static_cast<size_t>(l)];
      golden::expect_elements(C, layer["after"]["covariance"]["first"], what + ", covariance");
      golden::expect_relative(golden::l2(C), layer["after"]["covariance"]["l2"], what);
      const Tensor F = method.memories()[static_cast<size_t>(l)].basis();
      expect_projector(torch::mm(F, F.t()), layer["after"]["projector"], what + ", basis");
      const Tensor B = state_of(method, prefix + text(l) + ".k.up"), delta = torch::mm(B, downs[l]);
      golden::expect_elements(delta, layer["delta_k_after_3_steps"]["first"], what + ", B A", 2e-6);
      golden::expect_relative(golden::l2(delta), layer["delta_k_after_3_steps"]["l2"], what, 1e-3);
    }
    const torch::NoGradGuard no_grad;
    expect_matrix(method.predict(batch).narrow(1, 0, 10 * (t + 1)), expected["logits_test_after"],
                  "test logits after task " + text(t));
  }
}

TEST(InfLoraSchedule, IsCodasOneEpochLate) {
  const json expected = golden::load("inflora.json")["sequence"]["f32"][0]["lr_of_each_step"];
  for (int64_t epoch = 0; epoch < 3; ++epoch) {
    TrainConfig config;
    config.schedule = "coda";
    config.epochs = 3;
    config.optimizer.lr = 5e-4;
    EXPECT_NEAR(scheduled_lr(config, epoch), expected[static_cast<size_t>(epoch)].get<double>(),
                1e-12);
  }
}

// ---- SD-LoRA ----

class SdLoraGolden : public ::testing::TestWithParam<int64_t> {
 protected:
  // At task t with the numbers' branches; the new one's up-projection as given, or 0.
  std::unique_ptr<Method> at(Ground& ground, bool fresh) const {
    const int64_t t = GetParam();
    auto method = ground.make("{name: sd_lora, rank: 4}");
    for (int64_t i = 0; i <= t; ++i) method->begin_task(task_of(i, 10 * i, 10));
    Values values{{"head.weight", head_rows("weight", 100)}, {"head.bias", head_rows("bias", 100)}};
    for (int64_t i = 0; i <= t; ++i) {
      for (int64_t l = 0; l < 12; ++l) {
        const int64_t s = 6500 + 100 * l + 10 * i;
        const std::string name = "branch." + text(i) + "." + text(l) + ".";
        values[name + "q.down"] = u(seed(s), {4, 192}, -4);
        values[name + "v.down"] = u(seed(s + 2), {4, 192}, -4);
        const double kept = fresh && i == t ? 0 : 1;
        values[name + "q.up"] = kept * u(seed(s + 1), {192, 4}, -3);
        values[name + "v.up"] = kept * u(seed(s + 3), {192, 4}, -3);
      }
    }
    if (!fresh) {
      values["magnitude.0"] =
          t == 0 ? torch::tensor({1.125}) : torch::tensor({0.6875, 0.90625, 1.125});
      values["magnitude.0"] = values["magnitude.0"].to(torch::kFloat);
    }
    replace(*method, values);
    return method;
  }
  Batch batch() const {
    Batch batch = golden::batch();
    batch.labels = batch.labels + 10 * GetParam();
    return batch;
  }
  int64_t seen() const { return 10 * (GetParam() + 1); }
  std::string name() const { return "task" + text(GetParam()); }
  json file = golden::load("sdlora.json");
};

TEST_P(SdLoraGolden, LossAndGradientsMatch) {
  Ground ground;
  auto method = at(ground, /*fresh=*/false);
  const json& expected = file[name()]["f32"];
  const Tensor loss = method->loss(batch());
  golden::expect_relative(loss.item<double>(), expected["loss"], "loss");
  loss.backward();
  Values named = named_parameters(*method);
  const json& grads = expected["grads"];
  const Tensor m = named.at("magnitude.0").grad();
  for (int64_t i = 0; i < GetParam(); ++i) {
    EXPECT_NEAR(m[i].item<double>(), grads["magnitude.task" + text(i)].get<double>(), 1e-6);
  }
  EXPECT_NEAR(m[GetParam()].item<double>(), grads["magnitude.current"].get<double>(), 1e-6);
  for (int64_t l = 0; l < 12; ++l) {
    const std::string ours = "branch." + text(GetParam()) + "." + text(l) + ".";
    const std::string theirs = "block" + text(l) + ".";
    for (const char* target : {"q", "v"}) {
      const std::string t = target;
      expect_gradient(named.at(ours + t + ".down").grad(), grads[theirs + "A_" + t], theirs + t);
      expect_gradient(named.at(ours + t + ".up").grad(), grads[theirs + "B_" + t], theirs + t);
    }
  }
  const Tensor head = named.at("head.weight").grad();
  expect_gradient(head.narrow(0, 0, seen()), grads["head.weight"], "head");
  golden::expect_elements(head[seen() - 10], grads["head.weight_new_rows_first8"], "new rows",
                          2e-6);
  expect_gradient(named.at("head.bias").grad().narrow(0, 0, seen()), grads["head.bias"], "bias");
  const torch::NoGradGuard no_grad;
  expect_matrix(method->predict(batch()).narrow(1, 0, seen()), expected["logits"], "logits");
  method->end_task(task_of(GetParam(), 10 * GetParam(), 10));
  expect_matrix(method->predict(batch()).narrow(1, 0, seen()), expected["logits"], "merged");
}

TEST_P(SdLoraGolden, ThreeStepsOfSgdMatch) {
  Ground ground;
  auto method = at(ground, /*fresh=*/true);
  const json& expected = file["train_3_steps_" + name()]["f32"];
  OptimizerConfig config;
  config.name = "sgd";
  config.lr = 8e-3;
  config.momentum = 0.9;
  Optimizer optimizer(config, method->parameters());
  for (size_t step = 0; step < 3; ++step) {
    optimizer.zero_grad();
    const Tensor loss = method->loss(batch());
    golden::expect_relative(loss.item<double>(), expected["losses"][step], "loss");
    loss.backward();
    optimizer.step();
  }
  const auto expect_value = [&](const std::string& ours, const json& record) {
    const Tensor value = state_of(*method, ours);
    golden::expect_relative(golden::l2(value), record["l2"], ours, 1e-4);
    golden::expect_elements(value, record["first"], ours, 2e-6);
  };
  const std::string branch = "branch." + text(GetParam()) + ".";
  expect_value(branch + "0.q.up", expected["block0.B_q"]);
  expect_value(branch + "0.q.down", expected["block0.A_q"]);
  expect_value(branch + "11.v.up", expected["block11.B_v"]);
  const Tensor m = state_of(*method, "magnitude.0");
  EXPECT_NEAR(m[GetParam()].item<double>(), expected["magnitude.current"].get<double>(), 1e-6);
  for (int64_t i = 0; i < GetParam(); ++i) {
    EXPECT_NEAR(m[i].item<double>(), expected["magnitude.task" + text(i)].get<double>(), 1e-6);
  }
  const torch::NoGradGuard no_grad;
  expect_matrix(method->predict(batch()).narrow(1, seen() - 10, 10), expected["logits_after"],
                "logits of the task in hand");
}

INSTANTIATE_TEST_SUITE_P(Tasks, SdLoraGolden, ::testing::Values(0, 2),
                         [](const auto& test) { return "Task" + text(test.param); });

// ---- on a small stream ----

// Blocks that a step dropped have no gradient, so that no optimiser moves them; of the others every
// up-projection has one.
void expect_gradients_where_blocks_ran(Lab& lab) {
  lab.begin(0);
  lab.efficiency->set_time({31, 0, 0, 0});
  lab.method->loss(lab.batch(0)).backward();
  const ForwardPlan plan = lab.efficiency->train_plan();
  EXPECT_GT(plan.merges(5), 0);
  int64_t dropped = 0;
  for (const auto& [name, parameter] : named_parameters(*lab.method)) {
    if (name.rfind("branch.0.", 0) != 0) continue;
    const bool skipped = plan.skips(name[9] - '0');
    EXPECT_EQ(parameter.grad().defined(), !skipped) << name;
    dropped += skipped;
  }
  EXPECT_GT(dropped, 0);
}

TEST(InfLora, MergesAndDropsInItsStepsOnly) {
  Lab lab("{name: inflora, rank: 4}", 0, merging_and_dropping());
  expect_gradients_where_blocks_ran(lab);
  lab.learn(0, 2);
  auto& method = dynamic_cast<InfLora&>(*lab.method);
  // The statistics are those of the test's pass, whose tokens nothing merges.
  std::vector<Tensor> sums(6);
  ForwardPlan plan;
  plan.branches.resize(6);
  for (size_t i = 0; i < 6; ++i) {
    const std::string name = "branch.1." + text(static_cast<int64_t>(i));
    for (const char* target : {"k", "v"}) {
      plan.branches[i].qkv.push_back({lab.carried(name + ".k.down"),
                                      lab.carried(name + "." + target + ".up"),
                                      target[0] == 'k' ? 96 : 192,
                                      {},
                                      {}});
    }
  }
  plan.observe = [&](const Tensor& x, int64_t block) {
    sums[static_cast<size_t>(block)] = torch::mm(x.t(), x) / x.size(0);
  };
  lab.features(0, plan);
  for (size_t i = 0; i < 6; ++i) {
    const Tensor C = method.last_covariances()[i];
    EXPECT_TRUE(C.to(torch::kFloat).allclose(sums[i], 1e-4, 1e-5)) << "block " << i;
  }
}

TEST(InfLora, ANewBranchLeavesWhatEarlierTasksUse) {
  Lab lab("{name: inflora, rank: 4}");
  lab.learn(0, 5);
  lab.begin(1);
  auto& method = dynamic_cast<InfLora&>(*lab.method);
  EXPECT_TRUE(method.last_covariances().empty()) << "held while the task trains";
  for (size_t i = 0; i < 6; ++i) {
    const Tensor F = method.memories()[i].basis();
    const Tensor A = lab.carried("branch.1." + text(static_cast<int64_t>(i)) + ".k.down");
    EXPECT_LT(torch::mm(A, F).abs().max().item<double>(), 1e-5);
    EXPECT_NEAR(golden::l2(A[0]), 1 / std::sqrt(3.0), 1e-5);
  }
  const Tensor down = lab.carried("branch.1.0.k.down"), old = lab.carried("branch.0.0.k.up");
  EXPECT_GT(old.abs().max().item<double>(), 0);
  lab.step(1, 3);
  EXPECT_TRUE(lab.carried("branch.1.0.k.down").equal(down)) << "the down-projection moved";
  EXPECT_TRUE(lab.carried("branch.0.0.k.up").equal(old)) << "an old branch moved";
  EXPECT_GT(lab.carried("branch.1.0.v.up").abs().max().item<double>(), 0);
}

// Of a last step that broke its parameters no loss tells.
TEST(InfLora, SaysThatItDivergedWhereItsFeaturesAreNotFinite) {
  Lab lab("{name: inflora, rank: 4}");
  lab.begin(0);
  {
    const torch::NoGradGuard no_grad;
    for (Tensor parameter : lab.method->parameters()) {
      parameter.fill_(std::numeric_limits<float>::infinity());
    }
  }
  EXPECT_THROW(lab.method->end_task(lab.tasks[0]), Diverged);
}

TEST(InfLora, RefusesWhatItCannotDo) {
  EXPECT_THROW(Lab("{name: inflora, targets: [fc1]}"), Error);
  EXPECT_THROW(Lab("{name: inflora, targets: [x]}"), Error);
  EXPECT_THROW(Lab("{name: inflora, rank: 97}"), Error);
  EXPECT_THROW(Lab("{name: inflora}", 6), Error);
  EXPECT_THROW(Lab("{name: sd_lora}", 6), Error);
}

TEST(SdLora, MergesAndDropsInItsSteps) {
  Lab lab("{name: sd_lora, rank: 4}", 0, merging_and_dropping());
  expect_gradients_where_blocks_ran(lab);
}

// With every magnitude |B| |A| the sum of directions is the sum of the branches themselves.
TEST(SdLora, MagnitudesOfTheNormsGiveTheRawBranches) {
  Lab lab("{name: sd_lora, rank: 4, share_magnitude: task_block, targets: [q]}");
  lab.learn(0, 3);
  lab.begin(1);
  lab.step(1, 2);
  Values values;
  std::vector<BlockBranches> raw(6);
  for (int64_t i = 0; i < 6; ++i) {
    const auto of = [&](int64_t task, const std::string& part) {
      return lab.carried("branch." + text(task) + "." + text(i) + ".q." + part);
    };
    const double norms = golden::l2(of(0, "up")) * golden::l2(of(0, "down"));
    EXPECT_GT(norms, 0);
    values["magnitude." + text(i)] = torch::tensor({norms, 1.0}, torch::kFloat);
    for (const int64_t task : {0, 1}) {
      raw[static_cast<size_t>(i)].qkv.push_back({of(task, "down"), of(task, "up"), 0, {}, {}});
    }
  }
  replace(*lab.method, values);
  ForwardPlan plan;
  plan.branches = raw;
  const Tensor expected =
      torch::linear(lab.features(0, plan), lab.carried("head.weight"), lab.carried("head.bias"));
  EXPECT_TRUE(lab.predict(0).allclose(expected, 1e-4, 1e-4));
  lab.method->end_task(lab.tasks[1]);
  EXPECT_TRUE(lab.predict(0).allclose(expected, 1e-4, 1e-4)) << "folded";
}

TEST(SdLora, BeginsEveryTaskFromTheSameMagnitudesUnlessTheyAreCarried) {
  for (const bool carries : {false, true}) {
    Lab lab(std::string("{name: sd_lora, rank: 4, carry_magnitudes: ") +
            (carries ? "true}" : "false}"));
    lab.learn(0, 5);
    const Tensor learned = lab.carried("magnitude.0");
    EXPECT_NE(learned[0].item<float>(), 0.8F);
    lab.begin(1);
    const Tensor begun = lab.carried("magnitude.0");
    ASSERT_EQ(begun.size(0), 2);
    EXPECT_EQ(begun[0].item<float>(), carries ? learned[0].item<float>() : 0.8F);
    EXPECT_EQ(begun[1].item<float>(), 0.8F);
  }
}

TEST(SdLora, RanksFallInItsSchedule) {
  Lab lab("{name: sd_lora, rank: 10, rank_schedule: rr}");
  std::vector<int64_t> ranks;
  for (int64_t t = 0; t < 9; ++t) {
    Task task = lab.tasks[1];
    task.index = t;
    lab.method->begin_task(task);
    ranks.push_back(lab.carried("branch." + text(t) + ".0.q.down").size(0));
  }
  EXPECT_EQ(ranks, (std::vector<int64_t>{10, 10, 10, 10, 8, 8, 8, 8, 6}));
  lab.method->loss(lab.batch(1)).backward();
}

}  // namespace
}  // namespace rep
