#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "core/json.h"
#include "core/registry.h"

namespace rep {

/// a[t][i]: percent of task i's test images classified right after learning task t, for i <= t;
/// row t has t+1 entries. n[i]: test images of task i.
struct AccuracyMatrix {
  std::vector<std::vector<double>> a;
  std::vector<int64_t> n;
  std::vector<double> offline{};  // what offline_accuracies() of another run gave; empty: unknown
  std::vector<double> anytime{};  // accuracies at equal intervals of the stream; empty: unknown
};

/// For each t, the percent of the test images of tasks 0..t that a learner of all their training
/// images classifies right: from row t where it is known, or else (joint learning has only the last
/// row) from the last one.
std::vector<double> offline_accuracies(const AccuracyMatrix& offline);

/// A figure of an accuracy matrix; every one is registered with its definition and source.
struct Metric {
  static constexpr const char* kKind = "metric";
  std::function<double(const AccuracyMatrix&)> compute;
  bool needs_offline = false, needs_anytime = false;
};

/// Every registered metric of a matrix of at least one row, by name; what needs an offline run's
/// accuracies, or those at intervals, only where the matrix has them.
Json all_metrics(const AccuracyMatrix& matrix);

}  // namespace rep
