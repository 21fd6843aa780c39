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
};

/// A figure of an accuracy matrix; every one is registered with its definition and source.
struct Metric {
  static constexpr const char* kKind = "metric";
  std::function<double(const AccuracyMatrix&)> compute;
};

/// Every registered metric of a matrix of at least one row, by name.
Json all_metrics(const AccuracyMatrix& matrix);

}  // namespace rep
