#include "study/curves.h"

#include <algorithm>
#include <cmath>

#include "core/metrics.h"

namespace rep {
namespace {

// A result is an untrusted file: what is drawn of it has bounds.
constexpr size_t kMaxTasks = 10000, kMaxBlocks = 1000;
constexpr double kMinValue = 1e-100, kMaxValue = 1e100;

/// The class-incremental matrix as far as it is a triangle of percentages: joint learning has none
/// before its end. A task without test images has no accuracies and weighs nothing.
AccuracyMatrix matrix_of(const Json& result) {
  AccuracyMatrix matrix;
  const Json::json_pointer at("/accuracy/class_incremental");
  if (!result.contains(at) || !result[at].is_array()) return matrix;
  const auto has_images = [&](size_t task) {
    const Json::json_pointer images("/tasks/" + std::to_string(task) + "/test_images");
    return !result.contains(images) || result[images] != 0;
  };
  for (const Json& row : result[at]) {
    const size_t tasks = matrix.a.size() + 1;
    if (tasks > kMaxTasks || !row.is_array() || row.size() < tasks) break;
    std::vector<double> values;
    bool good = true;
    for (size_t i = 0; i < tasks && good; ++i) {
      const bool counts = has_images(i);
      values.push_back(row[i].is_number() ? row[i].get<double>() : 0);
      good = !counts || (row[i].is_number() && values.back() >= 0 && values.back() <= 100);
    }
    if (!good) break;
    matrix.a.push_back(std::move(values));
    matrix.n.push_back(has_images(tasks - 1) ? 1 : 0);  // the metrics drawn are means over tasks
  }
  return matrix;
}

/// A point a position, mean and deviation over the runs: values[position][run].
std::vector<ChartPoint> points_of(const std::vector<std::vector<double>>& values) {
  std::vector<ChartPoint> points;
  for (size_t i = 0; i < values.size(); ++i) {
    const Statistic s = statistic(values[i]);
    if (s.n > 0) points.push_back({static_cast<double>(i + 1), s.mean, 0, s.deviation});
  }
  return points;
}

std::vector<double> values_of(const Column& column, const Row& row) {
  std::vector<double> values;
  for (const Run* run : row.runs) {
    const auto value = value_of(column, run->result);
    if (value && std::abs(*value) < kMaxValue) values.push_back(*value);
  }
  return values;
}

}  // namespace

std::string label_of(const Row& row) {
  return row.name + " (n = " + std::to_string(row.runs.size()) + ")";
}

std::vector<ChartPoint> over_tasks(const Row& row, const std::string& metric) {
  const Metric& of = Registry<Metric>::get().at(metric).value;
  std::vector<std::vector<double>> values;
  for (const Run* run : row.runs) {
    const AccuracyMatrix whole = matrix_of(run->result);
    AccuracyMatrix so_far;
    for (size_t t = 0; t < whole.a.size(); ++t) {
      so_far.a.push_back(whole.a[t]);
      so_far.n.push_back(whole.n[t]);
      if (values.size() <= t) values.emplace_back();
      const double value = of.compute(so_far);
      if (std::isfinite(value)) values[t].push_back(value);
    }
  }
  return points_of(values);
}

std::vector<ChartPoint> over_blocks(const Row& row, const std::string& key, double scale) {
  const Json::json_pointer at("/cost/per_iteration/efficiency/" + key);
  std::vector<std::vector<double>> values;
  for (const Run* run : row.runs) {
    if (!run->result.contains(at) || !run->result[at].is_array()) continue;
    const Json& blocks = run->result[at];
    for (size_t i = 0; i < std::min(blocks.size(), kMaxBlocks); ++i) {
      if (!blocks[i].is_number() || std::abs(blocks[i].get<double>()) > kMaxValue) break;
      if (values.size() <= i) values.emplace_back();
      values[i].push_back(scale * blocks[i].get<double>());
    }
  }
  return points_of(values);
}

std::vector<ChartPoint> against_cost(const Row& row, const std::string& cost) {
  const Column accuracy{"average_accuracy", "", "/metrics/average_accuracy"};
  const Statistic x = statistic(values_of(column_of(cost, Json::object()), row));
  const Statistic y = statistic(values_of(accuracy, row));
  if (x.n == 0 || y.n == 0 || x.mean <= kMinValue) return {};
  return {{x.mean, y.mean, x.deviation, y.deviation}};
}

}  // namespace rep
