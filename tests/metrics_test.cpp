#include "core/metrics.h"

#include <stdexcept>

#include "tests/golden.h"

namespace rep {
namespace {

double metric(const std::string& name, const AccuracyMatrix& matrix) {
  return Registry<Metric>::get().at(name).value.compute(matrix);
}

// Worked by hand below. Task 1 falls, task 2 is best at the very end.
//   after task 1:  80
//   after task 2:  90  60
//   after task 3:  50  75  40
const AccuracyMatrix kHand{{{80}, {90, 60}, {50, 75, 40}}, {100, 100, 200}};

TEST(Metrics, AreThoseOfTheResultSchema) {
  const std::vector<std::string> expected = {"anytime_auc",
                                             "average_accuracy",
                                             "average_accuracy_micro",
                                             "average_incremental_accuracy",
                                             "backward_transfer",
                                             "forgetting",
                                             "forgetting_chaudhry",
                                             "forgetting_coda",
                                             "omega"};
  EXPECT_EQ(Registry<Metric>::get().names(), expected);
  for (const auto& [name, entry] : Registry<Metric>::get().entries()) {
    EXPECT_NE(entry.citation.find("arXiv"), std::string::npos) << name;
  }
}

TEST(Metrics, EqualTheHandComputedMatrix) {
  EXPECT_DOUBLE_EQ(metric("average_accuracy", kHand), 55);  // (50 + 75 + 40) / 3
  // (100*50 + 100*75 + 200*40) / 400
  EXPECT_DOUBLE_EQ(metric("average_accuracy_micro", kHand), 51.25);
  EXPECT_DOUBLE_EQ(metric("average_incremental_accuracy", kHand), 70);  // (80 + 75 + 55) / 3
  EXPECT_DOUBLE_EQ(metric("forgetting", kHand), 20);                    // ((90-50) + (75-75)) / 2
  EXPECT_DOUBLE_EQ(metric("forgetting_chaudhry", kHand), 12.5);         // ((90-50) + (60-75)) / 2
  EXPECT_DOUBLE_EQ(metric("backward_transfer", kHand), -7.5);           // ((50-80) + (75-60)) / 2
  // ((80-90)/1 + ((90-50) + (60-75))/2) / 2 = (-10 + 12.5) / 2
  EXPECT_DOUBLE_EQ(metric("forgetting_coda", kHand), 1.25);
}

TEST(Metrics, TheAreaUnderTheAnytimeCurveIsItsMean) {
  AccuracyMatrix m = kHand;
  EXPECT_FALSE(all_metrics(m).contains("anytime_auc"));
  m.anytime = {100, 50, 75, 25};
  EXPECT_DOUBLE_EQ(all_metrics(m)["anytime_auc"].get<double>(), 62.5);  // 250 / 4
}

// The images of tasks 1 and 2 are gone when task 3 is learned: what compares with them is unknown.
TEST(Metrics, LeaveOutTasksWhoseImagesAreGone) {
  const double none = std::nan("");
  const AccuracyMatrix gone{{{80}, {90, 60}, {none, 75, 40}}, {100, 100, 200}};
  EXPECT_DOUBLE_EQ(metric("average_accuracy", gone), 57.5);  // (75 + 40) / 2
  EXPECT_DOUBLE_EQ(metric("average_accuracy_micro", gone), (100 * 75 + 200 * 40) / 300.0);
  EXPECT_DOUBLE_EQ(metric("average_incremental_accuracy", gone), (80 + 75 + 57.5) / 3);
  EXPECT_DOUBLE_EQ(metric("forgetting", gone), 0);          // task 2: 75 - 75
  EXPECT_DOUBLE_EQ(metric("backward_transfer", gone), 15);  // task 2: 75 - 60
  const AccuracyMatrix all_gone{{{80}, {90, 60}, {none, none, 40}}, {100, 100, 200}};
  EXPECT_DOUBLE_EQ(metric("average_accuracy", all_gone), 40);
  EXPECT_TRUE(std::isnan(metric("forgetting", all_gone)));
  EXPECT_TRUE(std::isnan(metric("backward_transfer", all_gone)));
}

// Tested after every second task: what needs the test right after a task was learned is unknown.
TEST(Metrics, CompareNoTasksOfWhichSomeWereNotTestedWhenLearned) {
  const double none = std::nan("");
  const AccuracyMatrix every_second{{{none}, {90, 60}, {none, none, none}, {80, 50, 70, 40}},
                                    {100, 100, 100, 100}};
  for (const char* name : {"forgetting", "forgetting_chaudhry", "backward_transfer"}) {
    EXPECT_TRUE(std::isnan(metric(name, every_second))) << name;
  }
  EXPECT_DOUBLE_EQ(metric("average_accuracy", every_second), 60);
}

TEST(Metrics, AllAreReportedByName) {
  const Json all = all_metrics(kHand);
  EXPECT_EQ(all.size(), 7u);
  EXPECT_DOUBLE_EQ(all["forgetting"].get<double>(), 20);
  EXPECT_DOUBLE_EQ(all["forgetting_coda"].get<double>(), 1.25);
}

TEST(Metrics, OfOneTaskHaveNothingToForget) {
  const Json all = all_metrics({{{62.5}}, {8}});
  for (const char* name :
       {"average_accuracy", "average_accuracy_micro", "average_incremental_accuracy"}) {
    EXPECT_EQ(all[name], 62.5) << name;
  }
  for (const char* name :
       {"forgetting", "forgetting_chaudhry", "backward_transfer", "forgetting_coda"}) {
    EXPECT_EQ(all[name], 0.0) << name;
  }
}

TEST(Metrics, RefuseWhatIsNoTriangle) {
  EXPECT_THROW(all_metrics({{}, {}}), std::invalid_argument);
  EXPECT_THROW(all_metrics({{{1}, {1}}, {1, 1}}), std::invalid_argument);
  EXPECT_THROW(all_metrics({{{1}, {1, 2}}, {1}}), std::invalid_argument);
}

TEST(Metrics, EqualTheReferenceAfterEveryTask) {
  const nlohmann::json golden = golden::load("metrics.json");
  const auto& columns = golden["acc_matrix"];  // [task][after task]
  // The reference works in fp32: 1e-4 percent is its rounding.
  constexpr double kTolerance = 1e-4;
  AccuracyMatrix matrix;
  for (size_t t = 0; t < columns.size(); ++t) {
    std::vector<double>& row = matrix.a.emplace_back();
    for (size_t i = 0; i <= t; ++i) row.push_back(columns[i][t].get<double>());
    matrix.n.push_back(10);
    const auto& after = golden["after"][t];
    EXPECT_NEAR(metric("average_accuracy", matrix), after["avg_acc"].get<double>(), kTolerance);
    EXPECT_NEAR(metric("average_accuracy_micro", matrix), after["avg_acc"].get<double>(),
                kTolerance)
        << "tasks of one size";
    if (t == 0) continue;
    EXPECT_NEAR(metric("forgetting", matrix), after["forgetting"].get<double>(), kTolerance);
    EXPECT_NEAR(metric("backward_transfer", matrix), after["backward"].get<double>(), kTolerance);
  }
  EXPECT_EQ(matrix.a.size(), 5u);
  EXPECT_NEAR(metric("average_incremental_accuracy", matrix),
              golden["mean_of_avg_acc"].get<double>(), kTolerance);
}

// The second of three tasks has no test images: what stands in its column is never looked at.
TEST(Metrics, LeaveOutATaskWithoutTestImages) {
  const double none = std::nan("");
  const AccuracyMatrix m{{{80}, {70, none}, {60, none, 50}}, {10, 0, 30}};
  EXPECT_EQ(metric("average_accuracy", m), 55);
  EXPECT_EQ(metric("average_accuracy_micro", m), 52.5);  // (10 x 60 + 30 x 50) / 40
  EXPECT_NEAR(metric("average_incremental_accuracy", m), (80 + 70 + 55) / 3.0, 1e-12);
  EXPECT_EQ(metric("forgetting", m), 20);
  EXPECT_EQ(metric("backward_transfer", m), -20);
  EXPECT_EQ(metric("forgetting_coda", m), 10);
  EXPECT_TRUE(std::isnan(metric("average_accuracy", {{{none}}, {0}})));
}

TEST(Omega, IsTheMeanOfAccuraciesOverAnOfflineLearners) {
  AccuracyMatrix m{{{80}, {60, 40}}, {10, 30}};
  EXPECT_FALSE(all_metrics(m).contains("omega"));
  m.offline = {88, 85.4};
  // (80 / 88 + (10 x 60 + 30 x 40) / 40 / 85.4) / 2
  EXPECT_NEAR(all_metrics(m).at("omega").get<double>(), 0.7180115, 1e-7);
  // Joint learning has a last row alone: 50 on the first task, (10 x 50 + 30 x 90) / 40 on both.
  const double none = std::nan("");
  EXPECT_EQ(offline_accuracies({{{none}, {50, 90}}, {10, 30}}), (std::vector<double>{50, 80}));
  EXPECT_EQ(offline_accuracies({{{70}, {50, 90}}, {10, 30}}), (std::vector<double>{70, 80}));
}

}  // namespace
}  // namespace rep
