// HiDe-Prompt and ConvPrompt: their parts against plain algebra, and what a task may change.
#include <gtest/gtest.h>
#include <yaml-cpp/yaml.h>

#include <cmath>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "core/error.h"
#include "methods/centroids.h"
#include "methods/convprompt.h"
#include "methods/hide_prompt.h"
#include "methods/method.h"
#include "tensor/optimizer.h"
#include "tensor/torch.h"

namespace rep {
namespace {

using torch::Tensor;

constexpr int64_t kClasses = 6, kTasks = 3, kPerClass = 4, kSize = 32;

/// Six classes of noise, each brighter than the one before it.
class Noise final : public Dataset {
 public:
  Noise() {
    for (int64_t label = 0; label < kClasses; ++label) {
      names_.push_back("class" + std::to_string(label));
      labels_.insert(labels_.end(), kPerClass, label);
    }
  }
  const std::vector<int64_t>& labels() const override { return labels_; }
  const std::vector<std::string>& class_names() const override { return names_; }
  Image image(int64_t index) const override {
    Random random({7, static_cast<uint64_t>(index)});
    Image image = Image::make(kSize, kSize);
    const auto base = static_cast<uint64_t>(index / kPerClass * 25);
    for (uint8_t& pixel : image.pixels) pixel = static_cast<uint8_t>(base + random.below(100));
    return image;
  }
  std::string fingerprint() const override { return "noise"; }

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
  return task;
}

using Values = std::map<std::string, Tensor>;

/// A method on a small random ViT.
struct Subject {
  explicit Subject(const std::string& options, const EfficiencyConfig& rep = {},
                   VisionTransformer query = VisionTransformer{nullptr})
      : section{"", YAML::Load(options), "test", {}} {
    section.name = section.node["name"].as<std::string>();
    torch::manual_seed(3);
    backbone = VisionTransformer(vit_options("vit_nano"));
    backbone->train_last_blocks(0);
    {
      // Norms that are not the identity, so that a forgotten one would show.
      torch::NoGradGuard no_grad;
      backbone->norm->weight.uniform_(0.5, 1.5);
    }
    efficiency = std::make_unique<Efficiency>(rep, backbone.ptr(), query, 3);
    const Transform view("none", kSize, {}, true);
    images = std::make_unique<TaskImages>(data, view, view, TaskImages::Options{},
                                          torch::Device(torch::kCPU));
    method = Registry<MethodKind>::get()
                 .at(section.name)
                 .value.make({section, backbone.ptr(), *efficiency, *images, kClasses, kTasks, 3,
                              torch::Device(torch::kCPU), ""});
  }
  void begin(int64_t index) {
    images->set_task(make_task(index));
    method->begin_task(make_task(index));
    OptimizerConfig config;
    config.lr = 0.003;
    optimizer = std::make_unique<Optimizer>(config, method->parameters(), method->lr_factors(),
                                            method->trained_rows());
  }
  void train(int64_t index, int64_t steps) {
    for (int64_t i = 0; i < steps; ++i) {
      efficiency->set_time({3, index, i, 0});
      optimizer->zero_grad();
      method->loss(batch(index)).backward();
      optimizer->step();
    }
  }
  void learn(int64_t index, int64_t steps) {
    begin(index);
    train(index, steps);
    method->end_task(make_task(index));
  }
  /// All of a task's images.
  Batch batch(int64_t index) const {
    const auto samples = make_task(index).train;
    Loader::Options options;
    options.batch_size = static_cast<int64_t>(samples.size());
    Loader loader(data, samples, Transform("none", kSize, {}, true), options);
    Batch batch;
    loader.next(batch);
    return {batch.images.clone(), batch.labels.clone(), batch.indices.clone()};
  }
  Values values() const {
    State state;
    method->state(state);
    Values values;
    for (const auto& [name, tensor] : state.tensors()) values[name] = tensor.clone();
    return values;
  }
  /// Puts other values into the method's state.
  void replace(const Values& others) {
    State saved;
    method->state(saved);
    NamedTensors tensors;
    size_t found = 0;
    for (const auto& [name, tensor] : saved.tensors()) {
      const auto other = others.find(name);
      found += other != others.end();
      tensors.emplace_back(name, other == others.end() ? tensor.clone() : other->second);
    }
    ASSERT_EQ(found, others.size()) << "the state lacks a name";
    State given(tensors, saved.values());
    method->state(given);
  }

  Noise data;
  Section section;
  VisionTransformer backbone{nullptr};
  std::unique_ptr<Efficiency> efficiency;
  std::unique_ptr<TaskImages> images;
  std::unique_ptr<Method> method;
  std::unique_ptr<Optimizer> optimizer;
};

Tensor plain_cross_entropy(const Tensor& logits, const Tensor& labels) {
  Tensor total = torch::zeros({});
  for (int64_t i = 0; i < logits.size(0); ++i) {
    const Tensor p = logits[i].exp() / logits[i].exp().sum();
    total = total - p[labels[i].item<int64_t>()].log();
  }
  return total / logits.size(0);
}

Tensor plain_norm(const Tensor& x, const Tensor& weight, const Tensor& bias) {
  const Tensor centred = x - x.mean(1, true);
  return centred / (centred.square().mean(1, true) + 1e-5).sqrt() * weight + bias;
}

// ---- k-means ----

TEST(KMeans, FindsSeparateGroupsWithTheirMeansAndVariances) {
  torch::manual_seed(1);
  const Tensor noise = torch::randn({30, 5}, torch::kDouble);
  const Tensor centres = torch::eye(5, torch::kDouble).narrow(0, 0, 3) * 100;
  const Tensor points = noise + centres.repeat({10, 1});  // group of point i: i % 3
  const Centroids groups = k_means(points, 3);
  ASSERT_EQ(groups.means.size(0), 3);
  for (int64_t g = 0; g < 3; ++g) {
    const int64_t own = groups.means[g].argmax().item<int64_t>();
    const Tensor members = points.index_select(0, torch::arange(own, 30, 3));
    EXPECT_TRUE(groups.means[g].allclose(members.mean(0), 1e-12, 1e-12));
    EXPECT_TRUE(groups.variances[g].allclose(members.var(0, /*unbiased=*/false), 1e-10, 1e-12));
  }
}

TEST(KMeans, MakesNoMoreGroupsThanThereAreDifferentPoints) {
  const Tensor points = torch::tensor({{1.0, 2.0}, {1.0, 2.0}, {5.0, 2.0}});
  const Centroids groups = k_means(points, 10);
  EXPECT_EQ(groups.means.size(0), 2);
  EXPECT_EQ(groups.variances.abs().max().item<double>(), 0);
}

// ---- HiDe-Prompt: parts ----

TEST(FeatureStatistics, KeepThePlainMeansAndVariances) {
  torch::manual_seed(2);
  const Tensor features = torch::randn({40, 7}) * 2 + 3;
  for (const char* kind : {"multi_centroid", "variance", "covariance"}) {
    FeatureStatistics statistics(kind, /*centroids=*/1, 3, 7, torch::kCPU);
    EXPECT_FALSE(statistics.centroids().defined());
    statistics.fit(features, 1);
    EXPECT_TRUE(statistics.centroids().allclose(features.mean(0, true), 1e-5, 1e-5)) << kind;
    const Tensor drawn = statistics.sample(torch::ones({20000}, torch::kLong));
    EXPECT_TRUE(drawn.mean(0).allclose(features.mean(0), 0, 0.1)) << kind;
    EXPECT_TRUE(drawn.var(0).allclose(features.var(0), 0.1, 0.1)) << kind;
  }
}

TEST(FeatureStatistics, DrawEveryGroupAlikeButNoneOfASingleImage) {
  torch::manual_seed(2);
  // Two groups of unequal size, and a far point of its own.
  const Tensor features = torch::cat(
      {torch::randn({30, 3}) * 0.1, torch::randn({10, 3}) * 0.1 + 50, torch::full({1, 3}, 1000.0)});
  FeatureStatistics statistics("multi_centroid", 3, 1, 3, torch::kCPU);
  statistics.fit(features, 0);
  ASSERT_EQ(statistics.centroids().size(0), 3);
  const Tensor drawn = statistics.sample(torch::zeros({4000}, torch::kLong)).select(1, 0);
  EXPECT_LT(drawn.max().item<double>(), 100);
  EXPECT_NEAR(drawn.gt(25).to(torch::kFloat).mean().item<double>(), 0.5, 0.05);

  // A class of single images only is drawn from all the same.
  statistics.fit(torch::eye(3), 0);
  EXPECT_LT(statistics.sample(torch::zeros({10}, torch::kLong)).max().item<double>(), 1.1);
}

TEST(Contrast, IsTheMeanCrossEntropyOfEveryRowWithItself) {
  torch::manual_seed(4);
  const Tensor old = torch::randn({3, 5}), x = torch::randn({2, 5});
  for (const Tensor& earlier : {old, Tensor()}) {
    const Tensor rows = earlier.defined() ? torch::cat({old, x}) : x;
    double expected = 0;
    for (int64_t i = 0; i < rows.size(0); ++i) {
      double sum = 0;
      for (int64_t j = 0; j < rows.size(0); ++j) {
        sum += std::exp(rows[i].dot(rows[j]).item<double>() / 0.8);
      }
      expected -= std::log(std::exp(rows[i].dot(rows[i]).item<double>() / 0.8) / sum);
    }
    expected /= static_cast<double>(rows.size(0));
    EXPECT_NEAR(contrast(earlier, x, 0.8).item<double>(), expected, 1e-5);
  }
}

TEST(Contrast, MovesFeaturesButNoCentroid) {
  const Tensor old = torch::randn({3, 5});
  const Tensor x = torch::randn({2, 5}).set_requires_grad(true);
  contrast(old, x, 0.8).backward();
  EXPECT_TRUE(x.grad().defined());
}

TEST(Momentum, MixesInTheMeanOfEarlierPromptsWithoutGradient) {
  std::vector<Tensor> prompts;
  for (int i = 0; i < 4; ++i) prompts.push_back(torch::randn({2, 3}).set_requires_grad(true));
  const Tensor mixed = with_momentum(prompts, 2, 0.25);
  EXPECT_TRUE(mixed.allclose(0.75 * prompts[2] + 0.125 * prompts[0] + 0.125 * prompts[1]));
  mixed.sum().backward();
  EXPECT_TRUE(prompts[2].grad().allclose(torch::full({2, 3}, 0.75)));
  EXPECT_FALSE(prompts[0].grad().defined());
  EXPECT_TRUE(with_momentum(prompts, 0, 0.25).equal(prompts[0]));
}

TEST(PublishedReshape, PairsNeighboursKeysThenTheirValues) {
  // Entry [b, layer, kind, row, value] = 100 layer + 10 b + kind.
  Tensor prompts = torch::empty({4, 2, 2, 3, 5});
  for (int64_t b = 0; b < 4; ++b) {
    for (int64_t layer = 0; layer < 2; ++layer) {
      for (int64_t kind = 0; kind < 2; ++kind) {
        prompts[b][layer][kind].fill_(static_cast<double>(100 * layer + 10 * b + kind));
      }
    }
  }
  const auto value = [](const Tensor& x, int64_t layer, int64_t b, int64_t slot) {
    return x[layer][b][slot].max().item<int64_t>();
  };
  const Tensor own = per_layer(prompts, false), published = per_layer(prompts, true);
  ASSERT_EQ(published.sizes(), (std::vector<int64_t>{2, 4, 2, 3, 5}));
  for (int64_t layer = 0; layer < 2; ++layer) {
    for (int64_t b = 0; b < 4; ++b) {
      for (int64_t slot = 0; slot < 2; ++slot) {
        EXPECT_EQ(value(own, layer, b, slot), 100 * layer + 10 * b + slot);
        // Images 0 and 1 get the keys of (0, 1) and (2, 3), images 2 and 3 their values.
        const int64_t from = (2 * b + slot) % 4, kind = b < 2 ? 0 : 1;
        EXPECT_EQ(value(published, layer, b, slot), 100 * layer + 10 * from + kind);
      }
    }
  }
}

TEST(Align, TeachesAClassifierToTellDrawsApart) {
  torch::manual_seed(6);
  MlpClassifier classifier(4, 3, torch::kCPU);
  FeatureStatistics statistics("multi_centroid", 2, 3, 4, torch::kCPU);
  for (int64_t label = 0; label < 3; ++label) {
    statistics.fit(torch::randn({20, 4}) * 0.1 + torch::eye(4)[label] * 3, label);
  }
  // Three classes seen, two of them earlier.
  align(classifier, statistics, 3, 2, 30, 60, 0.05);
  const Tensor logits = classifier.logits(torch::eye(4).narrow(0, 0, 3) * 3);
  EXPECT_TRUE(logits.argmax(1).equal(torch::arange(3)));
  for (const Tensor& parameter : classifier.parameters()) {
    EXPECT_FALSE(parameter.grad().defined());
  }
}

// ---- HiDe-Prompt: the method ----

// LayerNorm(x + W2 GELU(W1 x + b1) + b2), then the head.
Tensor plain_logits(const Values& v, const std::string& model, const Tensor& x) {
  const auto at = [&](const std::string& name) { return v.at(model + "." + name); };
  const Tensor inner = torch::mm(x, at("mlp.fc1.weight").t()) + at("mlp.fc1.bias");
  const Tensor gelu = inner * 0.5 * (1 + torch::erf(inner / std::sqrt(2.0)));
  const Tensor sum = x + torch::mm(gelu, at("mlp.fc2.weight").t()) + at("mlp.fc2.bias");
  return torch::mm(plain_norm(sum, at("mlp.norm.weight"), at("mlp.norm.bias")),
                   at("head.weight").t()) +
         at("head.bias");
}

// The [CLS] feature with one image's prompts [5, 2, L, D] on blocks 0 to 4.
Tensor prompted(Subject& subject, const Tensor& image, const Tensor& prompts) {
  ForwardPlan plan;
  plan.prefixes.resize(6);
  for (int64_t layer = 0; layer < 5; ++layer) {
    plan.prefixes[static_cast<size_t>(layer)] = prompts[layer].unsqueeze(0);
  }
  return subject.backbone->features(image.unsqueeze(0), plan);
}

TEST(HidePrompt, ATaskStartsFromThePreviousPrompts) {
  Subject subject("{name: hide_prompt}");
  subject.learn(0, 2);
  EXPECT_FALSE(subject.values()["prompt.1"].equal(subject.values()["prompt.0"]));
  subject.begin(1);
  EXPECT_TRUE(subject.values()["prompt.1"].equal(subject.values()["prompt.0"]));
}

TEST(HidePrompt, TrainingLossUsesTheTasksOwnRowMixedWithEarlierOnes) {
  torch::NoGradGuard no_grad;
  Subject subject("{name: hide_prompt, prompt_momentum: 0.25, tap_epochs: 1}");
  {
    torch::AutoGradMode with_grad(true);
    subject.learn(0, 1);
    subject.begin(1);
  }
  subject.replace({{"prompt.1", torch::rand({5, 2, 5, 96}) * 2 - 1}});
  const Values v = subject.values();
  const Batch batch = subject.batch(1);
  const Tensor row = 0.75 * v.at("prompt.1") + 0.25 * v.at("prompt.0");
  std::vector<Tensor> features;
  for (int64_t b = 0; b < batch.size(); ++b) {
    features.push_back(prompted(subject, batch.images[b], row));
  }
  const Tensor h = torch::cat(features), plain = subject.backbone->features(batch.images);
  const Tensor labels = batch.labels - 2;  // among the task's two classes only
  const Tensor rows = torch::cat({v.at("wtp.mean.0"), v.at("wtp.mean.1"), h});
  const Tensor expected =
      plain_cross_entropy(plain_logits(v, "tii", plain).narrow(1, 2, 2), labels) +
      plain_cross_entropy(plain_logits(v, "wtp", h).narrow(1, 2, 2), labels) +
      0.1 * (torch::logsumexp(torch::mm(rows, rows.t()) / 0.8, 1) - rows.square().sum(1) / 0.8)
                .mean();
  EXPECT_NEAR(subject.method->loss(batch).item<double>(), expected.item<double>(), 2e-4);
}

TEST(HidePrompt, LearningRatesAreThoseOfTheTwoRuns) {
  Subject subject("{name: hide_prompt}");
  subject.begin(0);
  const auto parameters = subject.method->parameters();
  const auto factors = subject.method->lr_factors();
  ASSERT_EQ(factors.size(), parameters.size());
  ASSERT_EQ(factors.size(), 1u + 8 + 8);
  EXPECT_EQ(parameters[0].dim(), 4);  // prompts
  EXPECT_EQ(factors[0], 1);
  for (size_t i = 1; i < 9; ++i) EXPECT_EQ(factors[i], 0.1);
  for (size_t i = 9; i < 17; ++i) EXPECT_NEAR(factors[i] * 0.03, 5e-4, 1e-12);
}

TEST(HidePrompt, PredictsEachImageWithThePromptsOfItsInferredTask) {
  Subject subject("{name: hide_prompt, tap_epochs: 1}");
  for (int64_t task = 0; task < 3; ++task) subject.learn(task, 1);
  torch::NoGradGuard no_grad;
  // Prompts far apart, and task inference by how bright an image is.
  subject.replace({{"prompt.0", torch::rand({5, 2, 5, 96}) * 2 - 1},
                   {"prompt.1", torch::rand({5, 2, 5, 96}) * 2 - 1},
                   {"tii.head.weight", torch::randn({kClasses, 96})}});
  const Values v = subject.values();
  Batch all = subject.batch(0);
  for (int64_t task = 1; task < 3; ++task) {
    const Batch more = subject.batch(task);
    all = {torch::cat({all.images, more.images}), torch::cat({all.labels, more.labels}),
           torch::cat({all.indices, more.indices})};
  }
  // Differences between noise images are small for a random ViT: bias the inference to the middle.
  const Tensor logits = plain_logits(v, "tii", subject.backbone->features(all.images));
  subject.replace({{"tii.head.bias", v.at("tii.head.bias") - logits.mean(0)}});
  const Tensor tasks = (logits - logits.mean(0)).argmax(1).div(2, /*rounding_mode=*/"floor");
  ASSERT_GT(std::get<0>(at::_unique(tasks)).size(0), 1) << "the test needs several tasks";

  const Tensor together = subject.method->predict(all).clone();
  for (int64_t b = 0; b < all.size(); ++b) {
    const Tensor row = v.at("prompt." + std::to_string(tasks[b].item<int64_t>()));
    const Tensor expected = plain_logits(v, "wtp", prompted(subject, all.images[b], row));
    EXPECT_TRUE(together[b].allclose(expected[0], 1e-4, 1e-4)) << b;
    const Batch one{all.images.narrow(0, b, 1), all.labels.narrow(0, b, 1),
                    all.indices.narrow(0, b, 1)};
    EXPECT_TRUE(subject.method->predict(one)[0].allclose(together[b], 1e-4, 1e-4)) << b;
  }
}

TEST(HidePrompt, ThePublishedReshapeMakesPredictionsDependOnTheBatch) {
  Subject subject("{name: hide_prompt, published_reshape: true}");
  subject.learn(0, 1);
  torch::NoGradGuard no_grad;
  const Batch all = subject.batch(0);
  const Batch first{all.images.narrow(0, 0, 2), all.labels.narrow(0, 0, 2),
                    all.indices.narrow(0, 0, 2)};
  const Tensor together = subject.method->predict(all).narrow(0, 0, 2);
  EXPECT_FALSE(subject.method->predict(first).allclose(together, 1e-4, 1e-4));
}

TEST(HidePrompt, EndOfTaskMixesThePromptsAndKeepsPlainMeans) {
  Subject subject("{name: hide_prompt, prompt_momentum: 0.25, statistics: variance}");
  subject.learn(0, 1);
  subject.begin(1);
  subject.train(1, 2);
  Values before = subject.values();
  subject.method->end_task(make_task(1));
  Values after = subject.values();
  const Tensor row = 0.75 * before["prompt.1"] + 0.25 * before["prompt.0"];
  EXPECT_TRUE(after["prompt.1"].allclose(row));
  EXPECT_TRUE(after["prompt.0"].equal(before["prompt.0"]));

  torch::NoGradGuard no_grad;
  const Batch batch = subject.batch(1);
  std::vector<Tensor> features;
  for (int64_t b = 0; b < kPerClass; ++b) {
    features.push_back(prompted(subject, batch.images[b], row));
  }
  const Tensor h = torch::cat(features);
  const Tensor plain = subject.backbone->features(batch.images.narrow(0, 0, kPerClass));
  EXPECT_TRUE(after["wtp.mean.2"].allclose(h.mean(0, true), 1e-4, 1e-5));
  EXPECT_TRUE(after["wtp.variance.2"].allclose(h.var(0, true, /*keepdim=*/true), 1e-2, 1e-5));
  EXPECT_TRUE(after["tii.mean.2"].allclose(plain.mean(0, true), 1e-4, 1e-5));
}

TEST(HidePrompt, AlignmentChangesOnlyTheClassifiers) {
  Subject subject("{name: hide_prompt, prompt_momentum: 0, tap_epochs: 2}");
  for (int64_t task = 0; task < 2; ++task) {
    subject.begin(task);
    subject.train(task, 2);
    const Values before = subject.values();
    std::vector<Tensor> backbone;
    for (const auto& parameter : subject.backbone->parameters()) {
      backbone.push_back(parameter.clone());
    }
    subject.method->end_task(make_task(task));
    Values after = subject.values();
    for (const auto& [name, value] : before) {
      const bool classifier =
          name.find(".mlp.") != std::string::npos || name.find(".head.") != std::string::npos;
      // The first task has nothing to align with.
      EXPECT_EQ(value.equal(after[name]), !(classifier && task > 0)) << name << " task " << task;
    }
    const auto parameters = subject.backbone->parameters();
    for (size_t i = 0; i < backbone.size(); ++i) EXPECT_TRUE(parameters[i].equal(backbone[i]));
  }
}

// ---- ConvPrompt: parts ----

// What the paper says, image by image and value by value: the sum over kernels of an image's share
// times the kernel slid over the embedding of its head.
Tensor naive_prompts(const Tensor& shares, const Tensor& embedding, const Tensor& weight,
                     const Tensor& bias) {
  const int64_t B = shares.size(0), f = shares.size(1), H = embedding.size(1), s = weight.size(3);
  const int64_t L = embedding.size(2) - s + 1, d = embedding.size(3) - s + 1;
  Tensor result = torch::zeros({B, 2, L, H * d});
  for (int64_t b = 0; b < B; ++b) {
    for (int64_t kind = 0; kind < 2; ++kind) {
      for (int64_t h = 0; h < H; ++h) {
        for (int64_t y = 0; y < L; ++y) {
          for (int64_t x = 0; x < d; ++x) {
            const Tensor patch = embedding[kind][h].narrow(0, y, s).narrow(1, x, s);
            double sum = 0;
            for (int64_t k = 0; k < f; ++k) {
              const double response = (patch * weight[kind][h][k]).sum().item<double>() +
                                      bias[kind][h][k].item<double>();
              sum += shares[b][k].item<double>() * response;
            }
            result[b][kind][y][h * d + x] = sum;
          }
        }
      }
    }
  }
  return result;
}

TEST(ConvPromptParts, OneConvolutionAndOneProductEqualTheNaiveSums) {
  torch::manual_seed(8);
  const int64_t B = 3, H = 2, f = 4, s = 3, L = 5, d = 6;
  const Tensor embedding = torch::rand({2, H, L + s - 1, d + s - 1}) * 2 - 1;
  const Tensor weight = torch::randn({2, H, f, s, s}), bias = torch::randn({2, H, f});
  const Tensor shares = torch::randn({B, f});
  const Tensor fast = mix(shares, convolve(embedding, weight, bias));
  const Tensor naive = naive_prompts(shares, embedding, weight, bias);
  ASSERT_EQ(fast.sizes(), naive.sizes());
  EXPECT_LT((fast - naive).abs().max().item<double>(), 1e-5);
}

TEST(ConvPromptParts, KeysAreOrthonormalAndFutureOnesZero) {
  torch::manual_seed(9);
  Tensor keys = torch::full({12, 16}, 7.0);
  draw_orthonormal(keys, 0, 5);
  EXPECT_TRUE(
      torch::mm(keys, keys.t()).narrow(0, 0, 5).narrow(1, 0, 5).allclose(torch::eye(5), 0, 1e-5));
  EXPECT_EQ(keys.narrow(0, 5, 7).abs().max().item<double>(), 0);
  const Tensor first = keys.narrow(0, 0, 5).clone();
  draw_orthonormal(keys, 5, 8);
  EXPECT_TRUE(keys.narrow(0, 0, 5).equal(first));
  EXPECT_TRUE(
      torch::mm(keys, keys.t()).narrow(0, 0, 8).narrow(1, 0, 8).allclose(torch::eye(8), 0, 1e-5));
  EXPECT_EQ(keys.narrow(0, 8, 4).abs().max().item<double>(), 0);

  // Rows that were trained are no longer orthonormal; new ones are orthogonal to them all the same.
  keys.narrow(0, 0, 8).add_(torch::randn({8, 16}) * 0.1);
  draw_orthonormal(keys, 8, 12);
  const Tensor gram = torch::mm(keys.narrow(0, 8, 4), keys.t());
  EXPECT_LT(gram.narrow(1, 0, 8).abs().max().item<double>(), 1e-5);
  EXPECT_TRUE(gram.narrow(1, 8, 4).allclose(torch::eye(4), 0, 1e-5));
}

TEST(ConvPromptParts, ADroppedLayersPromptIsReplacedByTheLatestOrNothing) {
  const auto r = [](double value) { return torch::full({1}, value); };
  PreviousPrompt latest(true), zero(false);
  // Layers 0, 1 and 3 run.
  for (PreviousPrompt* chain : {&latest, &zero}) {
    EXPECT_EQ(chain->add_to(r(1), 0).item<double>(), 1);
    EXPECT_EQ(chain->add_to(r(10), 1).item<double>(), 11);
  }
  EXPECT_EQ(latest.add_to(r(100), 3).item<double>(), 110);
  EXPECT_EQ(zero.add_to(r(100), 3).item<double>(), 100);
  EXPECT_EQ(zero.add_to(r(1000), 4).item<double>(), 1100);
}

// ---- ConvPrompt: the method ----

const std::string kSmallConv =
    "{name: convprompt, prompt_length: 3, kernel_size: 3, layers: [0, 2], new_kernels: [2, 1, 3]";

TEST(ConvPrompt, LogitsEqualPlainAlgebraOverTheWholeNetwork) {
  Subject subject(kSmallConv + "}");
  subject.learn(0, 2);
  subject.begin(1);
  subject.train(1, 1);
  torch::NoGradGuard no_grad;
  const Values v = subject.values();
  const Batch batch = subject.batch(1);
  Tensor before;
  ForwardPlan plan;
  plan.make_prefix = [&](const Tensor& x, int64_t block) {
    if (block != 0 && block != 2) return Tensor();
    const int64_t layer = block / 2;
    const Tensor cls = x.select(1, 0);
    const Tensor inner =
        (torch::mm(cls, v.at("projection.0").t()) + v.at("projection.1")).clamp_min(0);
    const Tensor query = torch::mm(inner, v.at("projection.2").t()) + v.at("projection.3");
    Tensor shares = torch::empty({x.size(0), 3});
    for (int64_t b = 0; b < x.size(0); ++b) {
      for (int64_t k = 0; k < 3; ++k) {
        const Tensor key = v.at("keys")[k];
        shares[b][k] = query[b].dot(key) / (query[b].norm() * key.norm());
      }
    }
    const auto kernels = [&](const std::string& name) {
      return torch::cat({v.at(name + ".0")[layer], v.at(name + ".1")[layer]}, 2);
    };
    const Tensor own = naive_prompts(shares, v.at("embedding")[layer], kernels("kernel.weight"),
                                     kernels("kernel.bias"));
    const Tensor prefix = before.defined() ? own + before : own;
    before = own;
    return prefix;
  };
  const Tensor x = subject.backbone->features(batch.images, plan);
  std::vector<Tensor> expected;
  for (const std::string task : {"0", "1"}) {
    const Tensor normed =
        plain_norm(x, v.at("head.norm.weight." + task), v.at("head.norm.bias." + task));
    expected.push_back(torch::mm(normed, v.at("head.weight." + task).t()) +
                       v.at("head.bias." + task));
  }
  const Tensor logits = subject.method->predict(batch);
  ASSERT_EQ(logits.size(1), kClasses);
  EXPECT_TRUE(logits.narrow(1, 0, 4).allclose(torch::cat(expected, 1), 1e-4, 1e-4));

  // The loss: this task's classes only, and the change of what is shared.
  Tensor penalty = (v.at("embedding") - v.at("shared_before.0")).abs().sum();
  for (int i = 0; i < 4; ++i) {
    const std::string own = std::to_string(i), old = std::to_string(i + 1);
    penalty = penalty + (v.at("projection." + own) - v.at("shared_before." + old)).abs().sum();
  }
  ASSERT_GT(penalty.item<double>(), 0);
  const Tensor loss = plain_cross_entropy(expected[1], batch.labels - 2) + 0.01 * penalty;
  EXPECT_NEAR(subject.method->loss(batch).item<double>(), loss.item<double>(), 1e-4);
}

TEST(ConvPrompt, LeavesEarlierKernelsHeadsAndKeysAlone) {
  Subject subject(kSmallConv + "}");
  subject.learn(0, 2);
  Values before = subject.values();
  subject.begin(1);
  const Values begun = subject.values();
  subject.train(1, 2);
  Values after = subject.values();
  for (const char* name : {"kernel.weight.0", "kernel.bias.0", "head.norm.weight.0",
                           "head.norm.bias.0", "head.weight.0", "head.bias.0"}) {
    EXPECT_TRUE(after[name].equal(before[name])) << name;
  }
  for (const char* name : {"embedding", "projection.0", "projection.3", "kernel.weight.1",
                           "kernel.bias.1", "head.norm.weight.1", "head.weight.1",
                           "backbone.blocks.5.norm2.weight", "backbone.norm.bias"}) {
    EXPECT_FALSE(after[name].equal(begun.at(name))) << name;
  }
  EXPECT_TRUE(after["keys"].equal(begun.at("keys")));
  EXPECT_EQ(after["kernel.weight.1"].size(3), 1);  // of new_kernels
  EXPECT_EQ(after["keys"].narrow(0, 3, 3).abs().max().item<double>(), 0);
}

TEST(ConvPrompt, TrainsTheBackbonesNormsSlowlyAfterTheFirstTask) {
  Subject subject(kSmallConv + "}");
  for (int64_t task = 0; task < 2; ++task) {
    subject.begin(task);
    const auto parameters = subject.method->parameters();
    const auto factors = subject.method->lr_factors();
    ASSERT_EQ(parameters.size(), factors.size());
    int64_t norms = 0;
    for (const auto& item : subject.backbone->named_parameters()) {
      const bool norm = item.key().find("norm") != std::string::npos;
      EXPECT_EQ(item.value().requires_grad(), norm) << item.key();
      for (size_t i = 0; i < parameters.size(); ++i) {
        if (!parameters[i].is_same(item.value())) continue;
        EXPECT_EQ(factors[i], task == 0 ? 1 : 0.005);
        ++norms;
      }
    }
    EXPECT_EQ(norms, 2 * (2 * 6 + 1));
    EXPECT_EQ(factors[0], 1);
    subject.train(task, 1);
  }
}

TEST(ConvPrompt, TrainsKeysOnlyWhenAskedTo) {
  Subject subject(kSmallConv + ", train_keys: true}");
  subject.learn(0, 2);
  Values before = subject.values();
  subject.begin(1);
  Values begun = subject.values();
  subject.train(1, 2);
  Values after = subject.values();
  EXPECT_TRUE(after["keys"].narrow(0, 0, 2).equal(before["keys"].narrow(0, 0, 2)));
  EXPECT_FALSE(after["keys"][2].equal(begun["keys"][2]));
}

TEST(ConvPrompt, RefusesWhatItCannotDo) {
  EXPECT_THROW(Subject("{name: convprompt, layers: [6]}"), Error);
  EXPECT_THROW(Subject("{name: convprompt, layers: [2, 1]}"), Error);
  EXPECT_THROW(Subject("{name: convprompt, new_kernels: [1, 2]}"), Error);
  EXPECT_THROW(Subject("{name: convprompt, new_kernels: [1, 2, 0]}"), Error);
  EXPECT_THROW(Subject("{name: convprompt, kernels: 9}"), Error);  // 27 keys of 24 values
  EXPECT_THROW(Subject("{name: hide_prompt, layers: [6]}"), Error);
}

// ---- REP around both ----

class WithRep : public ::testing::TestWithParam<std::string> {};

TEST_P(WithRep, LearnsWithASmallQueryModelMergingAndDropping) {
  EfficiencyConfig config;
  config.token_merging.kind = "atom";
  config.token_merging.n = 2;
  config.layer_dropping.kind = "random";
  config.layer_dropping.keep = 0.5;
  torch::manual_seed(11);
  VitOptions small = vit_options("vit_nano");
  small.embed_dim = 48;
  small.depth = 2;
  VisionTransformer query(small);
  query->train_last_blocks(0);
  Subject subject("{name: " + GetParam() + "}", config, query);
  for (int64_t task = 0; task < 2; ++task) {
    subject.begin(task);
    for (int64_t i = 0; i < 6; ++i) {
      subject.efficiency->set_time({3, task, i, i});
      subject.optimizer->zero_grad();
      const Tensor loss = subject.method->loss(subject.batch(task));
      EXPECT_TRUE(std::isfinite(loss.item<double>()));
      loss.backward();
      subject.optimizer->step();
    }
    // Another step's plan, which drops other blocks, gives another loss.
    const auto skip_at = [&](int64_t step) {
      return subject.efficiency->planner.train_plan({3, task, step, step}).skip;
    };
    const auto loss_at = [&](int64_t step) {
      subject.efficiency->set_time({3, task, step, step});
      return subject.method->loss(subject.batch(task)).item<double>();
    };
    int64_t other = 1;
    while (skip_at(other) == skip_at(0)) ++other;
    EXPECT_NE(loss_at(other), loss_at(0));
    subject.method->end_task(make_task(task));
  }
  torch::NoGradGuard no_grad;
  EXPECT_TRUE(
      subject.method->predict(subject.batch(0)).narrow(1, 0, 4).isfinite().all().item<bool>());
}

INSTANTIATE_TEST_SUITE_P(Methods, WithRep, ::testing::Values("hide_prompt", "convprompt"),
                         [](const auto& test) { return test.param; });

}  // namespace
}  // namespace rep
