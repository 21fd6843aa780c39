// The methods that keep statistics of classes (ncm, slda, ranpac, slca), against their formulas
// written out in plain tensor algebra.
#include <gtest/gtest.h>
#include <yaml-cpp/yaml.h>

#include <cmath>
#include <limits>
#include <memory>
#include <string>
#include <vector>

#include "methods/class_gaussians.h"
#include "methods/method.h"
#include "methods/network.h"
#include "methods/ranpac.h"
#include "methods/slca.h"
#include "methods/slda.h"
#include "tensor/optimizer.h"
#include "tensor/torch.h"
#include "tests/method_lab.h"

namespace rep {
namespace {

using torch::Tensor;

Tensor random_tensor(at::IntArrayRef shape, uint64_t seed) {
  return torch::randn(shape, at::make_generator<at::CPUGeneratorImpl>(seed));
}

Tensor labels_of(const std::vector<int64_t>& labels) { return torch::tensor(labels, torch::kLong); }

void expect_close(const Tensor& actual, const Tensor& expected, double tolerance = 1e-5) {
  ASSERT_EQ(actual.sizes(), expected.sizes());
  const Tensor a = actual.detach().to(torch::kDouble), b = expected.detach().to(torch::kDouble);
  const double scale = std::max(1.0, b.abs().max().item<double>());
  EXPECT_LT((a - b).abs().max().item<double>(), tolerance * scale) << actual << expected;
}

Tensor eye(int64_t n) { return torch::eye(n, torch::kDouble); }

// ---- ClassGaussians ----

TEST(ClassGaussians, KeepsMeanAndFactorOfTheUnbiasedCovariance) {
  const Tensor x = random_tensor({7, 3}, 1) * 2 + 5;
  ClassGaussians gaussians(4, 3, torch::kCPU);
  gaussians.fit(x, 2);
  EXPECT_TRUE(gaussians.knows(2));
  EXPECT_FALSE(gaussians.knows(1));
  Tensor mean = torch::zeros({3}, torch::kDouble),
         covariance = torch::zeros({3, 3}, torch::kDouble);
  for (int64_t i = 0; i < 7; ++i) mean += x[i] / 7;
  for (int64_t i = 0; i < 7; ++i) covariance += torch::outer(x[i] - mean, x[i] - mean) / 6;
  expect_close(gaussians.means()[2], mean);
  const Tensor L = gaussians.factor(2);
  expect_close(torch::mm(L, L.t()), covariance + 1e-4 * eye(3));
  EXPECT_TRUE(L.triu(1).eq(0).all().item<bool>());
}

TEST(ClassGaussians, FitsFewerImagesThanDimensions) {
  ClassGaussians gaussians(1, 40, torch::kCPU);
  for (const int64_t images : {1, 2, 10}) {
    gaussians.fit(random_tensor({images, 40}, 2) * 100, 0);
    EXPECT_TRUE(gaussians.factor(0).isfinite().all().item<bool>()) << images;
  }
}

TEST(ClassGaussians, DrawsRowByRowInTheOrderOfTheLabels) {
  ClassGaussians gaussians(3, 4, torch::kCPU);
  for (int64_t label = 0; label < 3; ++label) {
    gaussians.fit(random_tensor({9, 4}, static_cast<uint64_t>(label)), label);
  }
  const std::vector<int64_t> labels{2, 0, 0, 1, 2, 0};
  const Tensor draws =
      gaussians.sample(labels_of(labels), at::make_generator<at::CPUGeneratorImpl>(9));
  const Tensor noise = random_tensor({6, 4}, 9);
  for (size_t i = 0; i < labels.size(); ++i) {
    const auto row = static_cast<int64_t>(i);
    expect_close(draws[row],
                 gaussians.means()[labels[i]] + torch::mv(gaussians.factor(labels[i]), noise[row]));
  }
}

TEST(ClassGaussians, DrawsHaveTheMomentsOfTheFit) {
  const Tensor x = torch::mm(random_tensor({50, 4}, 3), random_tensor({4, 4}, 4)) + 3;
  ClassGaussians gaussians(2, 4, torch::kCPU);
  gaussians.fit(x, 1);
  const Tensor draws = gaussians.sample(torch::ones({200000}, torch::kLong),
                                        at::make_generator<at::CPUGeneratorImpl>(5));
  const Tensor centred = draws - draws.mean(0);
  expect_close(draws.mean(0), x.mean(0), 0.02);
  const Tensor spread = x - x.mean(0);
  expect_close(torch::mm(centred.t(), centred) / 200000, torch::mm(spread.t(), spread) / 49, 0.02);
}

TEST(ClassGaussians, SurvivesSaveAndLoad) {
  ClassGaussians saved(3, 4, torch::kCPU), loaded(3, 4, torch::kCPU);
  saved.fit(random_tensor({9, 4}, 6), 1);
  State out;
  saved.state(out);
  State in(out.tensors(), out.values());
  loaded.state(in);
  EXPECT_FALSE(loaded.knows(0));
  EXPECT_TRUE(loaded.factor(1).equal(saved.factor(1)));
  EXPECT_TRUE(loaded.means().equal(saved.means()));
}

// ---- SLDA ----

// The published recurrence, one image at a time.
struct SequentialLda {
  SequentialLda(int64_t classes, int64_t dim)
      : means(torch::zeros({classes, dim}, torch::kDouble)),
        sigma(torch::zeros({dim, dim}, torch::kDouble)),
        counts(static_cast<size_t>(classes), 0) {}
  void update(const Tensor& x, int64_t y, bool skip_first = false) {
    int64_t& count = counts[static_cast<size_t>(y)];
    const Tensor delta = x.to(torch::kDouble) - means[y];
    const double weight = skip_first && count == 0 ? 0 : n / (n + 1);
    sigma = (n * sigma + weight * torch::outer(delta, delta)) / (n + 1);
    means[y] += delta / static_cast<double>(count + 1);
    ++count;
    ++n;
  }
  Tensor means, sigma;
  std::vector<int64_t> counts;
  double n = 0;
};

const std::vector<int64_t> kOrder{1, 1, 0, 3, 1, 0, 3, 3, 3, 1, 0, 1};  // class 2 is never seen

Tensor lda_features() {
  return random_tensor({12, 5}, 11) + labels_of(kOrder).unsqueeze(1).to(torch::kFloat);
}

TEST(Slda, AChunkIsTheRecurrenceImageByImage) {
  const Tensor x = lda_features();
  for (const bool skip_first : {false, true}) {
    SequentialLda expected(4, 5);
    for (int64_t i = 0; i < 12; ++i) {
      expected.update(x[i], kOrder[static_cast<size_t>(i)], skip_first);
    }
    for (const int64_t chunk : {1, 5, 12}) {
      StreamingLda lda(4, 5, skip_first, torch::kCPU);
      for (int64_t i = 0; i < 12; i += chunk) {
        const int64_t size = std::min(chunk, 12 - i);
        lda.update(x.narrow(0, i, size), labels_of(kOrder).narrow(0, i, size));
      }
      EXPECT_EQ(lda.seen(), 12);
      expect_close(lda.means(), expected.means, 1e-12);
      expect_close(lda.covariance(), expected.sigma, 1e-12);
    }
  }
}

TEST(Slda, TheFirstImageOfAClassMayStayOutOfTheCovariance) {
  StreamingLda raw(2, 3, false, torch::kCPU), skipping(2, 3, true, torch::kCPU);
  const Tensor x = random_tensor({2, 3}, 12).to(torch::kDouble);
  for (auto* lda : {&raw, &skipping}) lda->update(x, labels_of({0, 1}));
  expect_close(raw.covariance(), torch::outer(x[1], x[1]) / 4, 1e-12);  // 1/2 delta delta^T / 2
  expect_close(skipping.covariance(), torch::zeros({3, 3}), 1e-12);
}

TEST(Slda, ScoresAreThoseOfThePseudoInverse) {
  const Tensor x = lda_features(), tests = random_tensor({6, 5}, 13);
  StreamingLda lda(4, 5, false, torch::kCPU);
  lda.update(x, labels_of(kOrder));
  lda.solve(1e-4);
  const Tensor scores = lda.scores(tests);
  const Tensor lambda =
      torch::pinverse((1 - 1e-4) * lda.covariance() + 1e-4 * eye(5), /*rcond=*/1e-15);
  for (const int64_t label : {0, 1, 3}) {
    const Tensor mean = lda.means()[label], w = torch::mv(lambda, mean);
    expect_close(scores.select(1, label),
                 torch::mv(tests.to(torch::kDouble), w) - 0.5 * mean.dot(w), 1e-9);
  }
}

TEST(Slda, AClassNeverSeenCannotWin) {
  StreamingLda lda(4, 5, false, torch::kCPU);
  lda.update(lda_features(), labels_of(kOrder));
  lda.solve(1e-4);
  const Tensor scores = lda.scores(random_tensor({100, 5}, 14) * 10);
  EXPECT_TRUE(scores.select(1, 2).eq(-std::numeric_limits<double>::infinity()).all().item<bool>());
  EXPECT_TRUE(scores.argmax(1).ne(2).all().item<bool>());
}

TEST(Slda, StartsFromAShrunkCovariance) {
  const Tensor x = lda_features().to(torch::kDouble);
  StreamingLda lda(4, 5, false, torch::kCPU);
  lda.start(x, labels_of(kOrder));

  SequentialLda expected(4, 5);
  for (int64_t i = 0; i < 12; ++i) expected.update(x[i], kOrder[static_cast<size_t>(i)]);
  expect_close(lda.means(), expected.means, 1e-12);
  Tensor S = torch::zeros({5, 5}, torch::kDouble);
  for (int64_t i = 0; i < 12; ++i) {
    const Tensor rest = x[i] - expected.means[kOrder[static_cast<size_t>(i)]];
    S += torch::outer(rest, rest) / 12;
  }
  double trace = 0, squares = 0;
  for (int64_t i = 0; i < 5; ++i) {
    trace += S[i][i].item<double>();
    for (int64_t j = 0; j < 5; ++j) squares += std::pow(S[i][j].item<double>(), 2);
  }
  const double mu = trace / 5, a = squares / 25;
  const double rho = std::min(1.0, (a + mu * mu) / (13 * (a - mu * mu / 5)));
  expected.sigma = (1 - rho) * S + rho * mu * eye(5);
  expect_close(lda.covariance(), expected.sigma, 1e-12);

  // And goes on from there as after 12 images.
  const Tensor next = random_tensor({5}, 15);
  expected.update(next, 2);
  lda.update(next.unsqueeze(0), labels_of({2}));
  expect_close(lda.covariance(), expected.sigma, 1e-12);
}

// ---- RanPAC ----

Tensor one_hot(const std::vector<int64_t>& labels, int64_t classes) {
  Tensor targets = torch::zeros({static_cast<int64_t>(labels.size()), classes});
  for (size_t i = 0; i < labels.size(); ++i) targets[static_cast<int64_t>(i)][labels[i]] = 1;
  return targets;
}

TEST(Ranpac, TwoChunksAreOne) {
  const Tensor h = random_tensor({12, 6}, 21).relu(), y = labels_of(kOrder);
  RidgeClassifier whole(6, 4, torch::kCPU), halves(6, 4, torch::kCPU);
  whole.add(h, y);
  halves.add(h.narrow(0, 0, 5), y.narrow(0, 0, 5));
  halves.add(h.narrow(0, 5, 7), y.narrow(0, 5, 7));
  EXPECT_EQ(whole.solve(0.1), 0.1);
  EXPECT_EQ(halves.solve(0.1), 0.1);
  expect_close(halves.gram(), whole.gram());
  expect_close(halves.prototypes(), whole.prototypes());
  expect_close(halves.weight(), whole.weight());
}

TEST(Ranpac, SolvesTheRidgeSystem) {
  const Tensor h = random_tensor({12, 6}, 22).relu();
  RidgeClassifier ridge(6, 4, torch::kCPU);
  ridge.add(h, labels_of(kOrder));
  ridge.solve(0.5);
  const Tensor H = h.to(torch::kDouble), Y = one_hot(kOrder, 4).to(torch::kDouble);
  const Tensor W =
      torch::mm(torch::inverse(torch::mm(H.t(), H) + 0.5 * eye(6)), torch::mm(H.t(), Y));
  expect_close(ridge.gram(), torch::mm(H.t(), H));
  expect_close(ridge.prototypes(), torch::mm(H.t(), Y));
  expect_close(ridge.weight(), W);
  const Tensor seen = torch::tensor({0, 1, 3});  // class 2 has no images
  expect_close(ridge.logits(h).index_select(1, seen), torch::mm(H, W).index_select(1, seen));
}

TEST(Ranpac, RaisesLambdaWhereTheSystemIsSingular) {
  RidgeClassifier ridge(2, 2, torch::kCPU);
  ridge.add(torch::tensor({{1.f, 1.f}, {2.f, 2.f}}), labels_of({0, 1}));
  const double lambda = ridge.solve(1e-30);
  EXPECT_GT(lambda, 1e-17);
  EXPECT_LT(lambda, 1e-12);
  EXPECT_TRUE(ridge.weight().isfinite().all().item<bool>());
}

TEST(Ranpac, EndsWithASentenceWhereNoRidgeHelps) {
  RidgeClassifier ridge(2, 2, torch::kCPU);
  ridge.add(torch::full({1, 2}, 1e25f), labels_of({0}));  // finite; its square is not
  try {
    ridge.solve(1);
    ADD_FAILURE() << "solved";
  } catch (const Error& e) {
    EXPECT_NE(std::string(e.what()).find("no solution, whatever the ridge"), std::string::npos);
  }
}

TEST(Ranpac, AClassWithoutImagesNeverWins) {
  RidgeClassifier ridge(2, 3, torch::kCPU);
  ridge.add(torch::tensor({{1.f, 0.f}, {0.f, 1.f}}), labels_of({0, 2}));
  ridge.solve(0.1);
  // Against both classes that have images; 0 would be more.
  const Tensor logits = ridge.logits(torch::tensor({{-1.f, -1.f}}));
  EXPECT_LT(logits.narrow(1, 0, 1).item<float>(), 0);
  EXPECT_NE(logits.argmax(1).item<int64_t>(), 1);
}

TEST(Ranpac, RefusesFeaturesThatAreNotNumbers) {
  RidgeClassifier ridge(2, 2, torch::kCPU);
  const Tensor nan = torch::full({1, 2}, std::numeric_limits<float>::quiet_NaN());
  EXPECT_THROW(ridge.add(nan, labels_of({0})), Error);
}

// The one eigendecomposition against a solution for every lambda; `features` below and above the
// number of images, so both forms of it.
TEST(Ranpac, TheScanOfLambdasEqualsDirectSolutions) {
  EXPECT_EQ(ridge_candidates().size(), 17U);
  EXPECT_DOUBLE_EQ(ridge_candidates().front(), 1e-8);
  EXPECT_DOUBLE_EQ(ridge_candidates().back(), 1e8);
  const Tensor targets = one_hot(kOrder, 4);
  for (const int64_t features : {6, 12, 1100}) {
    const Tensor fit = random_tensor({12, features}, 23).relu(),
                 validation = random_tensor({5, features}, 24).relu();
    const Tensor validation_targets = one_hot({0, 1, 3, 3, 1}, 4);
    const std::vector<double> lambdas{1e-2, 1, 1e2, 1e8};
    const auto losses = ridge_losses(fit, targets, validation, validation_targets, lambdas);
    const Tensor H = fit.to(torch::kDouble), Y = targets.to(torch::kDouble);
    for (size_t i = 0; i < lambdas.size(); ++i) {
      Tensor system = torch::mm(H.t(), H);
      system.diagonal().add_(lambdas[i]);
      const Tensor W = torch::linalg_solve(system, torch::mm(H.t(), Y));
      const double expected = (torch::mm(validation.to(torch::kDouble), W) - validation_targets)
                                  .square()
                                  .mean()
                                  .item<double>();
      EXPECT_NEAR(losses[i], expected, 1e-8 * std::max(1.0, expected)) << features << " " << i;
    }
  }
}

TEST(Ranpac, ASingularSystemHasInfiniteLoss) {
  const Tensor h = random_tensor({12, 3}, 25);
  const Tensor fit = torch::cat({h, h}, 1);  // the same features twice
  const auto losses = ridge_losses(fit, one_hot(kOrder, 4), fit, one_hot(kOrder, 4), {1e-30, 1});
  EXPECT_TRUE(std::isinf(losses[0]));
  EXPECT_TRUE(std::isfinite(losses[1]));
}

// ---- SLCA ----

TEST(Slca, DividesLogitsByTheMeanNormOverTasks) {
  const Tensor logits = torch::tensor({{3.f, 4.f, 0.f, 0.f, 2.f}, {1.f, 0.f, 2.f, 1.f, 2.f}});
  const Tensor normalised = normalise_by_task(logits, {2, 3}, 0.1);
  const double first = (5 + 2) / 2.0 + 1e-7, second = (1 + 3) / 2.0 + 1e-7;
  for (int64_t c = 0; c < 5; ++c) {
    EXPECT_NEAR(normalised[0][c].item<double>(), logits[0][c].item<double>() / first / 0.1, 1e-5);
    EXPECT_NEAR(normalised[1][c].item<double>(), logits[1][c].item<double>() / second / 0.1, 1e-5);
  }
}

TEST(Slca, OlderClassesAreDrawnNearerToTheOrigin) {
  EXPECT_DOUBLE_EQ(mean_decay(2, 2), 1.0);
  EXPECT_DOUBLE_EQ(mean_decay(0, 1), 0.95);
  EXPECT_DOUBLE_EQ(mean_decay(0, 9), 0.91);
}

// ---- Methods on a small stream ----

using namespace lab;

TEST(Ncm, KeepsTheMeansOfAllClassesAndComparesCosines) {
  Lab lab("{name: ncm}");
  lab.learn(0);
  lab.learn(1);
  std::vector<Tensor> means;
  for (size_t t = 0; t < 2; ++t) {
    const Tensor f = lab.features(t);
    for (int64_t c = 0; c < 2; ++c) means.push_back(f.narrow(0, c * kPerClass, kPerClass).mean(0));
  }
  expect_close(lab.carried("mean"), torch::stack(means));
  const Tensor logits = lab.predict(1), f = lab.features(1);
  for (int64_t i = 0; i < f.size(0); ++i) {
    for (int64_t c = 0; c < kClasses; ++c) {
      const Tensor m = means[static_cast<size_t>(c)];
      EXPECT_NEAR(logits[i][c].item<double>(),
                  (f[i].dot(m) / f[i].norm() / m.norm()).item<double>(), 1e-5);
    }
  }
}

TEST(Ncm, MergesForTheMeansWhereItMergesAtTest) {
  EfficiencyConfig config;
  config.token_merging.kind = "tome";
  config.token_merging.when = "always";
  Lab lab("{name: ncm}", 0, config);
  lab.learn(0);
  const Tensor merged = lab.features(0, lab.efficiency->test_plan());
  EXPECT_FALSE(merged.allclose(lab.features(0), 1e-4, 1e-4));
  expect_close(lab.carried("mean")[1], merged.narrow(0, kPerClass, kPerClass).mean(0));
}

TEST(Ncm, RefusesABackboneThatLearns) { EXPECT_THROW(Lab("{name: ncm}", 6), Error); }

TEST(Slda, TheMethodFollowsTheRecurrenceOverTasks) {
  Lab lab("{name: slda}");
  SequentialLda expected(kClasses, 96);
  for (size_t t = 0; t < 2; ++t) {
    lab.learn(t);
    const Tensor f = lab.features(t);
    for (int64_t i = 0; i < f.size(0); ++i) {
      expected.update(f[i], lab.tasks[t].train[static_cast<size_t>(i)].label);
    }
  }
  expect_close(lab.carried("mean"), expected.means);
  expect_close(lab.carried("scatter") / 20, expected.sigma);
}

TEST(Ranpac, AdaptsTheVitInTheFirstTaskOnly) {
  Lab lab("{name: ranpac, projection: 0, bottleneck: 8}");
  lab.begin(0);
  EXPECT_EQ(lab.method->parameters().size(), 2U + 4 * 6);  // head and its scale; six blocks
  const Tensor before = lab.carried("adapter.3.up.weight");
  EXPECT_EQ(before.abs().max().item<double>(), 0);
  lab.step(0, 3);
  lab.method->end_task(lab.tasks[0]);
  const Tensor after = lab.carried("adapter.3.up.weight");
  EXPECT_GT(after.abs().max().item<double>(), 0);
  EXPECT_TRUE(lab.method->parameters().empty());
  lab.learn(1);
  EXPECT_TRUE(lab.method->parameters().empty());
  EXPECT_TRUE(lab.carried("adapter.3.up.weight").equal(after));

  // The regression is on the features of the adapted ViT, of both tasks.
  ForwardPlan plan;
  for (int64_t i = 0; i < 6; ++i) {
    const std::string name = "adapter." + std::to_string(i);
    plan.adapters.push_back({lab.carried(name + ".down.weight"), lab.carried(name + ".down.bias"),
                             lab.carried(name + ".up.weight"), lab.carried(name + ".up.bias"),
                             0.1});
  }
  const Tensor H = torch::cat({lab.features(0, plan), lab.features(1, plan)}).to(torch::kDouble);
  EXPECT_FALSE(H.allclose(torch::cat({lab.features(0), lab.features(1)}).to(torch::kDouble)));
  std::vector<int64_t> labels;
  for (const Task& task : lab.tasks) {
    for (const Sample& sample : task.train) labels.push_back(sample.label);
  }
  const Tensor Y = one_hot(labels, kClasses).to(torch::kDouble);
  const Tensor G = torch::mm(H.t(), H);
  expect_close(lab.carried("gram"), G);
  expect_close(lab.carried("prototypes"), torch::mm(H.t(), Y));
  Tensor system = lab.carried("gram").to(torch::kDouble);
  system.diagonal().add_(lab.value("lambda"));
  const Tensor W = torch::linalg_solve(system, lab.carried("prototypes").to(torch::kDouble));
  expect_close(lab.predict(1), torch::mm(lab.features(1, plan).to(torch::kDouble), W), 1e-3);
}

TEST(Ranpac, ProjectsWithoutAdaptersToo) {
  Lab lab("{name: ranpac, projection: 50, first_task: none}");
  lab.begin(0);
  EXPECT_TRUE(lab.method->parameters().empty());
  lab.method->end_task(lab.tasks[0]);
  const Tensor gram = lab.carried("gram");
  EXPECT_EQ(gram.size(0), 50);
  EXPECT_GE(gram.min().item<double>(), 0);  // of ReLUs
  EXPECT_GT(lab.predict(0).narrow(1, 0, 2).argmax(1).eq(lab.batch(0).labels).sum().item<int64_t>(),
            7);
}

// Losses of the first steps of a method with REP, and without.
std::pair<double, double> first_losses(Lab& lab, const std::string& method_yaml,
                                       int64_t trainable) {
  Lab plain(method_yaml, trainable);
  std::vector<double> losses;
  for (Lab* one : {&lab, &plain}) {
    torch::manual_seed(7);
    one->begin(0);
    one->efficiency->set_time({31, 0, 0, 0});
    losses.push_back(one->method->loss(one->batch(0)).item<double>());
  }
  return {losses[0], losses[1]};
}

TEST(Ranpac, MergesAndDropsInTheFirstTasksStepsOnly) {
  const std::string yaml = "{name: ranpac, projection: 20}";
  Lab lab(yaml, 0, merging_and_dropping());
  const auto [merged, plain] = first_losses(lab, yaml, 0);
  EXPECT_GT(std::abs(merged - plain), 1e-6);
  lab.step(0, 3);
  lab.method->end_task(lab.tasks[0]);
  lab.learn(1);
  const Tensor first = lab.predict(0);
  EXPECT_TRUE(first.isfinite().all().item<bool>());
  lab.efficiency->set_time({31, 1, 5, 9});
  EXPECT_TRUE(torch::equal(lab.predict(0), first));
}

TEST(Slca, MergesAndDropsInItsStepsOnly) {
  const std::string yaml = "{name: slca, alignment_samples: 8}";
  Lab lab(yaml, 6, merging_and_dropping());
  const auto [merged, plain] = first_losses(lab, yaml, 6);
  EXPECT_GT(std::abs(merged - plain), 1e-6);
  lab.step(0, 3);
  lab.method->end_task(lab.tasks[0]);
  lab.learn(1, 3);
  expect_close(lab.carried("gaussian_mean")[3],
               lab.features(1).narrow(0, kPerClass, kPerClass).mean(0));
}

TEST(Slca, HeadsAreAlignedForTestingOnly) {
  Lab lab("{name: slca, alignment_samples: 16}", 6);
  EXPECT_TRUE(lab.backbone->norm->weight.eq(1).all().item<bool>());
  EXPECT_DOUBLE_EQ(lab.backbone->norm->options.eps(), 1e-5);
  lab.learn(0, 2);
  const Tensor first = lab.carried("head.weight");
  lab.begin(1);
  EXPECT_TRUE(lab.carried("head.weight").equal(first)) << "nothing to align after the first task";
  lab.step(1, 2);
  const Tensor trained = lab.carried("head.weight"), bias = lab.carried("head.bias");
  EXPECT_TRUE(trained.narrow(0, 0, 2).equal(first.narrow(0, 0, 2))) << "an old head moved";
  EXPECT_FALSE(trained.narrow(0, 2, 2).equal(first.narrow(0, 2, 2)));
  const Tensor backbone = lab.backbone->blocks[0]->mlp->fc1->weight.detach().clone();
  lab.method->end_task(lab.tasks[1]);
  EXPECT_FALSE(lab.carried("head.weight").allclose(trained)) << "no alignment";
  EXPECT_TRUE(lab.backbone->blocks[0]->mlp->fc1->weight.equal(backbone));

  Task third = lab.tasks[1];  // begins from the heads before alignment
  third.index = 2;
  lab.method->begin_task(third);
  EXPECT_TRUE(lab.carried("head.weight").equal(trained));
  EXPECT_TRUE(lab.carried("head.bias").equal(bias));
}

TEST(Slca, KeepsTheGaussiansOfTheFineTunedFeatures) {
  Lab lab("{name: slca}", 6);
  lab.learn(0, 2);
  const Tensor f = lab.features(0);
  expect_close(
      lab.carried("gaussian_mean").narrow(0, 0, 2),
      torch::stack({f.narrow(0, 0, kPerClass).mean(0), f.narrow(0, kPerClass, kPerClass).mean(0)}));
  const Tensor means = lab.carried("gaussian_mean");
  lab.learn(1, 2);
  EXPECT_TRUE(lab.carried("gaussian_mean").narrow(0, 0, 2).equal(means.narrow(0, 0, 2)))
      << "old statistics are never refreshed";
}

TEST(Slca, TheBackboneLearnsAHundredTimesSlower) {
  Lab lab("{name: slca}", 6);
  const auto factors = lab.method->lr_factors();
  ASSERT_EQ(factors.size(), lab.method->parameters().size());
  EXPECT_EQ(factors[0], 1);
  EXPECT_EQ(factors[1], 1);
  for (size_t i = 2; i < factors.size(); ++i) EXPECT_EQ(factors[i], 0.01);
}

TEST(Slca, RefusesAFrozenBackbone) { EXPECT_THROW(Lab("{name: slca}"), Error); }

}  // namespace
}  // namespace rep
