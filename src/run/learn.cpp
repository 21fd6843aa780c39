#include "run/learn.h"

#include <algorithm>
#include <filesystem>
#include <iterator>
#include <memory>
#include <numeric>
#include <utility>

#include "core/affix.h"
#include "core/error.h"
#include "core/identity.h"
#include "data/dataset.h"
#include "methods/method.h"
#include "run/setup.h"

namespace rep {
namespace {

namespace fs = std::filesystem;

constexpr const char* kFolderKind = "image_folder";
constexpr const char* kTestShare = "test_share";
constexpr double kUsualTestShare = 0.2;

// Of the old data set, by its own name within the joined one.
bool is_of_before(const std::string& override_text) {
  return begins_with(override_text, "dataset.before.");
}
bool is_of_added(const std::string& override_text) {
  return begins_with(override_text, "dataset.") && !is_of_before(override_text);
}
bool is_path_of_weights(const std::string& override_text) {
  return begins_with(override_text, "backbone.weights=") ||
         begins_with(override_text, "efficiency.query_backbone.weights=");
}

std::vector<std::string> those(const std::vector<std::string>& overrides,
                               bool (*wanted)(const std::string&)) {
  std::vector<std::string> chosen;
  std::copy_if(overrides.begin(), overrides.end(), std::back_inserter(chosen), wanted);
  return chosen;
}

// The data set of the folder. What it has in common with the one that the run learned last is read
// in the same way: the share of test images, EXIF, limits.
Section added_section(const FinishedRun& run, const std::string& folder,
                      const std::vector<std::string>& overrides) {
  const DatasetKind& kind = Registry<DatasetKind>::get().at(kFolderKind).value;
  const Config defaults = parse_config(to_text(Json{{"dataset", kFolderKind}}), folder);
  Json options = kind.options(defaults.dataset).effective;
  const Json& whole = run.config.dataset.effective;
  const Json& last = whole.contains("added") ? whole["added"] : whole;
  for (auto& [key, value] : options.items()) {
    const bool own = key == "name" || key == "root" || key == "train_list" || key == "test_list";
    if (!own && last.contains(key)) value = last[key];
  }
  options["root"] = folder;
  const bool is_split = fs::is_directory(folder + "/" + options["train"].get<std::string>());
  if (is_split) {
    options[kTestShare] = 0;
  } else if (options[kTestShare].get<double>() == 0) {
    options[kTestShare] = kUsualTestShare;
  }
  Config config =
      parse_config(to_text(Json{{"dataset", options}}), folder, those(overrides, is_of_added));
  if (config.dataset.name != kFolderKind) {
    throw Error("--set dataset.name: rep learn reads " + std::string(kFolderKind) +
                "; lay the images out as a folder for each class");
  }
  config.dataset.effective = kind.options(config.dataset).effective;
  return config.dataset;
}

void refuse_known_classes(const FinishedRun& run, const std::string& folder,
                          const std::vector<std::string>& classes) {
  for (const std::string& name : classes) {
    if (std::find(run.class_names.begin(), run.class_names.end(), name) == run.class_names.end()) {
      continue;
    }
    throw Error(folder + ": the run has learned a class '" + name +
                "' already; take that folder away or, if it is another class, rename it");
  }
}

// The images of each task, dealt out to its classes: the result does not say more. Images that are
// in no task (of a validation share) have their places, too.
std::vector<int64_t> images_by_class(const FinishedRun& run, const char* of_task) {
  std::vector<int64_t> counts(run.class_names.size());
  for (size_t t = 0; t < run.stream.tasks.size(); ++t) {
    const std::vector<int64_t>& classes = run.stream.tasks[t].classes;
    const auto images = run.result.at("tasks").at(t).at(of_task).get<int64_t>();
    const auto share = static_cast<int64_t>(classes.size());
    for (int64_t i = 0; i < share; ++i) {
      counts.at(static_cast<size_t>(classes[static_cast<size_t>(i)])) +=
          images / share + (i < images % share);
    }
  }
  const int64_t all = run.result.at("inputs").at("dataset").at(of_task).get<int64_t>();
  counts.front() += all - std::accumulate(counts.begin(), counts.end(), int64_t{0});
  return counts;
}

Json longer_stream(const FinishedRun& run, int64_t new_classes) {
  Json stream = to_json(run.config.stream);
  Json sizes = Json::array(), order = run.stream.class_order;
  for (const Task& task : run.stream.tasks) sizes.push_back(task.classes.size());
  sizes.push_back(new_classes);
  for (int64_t i = 0; i < new_classes; ++i) order.push_back(run.stream.num_classes() + i);
  stream["tasks"] = sizes.size();
  stream["initial_classes"] = 0;
  stream["classes_per_task"] = std::move(sizes);
  stream["class_order"] = std::move(order);
  return stream;
}

// What was learned holds for these alone.
void refuse_other_models(const Config& was, const Config& is) {
  const auto model = [](const Config& config) {
    Json json = identity(config);
    for (const char* key : {"dataset", "stream", "train", "eval", "inputs"}) json.erase(key);
    return json;
  };
  const std::string difference = first_difference(model(was), model(is));
  if (difference.empty()) return;
  throw Error("--set: " + difference +
              ", which does not fit what the run has learned; only dataset, train and eval may "
              "differ in its next task");
}

}  // namespace

FinishedRun read_run_to_continue(const std::string& path,
                                 const std::vector<std::string>& overrides) {
  FinishedRun run = read_finished_run(path, those(overrides, is_path_of_weights));
  const MethodKind& method = Registry<MethodKind>::get().at(run.config.method.name).value;
  if (method.rearrange) {
    throw Error("method: " + run.config.method.name +
                " learns from the images of all tasks at once, which are not kept; it cannot learn "
                "a task more");
  }
  const StreamConfig& stream = run.config.stream;
  if (!run.stream.disjoint || stream.kind == "domain_incremental") {
    throw Error(path + ": its tasks share classes (stream.kind: " + stream.kind +
                "), and rep learn adds a task of classes of its own; name a run of disjoint tasks");
  }
  if (stream.stop_after > 0 || stream.validation > 0) {
    throw Error(path + ": the run did not learn its whole stream (stream." +
                std::string(stream.stop_after > 0 ? "stop_after" : "validation") +
                "); rep learn goes on with runs that did");
  }
  return run;
}

Config continued_config(const FinishedRun& run, const std::string& folder,
                        const std::vector<std::string>& overrides) {
  if (!fs::is_directory(folder)) {
    throw Error(folder + ": not a folder; name one that holds a folder of images for each class");
  }
  const Section added = added_section(run, folder, overrides);
  const std::vector<std::string> classes =
      open_dataset(added, Split::kTrain, run.config.seed)->class_names();
  refuse_known_classes(run, folder, classes);

  Json json = to_json(run.config);
  json["dataset"] = {{"name", "continued"},
                     {"before", run.config.dataset.effective},
                     {"added", added.effective},
                     {"class_names", run.class_names},
                     {"fingerprint", run.result.at("inputs").at("dataset").at("fingerprint")},
                     {"train_images", images_by_class(run, "train_images")},
                     {"test_images", images_by_class(run, "test_images")}};
  json["stream"] = longer_stream(run, static_cast<int64_t>(classes.size()));
  std::vector<std::string> rest;
  for (const std::string& one : overrides) {
    if (begins_with(one, "stream")) {
      throw Error("--set " + one.substr(0, one.find('=')) +
                  ": the stream goes on as it is, with one task more; leave it out");
    }
    if (!is_of_added(one)) rest.push_back(one);
  }
  Config config = parse_config(to_text(json), run.path + ": rep learn", rest);
  resolve_sections(config);
  refuse_other_models(run.config, config);
  if (config.eval.every > 0) {
    throw Error(
        "eval.every: images learned before are not counted again, so that rep learn has no "
        "any-time accuracy; add --set eval.every=0");
  }
  return config;
}

bool has_room(const FinishedRun& run, const Config& config, const Method& method) {
  const int64_t classes = run.stream.num_classes() + config.stream.classes_per_task.back();
  const auto tasks = static_cast<int64_t>(run.stream.tasks.size()) + 1;
  const bool fits = classes <= run.made_for.classes && tasks <= run.made_for.tasks;
  if (fits || method.can_grow()) return fits;
  throw Error("method: what " + run.config.method.name + " learned was made for " +
              std::to_string(run.made_for.classes) + " classes in " +
              std::to_string(run.made_for.tasks) +
              " tasks and cannot grow; train the first run with room for more: --set "
              "stream.room_for=\"{classes: " +
              std::to_string(2 * classes) + ", tasks: " + std::to_string(2 * tasks) + "}\"");
}

}  // namespace rep
