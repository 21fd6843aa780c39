#include "data/stream.h"

#include <algorithm>
#include <filesystem>
#include <sstream>
#include <utility>
#include <variant>

#include "core/error.h"
#include "core/files.h"
#include "core/numbers.h"
#include "core/random.h"
#include "data/published_shuffles.h"
#include "data/stream_kinds.h"

namespace rep {
namespace {

std::vector<int64_t> read_class_order(const std::string& path) {
  if (!std::filesystem::is_regular_file(path)) {
    throw Error(
        "class_order: '" + path +
        "' is neither natural, seed, a number below 2^32, python:NUMBER, a list, nor a file: there "
        "is no " +
        absolute_path(path));
  }
  std::vector<int64_t> order;
  std::istringstream words(read_file(path, 1 << 20));
  for (std::string word; words >> word;) {
    const auto label = parse_number<int64_t>(word);
    if (!label) {
      throw Error(absolute_path(path) + ": '" + word.substr(0, 40) +
                  "' is not a whole number; a class order lists class numbers from 0");
    }
    order.push_back(*label);
  }
  return order;
}

std::vector<int64_t> order_by_word(const std::string& word, int64_t num_classes, int64_t seed) {
  if (word == "natural") return iota(num_classes);
  if (word == "seed") {
    std::vector<int64_t> order = iota(num_classes);
    Random({static_cast<uint64_t>(seed), static_cast<uint64_t>(RandomUse::kClassOrder)})
        .shuffle(order);
    return order;
  }
  if (const auto number = parse_number<uint32_t>(word)) return numpy_shuffled(num_classes, *number);
  const std::string python = "python:";
  if (word.rfind(python, 0) == 0) {
    if (const auto number = parse_number<uint32_t>(word.substr(python.size()))) {
      return python_shuffled(num_classes, *number);
    }
  }
  return read_class_order(word);
}

void check_class_order(const std::vector<int64_t>& order, int64_t num_classes) {
  std::vector<bool> seen(static_cast<size_t>(num_classes));
  for (const int64_t label : order) {
    if (label < 0 || label >= num_classes) {
      throw Error("class_order: class " + std::to_string(label) + " is not in 0.." +
                  std::to_string(num_classes - 1));
    }
    if (seen[static_cast<size_t>(label)]) {
      throw Error("class_order: class " + std::to_string(label) + " comes twice; list each once");
    }
    seen[static_cast<size_t>(label)] = true;
  }
  const auto missing = std::find(seen.begin(), seen.end(), false);
  if (missing != seen.end()) {
    throw Error("class_order: class " + std::to_string(missing - seen.begin()) +
                " is missing; list all " + std::to_string(num_classes) + " classes");
  }
}

/// `classes` over `tasks` equally. `names`: of the data set's classes, for messages.
std::vector<int64_t> equal_sizes(int64_t classes, int64_t tasks,
                                 const std::vector<std::string>& names) {
  if (tasks > classes) {
    throw Error("stream.tasks: " + std::to_string(tasks) + " tasks cannot share " +
                std::to_string(classes) + " classes (" + name_some(names) +
                "); each needs at least one");
  }
  if (classes % tasks != 0) {
    throw Error("stream.tasks: " + std::to_string(classes) + " classes (" + name_some(names) +
                ") do not divide into " + std::to_string(tasks) +
                " equal tasks; say how many each has in classes_per_task");
  }
  return std::vector<int64_t>(static_cast<size_t>(tasks), classes / tasks);
}

std::vector<int64_t> explicit_sizes(const StreamConfig& config, int64_t num_classes) {
  if (config.initial_classes != 0) {
    throw Error("stream: classes_per_task and initial_classes exclude each other; remove one");
  }
  int64_t sum = 0;
  for (const int64_t size : config.classes_per_task) {
    if (size < 1 || size > num_classes - sum) {
      throw Error("stream.classes_per_task: a task of " + std::to_string(size) +
                  " classes does not fit after " + std::to_string(sum) + " of " +
                  std::to_string(num_classes) + "; sizes are at least 1 and add up to the classes");
    }
    sum += size;
  }
  if (sum != num_classes) {
    throw Error("stream.classes_per_task: the tasks have " + std::to_string(sum) +
                " classes but the data set has " + std::to_string(num_classes) +
                "; make them add up");
  }
  return config.classes_per_task;
}

/// How many classes each task has.
std::vector<int64_t> task_sizes(const StreamConfig& config, const std::vector<std::string>& names) {
  const auto num_classes = static_cast<int64_t>(names.size());
  if (!config.classes_per_task.empty()) return explicit_sizes(config, num_classes);
  if (config.initial_classes == 0) return equal_sizes(num_classes, config.tasks, names);
  const int64_t rest = num_classes - config.initial_classes;
  if (rest < 0 || (config.tasks == 1 && rest != 0)) {
    throw Error("stream.initial_classes: a first task of " +
                std::to_string(config.initial_classes) + " classes, with stream.tasks " +
                std::to_string(config.tasks) + ", does not cut up the data set's " +
                std::to_string(num_classes));
  }
  std::vector<int64_t> sizes;
  if (config.tasks > 1) sizes = equal_sizes(rest, config.tasks - 1, names);
  sizes.insert(sizes.begin(), config.initial_classes);
  return sizes;
}

/// The training images as the stream shows them (stream.order), whatever the cut into tasks. The
/// official Stream-51 code does the same: it cuts the list into classes (class_...), each of those
/// into videos (..instance) or single images (..iid), and shuffles each class's with the same seed.
std::vector<int64_t> order_of_images(const Dataset& train, const StreamConfig& config,
                                     const std::vector<int64_t>& class_order) {
  std::vector<int64_t> all = iota(train.size());
  if (config.order == "shuffled" || config.order == "stored") return all;
  const bool videos = config.order == "instance" || config.order == "class_instance";
  const std::vector<bool> starts = videos ? train.sequence_starts() : std::vector<bool>{};
  if (videos && starts.empty()) {
    throw Error("stream.order: " + config.order +
                " moves whole videos, but this data set's images are not frames of any; take " +
                (config.order == "instance" ? "iid" : "class_iid"));
  }

  std::vector<std::vector<int64_t>> parts;
  if (config.order == "iid" || config.order == "instance") {
    parts.push_back(std::move(all));
  } else {
    std::vector<std::vector<int64_t>> by_class(class_order.size());
    for (const int64_t i : all) {
      by_class[static_cast<size_t>(train.labels()[static_cast<size_t>(i)])].push_back(i);
    }
    for (const int64_t label : class_order) {
      parts.push_back(std::move(by_class[static_cast<size_t>(label)]));
    }
  }

  std::vector<int64_t> order;
  for (const std::vector<int64_t>& part : parts) {
    std::vector<std::ptrdiff_t> first;  // where in `part` each image or video begins
    for (size_t k = 0; k < part.size(); ++k) {
      if (k == 0 || !videos || starts[static_cast<size_t>(part[k])]) {
        first.push_back(static_cast<std::ptrdiff_t>(k));
      }
    }
    const auto units = static_cast<int64_t>(first.size());
    first.push_back(static_cast<std::ptrdiff_t>(part.size()));
    for (const int64_t unit : python_shuffled(units, static_cast<uint32_t>(config.order_seed))) {
      const auto edge = first.begin() + unit;
      order.insert(order.end(), part.begin() + edge[0], part.begin() + edge[1]);
    }
  }
  return order;
}

/// Keys that say something of one kind of stream only.
void refuse_idle_keys(const StreamConfig& config) {
  const Json is = to_json(config), was = to_json(StreamConfig());
  for (const auto& [key, kind] :
       {std::pair{"domain_order", "domain_incremental"}, {"blurry", "blurry"}}) {
    if (config.kind == kind || is[key] == was[key]) continue;
    throw Error(std::string("stream.") + key + ": is of stream.kind " + kind +
                ", and this stream is " + config.kind + "; take one of them away");
  }
}

/// Puts each image into the task that owns its class, in the given order.
void assign_to_tasks(const Dataset& dataset, const std::vector<int64_t>& order,
                     const std::vector<int64_t>& position, const std::vector<size_t>& owner,
                     std::vector<Sample> Task::*split, std::vector<Task>& tasks) {
  const std::vector<int64_t>& labels = dataset.labels();
  for (const int64_t i : order) {
    if (i < dataset.first_available()) continue;
    const int64_t label = position[static_cast<size_t>(labels[static_cast<size_t>(i)])];
    (tasks[owner[static_cast<size_t>(label)]].*split).push_back({i, label});
  }
}

}  // namespace

std::string name_some(const std::vector<std::string>& names) {
  constexpr size_t kMax = 10;
  std::string text;
  for (size_t i = 0; i < std::min(names.size(), kMax); ++i) {
    text += (i > 0 ? ", '" : "'") + names[i] + "'";
  }
  return names.size() > kMax ? text + ", ..." : text;
}

std::vector<int64_t> make_class_order(const WordOrList& order, int64_t num_classes, int64_t seed) {
  const auto* const list = std::get_if<std::vector<int64_t>>(&order);
  std::vector<int64_t> classes =
      list ? *list : order_by_word(std::get<std::string>(order), num_classes, seed);
  check_class_order(classes, num_classes);
  return classes;
}

std::vector<int64_t> label_of_class(const std::vector<int64_t>& class_order) {
  std::vector<int64_t> labels(class_order.size());
  for (size_t i = 0; i < labels.size(); ++i) {
    labels[static_cast<size_t>(class_order[i])] = static_cast<int64_t>(i);
  }
  return labels;
}

Stream cut_into_tasks(const Dataset& train, const Dataset& test, const StreamConfig& config,
                      int64_t seed) {
  if (train.class_names() != test.class_names()) {
    throw Error("dataset: the training and the test split have different classes; check its root");
  }
  refuse_idle_keys(config);
  if (config.kind == "domain_incremental") return cut_by_domain(train, test, config, seed);
  if (config.kind == "blurry") return cut_blurred(train, test, config, seed);
  Stream stream;
  stream.class_order = make_class_order(config.class_order, train.num_classes(), seed);
  std::vector<size_t> owner;  // by label of the stream: its task
  int64_t label = 0;
  for (const int64_t size : task_sizes(config, train.class_names())) {
    Task task;
    task.index = static_cast<int64_t>(stream.tasks.size());
    task.first_label = label;
    const auto first = stream.class_order.begin() + label;
    task.classes.assign(first, first + size);
    owner.insert(owner.end(), static_cast<size_t>(size), stream.tasks.size());
    label += size;
    stream.tasks.push_back(std::move(task));
  }
  const std::vector<int64_t> position = label_of_class(stream.class_order);
  assign_to_tasks(train, order_of_images(train, config, stream.class_order), position, owner,
                  &Task::train, stream.tasks);
  assign_to_tasks(test, iota(test.size()), position, owner, &Task::test, stream.tasks);
  return stream;
}

void test_every(int64_t tasks, Stream& stream) {
  for (Task& task : stream.tasks) {
    task.is_tested = (task.index + 1) % tasks == 0 || task.index == stream.tasks.back().index;
  }
}

void give_all_training_to_the_last_task(Stream& stream) {
  std::vector<Sample>& last = stream.tasks.back().train;
  std::vector<Sample> all;
  for (Task& task : stream.tasks) {
    all.insert(all.end(), task.train.begin(), task.train.end());
    task.train.clear();
    task.is_tested = false;
  }
  last = std::move(all);
  stream.tasks.back().is_tested = true;
}

}  // namespace rep
