// Every registered method, whatever it is, keeps the promises of methods/method.h. A new method is
// covered by being registered.
#include <gtest/gtest.h>
#include <torch/torch.h>

#include "methods/method.h"
#include "tensor/optimizer.h"

namespace rep {
namespace {

constexpr int64_t kClasses = 6, kBatch = 8;

Task make_task(int64_t index) {
  Task task;
  task.index = index;
  task.first_label = index * 2;
  task.classes = {index * 2, index * 2 + 1};
  return task;
}

// Images whose class is written all over them, so that anything that learns can learn it.
Batch make_batch(const Task& task, int64_t seed) {
  auto generator = at::make_generator<at::CPUGeneratorImpl>(static_cast<uint64_t>(seed));
  Batch batch;
  batch.labels = torch::randint(2, {kBatch}, generator, torch::kLong) + task.first_label;
  batch.indices = torch::arange(kBatch);
  batch.images = torch::rand({kBatch, 3, 32, 32}, generator) * 0.5 +
                 batch.labels.to(torch::kFloat).view({kBatch, 1, 1, 1}) * 0.3 - 0.5;
  return batch;
}

// A method on a small random ViT, everything drawn from one seed.
struct Subject {
  explicit Subject(const std::string& name) : section{name, YAML::Node(), "test", {}} {
    section.node["name"] = name;
    try {
      make("none");
    } catch (const Error&) {  // a method that has nothing to train in a frozen backbone
      make("all");
    }
  }
  void make(const std::string& trainable) {
    torch::manual_seed(5);
    backbone = VisionTransformer(vit_options("vit_nano"));
    backbone->train_last_blocks(trainable == "all" ? backbone->options.depth : 0);
    efficiency =
        std::make_unique<Efficiency>(EfficiencyConfig{}, backbone, VisionTransformer{nullptr}, 5);
    method =
        Registry<MethodKind>::get()
            .at(section.name)
            .value.make({section, backbone, *efficiency, kClasses, 3, torch::Device(torch::kCPU)});
  }
  // Steps on one batch; the losses.
  std::vector<double> train(const Task& task, int64_t steps) {
    OptimizerConfig config;
    config.lr = 0.003;
    Optimizer optimizer(config, method->parameters());
    const Batch batch = make_batch(task, task.index + 1);
    std::vector<double> losses;
    for (int64_t i = 0; i < steps; ++i) {
      optimizer.zero_grad();
      const torch::Tensor loss = method->loss(batch);
      loss.backward();
      optimizer.step();
      losses.push_back(loss.item<double>());
    }
    return losses;
  }
  void begin(const Task& task) {
    torch::manual_seed(static_cast<uint64_t>(7 + task.index));
    method->begin_task(task);
  }
  std::vector<double> learn(int64_t index, int64_t steps) {
    const Task task = make_task(index);
    begin(task);
    auto losses = train(task, steps);
    method->end_task(task);
    return losses;
  }
  torch::Tensor predict(int64_t task = 0) {
    torch::NoGradGuard no_grad;
    return method->predict(make_batch(make_task(task), 99)).clone();
  }

  Section section;
  VisionTransformer backbone{nullptr};
  std::unique_ptr<Efficiency> efficiency;
  std::unique_ptr<Method> method;
};

class EveryMethod : public ::testing::TestWithParam<std::string> {};

TEST_P(EveryMethod, LearnsOneBatch) {
  Subject subject(GetParam());
  const auto losses = subject.learn(0, 40);
  EXPECT_LT(losses.back(), losses.front() - 0.05);
}

TEST_P(EveryMethod, PredictsALogitForEveryClassOfTheStream) {
  Subject subject(GetParam());
  subject.learn(0, 1);
  const torch::Tensor logits = subject.predict();
  EXPECT_EQ(logits.sizes(), (std::vector<int64_t>{kBatch, kClasses}));
  EXPECT_TRUE(logits.narrow(1, 0, 2).isfinite().all().item<bool>());
}

TEST_P(EveryMethod, HasGradientsOnlyInItsParameters) {
  Subject subject(GetParam());
  subject.method->begin_task(make_task(0));
  subject.method->loss(make_batch(make_task(0), 1)).backward();
  const auto parameters = subject.method->parameters();
  for (const auto& item : subject.backbone->named_parameters()) {
    bool listed = false;
    for (const auto& parameter : parameters) listed |= parameter.is_same(item.value());
    EXPECT_EQ(item.value().grad().defined(), listed) << item.key();
  }
  int64_t with_gradient = 0;
  for (const auto& parameter : parameters) {
    EXPECT_TRUE(parameter.requires_grad() && parameter.is_leaf());
    with_gradient += parameter.grad().defined() ? 1 : 0;
  }
  EXPECT_GT(with_gradient, 0);
}

TEST_P(EveryMethod, GivesTheSameNumbersForTheSameSeed) {
  Subject a(GetParam()), b(GetParam());
  EXPECT_EQ(a.learn(0, 3), b.learn(0, 3));
  EXPECT_TRUE(a.predict().equal(b.predict()));
}

TEST_P(EveryMethod, StillScoresPastClassesAfterALaterTask) {
  Subject subject(GetParam());
  subject.learn(0, 3);
  subject.learn(1, 3);
  const torch::Tensor seen = subject.predict(0).narrow(1, 0, 4);
  EXPECT_TRUE(seen.isfinite().all().item<bool>());
  EXPECT_GT(seen.std().item<double>(), 0);
}

TEST_P(EveryMethod, PredictsTheSameAfterSaveAndLoad) {
  Subject learned(GetParam());
  learned.learn(0, 3);
  learned.learn(1, 3);
  State saved;
  learned.method->state(saved);

  Subject fresh(GetParam());
  State given(saved.tensors(), saved.values());
  fresh.method->state(given);
  EXPECT_TRUE(fresh.predict().equal(learned.predict()));
}

TEST_P(EveryMethod, GoesOnFromTheMiddleOfATaskAsIfNothingHadHappened) {
  Subject straight(GetParam()), first(GetParam()), second(GetParam());
  const Task task = make_task(0);
  OptimizerConfig config;
  const Batch batch = make_batch(task, 1);
  const auto step = [&](Subject& subject, Optimizer& optimizer) {
    optimizer.zero_grad();
    subject.method->loss(batch).backward();
    optimizer.step();
  };
  straight.begin(task);
  Optimizer whole(config, straight.method->parameters());
  for (int i = 0; i < 4; ++i) step(straight, whole);

  first.begin(task);
  Optimizer half(config, first.method->parameters());
  for (int i = 0; i < 2; ++i) step(first, half);
  State saved;
  first.method->state(saved);
  half.state(saved);
  NamedTensors copies;
  for (const auto& [name, tensor] : saved.tensors()) copies.emplace_back(name, tensor.clone());

  State given(copies, saved.values());
  second.method->state(given);
  Optimizer rest(config, second.method->parameters());
  rest.state(given);
  for (int i = 0; i < 2; ++i) step(second, rest);
  EXPECT_TRUE(second.predict().equal(straight.predict()));
}

INSTANTIATE_TEST_SUITE_P(Registry, EveryMethod,
                         ::testing::ValuesIn(Registry<MethodKind>::get().names()),
                         [](const auto& test) { return test.param; });

TEST(Registry, KnowsTheMethodsThatScriptsRelyOn) {
  const auto names = Registry<MethodKind>::get().names();
  for (const char* name : {"no_prompt", "linear_probe", "finetune", "l2p"}) {
    EXPECT_NE(std::find(names.begin(), names.end(), name), names.end()) << name;
  }
}

}  // namespace
}  // namespace rep
