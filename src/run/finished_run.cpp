#include "run/finished_run.h"

#include <algorithm>
#include <filesystem>
#include <set>

#include "core/error.h"
#include "core/files.h"
#include "core/identity.h"
#include "core/json_file.h"
#include "run/inputs.h"
#include "run/setup.h"
#include "tensor/checkpoint.h"

namespace rep {
namespace {

namespace fs = std::filesystem;

constexpr int64_t kMaxClassId = 10'000'000;

// Its tasks, of a result that is complete. A class's label is its place among all as they came.
Stream stream_of(const Json& result) {
  Stream stream;
  std::set<int64_t> seen;
  for (const Json& entry : result.at("tasks")) {
    Task task;
    task.index = static_cast<int64_t>(stream.tasks.size());
    task.first_label = stream.num_classes();
    entry.at("classes").get_to(task.classes);
    for (const int64_t id : task.classes) {
      if (seen.insert(id).second) {
        stream.class_order.push_back(id);
      } else {
        stream.disjoint = false;
        task.first_label = 0;
      }
    }
    stream.tasks.push_back(std::move(task));
  }
  return stream;
}

std::vector<std::string> names_of(const Json& result) {
  std::vector<std::string> names;
  for (const Json& entry : result.at("tasks")) {
    for (size_t i = 0; i < entry.at("classes").size(); ++i) {
      const auto id = entry["classes"][i].get<int64_t>();
      if (id < 0 || id > kMaxClassId) throw std::out_of_range("a class id");
      if (static_cast<size_t>(id) >= names.size()) names.resize(static_cast<size_t>(id) + 1);
      entry.at("class_names").at(i).get_to(names[static_cast<size_t>(id)]);
    }
  }
  return names;
}

// Results of earlier versions do not say; their methods were made for the stream's.
RoomConfig made_for_of(const Json& result, const Stream& stream) {
  const auto tasks = static_cast<int64_t>(stream.tasks.size());
  if (!result.contains("made_for")) return {stream.num_classes(), tasks};
  return {result["made_for"].at("classes").get<int64_t>(),
          result["made_for"].at("tasks").get<int64_t>()};
}

std::string tasks_done(const Json& result) {
  const size_t done = result.at("accuracy").at("class_incremental").size();
  return std::to_string(done) + (done == 1 ? " task is" : " tasks are");
}

// Where the weights went is for the user to say: by their digests they are known to be the same.
void require_weights(const std::string& run, const std::string& key, const std::string& path) {
  std::error_code none;
  if (path.empty() || path == "random" || fs::exists(expand_home(path), none)) return;
  throw Error(run + ": the run's weights are not at '" + path +
              "'; say where they are with --set " + key + "=FILE");
}

}  // namespace

FinishedRun read_finished_run(const std::string& path, const std::vector<std::string>& overrides) {
  FinishedRun run;
  run.path = path;
  const std::string file = path + "/result.json";
  std::error_code none;
  if (!fs::exists(file, none)) {
    throw Error(path +
                ": no result.json there; name the folder of a run (the --output of rep run)");
  }
  const std::string foreign = file + ": is not a result of rep run";
  run.result = read_json_file(file);
  if (!run.result.is_object()) throw Error(foreign);
  try {
    if (!run.result.at("complete").get<bool>()) {
      throw Error(path + ": the run is not complete (" + tasks_done(run.result) +
                  " learned); finish it with rep run CONFIG --resume --output " + path);
    }
    run.config = parse_config(to_text(run.result.at("config")), file + ": config", overrides);
    run.stream = stream_of(run.result);
    if (run.stream.tasks.empty()) throw Error(foreign);
    run.class_names = names_of(run.result);
    run.made_for = made_for_of(run.result, run.stream);
  } catch (const Json::exception&) {
    throw Error(foreign);
  } catch (const std::out_of_range&) {
    throw Error(foreign);
  }
  resolve_sections(run.config);
  require_weights(path, "backbone.weights", run.config.backbone.weights);
  require_weights(path, "efficiency.query_backbone.weights",
                  run.config.efficiency.query_backbone.weights);
  if (!fs::exists(run.checkpoint_path(), none)) {
    throw Error(run.checkpoint_path() +
                ": not there; the run's checkpoint is what it learned, copy it along");
  }
  return run;
}

State open_checkpoint(const FinishedRun& run, const Json& loaded, const torch::Device& device) {
  State state = read_checkpoint(run.checkpoint_path(), device);
  Json was;
  state("identity", was);
  was = as_of_this_build(was, run.config);
  was.erase("changes");  // what the run was told when it diverged
  Json inputs = was.value("inputs", Json::object());
  inputs.update(weights_digests(loaded));  // of the data the checkpoint's own word is taken
  const std::string difference = first_difference(was, identity(run.config, inputs));
  if (difference.empty()) return state;
  const std::string key = difference.substr(0, difference.find(' '));
  const std::string prefix = "inputs.";
  if (key.rfind(prefix, 0) == 0) {
    const bool query = key == prefix + "query_weights";
    throw Error(
        run.path + ": the run had other " + key.substr(prefix.size()) + " than '" +
        (query ? run.config.efficiency.query_backbone.weights : run.config.backbone.weights) +
        "' holds; name the same file with --set " +
        (query ? "efficiency.query_backbone.weights" : "backbone.weights") + "=FILE");
  }
  throw Error(run.path + ": " + difference +
              ", which a finished run cannot change; leave out that --set");
}

}  // namespace rep
