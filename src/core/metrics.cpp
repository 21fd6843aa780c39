// What an accuracy matrix a[t][i] (row t after task t, column i <= t) is summed up to. Publications
// use one word for several of these ("average accuracy", "forgetting"): every figure here has one
// definition and the source whose code or paper defines it so. T is the number of rows, tasks count
// from 1 in the formulas. With one task, whatever compares tasks is 0. A task without test images,
// or whose images are not there any more (NaN), has no accuracy, and every mean leaves it out.
#include "core/metrics.h"

#include <algorithm>
#include <cmath>
#include <stdexcept>

namespace rep {
namespace {

using Accuracies = std::vector<double>;

/// Mean of term(i) over the tasks i < tasks that were tested; NaN when there is none.
template <class Term>
double mean_over(const AccuracyMatrix& m, size_t tasks, Term&& term) {
  double sum = 0;
  int64_t count = 0;
  for (size_t i = 0; i < tasks; ++i) {
    const double value = m.n[i] == 0 ? std::nan("") : term(i);
    if (std::isnan(value)) continue;
    sum += value;
    ++count;
  }
  return sum / static_cast<double>(count);
}

/// The same over the tasks before the last; 0 with one task.
template <class Term>
double mean_over_earlier_tasks(const AccuracyMatrix& m, Term&& term) {
  return m.a.size() == 1 ? 0 : mean_over(m, m.a.size() - 1, term);
}

/// Mean of term(t) over the rows after which there was something to test.
template <class Term>
double mean_over_rows(const AccuracyMatrix& m, Term&& term) {
  double sum = 0;
  int64_t count = 0, images = 0;
  for (size_t t = 0; t < m.a.size(); ++t) {
    images += m.n[t];
    if (images == 0) continue;
    sum += term(t);
    ++count;
  }
  return sum / static_cast<double>(count);
}

/// max of a[t][i] over i <= t < rows.
double best(const AccuracyMatrix& m, size_t i, size_t rows) {
  double best = m.a[i][i];
  for (size_t t = i + 1; t < rows; ++t) best = std::max(best, m.a[t][i]);
  return best;
}

/// Whether an earlier task that the last row tests was not tested right after it was learned
/// (eval.every_tasks): then what compares the two is not known of every task, and of none.
bool lacks_first_tests(const AccuracyMatrix& m) {
  for (size_t i = 0; i + 1 < m.a.size(); ++i) {
    if (m.n[i] > 0 && std::isnan(m.a[i][i]) && !std::isnan(m.a.back()[i])) return true;
  }
  return false;
}

/// mean_over_earlier_tasks of a term that needs a[i][i]; NaN where some of them are not known.
template <class Term>
double mean_since_first_tests(const AccuracyMatrix& m, Term&& term) {
  return lacks_first_tests(m) ? std::nan("") : mean_over_earlier_tasks(m, term);
}

/// (1/T) sum_i a[T][i]
double average_accuracy(const AccuracyMatrix& m) {
  return mean_over(m, m.a.size(), [&](size_t i) { return m.a.back()[i]; });
}

/// sum_{i<tasks} n[i] row[i] / sum_{i<tasks} n[i]: all test images together, however unequal the
/// tasks.
double micro(const AccuracyMatrix& m, const Accuracies& row, size_t tasks) {
  double correct = 0, images = 0;
  for (size_t i = 0; i < tasks; ++i) {
    if (m.n[i] == 0 || std::isnan(row[i])) continue;
    correct += static_cast<double>(m.n[i]) * row[i];
    images += static_cast<double>(m.n[i]);
  }
  return correct / images;
}

double average_accuracy_micro(const AccuracyMatrix& m) { return micro(m, m.a.back(), m.a.size()); }

/// (1/T) sum_t micro(a[t]) / offline[t]
double omega(const AccuracyMatrix& m) {
  return mean_over_rows(m, [&](size_t t) { return micro(m, m.a[t], t + 1) / m.offline[t]; });
}

/// (1/T) sum_t (1/t) sum_{i<=t} a[t][i]
double average_incremental_accuracy(const AccuracyMatrix& m) {
  return mean_over_rows(
      m, [&](size_t t) { return mean_over(m, t + 1, [&](size_t i) { return m.a[t][i]; }); });
}

/// (1/(T-1)) sum_{i<T} (max_{t<=T} a[t][i] - a[T][i]); the last row is among the maxima, so >= 0.
double forgetting(const AccuracyMatrix& m) {
  return mean_since_first_tests(m,
                                [&](size_t i) { return best(m, i, m.a.size()) - m.a.back()[i]; });
}

/// The same with max over t < T: negative where a task is best at the very end.
double forgetting_chaudhry(const AccuracyMatrix& m) {
  return mean_since_first_tests(
      m, [&](size_t i) { return best(m, i, m.a.size() - 1) - m.a.back()[i]; });
}

/// (1/(T-1)) sum_{i<T} (a[T][i] - a[i][i])
double backward_transfer(const AccuracyMatrix& m) {
  return mean_since_first_tests(m, [&](size_t i) { return m.a.back()[i] - m.a[i][i]; });
}

/// (1/(T-1)) sum_{t=2..T} (1/(t-1)) sum_{i<t} (a[t-1][i] - a[t][i]): the mean drop a step, several
/// times smaller than the drop over the whole run.
double forgetting_coda(const AccuracyMatrix& m) {
  if (m.a.size() == 1) return 0;
  AccuracyMatrix earlier = m;
  earlier.a.pop_back();
  return mean_over_rows(earlier, [&](size_t t) {
    return mean_over(m, t + 1, [&](size_t i) { return m.a[t][i] - m.a[t + 1][i]; });
  });
}

/// (1/K) sum_k c[k] of the accuracies c at equal intervals: the area under their curve over its
/// length, as A_auc in the authors' main.py.
double anytime_auc(const AccuracyMatrix& m) {
  double sum = 0;
  for (const double accuracy : m.anytime) sum += accuracy;
  return sum / static_cast<double>(m.anytime.size());
}

const Registered<Metric> kAverageAccuracy{
    "average_accuracy",
    "final accuracy, mean over tasks: Lopez-Paz and Ranzato 2017 (GEM, arXiv 1706.08840), ACC",
    {average_accuracy}};
const Registered<Metric> kAverageAccuracyMicro{
    "average_accuracy_micro",
    "final accuracy over all test images: Zhou et al. 2021 (PyCIL, arXiv 2112.12533)",
    {average_accuracy_micro}};
const Registered<Metric> kAverageIncrementalAccuracy{
    "average_incremental_accuracy",
    "mean over steps of the mean over tasks seen: Rebuffi et al. 2017 (iCaRL, arXiv 1611.07725)",
    {average_incremental_accuracy}};
const Registered<Metric> kForgetting{
    "forgetting",
    "best accuracy ever minus the final one, mean over earlier tasks: Wang et al. 2022 (L2P, arXiv "
    "2112.08654) as in l2p-pytorch",
    {forgetting}};
const Registered<Metric> kForgettingChaudhry{
    "forgetting_chaudhry",
    "best accuracy before the last task minus the final one: Chaudhry et al. 2018 (RWalk, arXiv "
    "1801.10112)",
    {forgetting_chaudhry}};
const Registered<Metric> kBackwardTransfer{
    "backward_transfer",
    "final accuracy minus that right after learning: Lopez-Paz and Ranzato 2017 (GEM, arXiv "
    "1706.08840), BWT",
    {backward_transfer}};
const Registered<Metric> kForgettingCoda{
    "forgetting_coda",
    "mean drop of a step: Smith et al. 2023 (CODA-Prompt, arXiv 2211.13218), calc_forgetting.py",
    {forgetting_coda}};

const Registered<Metric> kOmega{
    "omega",
    "accuracy over an offline learner's, mean over steps: Hayes et al. 2019 (arXiv 1809.05922), as "
    "in Stream-51's get_average_results.py",
    {omega, /*needs_offline=*/true}};
const Registered<Metric> kAnytimeAuc{
    "anytime_auc",
    "area under the curve of the any-time accuracy: Koh et al. 2022 (i-Blurry, arXiv 2110.10031), "
    "A_AUC",
    {anytime_auc, /*needs_offline=*/false, /*needs_anytime=*/true}};

}  // namespace

std::vector<double> offline_accuracies(const AccuracyMatrix& offline) {
  std::vector<double> accuracies;
  for (size_t t = 0; t < offline.a.size(); ++t) {
    const double own = micro(offline, offline.a[t], t + 1);
    accuracies.push_back(std::isnan(own) ? micro(offline, offline.a.back(), t + 1) : own);
  }
  return accuracies;
}

Json all_metrics(const AccuracyMatrix& matrix) {
  bool valid = !matrix.a.empty() && matrix.n.size() >= matrix.a.size();
  for (size_t t = 0; t < matrix.a.size(); ++t) valid = valid && matrix.a[t].size() == t + 1;
  if (!valid) throw std::invalid_argument("the accuracy matrix is not a triangle of known tasks");

  Json metrics = Json::object();
  for (const auto& [name, metric] : Registry<Metric>::get().entries()) {
    if (metric.value.needs_offline && matrix.offline.size() < matrix.a.size()) continue;
    if (metric.value.needs_anytime && matrix.anytime.empty()) continue;
    metrics[name] = metric.value.compute(matrix);
  }
  return metrics;
}

}  // namespace rep
