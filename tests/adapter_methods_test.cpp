// APER and EASE: their authors' numbers, and what a task may change.
#include <gtest/gtest.h>
#include <yaml-cpp/yaml.h>

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "core/error.h"
#include "methods/class_means.h"
#include "methods/cosine_head.h"
#include "methods/ease.h"
#include "tensor/meter.h"
#include "tensor/optimizer.h"
#include "tensor/torch.h"
#include "tests/golden_adapted.h"
#include "tests/method_lab.h"

namespace rep {
namespace {

using namespace golden;
using lab::Lab;
using lab::merging_and_dropping;

constexpr double kCosine = 2e-6;  // of cosines: margins of classes go down to 7e-4

// ---- APER and EASE ----

Values adapter_values(int64_t set, const std::string& prefix) {
  Values values;
  for (int64_t l = 0; l < 12; ++l) {
    const int64_t s = 7600 + 200 * set + 10 * l;
    const std::string name = prefix + "adapter." + text(l) + ".";
    values[name + "down.weight"] = u(seed(s), {16, 192}, -3);
    values[name + "down.bias"] = u(seed(s + 1), {16}, -4);
    values[name + "up.weight"] = u(seed(s + 2), {192, 16}, -1);
    values[name + "up.bias"] = u(seed(s + 3), {192}, -3);
  }
  return values;
}
std::vector<Adapter> adapters(int64_t set) {
  Values values = adapter_values(set, "");
  std::vector<Adapter> blocks;
  for (int64_t l = 0; l < 12; ++l) {
    const std::string name = "adapter." + text(l) + ".";
    blocks.push_back({values[name + "down.weight"], values[name + "down.bias"],
                      values[name + "up.weight"], values[name + "up.bias"], 0.1});
  }
  return blocks;
}
Tensor features(Ground& ground, const Batch& batch, const std::vector<Adapter>& with) {
  const torch::NoGradGuard no_grad;
  ForwardPlan plan;
  plan.adapters = with;
  return ground.vit->features(batch.images, plan);
}

const char* const kAper = "{name: aper, bottleneck: 16, adapter_dropout: 0}";

TEST(AperGolden, LossAndGradientsMatch) {
  Ground ground;
  const json expected = golden::load("aper.json")["forward"]["f32"];
  auto method = ground.make(kAper);
  method->begin_task(task_of(0, 0, 10));
  Values values = adapter_values(0, "");
  values["head"] = head_rows("weight", 10);
  replace(*method, values);
  golden::expect_rows(features(ground, golden::batch(), adapters(0)), expected["features"],
                      "features");
  expect_matrix(cosines(features(ground, golden::batch(), adapters(0)), head_rows("weight", 10)),
                expected["cosine_logits"], "logits", kCosine);
  const Tensor loss = method->loss(golden::batch());
  golden::expect_relative(loss.item<double>(), expected["loss"], "loss");
  loss.backward();
  Values named = named_parameters(*method);
  EXPECT_EQ(named.size(), 2u + 48u);
  for (const auto& [name, parameter] : named) {
    if (name == "scale") {
      EXPECT_NEAR(parameter.grad().item<double>(), expected["grads"]["head.sigma"].get<double>(),
                  1e-6);
    } else if (name == "head") {
      expect_gradient(parameter.grad(), expected["grads"]["head.weight"], name);
    } else {
      const std::string theirs = "block" + name.substr(std::string("adapter.").size());
      ASSERT_TRUE(expected["grads"].contains(theirs)) << theirs;
      expect_gradient(parameter.grad(), expected["grads"][theirs], name);
    }
  }
}

TEST(AperGolden, ThreeStepsOfSgdMatch) {
  Ground ground;
  const json expected = golden::load("aper.json")["train_3_steps"]["f32"];
  auto method = ground.make(kAper);
  method->begin_task(task_of(0, 0, 10));
  Values values = adapter_values(0, "");
  for (auto& [name, value] : values) {
    if (name.find("up.") != std::string::npos) value = torch::zeros_like(value);
  }
  values["head"] = head_rows("weight", 10);
  replace(*method, values);
  OptimizerConfig config;
  config.name = "sgd";
  config.momentum = 0.9;
  config.weight_decay = 5e-4;
  Optimizer optimizer(config, method->parameters());
  for (size_t step = 0; step < 3; ++step) {
    const double lr = expected["lr_of_each_step"][step];
    TrainConfig schedule;
    schedule.schedule = "cosine";
    schedule.epochs = 3;
    schedule.optimizer.lr = 0.01;
    EXPECT_NEAR(lr, scheduled_lr(schedule, static_cast<int64_t>(step)), 1e-12);
    optimizer.set_lr(lr);
    optimizer.zero_grad();
    const Tensor loss = method->loss(golden::batch());
    golden::expect_relative(loss.item<double>(), expected["losses"][step], "loss");
    loss.backward();
    optimizer.step();
  }
  EXPECT_NEAR(state_of(*method, "scale").item<double>(), expected["sigma"].get<double>(), 1e-6);
  const auto expect_value = [&](const std::string& ours, const std::string& theirs) {
    const Tensor value = state_of(*method, ours);
    golden::expect_relative(golden::l2(value), expected[theirs]["l2"], ours, 1e-4);
    golden::expect_elements(value, expected[theirs]["first"], ours,
                            1e-8 + 2e-6 * golden::l2(value));
  };
  expect_value("head", "head.weight");
  expect_value("adapter.0.up.weight", "block0.up.weight");
  expect_value("adapter.0.down.weight", "block0.down.weight");
  expect_value("adapter.11.up.bias", "block11.up.bias");
}

TEST(AperGolden, ClassMeansAndCosinesMatch) {
  Ground ground;
  const json expected = golden::load("aper.json")["class_means"]["f32"];
  const auto branches = [&](const std::string& kind, const Batch& batch) {
    std::vector<Tensor> parts;
    if (kind != "adapter_only") parts.push_back(features(ground, batch, {}));
    if (kind != "simplecil") parts.push_back(features(ground, batch, adapters(0)));
    return torch::cat(parts, 1);
  };
  for (const std::string kind : {"simplecil", "adapter_only", "aper"}) {
    ClassMeans means(3, kind == "aper" ? 384 : 192, torch::kCPU);
    means.fit(task_of(0, 0, 3), [&](const ClassMeans::Take& take) {
      for (const Batch& batch : {golden::batch(0, {0, 1, 2, 0}), golden::batch(1, {1, 2, 0, 1})}) {
        take(branches(kind, batch), batch.labels);
      }
    });
    State state;
    means.state(state);
    golden::expect_rows(state.tensors()[0].second, expected[kind]["class_means"], kind);
    const Tensor logits = means.logits(branches(kind, golden::batch(7)));
    expect_matrix(logits, expected[kind]["logits"], kind, kCosine);
    for (int64_t i = 0; i < 4; ++i) {
      EXPECT_EQ(logits[i].argmax().item<int64_t>(),
                expected[kind]["argmax"][static_cast<size_t>(i)]);
    }
  }
}

const std::vector<int64_t> kEaseSizes{3, 2, 2};

Tensor side_by_side(const Tensor& features, const Tensor& prototypes) {
  return cosines(features.flatten(1), prototypes.flatten(1));
}

TEST(EaseGolden, CompletesAndReweightsSyntheticPrototypes) {
  const json file = golden::load("ease.json")["synthetic"]["f32"];
  for (const bool recalc : {true, false}) {
    const json& expected = file[recalc ? "recalc_true" : "recalc_false"];
    const Tensor all = u(7590, {7, 24}).view({7, 3, 8}).clone();
    all.narrow(0, 0, 3).narrow(1, 1, 2).zero_();
    all.narrow(0, 3, 2).narrow(1, 2, 1).zero_();
    for (int64_t t = 1; t < 3; ++t) {
      const int64_t classes = t == 1 ? 5 : 7;
      complete_prototypes(all.narrow(0, 0, classes),
                          {kEaseSizes.begin(), kEaseSizes.begin() + t + 1}, recalc ? 1 : t);
    }
    const json& rows = expected["prototypes_after"];
    expect_matrix(all.flatten(1).narrow(0, 0, static_cast<int64_t>(rows.size())), rows,
                  "prototypes", kCosine);
    const Tensor inputs = u(7591, {4, 24}).view({4, 3, 8});
    expect_matrix(reweighted_logits(inputs, all, kEaseSizes, 0.1),
                  expected["logits_reweighted_alpha_0.1"], "reweighted", kCosine);
    expect_matrix(side_by_side(inputs, all), expected["logits_concatenated_cosine"], "side by side",
                  kCosine);
  }
}

class EaseGoldenVit : public ::testing::TestWithParam<std::string> {};

TEST_P(EaseGoldenVit, PrototypesFeaturesAndLogitsMatch) {
  Ground ground;
  const json expected = golden::load("ease.json")[GetParam()]["f32"];
  const int64_t plain = GetParam() == "without_ptm" ? 0 : 1;
  const auto all_features = [&](const Batch& batch) {
    std::vector<Tensor> parts;
    if (plain) parts.push_back(features(ground, batch, {}));
    for (int64_t set = 0; set < 3; ++set) parts.push_back(features(ground, batch, adapters(set)));
    return torch::stack(parts, 1);
  };
  Tensor sums = torch::zeros({7, plain + 3, 192}), counts = torch::zeros({7});
  for (const Batch& batch : {golden::batch(0, {0, 1, 2, 0}), golden::batch(1, {1, 2, 0, 1}),
                             golden::batch(2, {3, 4, 4, 3}), golden::batch(3, {5, 6, 5, 6})}) {
    sums.index_add_(0, batch.labels, all_features(batch));
    counts.index_add_(0, batch.labels, torch::ones({4}));
  }
  const Tensor prototypes = sums / counts.view({7, 1, 1});
  const Tensor own = prototypes.narrow(1, plain, 3);
  complete_prototypes(own, kEaseSizes, 1);
  const auto expect_blocks = [&](const Tensor& blocks, const std::string& name) {
    for (int64_t i = 0; i < blocks.size(0); ++i) {
      for (int64_t j = 0; j < blocks.size(1); ++j) {
        const auto a = static_cast<size_t>(i), b = static_cast<size_t>(j);
        golden::expect_relative(golden::l2(blocks[i][j]), expected[name + "_l2"][a][b], name);
        golden::expect_elements(blocks[i][j], expected[name + "_first4"][a][b], name);
      }
    }
  };
  expect_blocks(prototypes, "prototype_blocks");
  const Tensor test = all_features(golden::batch(7));
  expect_blocks(test, "features_blocks");
  expect_matrix(side_by_side(test, prototypes), expected["logits_concatenated_cosine"],
                "side by side", kCosine);
  Tensor logits = reweighted_logits(test.narrow(1, plain, 3), own, kEaseSizes, 0.1);
  if (plain) logits = logits + cosines(test.select(1, 0), prototypes.select(1, 0));
  expect_matrix(logits, expected["logits_reweighted"], "reweighted", kCosine);
  for (int64_t i = 0; i < 4; ++i) {
    EXPECT_EQ(logits[i].argmax().item<int64_t>(),
              expected["argmax_reweighted"][static_cast<size_t>(i)]);
  }
}

INSTANTIATE_TEST_SUITE_P(Sets, EaseGoldenVit, ::testing::Values("without_ptm", "with_ptm_beta_1"),
                         [](const auto& test) { return test.param; });

TEST(EaseGolden, ALaterTasksLossMatches) {
  Ground ground;
  const json expected = golden::load("ease.json")["without_ptm"]["f32"];
  auto method = ground.make("{name: ease, bottleneck: 16, adapter_dropout: 0}");
  method->begin_task(task_of(0, 0, 3));
  method->begin_task(task_of(1, 3, 2));
  method->begin_task(task_of(2, 5, 2));
  Values values = adapter_values(2, "set.2.");
  values["head"] = head_rows("weight", 7).narrow(0, 5, 2);
  replace(*method, values);
  golden::expect_relative(method->loss(golden::batch(3, {5, 6, 5, 6})).item<double>(),
                          expected["train_loss_task2"], "loss");
}

// ---- on a small stream ----

std::vector<Adapter> adapters_of(Lab& lab, const std::string& prefix) {
  std::vector<Adapter> blocks;
  for (int64_t l = 0; l < 6; ++l) {
    const std::string name = prefix + "adapter." + text(l) + ".";
    blocks.push_back({lab.carried(name + "down.weight"), lab.carried(name + "down.bias"),
                      lab.carried(name + "up.weight"), lab.carried(name + "up.bias"), 0.1});
  }
  return blocks;
}

TEST(Aper, AdaptsInTheFirstTaskAndComparesBothBranches) {
  Lab lab("{name: aper, bottleneck: 8}", 0, merging_and_dropping());
  lab.begin(0);
  EXPECT_EQ(lab.method->parameters().size(), 2u + 4 * 6);
  lab.step(0, 3);
  lab.method->end_task(lab.tasks[0]);
  const Tensor up = lab.carried("adapter.2.up.weight");
  EXPECT_GT(up.abs().max().item<double>(), 0);
  lab.begin(1);
  EXPECT_TRUE(lab.method->parameters().empty());
  lab.method->end_task(lab.tasks[1]);
  EXPECT_TRUE(lab.carried("adapter.2.up.weight").equal(up));
  EXPECT_GT(lab.efficiency->train_plan().merges(5), 0);
  // Means and tests are of passes that merge nothing.
  ForwardPlan adapted;
  adapted.adapters = adapters_of(lab, "");
  const auto both = [&](size_t t) {
    return torch::cat({lab.features(t), lab.features(t, adapted)}, 1);
  };
  std::vector<Tensor> means;
  for (size_t t = 0; t < 2; ++t) {
    for (int64_t c = 0; c < 2; ++c) means.push_back(both(t).narrow(0, 5 * c, 5).mean(0));
  }
  const Tensor expected = cosines(both(0), torch::stack(means));
  EXPECT_TRUE(lab.predict(0).allclose(expected, 1e-5, 1e-5));
}

TEST(Aper, TakesTheBranchesItIsTold) {
  for (const char* wrong : {"[]", "[plain, plain]", "[old]"}) {
    EXPECT_THROW(Lab(std::string("{name: aper, branches: ") + wrong + "}"), Error) << wrong;
  }
  Lab lab("{name: aper, bottleneck: 8, branches: [adapted]}");
  lab.learn(0, 1);
  EXPECT_EQ(lab.carried("mean").size(1), 96);
}

TEST(Ease, KeepsEveryTasksAdaptersAndTrainsItsOwn) {
  Lab lab("{name: ease, bottleneck: 8}", 0, merging_and_dropping());
  lab.learn(0, 3);
  const Tensor first = lab.carried("set.0.adapter.1.up.weight");
  lab.begin(1);
  EXPECT_EQ(lab.carried("set.1.adapter.1.up.weight").abs().max().item<double>(), 0);
  lab.step(1, 3);
  lab.method->end_task(lab.tasks[1]);
  EXPECT_TRUE(lab.carried("set.0.adapter.1.up.weight").equal(first));
  EXPECT_EQ(lab.method->frozen_parameters(), 2 * 6 * (2 * 8 * 96 + 8 + 96));
  // The newest classes have true means in both subspaces, of passes that merge nothing.
  const Tensor prototypes = lab.carried("prototype");
  ASSERT_EQ(prototypes.sizes(), (std::vector<int64_t>{4, 2, 96}));
  for (int64_t set = 0; set < 2; ++set) {
    ForwardPlan plan;
    plan.adapters = adapters_of(lab, "set." + text(set) + ".");
    for (int64_t c = 0; c < 2; ++c) {
      const Tensor mean = lab.features(1, plan).narrow(0, 5 * c, 5).mean(0);
      EXPECT_TRUE(prototypes[2 + c][set].allclose(mean, 1e-4, 1e-5)) << set << c;
    }
  }
  // An old class's in the new one lies between those of the new classes.
  const Tensor made = prototypes[0][1], a = prototypes[2][1], b = prototypes[3][1];
  EXPECT_TRUE(made.le(torch::maximum(a, b) + 1e-5).all().item<bool>());
  EXPECT_TRUE(made.ge(torch::minimum(a, b) - 1e-5).all().item<bool>());
}

TEST(Ease, ATestCountsAPassForEveryTask) {
  install_meter();
  for (const char* beta : {"0", "0.5"}) {
    Lab lab(std::string("{name: ease, bottleneck: 8, beta: ") + beta + "}");
    const int64_t plain = beta[0] == '0' && beta[1] == 0 ? 0 : 1;
    const int64_t start = macs_so_far();
    lab.features(0);
    const int64_t pass = macs_so_far() - start;
    for (size_t t = 0; t < 2; ++t) {
      lab.learn(t, 1);
      const Batch batch = lab.batch(0);
      const int64_t before = macs_so_far();
      {
        torch::NoGradGuard no_grad;
        lab.method->predict(batch);
      }
      const int64_t sets = static_cast<int64_t>(t) + 1, tokens = 5 * 65 + 1;
      const int64_t adapters = sets * 10 * tokens * 2 * 8 * 96, macs = macs_so_far() - before;
      EXPECT_GE(macs, (sets + plain) * pass + adapters);
      EXPECT_LE(macs, (sets + plain) * pass + adapters + 100000) << "but for cosines";
    }
  }
}

}  // namespace
}  // namespace rep
