#include "study/class_results.h"

#include <algorithm>
#include <charconv>
#include <optional>

namespace rep {
namespace {

constexpr size_t kMaxClasses = 20000;
constexpr int64_t kMaxImages = int64_t{1} << 40;

// A whole number from 0 to kMaxImages.
std::optional<int64_t> count_in(const Json& json, const char* key) {
  if (!json.is_object() || !json.contains(key) || !json[key].is_number_integer()) return {};
  if (json[key].is_number_unsigned() && json[key].get<uint64_t>() > kMaxImages) return {};
  const auto count = json[key].get<int64_t>();
  if (count < 0 || count > kMaxImages) return {};
  return count;
}

std::optional<ClassResult> read_class(const Json& line, size_t classes) {
  const auto images = count_in(line, "images"), correct = count_in(line, "correct");
  if (!images || !correct || *correct > *images || !line.contains("name") ||
      !line["name"].is_string() || !line.contains("predicted") || !line["predicted"].is_object()) {
    return {};
  }
  ClassResult result{line["name"].get<std::string>(), -1, *images, *correct, {}};
  result.task = count_in(line, "task").value_or(-1);
  for (const auto& [position, value] : line["predicted"].items()) {
    size_t to = 0;
    const char* const end = position.data() + position.size();
    const auto parsed = std::from_chars(position.data(), end, to);
    const auto count = count_in(line["predicted"], position.c_str());
    if (parsed.ec != std::errc() || parsed.ptr != end || !count || *count > *images) return {};
    if (to < classes) result.taken_for.emplace_back(to, *count);
  }
  return result;
}

ShareMatrix empty_matrix(size_t size) {
  ShareMatrix matrix;
  matrix.names.resize(size);
  matrix.shares.assign(size, std::vector<double>(size, 0));
  matrix.images.assign(size, std::vector<int64_t>(size, 0));
  return matrix;
}

// Shares of `images`, by the rows' totals.
void divide(ShareMatrix& matrix, const std::vector<int64_t>& totals) {
  for (size_t i = 0; i < totals.size(); ++i) {
    for (size_t j = 0; j < totals.size() && totals[i] > 0; ++j) {
      matrix.shares[i][j] =
          static_cast<double>(matrix.images[i][j]) / static_cast<double>(totals[i]);
    }
  }
}

}  // namespace

std::vector<ClassResult> class_results_of(const Json& result) {
  static const Json::json_pointer kAt("/confusion/classes");
  if (!result.contains(kAt) || !result[kAt].is_array() || result[kAt].size() > kMaxClasses) {
    return {};
  }
  std::vector<ClassResult> classes;
  for (const Json& line : result[kAt]) {
    auto read = read_class(line, result[kAt].size());
    if (!read) return {};
    classes.push_back(std::move(*read));
  }
  return classes;
}

std::vector<ConfusedPair> most_confused(const std::vector<ClassResult>& classes, size_t most) {
  std::vector<ConfusedPair> pairs;
  for (size_t from = 0; from < classes.size(); ++from) {
    for (const auto& [to, images] : classes[from].taken_for) {
      if (to != from && images > 0) pairs.push_back({from, to, images});
    }
  }
  std::sort(pairs.begin(), pairs.end(), [](const ConfusedPair& a, const ConfusedPair& b) {
    if (a.images != b.images) return a.images > b.images;
    return a.from != b.from ? a.from < b.from : a.to < b.to;
  });
  if (pairs.size() > most) pairs.resize(most);
  return pairs;
}

ShareMatrix by_class(const std::vector<ClassResult>& classes) {
  ShareMatrix matrix = empty_matrix(classes.size());
  std::vector<int64_t> totals;
  for (size_t i = 0; i < classes.size(); ++i) {
    matrix.names[i] = classes[i].name;
    totals.push_back(classes[i].images);
    for (const auto& [to, images] : classes[i].taken_for) matrix.images[i][to] += images;
  }
  divide(matrix, totals);
  return matrix;
}

ShareMatrix by_task(const std::vector<ClassResult>& classes, size_t most) {
  std::vector<int64_t> tasks;  // in order, each once
  for (const ClassResult& one : classes) tasks.push_back(one.task);
  std::sort(tasks.begin(), tasks.end());
  tasks.erase(std::unique(tasks.begin(), tasks.end()), tasks.end());
  if (tasks.size() > most) return {};
  const auto place = [&](const ClassResult& one) {
    return static_cast<size_t>(std::lower_bound(tasks.begin(), tasks.end(), one.task) -
                               tasks.begin());
  };
  ShareMatrix matrix = empty_matrix(tasks.size());
  std::vector<int64_t> totals(tasks.size());
  for (size_t t = 0; t < tasks.size(); ++t) {
    matrix.names[t] = tasks[t] < 0 ? "not tested" : "task " + std::to_string(tasks[t] + 1);
  }
  for (const ClassResult& one : classes) {
    totals[place(one)] += one.images;
    for (const auto& [to, images] : one.taken_for) {
      matrix.images[place(one)][place(classes[to])] += images;
    }
  }
  divide(matrix, totals);
  return matrix;
}

}  // namespace rep
