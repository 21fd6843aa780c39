// Generative replay: the Gaussians' arithmetic, the gates, and what a task is taught of the past.

#include "methods/generative_replay.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "core/error.h"
#include "data/image.h"
#include "nn/resnet.h"
#include "tensor/torch.h"

namespace rep {
namespace {

using torch::Tensor;

// ---- Gaussians ----

TEST(Gaussians, KlIsItsClosedForm) {
  // KL(N(m, s^2) || N(0, 1)) = (m^2 + s^2 - 1) / 2 - log s, summed.
  const Tensor mean = torch::tensor({{1.0, -2.0}, {0.0, 0.0}});
  const Tensor logvar = torch::tensor({{2 * std::log(0.5), 2 * std::log(3.0)}, {0.0, 0.0}});
  const Tensor kl = kl_to_standard_normal(mean, logvar);
  const double first = (1 + 0.25 - 1) / 2 - std::log(0.5) + (4 + 9 - 1) / 2.0 - std::log(3.0);
  EXPECT_NEAR(kl[0].item<double>(), first, 1e-5);
  EXPECT_NEAR(kl[1].item<double>(), 0, 1e-7);
}

TEST(Gaussians, LogDensitiesOfSamplesAverageToTheKl) {
  // KL(q || p) between N(m1, s1^2) and N(m2, s2^2) = log(s2/s1) + (s1^2 + (m1-m2)^2)/(2 s2^2) -
  // 1/2.
  torch::manual_seed(3);
  const int64_t draws = 200000;
  const Tensor m1 = torch::full({draws, 1}, 0.5), v1 = torch::full({draws, 1}, std::log(0.16));
  const Tensor m2 = torch::full({1}, -0.25), v2 = torch::full({1}, std::log(2.25));
  const Tensor z = sample_normal(m1, v1);
  const double estimate = (log_normal(z, m1, v1) - log_normal(z, m2, v2)).mean().item<double>();
  const double kl = std::log(1.5 / 0.4) + (0.16 + 0.75 * 0.75) / (2 * 2.25) - 0.5;
  EXPECT_NEAR(estimate, kl, 0.01);
}

TEST(Gaussians, AMixtureWithAllWeightInOneIsThatOne) {
  torch::manual_seed(4);
  const Tensor z = torch::randn({4, 3});
  Tensor means = torch::randn({5, 3}), logvars = torch::randn({5, 3}).requires_grad_();
  const Tensor classes = torch::tensor({2, 0, 4, 2}, torch::kLong);
  const Tensor mixture =
      log_mixture(z, torch::one_hot(classes, 5).to(torch::kFloat), means, logvars);
  const Tensor single =
      log_normal(z, means.index_select(0, classes), logvars.index_select(0, classes));
  EXPECT_TRUE(mixture.allclose(single));
  mixture.sum().backward();  // the other classes' weights of 0 are -inf as logarithms
  EXPECT_TRUE(logvars.grad().isfinite().all().item<bool>());
  EXPECT_EQ(logvars.grad()[1].abs().sum().item<double>(), 0);
  EXPECT_GT(logvars.grad()[4].abs().sum().item<double>(), 0);
}

TEST(Gaussians, AMixtureIsTheLogarithmOfTheSum) {
  const Tensor z = torch::tensor({{0.5}});
  const Tensor mixture =
      log_mixture(z, torch::tensor({{0.25, 0.75}}), torch::tensor({{0.0}, {2.0}}),
                  torch::tensor({{0.0}, {std::log(4.0)}}).to(torch::kFloat));
  const double expected = std::log(0.25 * std::exp(-0.125) + 0.75 * std::exp(-2.25 / 8) / 2);
  EXPECT_NEAR(mixture.item<double>(), expected, 1e-6);
}

// ---- the gated auto-encoder ----

Tensor dense(const Dense& layer, const Tensor& x) { return x.mm(layer.weight.t()) + layer.bias; }

TEST(GatedVae, GatesMultiplyThePreActivations) {
  torch::manual_seed(5);
  const torch::Device cpu(torch::kCPU);
  const GatedVae vae({6, 40, 3, 4, 0.7}, cpu);
  const double open = vae.gates1.mean().item<double>();
  EXPECT_NEAR(open, 0.3, 0.15);  // four standard deviations of 160 draws
  EXPECT_TRUE((vae.gates1.eq(0) | vae.gates1.eq(1)).all().item<bool>());
  EXPECT_FALSE(vae.gates1.equal(vae.gates2));

  const Tensor z = torch::randn({2, 3});
  const Tensor weights = torch::tensor({{0.0, 1.0, 0.0}, {0.25, 0.0, 0.75}});  // of 4, 3 are known
  const auto open_gates = [&](const Tensor& gates) {
    return torch::stack({gates[1], 0.25 * gates[0] + 0.75 * gates[2]});
  };
  const Tensor h1 = torch::relu(open_gates(vae.gates1) * dense(vae.decoder1, z));
  const Tensor h2 = torch::relu(open_gates(vae.gates2) * dense(vae.decoder2, h1));
  EXPECT_TRUE(vae.decode(z, weights).allclose(dense(vae.decoder3, h2), 1e-4, 1e-6));
}

TEST(GatedVae, LossIsHalfTheMeanSquareAndTheScaledVariationalLoss) {
  torch::manual_seed(6);
  const GatedVae vae({6, 10, 3, 4, 0.5}, torch::Device(torch::kCPU));
  const Tensor x = torch::randn({5, 6});
  const Tensor classes = torch::tensor({0, 1, 3, 3, 2}, torch::kLong);
  const Tensor weights = torch::one_hot(classes, 4).to(torch::kFloat);
  torch::manual_seed(7);
  const Tensor loss = vae.generative_loss(x, vae.encode(x), weights);
  torch::manual_seed(7);
  const Tensor h = torch::relu(dense(vae.encoder2, torch::relu(dense(vae.encoder1, x))));
  const Tensor mean = dense(vae.mean, h), logvar = h.mm(vae.logvar.weight.t());
  EXPECT_FALSE(vae.logvar.bias.defined());
  const Tensor noise = torch::randn({5, 3});
  const Tensor z = mean + (logvar / 2).exp() * noise;
  const Tensor error = (x - vae.decode(z, weights)).pow(2).sum(1) / 2;
  const Tensor p_mean = vae.prior_mean.index_select(0, classes);
  const Tensor p_logvar = vae.prior_logvar.index_select(0, classes);
  const Tensor log_q = -(noise.pow(2) + logvar).sum(1) / 2;
  const Tensor log_p = -((z - p_mean).pow(2) / p_logvar.exp() + p_logvar).sum(1) / 2;
  EXPECT_TRUE(loss.allclose((error + log_q - log_p) / 6, 1e-4, 1e-5));
}

TEST(ConvVae, LossAndShapes) {
  torch::manual_seed(8);
  ConvVae vae(32, 20, 7, torch::Device(torch::kCPU));
  const Tensor pictures = torch::randn({3, 3, 32, 32});
  EXPECT_EQ(vae.decode(torch::randn({2, 7}), false).sizes(), (std::vector<int64_t>{2, 3, 32, 32}));
  EXPECT_EQ(
      ConvVae(48, 20, 7, torch::Device(torch::kCPU)).decode(torch::randn({2, 7}), false).sizes(),
      (std::vector<int64_t>{2, 3, 48, 48}));
  {
    torch::NoGradGuard no_grad;  // a decoder of silence, a latent of N(0, 1): nothing but error
    for (Dense* layer : {&vae.mean, &vae.logvar}) layer->weight.zero_();
    vae.mean.bias.zero_();
    vae.up.back().weight.zero_();
    vae.up.back().bias.zero_();
  }
  const Tensor error = pictures.pow(2).sum({1, 2, 3}) / 2;
  EXPECT_TRUE(vae.loss(pictures).allclose(error / 3072));
  {
    torch::NoGradGuard no_grad;
    vae.mean.bias.fill_(2);
  }
  EXPECT_TRUE(vae.loss(pictures).allclose((error + 7 * 2) / 3072)) << "KL of means 2 is 2 each";
}

// ---- the method ----

constexpr int64_t kClasses = 6, kSize = 32;

class Noise final : public Dataset {
 public:
  Noise() : labels_(24) {
    for (size_t i = 0; i < labels_.size(); ++i) labels_[i] = static_cast<int64_t>(i) / 4;
  }
  const std::vector<int64_t>& labels() const override { return labels_; }
  const std::vector<std::string>& class_names() const override { return names_; }
  Image image(int64_t index) const override {
    Random random({9, static_cast<uint64_t>(index)});
    Image image = Image::make(kSize, kSize);
    for (auto& pixel : image.pixels) pixel = static_cast<uint8_t>(random.below(256));
    return image;
  }
  std::string fingerprint() const override { return "noise"; }

 private:
  std::vector<int64_t> labels_;
  std::vector<std::string> names_{"a", "b", "c", "d", "e", "f"};
};

Task task_of_two_classes(int64_t index) {
  Task task;
  task.index = index;
  task.first_label = 2 * index;
  task.classes = {2 * index, 2 * index + 1};
  for (int64_t i = 8 * index; i < 8 * index + 8; ++i) task.train.push_back({i, i / 4});
  return task;
}

template <class M>
struct Subject {
  Subject(std::shared_ptr<Backbone> backbone_, const std::string& options,
          const std::string& folder = "")
      : backbone(std::move(backbone_)),
        section{"generative_replay", YAML::Load(options), "test", {}} {
    section.node["name"] = section.name;
    torch::manual_seed(10);
    auto made = Registry<MethodKind>::get()
                    .at("generative_replay")
                    .value.make({section, backbone, efficiency, images, kClasses, 3, 5,
                                 torch::Device(torch::kCPU), folder});
    method.reset(dynamic_cast<M*>(made.release()));
  }
  Batch batch_of(const Task& task) {
    Batch all;
    images.set_task(task);
    images.each_batch(task.train, [&](const Batch& batch) {
      all = {batch.images.clone(), batch.labels.clone(), batch.indices.clone()};
    });
    return all;
  }
  void begin(int64_t index) {
    images.set_task(task_of_two_classes(index));
    method->begin_task(task_of_two_classes(index));
  }
  // Moves everything that trains.
  void train(int64_t index, int64_t steps) {
    const Batch batch = batch_of(task_of_two_classes(index));
    const auto parameters = method->parameters();
    for (int64_t step = 0; step < steps; ++step) {
      for (auto parameter : parameters) parameter.mutable_grad() = torch::Tensor();
      method->loss(batch).backward();
      torch::NoGradGuard no_grad;
      for (auto parameter : parameters) {
        if (parameter.grad().defined()) parameter.sub_(0.05 * parameter.grad());
      }
    }
  }
  void learn(int64_t index, int64_t steps) {
    begin(index);
    train(index, steps);
    method->end_task(task_of_two_classes(index));
  }
  // The value that the method's state holds under a name.
  Tensor held(const std::string& name) {
    State saved;
    method->state(saved);
    for (const auto& [key, tensor] : saved.tensors()) {
      if (key == name) return tensor;
    }
    return {};
  }
  void take_from(Method& other) {
    State saved;
    other.state(saved);
    State given(saved.tensors(), saved.values());
    method->state(given);
  }

  std::shared_ptr<Backbone> backbone;
  Section section;
  Noise data;
  Efficiency efficiency{{}, backbone, VisionTransformer(nullptr), 5};
  Transform view{"none", kSize, {}, true};
  TaskImages images{data, view, view, TaskImages::Options{}, torch::Device(torch::kCPU)};
  std::unique_ptr<M> method;
};

struct FeatureSubject : Subject<FeatureReplay> {
  explicit FeatureSubject(const std::string& more = "")
      : Subject(frozen_vit(), "{level: feature, hidden: 16, latent: 5" + more + "}") {}
  static std::shared_ptr<Backbone> frozen_vit() {
    torch::manual_seed(11);
    VisionTransformer vit(vit_options("vit_nano"));
    vit->train_last_blocks(0);
    return vit.ptr();
  }
};

struct PixelSubject : Subject<PixelReplay> {
  explicit PixelSubject(const std::string& folder = "", const std::string& pixel_size = "16")
      : Subject(resnet(), "{level: pixel, hidden: 16, latent: 5, pixel_size: " + pixel_size + "}",
                folder) {}
  static std::shared_ptr<Backbone> resnet() {
    torch::manual_seed(12);
    ResNetOptions options;
    options.width = 4;
    auto backbone = std::make_shared<ResNet18Impl>(options);
    backbone->train_last_blocks(4);
    return backbone;
  }
};

TEST(FeatureReplay, StandardisesByTheFirstTasksStatistics) {
  FeatureSubject subject;
  subject.begin(0);
  const Batch batch = subject.batch_of(task_of_two_classes(0));
  Tensor features;
  {
    torch::NoGradGuard no_grad;
    features = subject.backbone->features(batch.images);
  }
  const Tensor mean = features.sum(0) / 8;
  const Tensor deviation = ((features - mean).pow(2).sum(0) / 8).sqrt();
  EXPECT_TRUE(subject.held("feature_mean").allclose(mean, 1e-4, 1e-5));
  EXPECT_TRUE(subject.held("feature_std")
                  .allclose(torch::maximum(deviation, 0.01 * deviation.mean()), 1e-3, 1e-5));
  subject.begin(1);
  EXPECT_TRUE(subject.held("feature_mean").allclose(mean, 1e-4, 1e-5));
}

TEST(FeatureReplay, GatesSurviveSaveAndLoadAndAreNotTrained) {
  FeatureSubject learned, fresh;
  const Tensor gates = learned.held("vae.gates1").clone();
  learned.learn(0, 3);
  EXPECT_TRUE(learned.held("vae.gates1").equal(gates));
  fresh.method->parameters();
  {
    torch::NoGradGuard no_grad;
    fresh.held("vae.gates1").fill_(0.5);
  }
  fresh.take_from(*learned.method);
  EXPECT_TRUE(fresh.held("vae.gates1").equal(gates));
  EXPECT_TRUE(fresh.held("vae.gates2").equal(learned.held("vae.gates2")));
}

TEST(FeatureReplay, ReplayAndItsTargetsComeFromTheModelThatTheTaskFound) {
  FeatureSubject subject;
  subject.learn(0, 5);
  GatedVae found;  // by hand, from the state
  found.each_tensor([&](const std::string& name, Tensor& tensor) {
    tensor = subject.held("vae." + name);
    if (tensor.defined()) tensor = tensor.clone();
  });
  subject.begin(1);
  subject.train(1, 5);
  ASSERT_FALSE(subject.held("vae.head.weight").equal(found.head.weight));

  torch::manual_seed(13);
  const auto [x, targets] = subject.method->replay(50);
  ASSERT_EQ(x.sizes(), (std::vector<int64_t>{50, 96}));
  const Tensor h = torch::relu(dense(found.encoder2, torch::relu(dense(found.encoder1, x))));
  const Tensor half = dense(found.head, h).narrow(1, 0, 2) / 2;  // temperature 2, past classes
  EXPECT_TRUE(targets.allclose(half.exp() / half.exp().sum(1, true), 1e-4, 1e-6));
  torch::manual_seed(13);
  const Tensor classes = torch::randint(2, {50}).to(torch::kLong);
  EXPECT_TRUE(x.allclose(found.sample(classes), 1e-4, 1e-5));
  EXPECT_FALSE(x.requires_grad() || targets.requires_grad());
}

// With the same numbers drawn, the loss in a t-th task is own/t + (1 - 1/t) replayed.
template <class S>
void expect_weights_of_one_in_t() {
  S subject;
  subject.learn(0, 2);
  const Batch batch = subject.batch_of(task_of_two_classes(1));
  const auto loss = [&](int64_t index, bool swapped = false) {
    S fresh;  // for a loss moves the batch norm's statistics
    fresh.take_from(*subject.method);
    Task task = task_of_two_classes(1);
    task.index = index;
    fresh.method->begin_task(task);
    torch::manual_seed(14);
    const Batch seen{batch.images, swapped ? 5 - batch.labels : batch.labels, batch.indices};
    return fresh.method->loss(seen).template item<double>();
  };
  const double half = loss(1), third = loss(2), sixth = loss(5);
  // own and replayed from two equations; the third must follow.
  const double slope = (half - third) / (1.0 / 2 - 1.0 / 3);  // own - replayed
  const double replayed = half - slope / 2;
  EXPECT_GT(std::abs(slope), 1e-3);
  EXPECT_NEAR(sixth, replayed + slope / 6, 1e-5);
  EXPECT_GT(replayed, 0);
  // Which is which: the task's labels matter to its own loss alone.
  EXPECT_GT(std::abs(loss(1, true) - half), 1e-4);
  EXPECT_NEAR(loss(999999, true), replayed, 1e-4);
}

TEST(FeatureReplay, ThePastWeighsAllButOneInT) { expect_weights_of_one_in_t<FeatureSubject>(); }
TEST(PixelReplay, ThePastWeighsAllButOneInT) { expect_weights_of_one_in_t<PixelSubject>(); }

TEST(FeatureReplay, TheFirstTaskHasNoPast) {
  FeatureSubject subject;
  subject.begin(0);
  const Batch batch = subject.batch_of(task_of_two_classes(0));
  torch::manual_seed(15);
  const double loss = subject.method->loss(batch).item<double>();
  const double cross_entropy =
      Classifier::loss(subject.method->predict(batch), batch.labels, 0, 2).item<double>();
  EXPECT_GT(loss, cross_entropy);
  subject.method->end_task(task_of_two_classes(0));
  EXPECT_FALSE(subject.held("previous.head.weight").defined()) << "nothing to carry twice";
}

TEST(FeatureReplay, WantsAFrozenBackbone) {
  auto vit = FeatureSubject::frozen_vit();
  vit->train_last_blocks(1);
  EXPECT_THROW(Subject<FeatureReplay>(vit, "{level: feature}"), Error);
}

TEST(PixelReplay, LabelsComeFromTheSolverThatTheTaskFound) {
  PixelSubject subject, found;
  subject.learn(0, 5);
  found.take_from(*subject.method);
  subject.begin(1);
  subject.train(1, 5);
  ASSERT_FALSE(subject.held("head.weight").equal(found.held("head.weight")));
  const Tensor running = subject.held("backbone.layer1.0.bn1.running_mean").clone();
  const auto [pictures, batch] = subject.method->replay(40);
  EXPECT_EQ(pictures.sizes(), (std::vector<int64_t>{40, 3, 16, 16}));
  EXPECT_EQ(batch.images.sizes(), (std::vector<int64_t>{40, 3, kSize, kSize}));
  EXPECT_TRUE(subject.held("backbone.layer1.0.bn1.running_mean").equal(running))
      << "looking at the past moved the batch norm of the present";
  torch::NoGradGuard no_grad;
  EXPECT_TRUE(batch.labels.equal(found.method->predict(batch).narrow(1, 0, 2).argmax(1)));
}

TEST(PixelReplay, PicturesComeFromTheGeneratorThatTheTaskFound) {
  PixelSubject subject("", "32");
  subject.learn(0, 3);
  const Tensor weight = subject.held("generator.up4.weight").clone();
  subject.begin(1);
  torch::manual_seed(16);
  const Tensor before = subject.method->replay(4).first;
  subject.train(1, 3);
  EXPECT_FALSE(subject.held("generator.up4.weight").equal(weight));
  torch::manual_seed(16);
  const auto [after, batch] = subject.method->replay(4);
  EXPECT_TRUE(after.equal(before));
  EXPECT_TRUE(batch.images.equal(after)) << "pictures of the network's own size are as they are";
}

TEST(PixelReplay, GoesOnFromTheMiddleOfATask) {
  PixelSubject straight, resumed;
  straight.learn(0, 2);
  straight.begin(1);
  straight.train(1, 2);
  resumed.take_from(*straight.method);
  torch::manual_seed(17);
  straight.train(1, 2);
  torch::manual_seed(17);
  resumed.train(1, 2);
  torch::NoGradGuard no_grad;
  const Batch batch = straight.batch_of(task_of_two_classes(0));
  EXPECT_TRUE(resumed.method->predict(batch).equal(straight.method->predict(batch)));
}

TEST(PixelReplay, WritesAPictureOfSamplesAfterEachTask) {
  const auto folder = std::filesystem::path(testing::TempDir()) / "generative_replay_samples";
  std::filesystem::create_directories(folder);
  PixelSubject subject(folder.string());
  subject.begin(0);
  const Tensor random = at::detail::getDefaultCPUGenerator().get_state();
  subject.method->end_task(task_of_two_classes(0));
  EXPECT_TRUE(at::detail::getDefaultCPUGenerator().get_state().equal(random));
  const Image grid = read_image((folder / "samples-task0.png").string());
  EXPECT_EQ(grid.width, 8 * (16 + 2) + 2);
  EXPECT_EQ(grid.height, 8 * (16 + 2) + 2);
  // Every picture goes from black to white, the gaps are black.
  uint8_t brightest = 0;
  for (int64_t y = 2; y < 18; ++y) {
    for (int64_t x = 3 * 2; x < 3 * 18; ++x) {
      brightest = std::max(brightest, grid.pixels[static_cast<size_t>(3 * y * grid.width + x)]);
    }
  }
  EXPECT_EQ(brightest, 255);
  EXPECT_EQ(grid.pixels[0], 0);
  std::filesystem::remove_all(folder);
}

TEST(PixelReplay, RefusesPicturesThatItsConvolutionsCannotHalve) {
  EXPECT_THROW(PixelSubject("", "40"), Error);
  EXPECT_THROW(PixelSubject("", "48"), Error) << "more than the network's 32";
  EXPECT_THROW(PixelSubject("", "128"), Error);
}

}  // namespace
}  // namespace rep
