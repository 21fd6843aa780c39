#include "run/predictions.h"

#include <algorithm>
#include <cstdio>
#include <numeric>
#include <utility>

#include "core/csv.h"
#include "core/files.h"
#include "core/json.h"
#include "core/utf8.h"
#include "formats/safetensors.h"
#include "tensor/torch.h"

namespace rep {
namespace {

constexpr int64_t kTop = 5;

// The labels of the highest of `logits`, from the highest on; `first` is known to be that.
std::vector<int64_t> highest(const float* logits, int64_t candidates, int64_t first) {
  std::vector<int64_t> order(static_cast<size_t>(candidates));
  std::iota(order.begin(), order.end(), 0);
  const auto kept = order.begin() + std::min(kTop, candidates);
  std::partial_sort(order.begin(), kept, order.end(), [&](int64_t a, int64_t b) {
    if ((a == first) != (b == first)) return a == first;
    return logits[a] != logits[b] ? logits[a] > logits[b] : a < b;
  });
  order.erase(kept, order.end());
  return order;
}

// Replaces a part of a whole, whose other parts are 0, by the sum over the processes.
template <class T>
void sum_over(const World& world, std::vector<T>& whole) {
  if (world.size() == 1 || whole.empty()) return;
  torch::Tensor values = torch::from_blob(whole.data(), {static_cast<int64_t>(whole.size())},
                                          c10::CppTypeToScalarType<T>::value);
  world.sum(values);
}

template <class T>
void append(std::vector<T>& all, const std::vector<T>& part, int64_t begin, size_t size,
            const World& world) {
  std::vector<T> whole(size);
  std::copy(part.begin(), part.end(), whole.begin() + begin);
  sum_over(world, whole);
  all.insert(all.end(), whole.begin(), whole.end());
}

torch::Tensor column(std::vector<int64_t> values) { return torch::tensor(values, torch::kLong); }

}  // namespace

Predictions::Predictions(std::string folder, std::string kind, const Dataset& test,
                         const Stream& stream, const World& world)
    : folder_(std::move(folder)),
      kind_(std::move(kind)),
      test_(test),
      stream_(stream),
      world_(world) {}

void Predictions::after_test_batch(const TestedBatch& batch) {
  if (kind_ == "none") return;
  const torch::Tensor logits = batch.logits.to(torch::kCPU, torch::kFloat).contiguous();
  const torch::Tensor predicted = batch.predicted.cpu();
  const int64_t classes = logits.size(1);
  candidates_ = batch.candidates;
  width_ = kind_ == "logits" ? classes : kTop;
  for (int64_t i = 0; i < logits.size(0); ++i) {
    const float* const row = logits.data_ptr<float>() + i * classes;
    if (kind_ == "logits") {
      part_.scores.insert(part_.scores.end(), row, row + classes);
      continue;
    }
    std::vector<int64_t> labels = highest(row, candidates_, predicted.data_ptr<int64_t>()[i]);
    labels.resize(kTop, -1);
    for (const int64_t label : labels) {
      part_.labels.push_back(label);
      part_.scores.push_back(label < 0 ? 0 : row[label]);
    }
  }
}

void Predictions::end_test(const Task& task) {
  if (kind_ == "none" || task.test.empty()) return;
  if (world_.size() > 1) {  // a process without images has seen no logits
    std::vector<int64_t> widths(static_cast<size_t>(world_.size()));
    std::vector<int64_t> candidates = widths;
    widths[static_cast<size_t>(world_.rank())] = width_;
    candidates[static_cast<size_t>(world_.rank())] = candidates_;
    sum_over(world_, widths);
    sum_over(world_, candidates);
    width_ = *std::max_element(widths.begin(), widths.end());
    candidates_ = *std::max_element(candidates.begin(), candidates.end());
  }
  const auto images = static_cast<int64_t>(task.test.size());
  const int64_t begin = world_.part_of(images).first * width_;
  const auto size = static_cast<size_t>(images * width_);
  append(all_.scores, part_.scores, begin, size, world_);
  if (kind_ != "logits") append(all_.labels, part_.labels, begin, size, world_);
  part_ = {};
  for (const Sample& sample : task.test)
    images_.push_back({task.index, sample.index, sample.label});
}

std::string Predictions::class_name(int64_t label) const {
  return test_.class_names().at(
      static_cast<size_t>(stream_.class_order.at(static_cast<size_t>(label))));
}

std::string Predictions::csv() const {
  std::string text = "task,index,path,label,class";
  for (int64_t k = 1; k <= kTop; ++k) {
    const std::string number = std::to_string(k);
    text += ",label" + number + ",class" + number + ",score" + number;
  }
  text += "\n";
  const auto cells = [&](int64_t label) {
    return std::to_string(label) + "," + csv_cell(class_name(label));
  };
  for (size_t i = 0; i < images_.size(); ++i) {
    const Image& image = images_[i];
    text += std::to_string(image.task) + "," + std::to_string(image.index) + "," +
            csv_cell(printable(test_.path(image.index))) + "," + cells(image.label);
    for (size_t k = 0; k < static_cast<size_t>(kTop); ++k) {
      const int64_t label = all_.labels[i * kTop + k];
      char score[32];
      std::snprintf(score, sizeof score, "%.9g", static_cast<double>(all_.scores[i * kTop + k]));
      text += label < 0 ? ",,," : "," + cells(label) + "," + score;
    }
    text += "\n";
  }
  return text;
}

void Predictions::write_logits(const std::string& path) const {
  std::vector<int64_t> tasks, indices, labels;
  Json names = Json::array(), ids = stream_.class_order, paths = Json::array();
  for (const Image& image : images_) {
    tasks.push_back(image.task);
    indices.push_back(image.index);
    labels.push_back(image.label);
    const std::string file = test_.path(image.index);
    if (!file.empty()) paths.push_back(printable(file));
  }
  for (int64_t label = 0; label < stream_.num_classes(); ++label)
    names.push_back(class_name(label));
  std::map<std::string, std::string> metadata{{"candidates", std::to_string(candidates_)},
                                              {"class_names", to_text(names)},
                                              {"class_ids", to_text(ids)}};
  if (!paths.empty()) metadata["paths"] = to_text(paths);
  const auto rows = static_cast<int64_t>(images_.size());
  const torch::Tensor logits =
      torch::from_blob(const_cast<float*>(all_.scores.data()), {rows, width_}, torch::kFloat);
  write_safetensors(path,
                    {{"logits", logits},
                     {"label", column(labels)},
                     {"index", column(indices)},
                     {"task", column(tasks)}},
                    metadata);
}

void Predictions::write(const Task& learnt) {
  if (kind_ == "none" || images_.empty()) return;
  if (world_.writes()) {
    make_directories(folder_);
    char name[32];
    std::snprintf(name, sizeof name, "/task-%02lld", static_cast<long long>(learnt.index));
    if (kind_ == "logits") {
      write_logits(folder_ + name + ".safetensors");
    } else {
      write_file_atomically(folder_ + name + ".csv", csv());
    }
  }
  all_ = {};
  images_.clear();
}

}  // namespace rep
