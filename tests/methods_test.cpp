// Every registered method, whatever it is, keeps the promises of methods/method.h. A new method is
// covered by being registered.
#include <gtest/gtest.h>
#include <torch/version.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>

#include "component_pools.h"
#include "methods/method.h"
#include "other_device.h"
#include "tensor/optimizer.h"
#include "tensor/torch.h"

namespace rep {
namespace {

constexpr int64_t kClasses = 6, kTasks = 3, kPerClass = 4, kSize = 32;

// Images whose class is written all over them, so that anything that learns can learn it.
class WrittenClasses final : public Dataset {
 public:
  WrittenClasses() {
    for (int64_t label = 0; label < kClasses; ++label) {
      names_.push_back("class" + std::to_string(label));
      labels_.insert(labels_.end(), kPerClass, label);
    }
  }
  const std::vector<int64_t>& labels() const override { return labels_; }
  const std::vector<std::string>& class_names() const override { return names_; }
  Image image(int64_t index) const override {
    const int64_t label = labels_[static_cast<size_t>(index)];
    Random random({5, static_cast<uint64_t>(index)});
    Image image = Image::make(kSize, kSize);
    for (size_t i = 0; i < image.pixels.size(); ++i) {
      // A third of the channels' brightness is the class's, the rest noise.
      const bool bright = (label >> (i % 3)) & 1;
      image.pixels[i] = static_cast<uint8_t>((bright ? 150 : 20) + random.below(90));
    }
    return image;
  }
  std::string fingerprint() const override { return "written"; }

 private:
  std::vector<int64_t> labels_;
  std::vector<std::string> names_;
};

Task make_task(int64_t index) {
  Task task;
  task.index = index;
  task.first_label = index * 2;
  task.classes = {index * 2, index * 2 + 1};
  for (int64_t i = 0; i < 2 * kPerClass; ++i) {
    task.train.push_back({index * 2 * kPerClass + i, task.first_label + i / kPerClass});
  }
  task.test = task.train;
  return task;
}

// The samples as one batch.
Batch make_batch(const Dataset& data, const std::vector<Sample>& samples) {
  Loader::Options options;
  options.batch_size = static_cast<int64_t>(samples.size());
  Loader loader(data, samples, Transform("none", kSize, {}, /*train=*/true), options);
  Batch batch;
  loader.next(batch);
  return {batch.images.clone(), batch.labels.clone(), batch.indices.clone()};
}

// A method on a small random ViT, everything drawn from one seed.
struct Subject {
  explicit Subject(const std::string& name, torch::Device device_ = torch::kCPU,
                   EfficiencyConfig wish_ = {})
      : device(device_), wish(std::move(wish_)), section{name, YAML::Node(), "test", {}} {
    section.node["name"] = name;
    if (has_component_pool(name)) section.node["pool_size"] = kSmallPool;
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
    backbone->to(device);
    VisionTransformer query{nullptr};
    if (wish.token_merging.kind != "none") {  // a narrower one, whose queries are projected
      query = VisionTransformer(VitOptions{kSize, 4, 48, 2, 3});
      query->train_last_blocks(0);
      query->to(device);
    }
    efficiency = std::make_unique<Efficiency>(wish, backbone.ptr(), query, 5);
    const Transform view("none", kSize, {}, true);
    images = std::make_unique<TaskImages>(data, view, view, TaskImages::Options{}, device);
    method = Registry<MethodKind>::get()
                 .at(section.name)
                 .value.make({section, backbone.ptr(), *efficiency, *images, kClasses, kTasks, 5,
                              device, ""});
  }
  // What the loop does with a task, one batch being all that the method trains on; the losses.
  void begin(const Task& task) {
    torch::manual_seed(static_cast<uint64_t>(7 + task.index));
    images->set_task(task);
    method->begin_task(task);
    start(task);
  }
  void start(const Task& task) {
    OptimizerConfig config;
    config.lr = 0.003;
    if (decay > 0) config.name = "adamw";
    config.weight_decay = decay;
    optimizer = std::make_unique<Optimizer>(config, method->parameters(), method->lr_factors(),
                                            method->trained_rows());
    if (learns_by_steps()) {
      const TrainingSet set = method->training_set(data, task);
      batch = on_device(make_batch(*set.data, set.samples));
    }
  }
  // What the loader does; positions stay on the CPU.
  Batch on_device(const Batch& b) const {
    return {b.images.to(device), b.labels.to(device), b.indices};
  }
  bool learns_by_steps() const { return !optimizer->parameters().empty(); }
  double step() {
    optimizer->zero_grad();
    const int64_t reads = reads_of_other_device();
    const torch::Tensor loss = method->loss(batch);
    loss.backward();
    method->after_backward();
    optimizer->step();
    method->after_step();
    waits += reads_of_other_device() - reads;
    return loss.item<double>();
  }
  std::vector<double> train(int64_t steps) {
    std::vector<double> losses;
    for (int64_t i = 0; i < steps && learns_by_steps(); ++i) losses.push_back(step());
    return losses;
  }
  std::vector<double> learn(int64_t index, int64_t steps) {
    const Task task = make_task(index);
    begin(task);
    auto losses = train(steps);
    method->end_task(task);
    return losses;
  }
  torch::Tensor predict(int64_t task = 0) {
    torch::NoGradGuard no_grad;
    return method->predict(on_device(make_batch(data, make_task(task).test))).clone();
  }

  const torch::Device device;
  EfficiencyConfig wish;
  double decay = 0;   // of weights
  int64_t waits = 0;  // for the device, within steps
  WrittenClasses data;
  Section section;
  VisionTransformer backbone{nullptr};
  std::unique_ptr<Efficiency> efficiency;
  std::unique_ptr<TaskImages> images;
  std::unique_ptr<Method> method;
  std::unique_ptr<Optimizer> optimizer;
  Batch batch;
};

class EveryMethod : public ::testing::TestWithParam<std::string> {};

TEST_P(EveryMethod, LearnsOneBatch) {
  Subject subject(GetParam());
  const auto losses = subject.learn(0, 40);
  if (!losses.empty()) {
    EXPECT_LT(losses.back(), losses.front() - 0.05);
  }
  const Batch learned = make_batch(subject.data, make_task(0).train);
  torch::NoGradGuard no_grad;
  const torch::Tensor right =
      subject.method->predict(learned).narrow(1, 0, 2).argmax(1).eq(learned.labels);
  EXPECT_GT(right.sum().item<int64_t>(), kPerClass) << "no better than guessing";
}

TEST_P(EveryMethod, PredictsALogitForEveryClassOfTheStream) {
  Subject subject(GetParam());
  subject.learn(0, 1);
  const torch::Tensor logits = subject.predict();
  EXPECT_EQ(logits.sizes(), (std::vector<int64_t>{2 * kPerClass, kClasses}));
  EXPECT_TRUE(logits.narrow(1, 0, 2).isfinite().all().item<bool>());
}

TEST_P(EveryMethod, SaysTrulyThatUnseenClassesHaveLogits) {
  Subject subject(GetParam());
  if (!subject.method->has_unseen_logits()) return;
  subject.learn(0, 3);
  const torch::Tensor unseen = subject.predict().narrow(1, 2, kClasses - 2);
  EXPECT_TRUE(unseen.isfinite().all().item<bool>());
  EXPECT_GT(unseen.std(1).min().item<double>(), 0) << "the same of every class";
}

TEST_P(EveryMethod, HasGradientsOnlyInItsParameters) {
  Subject subject(GetParam());
  subject.begin(make_task(0));
  if (!subject.learns_by_steps()) return;
  subject.method->loss(subject.batch).backward();
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

// On a GPU; here on a device that refuses the CPU's tensors, and counts what would wait for it.
// Losses are those of the CPU but for rounding: it takes LibTorch's operations where the CPU has
// fused ones.
void expect_the_same_on_another_device(const std::string& name, const EfficiencyConfig& wish) {
  if (TORCH_VERSION_MAJOR >= 2) GTEST_SKIP() << "LibTorch 2.x lets no device of our own train";
  Subject here(name, torch::kCPU, wish), there(name, other_device(), wish);
  const bool sways = name == "generative_replay";  // rounding grows in its generator's training
  for (int64_t task = 0; task < 2; ++task) {
    const auto expected = here.learn(task, 3), losses = there.learn(task, 3);
    ASSERT_EQ(losses.size(), expected.size());
    for (size_t i = 0; i < losses.size() && !(sways && task > 0); ++i) {
      EXPECT_NEAR(losses[i], expected[i], 1e-3 * std::max(1.0, std::abs(expected[i]))) << i;
    }
  }
  const torch::Tensor logits = there.predict(0), expected = here.predict(0);
  EXPECT_EQ(logits.device(), other_device());
  EXPECT_TRUE(sways || logits.cpu().narrow(1, 0, 4).allclose(expected.narrow(1, 0, 4), 1e-2, 1e-2))
      << logits.cpu() << expected;
  // torch::one_hot looks at its numbers, but on a GPU.
  if (name != "icarl" && !sways) {
    EXPECT_EQ(there.waits, 0);
  }
}

TEST_P(EveryMethod, LearnsTheSameOnAnotherDevice) {
  expect_the_same_on_another_device(GetParam(), {});
}

TEST(RepTest, LearnsTheSameOnAnotherDevice) {
  EfficiencyConfig rep;
  rep.token_merging.kind = "atom";
  rep.token_merging.proportional_attention = true;
  rep.layer_dropping.kind = "ald";
  for (const char* name : {"l2p", "dualprompt", "coda_prompt", "hide_prompt", "convprompt"}) {
    SCOPED_TRACE(name);
    expect_the_same_on_another_device(name, rep);
  }
}

TEST(RepTest, MethodsSayWhichBlocksTheyPutPromptsInto) {
  EfficiencyConfig wish;
  wish.layer_dropping.kind = "random";
  wish.layer_dropping.keep = 0;
  wish.layer_dropping.exempt_prompted = true;
  const std::map<std::string, std::vector<bool>> skipped{
      {"dualprompt", {false, false, false, false, false, true}},
      {"coda_prompt", {false, false, false, false, false, true}},
      {"hide_prompt", {false, false, false, false, false, true}}};
  for (const auto& [name, skip] : skipped) {
    SCOPED_TRACE(name);
    Subject subject(name, torch::kCPU, wish);
    EXPECT_NO_THROW(subject.efficiency->check_prompted_blocks(name));
    EXPECT_EQ(subject.efficiency->train_plan().skip, skip);
  }
  // l2p's prompts come in with the image; those of the others are in all six blocks.
  for (const char* name : {"l2p", "apt", "convprompt"}) {
    Subject subject(name, torch::kCPU, wish);
    EXPECT_THROW(subject.efficiency->check_prompted_blocks(name), Error) << name;
    if (name == std::string("l2p")) continue;
    subject.section.node["layers"] = YAML::Load("[0, 2]");
    subject.make("none");
    EXPECT_NO_THROW(subject.efficiency->check_prompted_blocks(name));
    EXPECT_EQ(subject.efficiency->train_plan().skip,
              (std::vector<bool>{false, true, false, true, true, true}));
  }
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

NamedTensors copies(const NamedTensors& tensors) {
  NamedTensors result;
  for (const auto& [name, tensor] : tensors) result.emplace_back(name, tensor.clone());
  return result;
}

// In the first task some train what they freeze later on; in the second there is something to
// remember.
void expect_to_go_on_from_the_middle(const std::string& name, const Task& task) {
  Subject straight(name), first(name), second(name);
  for (Subject* subject : {&straight, &first}) {
    for (int64_t earlier = 0; earlier < task.index; ++earlier) subject->learn(earlier, 2);
    subject->begin(task);
  }
  auto generator = at::detail::getDefaultCPUGenerator();
  const torch::Tensor at_start = generator.get_state();
  straight.train(4);
  straight.method->end_task(task);

  generator.set_state(at_start);
  first.train(2);
  State saved;
  first.method->state(saved);
  first.optimizer->state(saved);
  const torch::Tensor at_half = generator.get_state();
  State given(copies(saved.tensors()), saved.values());
  second.images->set_task(task);
  second.method->state(given);
  second.start(task);
  second.optimizer->state(given);
  generator.set_state(at_half);
  second.train(2);
  second.method->end_task(task);
  EXPECT_TRUE(second.predict().equal(straight.predict()));
}

TEST_P(EveryMethod, GoesOnFromTheMiddleOfTheFirstTaskAsIfNothingHadHappened) {
  expect_to_go_on_from_the_middle(GetParam(), make_task(0));
}

TEST_P(EveryMethod, GoesOnFromTheMiddleOfALaterTaskAsIfNothingHadHappened) {
  expect_to_go_on_from_the_middle(GetParam(), make_task(1));
}

// What a file gives back lies on the CPU.
NamedTensors on_cpu(const NamedTensors& tensors) {
  NamedTensors result;
  for (const auto& [name, tensor] : tensors) result.emplace_back(name, tensor.cpu().clone());
  return result;
}

void expect_to_go_on_on_another_device(const std::string& name, const Task& task) {
  if (TORCH_VERSION_MAJOR >= 2) GTEST_SKIP() << "LibTorch 2.x lets no device of our own train";
  Subject straight(name, other_device()), resumed(name, other_device());
  for (int64_t earlier = 0; earlier < task.index; ++earlier) straight.learn(earlier, 3);
  straight.begin(task);
  straight.train(2);
  State saved;
  straight.method->state(saved);
  straight.optimizer->state(saved);
  State given(on_cpu(saved.tensors()), saved.values(), other_device());
  resumed.images->set_task(task);
  resumed.method->state(given);
  resumed.start(task);
  resumed.optimizer->state(given);
  for (Subject* subject : {&straight, &resumed}) {
    torch::manual_seed(3);
    subject->train(2);
    subject->method->end_task(task);
  }
  EXPECT_TRUE(resumed.predict(task.index).cpu().equal(straight.predict(task.index).cpu()));
  State again;
  resumed.method->state(again);
  ASSERT_EQ(again.tensors().size(), [&] {
    State whole;
    straight.method->state(whole);
    return whole.tensors().size();
  }());
}

TEST_P(EveryMethod, GoesOnOnAnotherDeviceFromACheckpointInTheFirstTask) {
  expect_to_go_on_on_another_device(GetParam(), make_task(0));
}

TEST_P(EveryMethod, GoesOnOnAnotherDeviceFromACheckpointInALaterTask) {
  expect_to_go_on_on_another_device(GetParam(), make_task(1));
}

TEST(StateTest, RefusesCountsOfWhatCannotBe) {
  for (const int64_t count : {int64_t{-1}, int64_t{1} << 21}) {
    State given({}, Json{{"list.size", count}});
    std::vector<torch::Tensor> list;
    EXPECT_THROW(given("list", list), Error) << count;
  }
  const std::map<std::string, std::string> counts{
      {"inflora", "branches"}, {"sd_lora", "branches"}, {"ease", "sets"}};
  for (const auto& [name, entry] : counts) {
    Subject learned(name);
    learned.learn(0, 1);
    State saved;
    learned.method->state(saved);
    for (const int64_t count : {int64_t{-1}, kTasks + 1, int64_t{1} << 40}) {
      Json values = saved.values();
      values[entry] = count;
      State given(saved.tensors(), values);
      Subject fresh(name);
      try {
        fresh.method->state(given);
        ADD_FAILURE() << name << " takes " << count;
      } catch (const Error& e) {
        EXPECT_NE(std::string(e.what()).find("not from 0 to 3"), std::string::npos) << e.what();
      }
    }
  }
}

TEST(StateTest, DefinesTensorsOnTheLearnersDeviceUnlessTheyStayOnTheCpu) {
  if (TORCH_VERSION_MAJOR >= 2) GTEST_SKIP() << "LibTorch 2.x lets no device of our own train";
  State given({{"a", torch::ones({2})}, {"b", torch::ones({2})}, {"list.0", torch::ones({2})}},
              Json{{"list.size", 1}}, other_device());
  torch::Tensor a, b;
  std::vector<torch::Tensor> list;
  given("a", a);
  given.on_cpu("b", b);
  given("list", list);
  EXPECT_EQ(a.device(), other_device());
  EXPECT_TRUE(b.device().is_cpu());
  EXPECT_EQ(list.at(0).device(), other_device());
}

// Rows of classes and tasks that have no part in the loss, under a decay that would halve them.
TEST(WeightDecayTest, MovesNoRowOfEarlierTasks) {
  struct Row {
    const char* name;
    int64_t dim;
  };
  const std::map<std::string, std::vector<Row>> rows_of{
      {"no_prompt", {{"head.weight", 0}, {"head.bias", 0}}},
      {"l2p", {{"head.weight", 0}, {"head.bias", 0}}},
      {"dualprompt", {{"head.weight", 0}, {"e_prompt", 2}, {"prompt_key", 0}}},
      {"coda_prompt",
       {{"head.weight", 0}, {"prompt.0", 0}, {"prompt_key.4", 0}, {"attention.2", 0}}},
      {"os_prompt", {{"head.weight", 0}, {"prompt.0", 0}, {"prompt_key.1", 0}}},
      {"hide_prompt", {{"wtp.head.weight", 0}, {"tii.head.bias", 0}, {"prompt.0", 0}}},
      {"slca", {{"head.weight", 0}, {"head.bias", 0}}},
      {"inflora", {{"head.weight", 0}, {"head.bias", 0}}},
      {"sd_lora", {{"head.weight", 0}}}};
  for (const auto& [method, rows] : rows_of) {
    SCOPED_TRACE(method);
    Subject subject(method);
    subject.decay = 0.5;
    subject.learn(0, 2);
    subject.begin(make_task(1));
    const auto first_rows = [&] {
      State state;
      subject.method->state(state);
      std::map<std::string, torch::Tensor> found;
      for (const Row& row : rows) {
        for (const auto& [name, tensor] : state.tensors()) {
          if (name == row.name) found[name] = tensor.narrow(row.dim, 0, 1).clone();
        }
      }
      return found;
    };
    const auto before = first_rows();
    ASSERT_EQ(before.size(), rows.size());
    subject.train(3);
    for (const auto& [name, row] : first_rows()) {
      EXPECT_TRUE(row.equal(before.at(name))) << name << " of the first task moved";
      EXPECT_GT(row.abs().max().item<float>(), 0) << name;
    }
  }
}

// Everything is offered to the buffer once: not what comes by again in another epoch, and also
// what no batch held.
TEST(Replay, OffersEveryImageOfATaskOnce) {
  for (const char* name : {"er", "der", "derpp"}) {
    SCOPED_TRACE(name);
    Subject subject(name);
    const Task task = make_task(0);
    subject.begin(task);
    for (const int64_t first : {0, 1, 2}) {  // batches of five: images 0-4, 1-5, 2-6, but never 7
      const std::vector<Sample> some(task.train.begin() + first, task.train.begin() + first + 5);
      subject.batch = make_batch(subject.data, some);
      subject.step();
    }
    subject.method->end_task(task);
    State state;
    subject.method->state(state);
    std::vector<int64_t> stored;
    int64_t notes = 0;
    for (const auto& [key, tensor] : state.tensors()) {
      if (key == "buffer.notes") notes = tensor.size(0);
      if (key != "buffer.indices") continue;
      stored.assign(tensor.data_ptr<int64_t>(), tensor.data_ptr<int64_t>() + tensor.numel());
    }
    EXPECT_EQ(stored, (std::vector<int64_t>{0, 1, 2, 3, 4, 5, 6, 7}));
    EXPECT_EQ(notes, std::string(name) == "er" ? 0 : 8);
  }
}

TEST(ClassesWithoutImages, NeverWin) {
  for (const char* name : {"icarl", "ncm", "slda", "ranpac", "aper", "ease"}) {
    SCOPED_TRACE(name);
    Subject subject(name);
    Task task = make_task(0);
    task.train.resize(kPerClass);  // all of class 0
    subject.begin(task);
    subject.train(2);
    subject.method->end_task(task);
    const torch::Tensor logits = subject.predict(0);
    EXPECT_TRUE(logits.select(1, 0).isfinite().all().item<bool>());
    EXPECT_TRUE(logits.select(1, 1).eq(-std::numeric_limits<float>::infinity()).all().item<bool>())
        << logits;
  }
}

TEST(ComponentPools, RefuseMoreComponentsThanCanBeOrthogonal) {
  for (const char* name : {"coda_prompt", "cps_prompt", "os_prompt"}) {
    Subject fits(name);
    fits.section.node["pool_size"] = 99;
    try {
      fits.make("none");
      ADD_FAILURE() << name << ": taken";
    } catch (const Error& e) {
      EXPECT_STREQ(e.what(),
                   "method: pool_size 99 makes 99 components, and only 96 can be orthogonal in the "
                   "backbone's width; make it at most that");
    }
  }
}

TEST_P(EveryMethod, PredictsAnImageAloneAsInABatch) {
  Subject subject(GetParam());
  subject.learn(0, 3);
  subject.learn(1, 3);
  torch::NoGradGuard no_grad;
  const Batch all = make_batch(subject.data, make_task(0).test);
  const torch::Tensor together = subject.method->predict(all).narrow(1, 0, 4).clone();
  for (int64_t i = 0; i < all.size(); ++i) {
    const Batch one{all.images.narrow(0, i, 1), all.labels.narrow(0, i, 1),
                    all.indices.narrow(0, i, 1)};
    const torch::Tensor alone = subject.method->predict(one).narrow(1, 0, 4);
    EXPECT_TRUE(alone.allclose(together.narrow(0, i, 1), 1e-4, 1e-4)) << alone << together[i];
  }
}

INSTANTIATE_TEST_SUITE_P(Registry, EveryMethod,
                         ::testing::ValuesIn(Registry<MethodKind>::get().names()),
                         [](const auto& test) { return test.param; });

TEST(Registry, KnowsTheMethodsThatScriptsRelyOn) {
  const auto names = Registry<MethodKind>::get().names();
  for (const char* name :
       {"no_prompt", "linear_probe", "finetune", "joint", "l2p", "dualprompt", "coda_prompt",
        "inflora", "sd_lora", "aper", "ease", "apt", "os_prompt", "cps_prompt", "fecam"}) {
    EXPECT_NE(std::find(names.begin(), names.end(), name), names.end()) << name;
  }
}

}  // namespace
}  // namespace rep
