// Patch sampling (CPS, PatchDropout) and decoupled training, on CODA-Prompt as `rep run` makes it,
// against CPS-Prompt's code (golden/cps.json).
#include "nn/patch_sampling.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "core/error.h"
#include "run/loops.h"
#include "run/phases.h"
#include "tensor/meter.h"
#include "tensor/optimizer.h"
#include "tests/golden_method.h"

namespace rep {
namespace {

using nlohmann::json;
using torch::Tensor;
using Reference = golden::GoldenMethod;

constexpr int64_t kPatches = 196;

EfficiencyConfig sampling(const std::string& kind = "cps", double ratio = 0.4,
                          double temperature = 0.1) {
  EfficiencyConfig config;
  config.token_merging.kind = kind;
  config.token_merging.ratio = ratio;
  config.token_merging.temperature = temperature;
  return config;
}

// U(seed)[b, j] = (k16(seed, 196 b + j) + 32768.5) / 65536
Tensor uniforms(uint32_t seed) {
  return (golden::u(seed, {4, kPatches}, 15).to(torch::kDouble) + 32768.5) / 65536;
}

Reference coda(int64_t task, const EfficiencyConfig& config) {
  std::map<std::string, Tensor> values;
  for (uint32_t layer = 0; layer < 5; ++layer) {
    const std::string l = std::to_string(layer);
    values["prompt." + l] = golden::u(400 + 10 * layer, {100, 8, 192}, -5);
    values["prompt_key." + l] = golden::u(401 + 10 * layer, {100, 192}, -3);
    values["attention." + l] = golden::u(402 + 10 * layer, {100, 192}, -3);
  }
  return Reference("{name: coda_prompt}", task, values, config);
}

void draw_from(Efficiency& efficiency, uint32_t seed) {
  efficiency.draw_patches_from(
      [seed](const StepTime&, const Tensor&, int64_t) { return uniforms(seed); });
}

Batch batch_of(int64_t task) {
  Batch batch = golden::batch();
  batch.labels = batch.labels + 10 * task;
  return batch;
}

std::map<std::string, std::string> coda_names() {
  std::map<std::string, std::string> names;
  for (int layer = 0; layer < 5; ++layer) {
    const std::string l = std::to_string(layer);
    names["prompt." + l] = "p_" + l;
    names["prompt_key." + l] = "k_" + l;
    names["attention." + l] = "a_" + l;
  }
  return names;
}

void expect_kept(const Tensor& kept, const json& expected) {
  ASSERT_EQ(kept.size(0), static_cast<int64_t>(expected.size()));
  for (int64_t b = 0; b < kept.size(0); ++b) {
    const auto list = expected[static_cast<size_t>(b)].get<std::vector<int64_t>>();
    EXPECT_TRUE(kept[b].equal(torch::tensor(list, torch::kLong))) << "image " << b;
  }
}

void expect_small(const Tensor& actual, const json& leading, const std::string& what) {
  const auto expected = leading.get<std::vector<double>>();
  const Tensor flat = actual.detach().to(torch::kDouble).flatten();
  for (size_t i = 0; i < expected.size(); ++i) {
    EXPECT_NEAR(flat[static_cast<int64_t>(i)].item<double>(), expected[i],
                1e-3 * std::abs(expected[i]) + 1e-9)
        << what << ", element " << i;
  }
}

Tensor golden_scores(bool times_values = true) {
  torch::NoGradGuard no_grad;
  VisionTransformer vit = golden::make_vit(0);
  PatchScoreRequest request{times_values, {}};
  ForwardPlan plan;
  plan.patch_scores = &request;
  vit->features(golden::batch().images, plan);
  return request.scores;
}

TEST(PatchScores, AreAttentionOfTheClassTokenTimesValueNorms) {
  const json expected = golden::load("cps.json")["task_0"]["f32"];
  const Tensor scores = golden_scores();
  golden::expect_rows(scores, expected["scores"], "scores");
  for (int64_t b = 0; b < 4; ++b) {
    EXPECT_EQ(scores[b].argmax().item<int64_t>(),
              expected["score_argmax"][static_cast<size_t>(b)].get<int64_t>());
  }
  const Tensor attention = golden_scores(false);
  EXPECT_TRUE((attention.sum(1) < 3).all().item<bool>()) << "three heads, without [CLS]'s share";
  EXPECT_TRUE((attention.sum(1) > 2).all().item<bool>());
}

TEST(PickPatches, MatchesTheirDraws) {
  const json selection = golden::load("cps.json")["selection"];
  const Tensor scores = golden_scores();
  const auto check = [&](const char* name, const EfficiencyConfig& config) {
    const json& expected = selection[name];
    const bool top = config.token_merging.pick == "topk";
    const Tensor kept =
        pick_patches(config.token_merging, scores,
                     top ? Tensor() : uniforms(expected["uniform_seed"].get<uint32_t>()));
    SCOPED_TRACE(name);
    expect_kept(kept, top ? expected["selected"] : expected["f32"]["selected"]);
  };
  check("T1_r0.4", sampling("cps", 0.4, 1));
  check("T0.1_r0.5", sampling("cps", 0.5, 0.1));
  check("uniform_r0.4", sampling("patch_dropout", 0.4));
  check("uniform_r0.5", sampling("patch_dropout", 0.5));
  EfficiencyConfig top = sampling();
  top.token_merging.pick = "topk";
  check("topk_r0.4", top);
}

TEST(PickPatches, KeepsAsManyAsTheirCode) {
  const auto kept = [](double ratio) {
    return kept_patches(sampling("cps", ratio).token_merging, kPatches);
  };
  EXPECT_EQ(kept(0.4), 117);
  EXPECT_EQ(kept(0.5), 98);
  EXPECT_EQ(kept(0), 196);
  EXPECT_EQ(kept_patches(sampling("atom").token_merging, kPatches), kPatches);
}

// Of successive draws without replacement the first follows p, and a patch of probability p is
// among two with p + sum over others of p_j p / (1 - p_j).
TEST(PickPatches, DrawsWithoutReplacementFromTheSoftmax) {
  TokenMergingConfig config = sampling("cps", 0.5, 1).token_merging;
  const std::vector<double> p{0.4, 0.3, 0.2, 0.1};
  const int64_t draws = 40000;
  const Tensor scores = torch::tensor(p, torch::kDouble).log().unsqueeze(0).expand({draws, -1});
  const Tensor kept =
      pick_patches(config, scores, patch_uniforms({3, 0, 0, 0}, torch::arange(draws), 4));
  ASSERT_EQ(kept.size(1), 2);
  for (int64_t i = 0; i < 4; ++i) {
    double among = p[static_cast<size_t>(i)];
    for (int64_t j = 0; j < 4; ++j) {
      const double other = p[static_cast<size_t>(j)];
      if (j != i) among += other * p[static_cast<size_t>(i)] / (1 - other);
    }
    EXPECT_NEAR(kept.eq(i).any(1).to(torch::kDouble).mean().item<double>(), among, 0.01) << i;
  }
}

TEST(PatchUniforms, AreTheImagesOwnAtEveryStep) {
  const Tensor indices = torch::tensor({7L, 3L, 7L});
  const Tensor a = patch_uniforms({42, 1, 5, 105}, indices, 50);
  EXPECT_TRUE(((a > 0) & (a < 1)).all().item<bool>());
  EXPECT_TRUE(a[0].equal(patch_uniforms({42, 1, 5, 105}, torch::tensor({7L}), 50)[0]));
  EXPECT_FALSE(a[0].equal(a[1]));
  EXPECT_TRUE(a[1].equal(patch_uniforms({42, 1, 5, 999}, torch::tensor({3L}), 50)[0]))
      << "whoever shares the batch, and however often the run was resumed";
  EXPECT_FALSE(a.equal(patch_uniforms({42, 1, 6, 106}, indices, 50)));
  EXPECT_FALSE(a.equal(patch_uniforms({42, 2, 5, 105}, indices, 50)));
  EXPECT_FALSE(a.equal(patch_uniforms({43, 1, 5, 105}, indices, 50)));
}

// Images that were made or mixed have no position of their own, and all come with the same.
TEST(PatchUniforms, OfImagesAtOnePositionAreEachOnesOwn) {
  const int64_t none = std::numeric_limits<int64_t>::max();
  const Tensor a = patch_uniforms({42, 1, 5, 105}, torch::tensor({none, none, 3L, none}), 50);
  EXPECT_FALSE(a[0].equal(a[1]));
  EXPECT_FALSE(a[0].equal(a[3]));
  EXPECT_FALSE(a[1].equal(a[3]));
  TokenMergingConfig config;
  config.kind = "patch_dropout";
  const Tensor kept = pick_patches(config, {}, a);
  EXPECT_FALSE(kept[0].equal(kept[1]));
}

class CpsTest : public ::testing::TestWithParam<int64_t> {
 protected:
  int64_t task = GetParam(), seen = 10 * (GetParam() + 1);
  Batch batch = batch_of(task);
  json expected = golden::load("cps.json")["task_" + std::to_string(task)]["f32"];
  uint32_t seed_of(size_t step) const { return expected["phase1_steps"][step]["uniform_seed"]; }
};

TEST_P(CpsTest, PicksTheirPatchesAndGradientsMatch) {
  Reference reference = coda(task, sampling());
  draw_from(reference.efficiency, seed_of(0));
  expect_kept(reference.efficiency.train_plan(batch.images, batch.indices).kept_patches,
              expected["selected"]);
  reference.method->loss(batch).backward();
  const json& grads = expected["grads_before_clipping"];
  for (const auto& [ours, theirs] : coda_names()) {
    const Tensor gradient = reference.parameters.at(ours).grad();
    golden::expect_relative(golden::l2(gradient), grads[theirs]["l2"], ours, 2e-5);
    expect_small(gradient[10 * task], grads[theirs]["first8_of_new_rows"], ours);
    EXPECT_EQ(golden::l2(gradient.narrow(0, 0, 10 * task)), 0) << ours << ", past rows";
  }
  const Tensor head = reference.parameters.at("head.weight").grad();
  golden::expect_relative(golden::l2(head), grads["head.weight"]["l2"], "head");
  golden::expect_elements(head[10 * task], grads["head.weight"]["first8_of_row_10t"], "head", 2e-6);
}

TEST_P(CpsTest, BothPhasesOfTheirTrainingMatch) {
  Reference reference = coda(task, sampling());
  OptimizerConfig config;
  config.lr = 0.001;
  Optimizer optimizer(config, reference.method->parameters());
  DecoupledConfig decoupled;
  decoupled.phase_ratio = 0.5;
  std::map<std::string, Tensor> before_phase2;
  {
    Phases phases(reference.efficiency, *reference.method, decoupled, 3);
    const auto step = [&](int64_t index, const json& record) {
      reference.efficiency.set_time({1, task, index, index});
      optimizer.zero_grad();
      phases.at(index);
      const Tensor loss = reference.method->loss(batch);
      golden::expect_relative(loss.item<double>(), record["loss_before_step"], "loss");
      loss.backward();
      double norm = 0;
      for (const Tensor& p : optimizer.parameters()) {
        if (p.grad().defined()) norm += std::pow(golden::l2(p.grad()), 2);
      }
      golden::expect_relative(std::sqrt(norm), record["grad_norm"], "norm of gradients");
      clip_grad_norm(optimizer.parameters(), 1);
      optimizer.step();
    };
    for (size_t i = 0; i < 3; ++i) {
      draw_from(reference.efficiency, seed_of(i));
      const json& record = expected["phase1_steps"][i];
      step(static_cast<int64_t>(i), record);
      const Tensor kept =
          reference.efficiency.train_plan(batch.images, batch.indices).kept_patches.sum(1);
      for (int64_t b = 0; b < 4; ++b) {
        EXPECT_EQ(kept[b].item<int64_t>(),
                  record["selected_sum"][static_cast<size_t>(b)].get<int64_t>());
      }
      if (!record.contains("after_step")) continue;
      for (const auto& [ours, theirs] : coda_names()) {
        if (!record["after_step"].contains(theirs)) continue;
        const Tensor value = reference.parameters.at(ours);
        golden::expect_relative(golden::l2(value), record["after_step"][theirs]["l2"], ours);
        golden::expect_elements(value[10 * task],
                                record["after_step"][theirs]["first8_of_new_rows"], ours, 2e-6);
      }
    }
    for (const auto& [name, p] : reference.parameters) before_phase2[name] = p.detach().clone();
    for (size_t i = 0; i < 3; ++i) {
      const json& record = expected["phase2_steps"][i];
      step(static_cast<int64_t>(3 + i), record);
      if (!record.contains("head.weight")) continue;
      const Tensor head = reference.parameters.at("head.weight");
      golden::expect_relative(golden::l2(head), record["head.weight"]["l2"], "head");
      golden::expect_elements(head[10 * task], record["head.weight"]["first8_of_row_10t"], "head",
                              2e-6);
    }
  }
  for (const auto& [name, p] : reference.parameters) {
    EXPECT_TRUE(p.requires_grad()) << name;
    EXPECT_EQ(p.equal(before_phase2.at(name)), name.rfind("head.", 0) != 0) << name;
  }
  torch::NoGradGuard no_grad;
  const Tensor logits = reference.method->predict(batch).narrow(1, 0, seen);
  for (int64_t b = 0; b < 4; ++b) {
    golden::expect_elements(
        logits[b], expected["logits_test_after_training"][static_cast<size_t>(b)], "logits");
  }
}

INSTANTIATE_TEST_SUITE_P(Tasks, CpsTest, ::testing::Values(0, 2),
                         [](const auto& test) { return std::to_string(test.param); });

// Every prompt method sees the kept patches alone, and its head can train alone.
class EveryPromptMethod : public ::testing::TestWithParam<std::string> {};

TEST_P(EveryPromptMethod, TrainsOnFewerPatchesAndItsHeadAlone) {
  const Batch batch = golden::batch();
  // A width of 192 has room for 48 keys of ConvPrompt over ten tasks.
  const std::string method =
      "{name: " + GetParam() + (GetParam() == "convprompt" ? ", kernels: 4}" : "}");
  for (const char* kind : {"cps", "patch_dropout"}) {
    Reference whole(method, 0, {});
    Reference part(method, 0, {}, sampling(kind));
    part.efficiency.set_time({1, 0, 0, 0});
    whole.method->loss(batch).backward();
    part.method->loss(batch).backward();
    const std::vector<int64_t> most =
        whole.efficiency.train_tokens(whole.method->prompt_tokens()).forward;
    const std::vector<int64_t> tokens =
        part.efficiency.train_tokens(part.method->prompt_tokens()).forward;
    for (size_t block = 0; block < tokens.size(); ++block) {
      EXPECT_EQ(most[block] - tokens[block], kPatches - 117) << block;
    }
    int64_t with_gradient = 0;
    for (const Tensor& p : part.method->parameters()) with_gradient += p.grad().defined();
    for (Tensor p : part.method->parameters()) p.mutable_grad() = Tensor();
    const size_t heads = part.method->head_parameters().size();
    EXPECT_GT(with_gradient, static_cast<int64_t>(heads));

    DecoupledConfig decoupled;
    decoupled.phase_ratio = 0;
    Phases phases(part.efficiency, *part.method, decoupled, 0);
    part.efficiency.set_time({1, 0, 1, 1});
    phases.at(1);
    part.method->loss(batch).backward();
    size_t trained = 0;
    for (const Tensor& p : part.method->parameters()) {
      if (p.grad().defined()) ++trained;
    }
    EXPECT_EQ(trained, heads);
    EXPECT_EQ(part.efficiency.train_tokens(part.method->prompt_tokens()).forward, most)
        << "the whole image";
  }
}

INSTANTIATE_TEST_SUITE_P(Methods, EveryPromptMethod,
                         ::testing::Values("l2p", "dualprompt", "coda_prompt", "hide_prompt",
                                           "convprompt", "os_prompt", "apt", "cps_prompt"),
                         [](const auto& test) { return test.param; });

TEST(Phases, MayLeaveTheHeadToTheSecond) {
  Reference reference = coda(0, {});
  DecoupledConfig decoupled;
  decoupled.phase_ratio = 0.5;
  decoupled.train_head_in_phase1 = false;
  Phases phases(reference.efficiency, *reference.method, decoupled, 1);
  phases.at(0);
  reference.method->loss(golden::batch()).backward();
  EXPECT_FALSE(reference.parameters.at("head.weight").grad().defined());
  EXPECT_TRUE(reference.parameters.at("prompt.0").grad().defined());
}

TEST(Phases, SwitchWhereTheirCodeDoes) {
  TrainConfig train;
  train.batch_size = 10;
  const auto switches_at = [&](int64_t epochs, double ratio, int64_t iterations = 0) {
    train.epochs = epochs;
    train.decoupled.phase_ratio = ratio;
    train.iterations = iterations;
    return first_head_step(train, 95);  // ten steps an epoch
  };
  EXPECT_EQ(switches_at(20, 0.4), 80);
  EXPECT_EQ(switches_at(50, 0.2), 100);
  EXPECT_EQ(switches_at(20, 0.6), 120);
  EXPECT_EQ(switches_at(3, 0.5), 10);      // int(1.5) epochs
  EXPECT_EQ(switches_at(3, 0.5, 25), 12);  // int(12.5) steps: the epochs do not end
  EXPECT_EQ(switches_at(3, 0.5, 1000), 10);
  EXPECT_EQ(switches_at(3, 1), 30);
}

std::string refusal(const EfficiencyConfig& config,
                    VisionTransformer query = VisionTransformer{nullptr}) {
  try {
    Efficiency(config, VisionTransformer(vit_options("vit_nano")).ptr(), query, 1);
  } catch (const Error& e) {
    return e.what();
  }
  return "";
}

TEST(PatchSampling, RefusesWhatItCannotDo) {
  EfficiencyConfig always = sampling("patch_dropout");
  always.token_merging.when = "always";
  EXPECT_NE(refusal(always).find("in training only"), std::string::npos);
  VisionTransformer coarse(VitOptions{32, 8, 48, 2, 3});
  EXPECT_NE(refusal(sampling(), coarse).find("take one with the same patches"), std::string::npos);
  EXPECT_EQ(refusal(sampling("patch_dropout"), coarse), "");
}

TEST(PatchSampling, MakesOneQueryPassAStepForScoresAndQueries) {
  Reference reference = coda(0, sampling());
  const Batch batch = golden::batch();
  torch::NoGradGuard no_grad;
  reference.efficiency.set_time({1, 0, 0, 0});
  reference.efficiency.train_plan(batch.images, batch.indices);
  const int64_t before = macs_so_far();
  reference.efficiency.train_query(batch.images, batch.indices);
  EXPECT_EQ(macs_so_far(), before);
  reference.efficiency.set_time({1, 0, 1, 1});
  reference.efficiency.train_query(batch.images, batch.indices);
  EXPECT_GT(macs_so_far(), before);
}

}  // namespace
}  // namespace rep
