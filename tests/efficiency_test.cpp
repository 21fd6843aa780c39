// The parts of REP: the query model with its cache, the plan of a step, and the log of what ran.
#include "nn/efficiency.h"

#include <gtest/gtest.h>

#include <vector>

#include "core/error.h"
#include "nn/resnet.h"
#include "tensor/meter.h"
#include "tensor/torch.h"

namespace rep {
namespace {

using Tensor = torch::Tensor;

constexpr int64_t kImages = 6;

VisionTransformer frozen_vit(int64_t width) {
  VisionTransformer vit(VitOptions{32, 4, width, 3, 3});
  vit->train_last_blocks(0);
  return vit;
}

class Queries : public ::testing::Test {
 protected:
  void SetUp() override {
    install_meter();
    torch::manual_seed(1);
    images = torch::rand({kImages, 3, 32, 32});
  }
  int64_t macs_of(const std::function<void()>& work) {
    const int64_t before = macs_so_far();
    work();
    return macs_so_far() - before;
  }

  Tensor images, all = torch::arange(kImages);
  VisionTransformer backbone = frozen_vit(24);
};

TEST_F(Queries, OfCachedImagesAreComputedOnce) {
  QueryModel model(backbone.ptr(), frozen_vit(12), 5);
  model.cache_train(kImages);
  const Tensor first = model.train_query(images, all);
  EXPECT_EQ(macs_of([&] { EXPECT_TRUE(torch::equal(model.train_query(images, all), first)); }), 0);
  // Behind the data set's end, and of the split that has no room, nothing is cached.
  EXPECT_GT(macs_of([&] { model.train_query(images, all + kImages); }), 0);
  EXPECT_GT(macs_of([&] { model.test_query(images, all); }), 0);
  EXPECT_GT(macs_of([&] { model.test_query(images, all); }), 0);
}

TEST_F(Queries, AreKeptOnlyForWhoAsks) {
  QueryModel model(backbone.ptr(), VisionTransformer{nullptr}, 5);
  model.cache_train(kImages);
  model.cache_test(2 * kImages);
  State before;
  model.state(before);
  EXPECT_TRUE(before.tensors().empty());
  EXPECT_TRUE(model.cached_splits().empty());
  model.train_query(images, all);
  State after;
  model.state(after);
  EXPECT_EQ(after.tensors().size(), 4U);
  EXPECT_EQ(model.cached_splits(), (std::vector<std::string>{"train", "test"}));
  EXPECT_EQ(model.carried_bytes(), 0) << "a cache is not what learning carries on";
}

TEST_F(Queries, FirstAskedForInATestAreWrittenInTraining) {
  QueryModel model(backbone.ptr(), VisionTransformer{nullptr}, 5);
  model.cache_train(kImages);
  {
    const c10::InferenceMode inference;
    model.test_query(images, all);
  }
  EXPECT_TRUE(torch::allclose(model.train_query(images, all), backbone->features(images)));
}

TEST_F(Queries, AreThereAfterAResume) {
  QueryModel model(backbone.ptr(), frozen_vit(12), 5), resumed(backbone.ptr(), frozen_vit(12), 6);
  for (QueryModel* one : {&model, &resumed}) one->cache_test(kImages);
  const Tensor queries = model.test_query(images, all);
  State saved;
  model.state(saved);
  NamedTensors tensors;
  for (const auto& [name, tensor] : saved.tensors()) tensors.emplace_back(name, tensor.clone());
  State given(tensors, saved.values());
  resumed.state(given);
  EXPECT_EQ(macs_of([&] { EXPECT_TRUE(torch::equal(resumed.test_query(images, all), queries)); }),
            0);
  EXPECT_EQ(model.carried_bytes(), 12 * 24 * 4);
}

EfficiencyConfig merging_and_dropping() {
  EfficiencyConfig config;
  config.token_merging.kind = "tome";
  config.token_merging.n = 4;
  config.layer_dropping.kind = "random";
  config.layer_dropping.keep = 0.5;
  return config;
}

TEST(Planner, IsAFunctionOfTheTime) {
  const VisionTransformer vit = frozen_vit(24);
  const StepPlanner planner(merging_and_dropping(), *vit);
  bool any_other = false;
  for (int64_t step = 0; step < 20; ++step) {
    const StepTime time{1, 0, step, step};
    const ForwardPlan plan = planner.train_plan(time);
    planner.train_plan({1, 1, 7, 9});
    EXPECT_EQ(planner.train_plan(time).skip, plan.skip);
    any_other |= plan.skip != planner.train_plan({1, 0, 0, 0}).skip;
    // 64 image tokens, [CLS] and 5 prompts, less 4 for each block that ran.
    int64_t tokens = 70;
    for (size_t block = 0; block < 3; ++block) {
      EXPECT_EQ(planner.train_tokens(time, 5).forward[block], plan.skip[block] ? 0 : tokens);
      tokens -= plan.skip[block] ? 0 : 4;
    }
  }
  EXPECT_TRUE(any_other);
  EXPECT_TRUE(planner.test_plan().merge.empty()) << "merges in training only";
}

TEST(Planner, RefusesToMergeWhereThereAreNoTokens) {
  const ResNet18 resnet{ResNetOptions{}};
  EXPECT_THROW(StepPlanner(merging_and_dropping(), *resnet), Error);
  const StepPlanner plain({}, *resnet);
  EXPECT_EQ(plain.blocks(), 0);
  EXPECT_TRUE(plain.train_tokens({}, 0).forward.empty());
}

TEST(Log, SumsWhatTheBlocksGot) {
  StepLog log(3), later(3);
  log.add({{5, 0, 4}, {5, 0, 0}});
  log.add({{5, 3, 0}, {5, 3, 0}});
  later.add({{1, 1, 1}, {0, 1, 1}});
  later += log;
  EXPECT_EQ(later.steps, 3);
  EXPECT_EQ(later.tokens, (std::vector<int64_t>{11, 4, 5}));
  EXPECT_EQ(later.executions, (std::vector<int64_t>{3, 2, 2}));
  EXPECT_EQ(later.backward_tokens, (std::vector<int64_t>{10, 4, 1}));
  EXPECT_EQ(later.backward_executions, (std::vector<int64_t>{2, 2, 1}));
}

}  // namespace
}  // namespace rep
