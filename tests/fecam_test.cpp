// FeCAM's class statistics against the authors' own code (golden/fecam.json), and their limits.
#include "methods/fecam.h"

#include <gtest/gtest.h>

#include <cmath>
#include <string>
#include <tuple>

#include "core/error.h"
#include "tests/golden_vit.h"

namespace rep {
namespace {

using nlohmann::json;
using torch::Tensor;

constexpr int64_t kClasses = 5, kOld = 3, kDim = 8;

// Three classes in the first task, two in the second.
struct Features {
  explicit Features(bool positive, int64_t samples = 12) {
    std::vector<Tensor> all;
    for (uint32_t c = 0; c < kClasses; ++c) {
      all.push_back((golden::u(8000 + c, {12, kDim}, -1) + golden::u(8100 + c, {1, kDim}))
                        .narrow(0, 0, samples));
    }
    x = torch::stack(all);
    tests = golden::u(8200, {6, kDim});
    if (positive) {
      x = x.abs();
      tests = tests.abs();
    }
  }
  void fit(MahalanobisClasses& classes, int64_t first, int64_t last) const {
    const Tensor labels =
        torch::arange(first, last).unsqueeze(1).expand({-1, x.size(1)}).reshape({-1});
    classes.fit(x.narrow(0, first, last - first).flatten(0, 1), labels, first, last);
  }
  Tensor x;  // [C, n, D]
  Tensor tests;
};

FecamOptions form(const std::string& name) {
  FecamOptions options;
  options.form = name;
  if (name == "resnet") {
    options.shrink_times = 2;
    options.alpha2 = 1;
    options.tukey = 0.5;
  }
  return options;
}

void expect_distances(const Tensor& actual, const json& expected, const std::string& what) {
  ASSERT_EQ(actual.size(0), static_cast<int64_t>(expected["distances"].size())) << what;
  for (int64_t b = 0; b < actual.size(0); ++b) {
    for (int64_t c = 0; c < kClasses; ++c) {
      const double want = expected["distances"][static_cast<size_t>(b)][static_cast<size_t>(c)];
      EXPECT_NEAR(actual[b][c].item<double>(), want, 1e-5 * want) << what << " " << b << " " << c;
    }
    EXPECT_EQ(actual[b].argmin().item<int64_t>(),
              expected["argmin"][static_cast<size_t>(b)].get<int64_t>());
  }
}

Tensor golden_distances(const FecamOptions& options, const Features& features) {
  MahalanobisClasses classes(options, kClasses, kDim, torch::kCPU);
  features.fit(classes, 0, kOld);
  features.fit(classes, kOld, kClasses);
  return classes.distances(features.tests);
}

class Golden : public ::testing::Test {
 protected:
  const json file = golden::load("fecam.json");
};

TEST_F(Golden, TheFormOfTheVitScripts) {
  for (const auto& [name, samples, alpha1, alpha2] : {std::tuple{"vit_cifar100", 12, 1, 0},
                                                      {"vit_imagenet_r", 12, 10, 10},
                                                      {"vit_cifar100_five_samples", 5, 1, 0}}) {
    const Features features(false, samples);
    for (const char* variant : {"full", "no_correlation", "ncm"}) {
      FecamOptions options = form("vit");
      options.alpha1 = alpha1;
      options.alpha2 = alpha2;
      options.correlation = std::string(variant) != "no_correlation";
      if (std::string(variant) == "ncm") options.covariance = "none";
      expect_distances(golden_distances(options, features), file[name]["f32"][variant],
                       std::string(name) + " " + variant);
    }
  }
}

TEST_F(Golden, TheFormForResnets) {
  const Features features(true);
  const json& f32 = file["resnet_form"]["f32"];
  const auto check = [&](const char* variant, auto&& change) {
    FecamOptions options = form("resnet");
    change(options);
    expect_distances(golden_distances(options, features), f32[variant], variant);
  };
  check("full", [](FecamOptions&) {});
  check("no_tukey", [](FecamOptions& o) { o.tukey = 1; });
  check("no_correlation", [](FecamOptions& o) { o.correlation = false; });
  check("no_shrink", [](FecamOptions& o) { o.shrink_times = 0; });
  check("covariance_only", [](FecamOptions& o) {
    o.shrink_times = 0;
    o.correlation = false;
    o.tukey = 1;
  });
  check("diagonal", [](FecamOptions& o) { o.covariance = "diagonal"; });
  check("common_covariance", [](FecamOptions& o) { o.covariance = "common"; });
  check("ncm", [](FecamOptions& o) { o.covariance = "none"; });
  check("ncm_no_tukey", [](FecamOptions& o) {
    o.covariance = "none";
    o.tukey = 1;
  });
}

TEST_F(Golden, TheCommonCovarianceRunsOverTasks) {
  const json& expected = file["resnet_form"]["f32"]["common_covariance"];
  FecamOptions options = form("resnet");
  options.covariance = "common";
  MahalanobisClasses classes(options, kClasses, kDim, torch::kCPU);
  const Features features(true);
  features.fit(classes, 0, kOld);
  golden::expect_elements(classes.common(), expected["common_after_task0_row0"], "task 0", 1e-6);
  features.fit(classes, kOld, kClasses);
  golden::expect_elements(classes.common(), expected["common_after_task1_row0"], "task 1", 1e-6);
}

TEST_F(Golden, LamdaPilotsForm) {
  expect_distances(golden_distances(form("pilot"), Features(false)), file["pilot_form"]["f32"],
                   "pilot");
}

TEST_F(Golden, MeansShrinkageAndCorrelation) {
  const Features features(false);
  MahalanobisClasses classes(form("vit"), kClasses, kDim, torch::kCPU);
  features.fit(classes, 0, kOld);
  const Tensor x = torch::nn::functional::normalize(features.x[0].to(torch::kDouble));
  const Tensor centred = x - x.mean(0);
  const Tensor covariance = torch::mm(centred.t(), centred) / 11;
  for (const auto& [name, alpha1, alpha2] :
       {std::tuple{"vit_cifar100", 1.0, 0.0}, {"vit_imagenet_r", 10.0, 10.0}}) {
    const json& class0 = file[name]["f32"]["class0"];
    golden::expect_elements(classes.means()[0], class0["mean"], "mean", 1e-6);
    const Tensor matrix = shrunk(covariance, alpha1, alpha2);
    for (int64_t row = 0; row < 2; ++row) {
      const auto r = static_cast<size_t>(row);
      golden::expect_elements(matrix[row], class0["shrunk_rows0_1"][r], "shrunk", 1e-6);
      golden::expect_elements(correlation_of(matrix)[row], class0["correlation_rows0_1"][r],
                              "correlation", 1e-6);
    }
  }
}

// As alpha1 grows, a correlation becomes the identity.
TEST(Fecam, MuchShrinkageIsTheNearestMean) {
  const Features features(false);
  FecamOptions much = form("vit"), none = form("vit");
  much.alpha1 = 1e9;
  none.covariance = "none";
  const Tensor a = golden_distances(much, features), b = golden_distances(none, features);
  EXPECT_LT((a - b).abs().max().item<double>(), 1e-5);
}

TEST(Fecam, LeavesZerosOutOfTheMeanCovariance) {
  const Tensor c =
      torch::tensor({{2.0, 0.0, 1.0}, {0.0, 4.0, 0.0}, {1.0, 0.0, 6.0}}, torch::kDouble);
  const Tensor expected = torch::tensor({{6.0, 3.0, 4.0}, {3.0, 8.0, 3.0}, {4.0, 3.0, 10.0}},
                                        torch::kDouble);  // 1 * mean 4, 3 * mean 1
  EXPECT_TRUE(shrunk(c, 1, 3).allclose(expected));
}

TEST(Fecam, AClassOfOneImageHasTheDistanceOfItsMean) {
  MahalanobisClasses classes(form("vit"), 2, 3, torch::kCPU);
  classes.fit(torch::tensor({{3.f, 0.f, 4.f}}), torch::tensor({0L}), 0, 2);
  const Tensor d = classes.distances(torch::tensor({{0.f, 2.f, 0.f}}));
  EXPECT_NEAR(d[0][0].item<double>(), 0.36 + 1 + 0.64, 1e-6);
  EXPECT_TRUE(std::isinf(d[0][1].item<double>()));  // never seen
}

TEST(Fecam, ASingularCovarianceIsInvertedWhereItIsNot) {
  FecamOptions options = form("resnet");
  options.shrink_times = 0;
  options.correlation = false;
  options.tukey = 1;
  MahalanobisClasses classes(options, 1, 2, torch::kCPU);
  // Varies along the first axis only, with variance 2; its mean points there, too.
  classes.fit(torch::tensor({{1.f, 0.f}, {3.f, 0.f}}), torch::tensor({0L, 0L}), 0, 1);
  const Tensor d = classes.distances(torch::tensor({{0.f, 5.f}}));
  EXPECT_NEAR(d.item<double>(), 0.5, 1e-6);  // ((0, 1) - (1, 0)) along that axis: 1 / 2
}

std::string complaint(const FecamOptions& options, const Tensor& features) {
  try {
    MahalanobisClasses classes(options, 1, features.size(1), torch::kCPU);
    classes.fit(features, torch::zeros({features.size(0)}, torch::kLong), 0, 1);
  } catch (const Error& e) {
    return e.what();
  }
  return "";
}

TEST(Fecam, RefusesWhatHasNoDistance) {
  const Tensor x = torch::tensor({{1.f, -1.f, 0.5f}, {3.f, 2.f, 0.5f}, {0.f, 1.f, 0.5f}});
  EXPECT_NE(complaint(form("resnet"), x).find("method.tukey: a feature is negative"),
            std::string::npos);
  FecamOptions flat = form("vit");
  flat.form = "resnet";
  flat.shrink_times = 0;
  EXPECT_NE(complaint(flat, x).find("a feature of class 0 never varies"), std::string::npos);
  FecamOptions upset = flat;
  upset.shrink_times = 1;
  upset.alpha1 = 0;
  upset.alpha2 = 50;
  upset.correlation = false;
  EXPECT_NE(complaint(upset, x).find("alpha2 to no more than alpha1"), std::string::npos);
  FecamOptions pilot = form("pilot");
  pilot.covariance = "diagonal";
  EXPECT_NE(complaint(pilot, x).find("method.form: pilot fixes"), std::string::npos);
}

}  // namespace
}  // namespace rep
