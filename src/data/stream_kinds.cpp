#include "data/stream_kinds.h"

#include <algorithm>
#include <utility>

#include "core/error.h"
#include "core/random.h"
#include "data/blurry_cut.h"
#include "data/published_shuffles.h"

namespace rep {
namespace {

/// What says how classes are shared out says nothing here.
void refuse_sizes(const StreamConfig& config) {
  if (!config.classes_per_task.empty() || config.initial_classes != 0) {
    throw Error(
        "stream: classes_per_task and initial_classes share out classes, which a stream of kind " +
        config.kind + " does not; leave them out");
  }
  if (config.order != "shuffled" && config.order != "stored") {
    throw Error("stream.order: " + config.order + " is of streams of disjoint tasks; with kind " +
                config.kind + " take shuffled or stored");
  }
}

std::vector<int64_t> order_of_domains(const WordOrList& order, int64_t domains, int64_t seed) {
  std::vector<int64_t> numbers = iota(domains);
  if (const auto* const list = std::get_if<std::vector<int64_t>>(&order)) {
    std::vector<int64_t> sorted = *list;
    std::sort(sorted.begin(), sorted.end());
    if (sorted == numbers) return *list;
    throw Error("stream.domain_order: list each of 0.." + std::to_string(domains - 1) +
                " once; domains are sorted by name");
  }
  const auto& word = std::get<std::string>(order);
  if (word == "seed") {
    Random({static_cast<uint64_t>(seed), static_cast<uint64_t>(RandomUse::kDomainOrder)})
        .shuffle(numbers);
  } else if (word != "natural") {
    throw Error("stream.domain_order: '" + word + "' is neither natural, seed nor a list");
  }
  return numbers;
}

void assign_to_domains(const Dataset& dataset, const std::vector<int64_t>& labels,
                       const std::vector<size_t>& task_of_domain, std::vector<Sample> Task::*split,
                       std::vector<Task>& tasks) {
  const std::vector<int64_t> domains = dataset.domains();
  for (int64_t i = 0; i < dataset.size(); ++i) {
    const auto at = static_cast<size_t>(i);
    const size_t task = task_of_domain[static_cast<size_t>(domains[at])];
    (tasks[task].*split).push_back({i, labels[static_cast<size_t>(dataset.labels()[at])]});
  }
}

/// By class id, the first task that shows it; as many as there are tasks: none does.
std::vector<int64_t> first_tasks(const BlurryCut& cut, const std::vector<int64_t>& class_of_image) {
  std::vector<int64_t> first(cut.class_order.size(), static_cast<int64_t>(cut.images.size()));
  for (size_t t = cut.images.size(); t-- > 0;) {
    for (const int64_t i : cut.images[t]) {
      first[static_cast<size_t>(class_of_image[static_cast<size_t>(i)])] = static_cast<int64_t>(t);
    }
  }
  return first;
}

}  // namespace

Stream cut_by_domain(const Dataset& train, const Dataset& test, const StreamConfig& config,
                     int64_t seed) {
  const std::vector<std::string> names = train.domain_names();
  if (names.empty()) {
    throw Error(
        "stream.kind: domain_incremental needs a data set that knows its images' domains; take "
        "domain_folder, or another kind of stream");
  }
  if (names != test.domain_names()) {
    throw Error("dataset: the training and the test split have different domains; check its root");
  }
  refuse_sizes(config);
  const auto domains = static_cast<int64_t>(names.size());
  if (config.tasks != StreamConfig().tasks && config.tasks != domains) {
    throw Error("stream.tasks: " + std::to_string(config.tasks) + " tasks, but each of the " +
                std::to_string(domains) + " domains (" + name_some(names) +
                ") is one; leave tasks out");
  }
  Stream stream;
  stream.disjoint = false;
  stream.class_order = make_class_order(config.class_order, train.num_classes(), seed);
  std::vector<size_t> task_of_domain(names.size());
  for (const int64_t domain : order_of_domains(config.domain_order, domains, seed)) {
    Task task;
    task.index = static_cast<int64_t>(stream.tasks.size());
    task.domain = names[static_cast<size_t>(domain)];
    task.classes = stream.class_order;
    task_of_domain[static_cast<size_t>(domain)] = stream.tasks.size();
    stream.tasks.push_back(std::move(task));
  }
  const std::vector<int64_t> labels = label_of_class(stream.class_order);
  assign_to_domains(train, labels, task_of_domain, &Task::train, stream.tasks);
  assign_to_domains(test, labels, task_of_domain, &Task::test, stream.tasks);
  for (const Task& task : stream.tasks) {
    if (!task.train.empty() && !task.test.empty()) continue;
    throw Error("dataset: the domain '" + task.domain + "' has no " +
                (task.train.empty() ? "training" : "test") +
                " images; every domain needs both, or must go");
  }
  return stream;
}

Stream cut_blurred(const Dataset& train, const Dataset& test, const StreamConfig& config,
                   int64_t seed) {
  refuse_sizes(config);
  if (config.class_order != WordOrList(std::string("natural"))) {
    throw Error(
        "stream.class_order: a blurry stream draws its own, by stream.blurry.seed; leave "
        "class_order out");
  }
  const int64_t drawn_by = config.blurry.seed < 0 ? seed : config.blurry.seed;
  const BlurryCut cut = cut_blurry(train.labels(), train.num_classes(), config.tasks, config.blurry,
                                   static_cast<uint32_t>(drawn_by));
  const std::vector<int64_t> first = first_tasks(cut, train.labels());
  const auto task_of = [&](int64_t id) { return first[static_cast<size_t>(id)]; };
  Stream stream;
  stream.disjoint = false;
  stream.class_order = cut.class_order;
  std::stable_sort(stream.class_order.begin(), stream.class_order.end(),
                   [&](int64_t a, int64_t b) { return task_of(a) < task_of(b); });
  const std::vector<int64_t> labels = label_of_class(stream.class_order);
  const auto sample = [&](const Dataset& data, int64_t i) {
    return Sample{i, labels[static_cast<size_t>(data.labels()[static_cast<size_t>(i)])]};
  };
  for (size_t t = 0; t < cut.images.size(); ++t) {
    Task task;
    task.index = static_cast<int64_t>(t);
    for (const int64_t id : stream.class_order) {
      if (task_of(id) <= task.index) task.classes.push_back(id);
    }
    for (const int64_t i : cut.images[t]) task.train.push_back(sample(train, i));
    stream.tasks.push_back(std::move(task));
  }
  for (int64_t i = 0; i < test.size(); ++i) {
    const int64_t task = task_of(test.labels()[static_cast<size_t>(i)]);
    // A class without training images is refused later, by name (check_data).
    if (task == config.tasks) continue;
    stream.tasks[static_cast<size_t>(task)].test.push_back(sample(test, i));
  }
  return stream;
}

}  // namespace rep
