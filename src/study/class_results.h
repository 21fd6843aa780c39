#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "core/json.h"

namespace rep {

/// How a class's test images fared in a run's last test.
struct ClassResult {
  std::string name;
  int64_t task = -1;  // that brought it; -1: it has no test images
  int64_t images = 0, correct = 0;
  std::vector<std::pair<size_t, int64_t>> taken_for;  // position in the list of classes, images
  double accuracy() const {                           // percent
    return images == 0 ? 0 : 100 * static_cast<double>(correct) / static_cast<double>(images);
  }
};

/// `confusion` of a result (docs/results.md); empty where it has none, or none that is sound: a
/// result is an untrusted file. Images taken for classes of later tasks are counted, but in no
/// taken_for.
std::vector<ClassResult> class_results_of(const Json& result);

/// Images of one class taken for another.
struct ConfusedPair {
  size_t from = 0, to = 0;
  int64_t images = 0;
};
/// The most frequent ones, at most `most`; of equal ones the first.
std::vector<ConfusedPair> most_confused(const std::vector<ClassResult>& classes, size_t most);

/// Shares of each row's images, in [0, 1].
struct ShareMatrix {
  std::vector<std::string> names;           // of rows and columns alike
  std::vector<std::vector<double>> shares;  // [row][column]
  std::vector<std::vector<int64_t>> images;
};
/// A row and a column a class, in their order.
ShareMatrix by_class(const std::vector<ClassResult>& classes);
/// A row and a column a task: how many of its images were taken for classes of each task. Nothing
/// for more than `most` tasks.
ShareMatrix by_task(const std::vector<ClassResult>& classes, size_t most);

}  // namespace rep
