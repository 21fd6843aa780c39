// ewc, si, lwf and pnn against plain tensor algebra, on a backbone so small that everything can be
// written down: its three features are the means of the image's channels.
#include <gtest/gtest.h>

#include "methods/distillation.h"
#include "methods/method.h"
#include "methods/quadratic_penalty.h"
#include "tensor/optimizer.h"
#include "tensor/torch.h"

namespace rep {
namespace {

using torch::Tensor;
using Tensors = std::vector<Tensor>;

constexpr int64_t kSize = 4, kPerClass = 3, kClasses = 5, kFeatures = 3;

class ChannelMeans final : public Backbone {
 public:
  Tensor features(const Tensor& images, const ForwardPlan&) override {
    return images.flatten(2).mean(2);
  }
  int64_t feature_dim() const override { return kFeatures; }
  int64_t image_size() const override { return kSize; }
  void train_last_blocks(int64_t) override {}
  int64_t depth() const override { return 0; }
};

// The same, scaled and through batch norm, and training.
class TrainedMeans final : public Backbone {
 public:
  TrainedMeans() {
    scale = register_parameter("scale", torch::tensor({1.5, -1.0, 0.5}, torch::kFloat));
    norm = register_module("norm", torch::nn::BatchNorm1d(kFeatures));
  }
  Tensor features(const Tensor& images, const ForwardPlan&) override {
    return norm(images.flatten(2).mean(2) * scale);
  }
  int64_t feature_dim() const override { return kFeatures; }
  int64_t image_size() const override { return kSize; }
  void train_last_blocks(int64_t) override {}
  int64_t depth() const override { return 0; }
  Tensor scale;
  torch::nn::BatchNorm1d norm{nullptr};
};

class Noise final : public Dataset {
 public:
  Noise() {
    for (int64_t label = 0; label < kClasses; ++label) {
      names_.push_back(std::to_string(label));
      labels_.insert(labels_.end(), kPerClass, label);
    }
  }
  const std::vector<int64_t>& labels() const override { return labels_; }
  const std::vector<std::string>& class_names() const override { return names_; }
  Image image(int64_t index) const override {
    Random random({3, static_cast<uint64_t>(index)});
    Image image = Image::make(kSize, kSize);
    for (size_t i = 0; i < image.pixels.size(); ++i) {
      image.pixels[i] = static_cast<uint8_t>(random.below(256));
    }
    return image;
  }
  std::string fingerprint() const override { return "noise"; }

 private:
  std::vector<int64_t> labels_;
  std::vector<std::string> names_;
};

// Two tasks: classes 0 to 2, classes 3 and 4.
Task make_task(int64_t index) {
  Task task;
  task.index = index;
  task.first_label = index == 0 ? 0 : 3;
  task.classes = index == 0 ? std::vector<int64_t>{0, 1, 2} : std::vector<int64_t>{3, 4};
  for (const int64_t label : task.classes) {
    for (int64_t i = 0; i < kPerClass; ++i) task.train.push_back({label * kPerClass + i, label});
  }
  task.test = task.train;
  return task;
}

struct Subject {
  // `options`: YAML of the method's section.
  explicit Subject(const std::string& options,
                   std::shared_ptr<Backbone> features_from = std::make_shared<ChannelMeans>())
      : view("none", kSize, {}, true),
        images(data, view, view, TaskImages::Options{}, torch::Device(torch::kCPU)) {
    torch::manual_seed(11);
    const YAML::Node node = YAML::Load(options);
    section = {node["name"].as<std::string>(), node, "test", {}};
    backbone = std::move(features_from);
    efficiency =
        std::make_unique<Efficiency>(EfficiencyConfig{}, backbone, VisionTransformer{nullptr}, 5);
    method = Registry<MethodKind>::get()
                 .at(section.name)
                 .value.make({section, backbone, *efficiency, images, kClasses, 2, 5,
                              torch::Device(torch::kCPU), ""});
  }
  void begin(int64_t index) {
    task = make_task(index);
    images.set_task(task);
    method->begin_task(task);
    batch = batch_of(index);
    OptimizerConfig config;
    config.name = "sgd";
    config.lr = kLr;
    optimizer = std::make_unique<Optimizer>(config, method->parameters());
  }
  void step() {
    optimizer->zero_grad();
    method->loss(batch).backward();
    method->after_backward();
    clip_grad_norm(optimizer->parameters(), kClip);
    optimizer->step();
    method->after_step();
  }
  void learn(int64_t index, int64_t steps = 2) {
    begin(index);
    for (int64_t i = 0; i < steps; ++i) step();
    method->end_task(task);
  }
  Batch batch_of(int64_t index) const {
    const Task some = make_task(index);
    Loader::Options options;
    options.batch_size = static_cast<int64_t>(some.train.size());
    Loader loader(data, some.train, view, options);
    Batch loaded;
    loader.next(loaded);
    return {loaded.images.clone(), loaded.labels.clone(), loaded.indices.clone()};
  }
  Tensor features() const { return backbone->features(batch.images, {}); }
  // A copy of what the method keeps under that name.
  Tensor kept(const std::string& name) const {
    State saved;
    method->state(saved);
    for (const auto& [key, tensor] : saved.tensors()) {
      if (key == name) return tensor.clone();
    }
    ADD_FAILURE() << "the method keeps nothing named " << name;
    return {};
  }
  static constexpr double kLr = 5, kClip = 0.02;  // gradients here are longer than that

  Noise data;
  Transform view;
  TaskImages images;
  Section section;
  std::shared_ptr<Backbone> backbone;
  std::unique_ptr<Efficiency> efficiency;
  std::unique_ptr<Method> method;
  std::unique_ptr<Optimizer> optimizer;
  Task task;
  Batch batch;
};

::testing::AssertionResult close(const Tensor& a, const Tensor& b, double tolerance = 1e-6) {
  if (a.sizes() == b.sizes() && a.allclose(b, 1e-4, tolerance)) {
    return ::testing::AssertionSuccess();
  }
  return ::testing::AssertionFailure() << a << "\nis not\n" << b;
}

Tensor cross_entropy(const Tensor& logits, const Tensor& labels) {
  return -torch::log_softmax(logits, 1).gather(1, labels.unsqueeze(1)).mean();
}

// ---- The penalty ----

TEST(QuadraticPenalty, OfSeveralTasksIsTheSumOfTheirPenalties) {
  torch::manual_seed(1);
  const auto make = [] { return torch::randn({4, 3}, torch::kDouble); };
  const Tensors x{make().set_requires_grad(true), make().set_requires_grad(true)};
  QuadraticPenalty penalty(x);
  EXPECT_FALSE(penalty.active());
  Tensor sum = torch::zeros({}, torch::kDouble);
  for (int64_t task = 0; task < 3; ++task) {
    Tensors importance, at;
    for (size_t i = 0; i < x.size(); ++i) {
      importance.push_back(make().square());
      importance.back()[0][0] = 0;     // in no task
      importance.back()[1][task] = 0;  // not in this one
      at.push_back(make());
      sum = sum + (importance[i] * (x[i] - at[i]).square()).sum();
    }
    penalty.add(importance, at);
  }
  EXPECT_TRUE(penalty.active());
  const Tensor value = penalty.value(x);
  EXPECT_NEAR(value.item<double>(), sum.item<double>(), 1e-10);
  const auto theirs = torch::autograd::grad({sum}, x), ours = torch::autograd::grad({value}, x);
  for (size_t i = 0; i < x.size(); ++i) {
    EXPECT_TRUE(ours[i].allclose(theirs[i], 1e-10, 1e-10));
    EXPECT_TRUE(penalty.gradient(x, i).allclose(theirs[i], 1e-10, 1e-10));
  }
}

// ---- EWC ----

// Of W [C, D] and b [C] of a linear softmax model over the first C classes, for features [n, D]:
// E_c[(d log p_c / d W_kd)^2] = p_k (1 - p_k) x_d^2, and without x for the bias.
std::pair<Tensor, Tensor> closed_form_fisher(const Tensor& weight, const Tensor& bias,
                                             const Tensor& x) {
  const Tensor p = torch::softmax(torch::mm(x, weight.t()) + bias, 1);
  const Tensor variance = p * (1 - p);  // [n, C]
  return {torch::mm(variance.t(), x.square()) / x.size(0), variance.mean(0)};
}

TEST(Ewc, ExactFisherIsTheClosedFormAndUnseenClassesMatterNothing) {
  Subject subject("{name: ewc}");
  subject.learn(0);
  const auto [weight, bias] =
      closed_form_fisher(subject.kept("head.weight").narrow(0, 0, 3),
                         subject.kept("head.bias").narrow(0, 0, 3), subject.features());
  EXPECT_TRUE(close(subject.kept("importance.0").narrow(0, 0, 3), weight));
  EXPECT_TRUE(close(subject.kept("importance.1").narrow(0, 0, 3), bias));
  EXPECT_EQ(subject.kept("importance.0").narrow(0, 3, 2).abs().sum().item<double>(), 0);
  EXPECT_TRUE(subject.kept("anchor.0").equal(subject.kept("head.weight")));
}

TEST(Ewc, EmpiricalFisherTakesTheTrueLabels) {
  Subject subject("{name: ewc, fisher: empirical}");
  subject.learn(0);
  const Tensor x = subject.features();
  const Tensor p = torch::softmax(torch::mm(x, subject.kept("head.weight").narrow(0, 0, 3).t()) +
                                      subject.kept("head.bias").narrow(0, 0, 3),
                                  1);
  const Tensor error = (torch::one_hot(subject.batch.labels, 3) - p).square();
  EXPECT_TRUE(close(subject.kept("importance.0").narrow(0, 0, 3),
                    torch::mm(error.t(), x.square()) / x.size(0)));
}

TEST(Ewc, SampledFisherHasTheExactOneAsItsExpectation) {
  Subject subject("{name: ewc, fisher: sampled, variant: online}");
  subject.learn(0, 6);
  // Online with gamma 1 adds one sample of the Fisher information up at every end of a task.
  constexpr int64_t kDraws = 400;
  for (int64_t i = 1; i < kDraws; ++i) subject.method->end_task(subject.task);
  const auto [weight, bias] =
      closed_form_fisher(subject.kept("head.weight").narrow(0, 0, 3),
                         subject.kept("head.bias").narrow(0, 0, 3), subject.features());
  const Tensor mean = subject.kept("importance.1").narrow(0, 0, 3) / kDraws;
  EXPECT_TRUE(mean.allclose(bias, 0.05, 0)) << mean << bias;
}

TEST(Ewc, FewerImagesAreAMeanOverFewer) {
  Subject subject("{name: ewc, fisher_samples: 1}");
  subject.learn(0);
  const Tensor x = subject.features(), bias = subject.kept("importance.1").narrow(0, 0, 3);
  bool one_of_them = false;
  for (int64_t i = 0; i < x.size(0); ++i) {
    const auto fisher =
        closed_form_fisher(subject.kept("head.weight").narrow(0, 0, 3),
                           subject.kept("head.bias").narrow(0, 0, 3), x.narrow(0, i, 1));
    one_of_them |= fisher.second.allclose(bias, 1e-4, 1e-7);
  }
  EXPECT_TRUE(one_of_them);
}

TEST(Ewc, LossAndGradientAreTheFormula) {
  Subject subject("{name: ewc, lambda: 7}");
  subject.learn(0);
  const Tensors fisher{subject.kept("importance.0"), subject.kept("importance.1")};
  const Tensors star{subject.kept("head.weight"), subject.kept("head.bias")};
  subject.begin(1);
  for (int i = 0; i < 3; ++i) subject.step();

  Tensors theta;
  for (const auto& parameter : subject.method->parameters()) {
    theta.push_back(parameter.detach().clone().set_requires_grad(true));
  }
  Tensor expected =
      cross_entropy(torch::mm(subject.features(), theta[0].t()) + theta[1], subject.batch.labels);
  for (size_t i = 0; i < 2; ++i) {
    expected = expected + 7.0 / 2 * (fisher[i] * (theta[i] - star[i]).square()).sum();
  }
  const Tensor loss = subject.method->loss(subject.batch);
  EXPECT_NEAR(loss.item<double>(), expected.item<double>(), 1e-6);
  const auto ours = torch::autograd::grad({loss}, subject.method->parameters());
  const auto theirs = torch::autograd::grad({expected}, theta);
  for (size_t i = 0; i < 2; ++i) EXPECT_TRUE(close(ours[i], theirs[i]));
}

TEST(Ewc, OnlineForgetsByGammaAndStandsAtTheLastTask) {
  Subject subject("{name: ewc, variant: online, gamma: 0.25, lambda: 8}");
  subject.learn(0);
  const Tensor before = subject.kept("importance.1"), star = subject.kept("head.bias");
  subject.begin(1);
  subject.step();
  // The penalty in the loss: lambda/2 gamma F (theta - theta*)^2.
  const Tensors star_theta{subject.kept("head.weight"), subject.kept("head.bias")};
  const double ce = cross_entropy(torch::mm(subject.features(), star_theta[0].t()) + star_theta[1],
                                  subject.batch.labels)
                        .item<double>();
  const Tensor penalty =
      4 * 0.25 *
      ((subject.kept("importance.0") * (star_theta[0] - subject.kept("anchor.0")).square()).sum() +
       (before * (star_theta[1] - star).square()).sum());
  EXPECT_NEAR(subject.method->loss(subject.batch).item<double>(), ce + penalty.item<double>(),
              1e-6);

  subject.method->end_task(subject.task);
  const auto fisher = closed_form_fisher(subject.kept("head.weight"), subject.kept("head.bias"),
                                         subject.features());
  EXPECT_TRUE(close(subject.kept("importance.1"), 0.25 * before + fisher.second));
  EXPECT_TRUE(subject.kept("anchor.1").equal(subject.kept("head.bias")));
}

TEST(Ewc, FisherOfATrainedBackboneIsTakenInEvaluationMode) {
  const auto backbone = std::make_shared<TrainedMeans>();
  Subject subject("{name: ewc, fisher: empirical}", backbone);
  subject.begin(0);
  subject.step();
  const Tensor mean = backbone->norm->running_mean.clone();
  EXPECT_GT(mean.abs().sum().item<double>(), 0);
  subject.method->end_task(subject.task);
  EXPECT_TRUE(backbone->norm->running_mean.equal(mean));

  // parameters(): the classifier's two, then the backbone's.
  EXPECT_TRUE(subject.method->parameters()[2].is_same(backbone->scale));
  backbone->eval();
  Tensor expected = torch::zeros({kFeatures});
  const int64_t n = subject.batch.size();
  for (int64_t i = 0; i < n; ++i) {
    const Tensor x = backbone->features(subject.batch.images.narrow(0, i, 1), {});
    const Tensor logits = torch::mm(x, subject.kept("head.weight").t()) + subject.kept("head.bias");
    const Tensor nll = cross_entropy(logits.narrow(1, 0, 3), subject.batch.labels.narrow(0, i, 1));
    expected += torch::autograd::grad({nll}, {backbone->scale})[0].square() / n;
  }
  EXPECT_TRUE(close(subject.kept("importance.2"), expected));
}

// ---- SI ----

// Two steps of clipped SGD on theta (in place) under the task's loss plus c sum omega (theta -
// star)^2; the path integral of the task's loss.
Tensors walk(Tensors& theta, const Tensor& x, const Tensor& labels, int64_t seen, double c,
             const Tensors& omega, const Tensors& star) {
  Tensors path{torch::zeros_like(theta[0]), torch::zeros_like(theta[1])};
  for (int step = 0; step < 2; ++step) {
    const Tensor p = torch::softmax((torch::mm(x, theta[0].t()) + theta[1]).narrow(1, 0, seen), 1);
    const Tensor error = torch::zeros({x.size(0), kClasses});
    error.narrow(1, 0, seen).copy_((p - torch::one_hot(labels, seen)) / x.size(0));
    const Tensors task{torch::mm(error.t(), x), error.sum(0)};
    Tensors all;
    Tensor squares = torch::zeros({});
    for (size_t i = 0; i < 2; ++i) {
      all.push_back(task[i] + 2 * c * omega[i] * (theta[i] - star[i]));
      squares = squares + all[i].square().sum();
    }
    const double factor = Subject::kClip / (squares.sqrt().item<double>() + 1e-6);
    EXPECT_LT(factor, 1) << "the test is about gradients that are clipped";
    if (step == 1 && omega[1].sum().item<double>() > 0) {
      EXPECT_GT((all[1] - task[1]).abs().max().item<double>(), 1e-3)
          << "and have a penalty in them";
    }
    for (size_t i = 0; i < 2; ++i) {
      const Tensor change = -Subject::kLr * factor * all[i];
      theta[i] = theta[i] + change;
      path[i] = path[i] - task[i] * change;
    }
  }
  return path;
}

TEST(Si, ImportanceIsThePathIntegralOfTheTasksOwnLoss) {
  Subject subject("{name: si, c: 3, xi: 0.01}");
  subject.begin(0);
  Tensors theta{subject.kept("head.weight"), subject.kept("head.bias")};
  Tensors omega{torch::zeros_like(theta[0]), torch::zeros_like(theta[1])};
  for (int64_t task = 0; task < 2; ++task) {
    const Tensors star = theta;
    subject.learn(task, 2);
    const Tensors path = walk(theta, subject.features(), subject.batch.labels, task == 0 ? 3 : 5,
                              /*c=*/3, omega, star);
    for (size_t i = 0; i < 2; ++i) {
      const std::string name = std::to_string(i);
      omega[i] = torch::relu(omega[i] + path[i] / ((theta[i] - star[i]).square() + 0.01));
      EXPECT_TRUE(close(subject.kept("path_integral." + name), path[i], 1e-7)) << task;
      EXPECT_TRUE(close(subject.kept("importance." + name), omega[i], 1e-6)) << task;
      EXPECT_TRUE(close(subject.kept("anchor." + name), theta[i])) << task;
    }
    EXPECT_GT(omega[1].sum().item<double>(), 0);
  }
}

TEST(Si, LossIsTheFormula) {
  Subject subject("{name: si, c: 3}");
  subject.learn(0);
  subject.begin(1);
  subject.step();
  const Tensors theta{subject.kept("head.weight"), subject.kept("head.bias")};
  Tensor expected =
      cross_entropy(torch::mm(subject.features(), theta[0].t()) + theta[1], subject.batch.labels);
  for (size_t i = 0; i < 2; ++i) {
    const std::string name = std::to_string(i);
    expected = expected + 3 * (subject.kept("importance." + name) *
                               (theta[i] - subject.kept("anchor." + name)).square())
                                  .sum();
  }
  EXPECT_NEAR(subject.method->loss(subject.batch).item<double>(), expected.item<double>(), 1e-6);
}

TEST(Si, ParametersWithoutAPartInTheStepHaveNoPath) {
  Subject subject("{name: si}");
  subject.begin(0);
  subject.method->loss(subject.batch).backward();
  Tensor bias = subject.method->parameters()[1];
  bias.mutable_grad() = Tensor();  // as of a block that was skipped
  subject.method->after_backward();
  subject.optimizer->step();
  subject.method->after_step();
  EXPECT_EQ(subject.kept("path_integral.1").abs().sum().item<double>(), 0);
  EXPECT_GT(subject.kept("path_integral.0").abs().sum().item<double>(), 0);
}

// ---- LwF ----

TEST(Distillation, ValueAndGradient) {
  // Teacher odds 1 : 9, softened by T = 2 to 1 : 3; a student that knows nothing.
  const Tensor teacher = torch::tensor({{0.0, std::log(9.0)}}, torch::kDouble);
  const Tensor student = torch::zeros({1, 2}, torch::kDouble).set_requires_grad(true);
  const Tensor loss = distillation(student, teacher, 2);
  EXPECT_NEAR(loss.item<double>(), std::log(2.0), 1e-12);
  loss.backward();
  // (q - p) / T
  EXPECT_TRUE(student.grad().allclose(torch::tensor({{0.125, -0.125}}, torch::kDouble)));
  // The mean over the batch: a row twice is as good as once.
  EXPECT_NEAR(
      distillation(torch::zeros({2, 2}, torch::kDouble), teacher.expand({2, 2}), 2).item<double>(),
      std::log(2.0), 1e-12);
}

TEST(Lwf, LossAndGradientAreTheFormula) {
  Subject subject("{name: lwf, alpha: 1.5, temperature: 3}");
  subject.learn(0, 5);
  const Tensors teacher{subject.kept("head.weight"), subject.kept("head.bias")};
  subject.begin(1);
  for (int i = 0; i < 3; ++i) subject.step();

  Tensors theta;
  for (const auto& parameter : subject.method->parameters()) {
    theta.push_back(parameter.detach().clone().set_requires_grad(true));
  }
  const Tensor x = subject.features();
  const Tensor logits = torch::mm(x, theta[0].t()) + theta[1];
  const Tensor old = torch::mm(x, teacher[0].t()) + teacher[1];
  // The paper's way to write it: probabilities to the power 1/T, normalised.
  const auto soften = [](const Tensor& all) {
    const Tensor powers = torch::softmax(all.narrow(1, 0, 3), 1).pow(1.0 / 3);
    return powers / powers.sum(1, true);
  };
  const Tensor expected = cross_entropy(logits, subject.batch.labels) -
                          1.5 * (soften(old) * soften(logits).log()).sum(1).mean();
  const Tensor loss = subject.method->loss(subject.batch);
  EXPECT_NEAR(loss.item<double>(), expected.item<double>(), 1e-6);
  const auto ours = torch::autograd::grad({loss}, subject.method->parameters());
  const auto theirs = torch::autograd::grad({expected}, theta);
  for (size_t i = 0; i < 2; ++i) EXPECT_TRUE(close(ours[i], theirs[i]));
}

TEST(Lwf, FirstTaskIsPlainTraining) {
  Subject subject("{name: lwf}");
  subject.begin(0);
  const Tensor logits =
      torch::mm(subject.features(), subject.kept("head.weight").t()) + subject.kept("head.bias");
  EXPECT_NEAR(subject.method->loss(subject.batch).item<double>(),
              cross_entropy(logits.narrow(1, 0, 3), subject.batch.labels).item<double>(), 1e-6);
}

TEST(Lwf, TheTeacherOfATrainedBackboneIsInEvaluationModeAndStaysAsItWas) {
  const auto backbone = std::make_shared<TrainedMeans>();
  Subject subject("{name: lwf}", backbone);
  subject.learn(0);
  backbone->eval();
  const Tensor weight = subject.kept("head.weight"), bias = subject.kept("head.bias");
  const Tensor old =
      (torch::mm(backbone->features(subject.batch_of(1).images, {}), weight.t()) + bias)
          .narrow(1, 0, 3)
          .detach();
  subject.begin(1);
  subject.step();
  subject.step();

  const Tensor mean = backbone->norm->running_mean.clone();
  const Tensor loss = subject.method->loss(subject.batch);
  loss.backward();
  EXPECT_TRUE(backbone->scale.grad().defined());
  const Tensor once = backbone->norm->running_mean.clone();  // moved by the network's own pass only
  backbone->norm->running_mean.copy_(mean);
  backbone->train();
  const Tensor logits =
      torch::mm(subject.features(), subject.kept("head.weight").t()) + subject.kept("head.bias");
  EXPECT_TRUE(backbone->norm->running_mean.equal(once));
  const Tensor expected =
      cross_entropy(logits, subject.batch.labels) -
      (torch::softmax(old / 2, 1) * torch::log_softmax(logits.narrow(1, 0, 3) / 2, 1))
          .sum(1)
          .mean();
  EXPECT_NEAR(loss.item<double>(), expected.item<double>(), 1e-5);
}

// ---- PNN ----

NamedTensors column(const Subject& subject, int64_t k) {
  State saved;
  subject.method->state(saved);
  NamedTensors found;
  for (const auto& [name, tensor] : saved.tensors()) {
    if (name.rfind("column." + std::to_string(k) + ".", 0) == 0) {
      found.emplace_back(name, tensor.clone());
    }
  }
  return found;
}

// b + W h of a layer, image by image and unit by unit.
Tensor affine(const Tensor& weight, const Tensor& bias, const Tensor& h) {
  Tensor result = torch::zeros({h.size(0), weight.size(0)});
  for (int64_t n = 0; n < h.size(0); ++n) {
    for (int64_t i = 0; i < weight.size(0); ++i) {
      result[n][i] = (weight[i] * h[n]).sum() + (bias.defined() ? bias[i] : torch::zeros({}));
    }
  }
  return result;
}

TEST(Pnn, LateralSumsAreTheFormula) {
  constexpr int64_t kWidth = 6;
  Subject subject("{name: pnn, width: 6}");
  subject.learn(0);
  subject.learn(1);
  const Tensor x = subject.features();
  const auto own = [&](int64_t k, const std::string& layer, const Tensor& h) {
    const std::string name = "column." + std::to_string(k) + "." + layer;
    return affine(subject.kept(name + ".weight"), subject.kept(name + ".bias"), h);
  };
  const auto lateral = [&](const std::string& layer, const Tensor& h) {
    const std::string name = "column.1." + layer;
    const Tensor alpha = subject.kept(name + ".alpha");
    EXPECT_EQ(alpha.sizes(), (std::vector<int64_t>{1, 1}));
    EXPECT_NE(alpha.item<float>(), 0);
    const Tensor inner = torch::relu(
        affine(subject.kept(name + ".V"), subject.kept(name + ".V_bias"), alpha.item<float>() * h));
    EXPECT_EQ(inner.size(1), kWidth);
    return affine(subject.kept(name + ".U"), {}, inner);
  };
  const Tensor a1 = torch::relu(own(0, "first", x)), a2 = torch::relu(own(0, "second", a1));
  const Tensor b1 = torch::relu(own(1, "first", x));
  const Tensor b2 = torch::relu(own(1, "second", b1) + lateral("second", a1));
  const Tensor logits =
      torch::cat({own(0, "output", a2), own(1, "output", b2) + lateral("output", a2)}, 1);

  torch::NoGradGuard no_grad;
  EXPECT_TRUE(close(subject.method->predict(subject.batch), logits, 1e-5));
  EXPECT_NEAR(subject.method->loss(subject.batch).item<double>(),
              cross_entropy(logits.narrow(1, 3, 2), subject.batch.labels - 3).item<double>(), 1e-5);
}

TEST(Pnn, ALaterTaskChangesNoBitOfAnEarlierColumn) {
  Subject subject("{name: pnn, width: 6}");
  subject.learn(0, 5);
  const NamedTensors before = column(subject, 0);
  const Batch old = subject.batch_of(0);
  torch::Tensor logits;
  {
    torch::NoGradGuard no_grad;
    logits = subject.method->predict(old).clone();
    EXPECT_EQ(logits.size(1), kClasses);
    EXPECT_TRUE(logits.narrow(1, 3, 2).isinf().all().item<bool>()) << "no column yet";
  }
  subject.learn(1, 5);
  const NamedTensors after = column(subject, 0);
  ASSERT_EQ(before.size(), 6U);
  ASSERT_EQ(after.size(), before.size());
  for (size_t i = 0; i < before.size(); ++i) {
    EXPECT_EQ(before[i].first, after[i].first);
    EXPECT_TRUE(before[i].second.equal(after[i].second)) << before[i].first;
  }
  torch::NoGradGuard no_grad;
  EXPECT_TRUE(subject.method->predict(old).narrow(1, 0, 3).equal(logits.narrow(1, 0, 3)));
}

TEST(Pnn, OnlyTheNewColumnTrains) {
  Subject subject("{name: pnn, width: 6}");
  subject.learn(0);
  EXPECT_EQ(subject.method->parameters().size(), 6U);
  subject.begin(1);
  const Tensors parameters = subject.method->parameters();
  EXPECT_EQ(parameters.size(), 14U);  // two layers of three with an adapter
  const NamedTensors before = column(subject, 1);
  subject.method->loss(subject.batch).backward();
  for (const auto& parameter : parameters) EXPECT_TRUE(parameter.grad().defined());
  subject.optimizer->step();
  const NamedTensors after = column(subject, 1);
  for (size_t i = 0; i < before.size(); ++i) {
    EXPECT_FALSE(before[i].second.equal(after[i].second)) << before[i].first;
  }
}

TEST(Pnn, WantsAFrozenBackbone) {
  Subject subject("{name: pnn}");
  const auto make = [&] {
    Registry<MethodKind>::get().at("pnn").value.make(
        {subject.section, std::make_shared<TrainedMeans>(), *subject.efficiency, subject.images,
         kClasses, 2, 5, torch::Device(torch::kCPU), ""});
  };
  EXPECT_THROW(make(), Error);
}

}  // namespace
}  // namespace rep
