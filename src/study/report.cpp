#include "study/report.h"

#include <yaml-cpp/yaml.h>

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <functional>
#include <map>
#include <set>

#include "core/affix.h"
#include "core/config.h"
#include "core/error.h"
#include "core/files.h"
#include "core/identity.h"
#include "core/json_file.h"
#include "core/suggest.h"
#include "study/report_table.h"

namespace rep {
namespace {

namespace fs = std::filesystem;

std::string as_text(const Json& value) {
  return value.is_string() ? value.get<std::string>() : to_text(value);
}

void flatten(const Json& json, const std::string& prefix, Settings& settings) {
  for (const auto& [key, value] : json.items()) {
    const std::string path = prefix.empty() ? key : prefix + "." + key;
    if (value.is_object()) {
      flatten(value, path, settings);
    } else {
      settings[path] = as_text(value);
    }
  }
}

Json parse(const std::string& path) {
  Json json = read_json_file(path);
  if (json.is_object() && json.contains("config") && json["config"].is_object() &&
      json.contains("metrics") && json["metrics"].is_object()) {
    return json;
  }
  throw Error(path + ": is not a result of rep run; name result.json files, or folders with them");
}

// The identity of a result from before results said it: its configuration but for the fields that
// are no part of it, and the digests of data and weights.
Json identity_of_old(const Json& result) {
  static const Json kFields = describe_fields<Config>();
  Json identity = result["config"];
  for (const Json& field : kFields) {
    if (field["identity"] == true) continue;
    std::string path = "/" + field["key"].get<std::string>();
    std::replace(path.begin(), path.end(), '.', '/');
    const Json::json_pointer at(path);
    if (identity.contains(at)) identity[at.parent_pointer()].erase(at.back());
  }
  for (const auto& [key, pointer] : {std::pair{"dataset", "/inputs/dataset/fingerprint"},
                                     {"weights", "/inputs/weights/sha256"},
                                     {"query_weights", "/inputs/query_weights/sha256"}}) {
    const Json::json_pointer at(pointer);
    if (result.contains(at)) identity["inputs"][key] = result[at];
  }
  return identity;
}

// As this build would say it, so that results of several builds can be compared.
Json identity_of(const Json& result, const ReportOptions& options) {
  const Json& config = result["config"];
  const auto name_of = [&](const char* section) {
    const Json::json_pointer at(std::string("/") + section + "/name");
    return config.contains(at) ? as_text(config[at]) : "";
  };
  Config same;
  same.dataset.name = name_of("dataset");
  same.method.name = name_of("method");
  if (options.defaults) same = options.defaults(same.dataset.name, same.method.name);
  const bool says = result.contains("identity") && result["identity"].is_object();
  return as_of_this_build(says ? result["identity"] : identity_of_old(result), same);
}

Run read_run(const std::string& path, const ReportOptions& options) {
  Run run{path, "", parse(path), {}, {}, false};
  const Json& json = run.result;
  run.complete = json.contains("complete") && json["complete"] == true;
  if (json.contains("name")) run.name = as_text(json["name"]);
  flatten(json["config"], "", run.settings);
  flatten(identity_of(json, options), "", run.identity);
  const bool validated = json.contains(kEvaluatedOn) && json[kEvaluatedOn] == "validation";
  run.identity[kEvaluatedOn] = validated ? "validation" : "test";
  for (const auto& [key, value] : run.identity) run.settings[key] = value;
  run.identity.erase("seed");  // what one averages over
  return run;
}

std::vector<Run> read_runs(const ReportOptions& options) {
  std::vector<std::string> files;
  for (const std::string& path : options.paths) {
    const size_t before = files.size();
    if (fs::is_directory(path)) {
      std::error_code failed;
      for (const auto& entry : fs::recursive_directory_iterator(
               path, fs::directory_options::skip_permission_denied, failed)) {
        if (entry.path().filename() == "result.json") files.push_back(entry.path().string());
      }
    } else if (fs::exists(path)) {
      files.push_back(path);
    }
    if (files.size() == before) {
      throw Error(path + ": no result.json there; name a folder that rep run wrote to");
    }
  }
  std::sort(files.begin(), files.end());
  files.erase(std::unique(files.begin(), files.end()), files.end());
  std::vector<Run> runs;
  for (const std::string& file : files) runs.push_back(read_run(file, options));
  return runs;
}

std::string get(const Settings& settings, const std::string& key) {
  const auto found = settings.find(key);
  return found == settings.end() ? "" : found->second;
}

std::set<std::string> all_keys(const std::vector<const Run*>& runs) {
  std::set<std::string> keys;
  for (const Run* run : runs) {
    for (const auto& [key, value] : run->identity) keys.insert(key);
  }
  return keys;
}

bool differs(const std::string& key, const std::vector<const Run*>& runs) {
  return std::any_of(runs.begin(), runs.end(), [&](const Run* run) {
    return get(run->settings, key) != get(runs.front()->settings, key);
  });
}

// Which tasks the last row has accuracies of: rep learn does not test those whose images are gone.
Json tested_tasks(const Run& run) {
  const Json::json_pointer at("/accuracy/class_incremental");
  Json tested = Json::array();
  if (!run.result.contains(at) || run.result[at].empty()) return tested;
  for (const Json& accuracy : run.result[at].back()) tested.push_back(!accuracy.is_null());
  return tested;
}

// What is no part of an identity, and still differs within a row: where and by what its runs were
// made, and what they were tested on.
std::vector<std::string> circumstances_that_differ(const std::vector<Row>& rows) {
  using Of = std::function<Json(const Run&)>;
  std::vector<std::pair<std::string, Of>> circumstances{{"tasks tested at the end", tested_tasks}};
  for (const char* pointer :
       {"/rep/revision", "/libtorch", "/device/name", "/device/threads", "/device/processes"}) {
    const Json::json_pointer at(pointer);
    std::string name = pointer + 1;
    std::replace(name.begin(), name.end(), '/', '.');
    circumstances.emplace_back(
        name, [at](const Run& run) { return run.result.contains(at) ? run.result[at] : Json(); });
  }
  std::vector<std::string> differing;
  for (const auto& [name, of] : circumstances) {
    const bool mixed = std::any_of(rows.begin(), rows.end(), [&, &of = of](const Row& row) {
      return std::any_of(row.runs.begin(), row.runs.end(),
                         [&](const Run* run) { return of(*run) != of(*row.runs.front()); });
    });
    if (mixed) differing.push_back(name);
  }
  return differing;
}

// The fewest keys, in a reader's order, that tell all rows apart: a key that says nothing new
// beside those before it gets no column.
std::vector<std::string> telling_keys(const std::vector<Row>& rows,
                                      const std::set<std::string>& differing) {
  std::vector<std::string> order;
  for (const char* first :
       {kEvaluatedOn, "dataset.name", "stream.tasks", "backbone.name", "method.name"}) {
    if (differing.count(first)) order.emplace_back(first);
  }
  const auto prefers = [](const std::string& key) {
    // A kind says in a word what the options beside it only qualify.
    if (begins_with(key, "efficiency.")) return ends_with(key, ".kind") ? 0 : 1;
    return begins_with(key, "method.") ? 2 : 3;
  };
  std::vector<std::string> rest;
  for (const std::string& key : differing) {
    if (std::find(order.begin(), order.end(), key) == order.end()) rest.push_back(key);
  }
  std::stable_sort(rest.begin(), rest.end(), [&](const std::string& a, const std::string& b) {
    return prefers(a) < prefers(b);
  });
  order.insert(order.end(), rest.begin(), rest.end());

  std::vector<std::string> chosen, signature(rows.size());
  const auto classes = [](const std::vector<std::string>& signatures) {
    return std::set<std::string>(signatures.begin(), signatures.end()).size();
  };
  for (const std::string& key : order) {
    std::vector<std::string> finer = signature;
    for (size_t i = 0; i < rows.size(); ++i) finer[i] += "\n" + get(rows[i].settings, key);
    if (classes(finer) == classes(signature)) continue;
    chosen.push_back(key);
    signature = std::move(finer);
  }
  return chosen;
}

Table make_table(const std::vector<Run>& all, const ReportOptions& options) {
  Table table;
  std::vector<const Run*> runs;
  for (const Run& run : all) {
    if (run.complete) {
      runs.push_back(&run);
    } else {
      table.notes.push_back("unfinished, not counted: " + run.path);
    }
  }
  if (runs.empty()) return table;

  const std::set<std::string> keys = all_keys(runs);
  std::set<std::string> differing, grouping;
  for (const std::string& key : keys) {
    if (differs(key, runs)) differing.insert(key);
  }
  for (const std::string& key : options.group_by) {
    const auto has = [&](const Run* run) { return run->settings.count(key) > 0; };
    if (std::none_of(runs.begin(), runs.end(), has)) {
      throw Error("--group-by: no result has the key " + quoted(key) +
                  did_you_mean(key, {keys.begin(), keys.end()}));
    }
    grouping.insert(key);
  }
  if (options.group_by.empty()) grouping = differing;
  if (differing.count(kEvaluatedOn) > 0) grouping.insert(kEvaluatedOn);  // never averaged

  std::map<std::string, size_t> index;
  for (const Run* run : runs) {
    Row row;
    std::string signature;
    for (const std::string& key : grouping) {
      row.settings[key] = get(run->settings, key);
      signature += row.settings[key] + "\n";
    }
    const auto [found, fresh] = index.emplace(signature, table.rows.size());
    if (fresh) table.rows.push_back(std::move(row));
    table.rows[found->second].runs.push_back(run);
  }

  std::vector<std::string> metrics = options.metrics;
  if (metrics.empty()) {
    metrics = {"average_accuracy",  "average_incremental_accuracy",
               "forgetting",        "train_macs",
               "peak_tensor_bytes", "state_bytes",
               "train_seconds"};
  }
  for (const std::string& key : metrics) {
    table.columns.push_back(column_of(key, runs.front()->result["metrics"]));
  }
  for (Row& row : table.rows) {
    std::map<std::string, int64_t> seeds;
    for (const Run* run : row.runs) ++seeds[get(run->settings, "seed")];
    for (const auto& [seed, count] : seeds) {
      if (count > 1) {
        table.notes.push_back("seed " + seed + " counts " + std::to_string(count) +
                              " times in one row: " + row.runs.front()->path);
      }
    }
    for (const Column& column : table.columns) {
      std::vector<double> values;
      for (const Run* run : row.runs) {
        if (const auto value = value_of(column, run->result)) values.push_back(*value);
      }
      row.values.push_back(statistic(values));
    }
  }

  table.label_keys =
      options.group_by.empty() ? telling_keys(table.rows, differing) : options.group_by;
  if (differing.count(kEvaluatedOn) > 0 &&
      std::find(table.label_keys.begin(), table.label_keys.end(), kEvaluatedOn) ==
          table.label_keys.end()) {
    table.label_keys.insert(table.label_keys.begin(), kEvaluatedOn);
  }
  for (Row& row : table.rows) {
    for (const std::string& key : table.label_keys) {
      const bool digest = key.rfind("inputs.", 0) == 0;
      row.labels.push_back(get(row.settings, key).substr(0, digest ? 10 : std::string::npos));
    }
  }
  table.differing = {differing.begin(), differing.end()};
  arrange_families(table);

  // What the reader has to know: what was equal, and what differs without having a column.
  std::string equal;
  for (const char* key :
       {"dataset.name", "dataset.limit_train", "dataset.limit_test", "stream.tasks",
        "stream.class_order", "backbone.name", "train.epochs", "train.iterations",
        "train.batch_size", "train.optimizer.name", "train.optimizer.lr", "train.schedule",
        "train.augment", "precision", "eval.classes"}) {
    const std::string value = get(runs.front()->settings, key);
    if (!keys.count(key) || differing.count(key) || value.empty() || value == "0") continue;
    if (key == std::string("eval.classes") && value == "seen") continue;  // as everywhere
    equal += (equal.empty() ? "" : ", ") + std::string(key) + " " + value;
  }
  if (!equal.empty()) table.notes.insert(table.notes.begin(), "held equal: " + equal);
  if (get(runs.front()->settings, kEvaluatedOn) != "test" && differing.count(kEvaluatedOn) == 0) {
    table.notes.insert(table.notes.begin(), "accuracies are of validation images, not of a test");
  }
  std::string also, pooled;
  for (const std::string& key : differing) {
    const bool shown =
        std::find(table.label_keys.begin(), table.label_keys.end(), key) != table.label_keys.end();
    if (shown) continue;
    const bool mixed = std::any_of(table.rows.begin(), table.rows.end(),
                                   [&](const Row& row) { return differs(key, row.runs); });
    if (mixed) {
      pooled += (pooled.empty() ? "" : ", ") + key;
    } else if (key.rfind("method.", 0) != 0) {
      also += (also.empty() ? "" : ", ") + key;
    }
  }
  for (const std::string& key : circumstances_that_differ(table.rows)) {
    pooled += (pooled.empty() ? "" : ", ") + key;
  }
  const bool borrowed = std::any_of(runs.begin(), runs.end(), [](const Run* run) {
    return run->result.contains(Json::json_pointer("/inputs/queries_from_files"));
  });
  if (borrowed) {
    table.notes.emplace_back(
        "seconds, joules and peaks of bytes of some runs lack queries that other runs computed "
        "(efficiency.query_cache)");
  }
  if (!pooled.empty()) table.notes.push_back("averaged over different values of: " + pooled);
  if (!also.empty()) table.notes.push_back("differs between rows, too: " + also);
  return table;
}

// By its name, or by that of the folder that its images lie in.
bool is_dataset(const std::string& published, const Settings& settings) {
  std::string folder = fs::path(get(settings, "dataset.root")).filename().string();
  std::replace(folder.begin(), folder.end(), '-', '_');
  return get(settings, "dataset.name") == published || folder == published;
}

// Entries of the file for a row, with the difference of its mean from each.
void add_published(const std::string& path, Table& table) {
  YAML::Node file;
  try {
    file = YAML::Load(read_file(path, size_t{4} << 20))["numbers"];
    if (!file.IsSequence()) throw Error(path + ": has no list 'numbers' of published figures");
    for (const Row& row : table.rows) {
      const Settings& settings = row.runs.front()->settings;
      if (is_of_validation(row)) continue;  // nothing is published of those
      const auto metric = std::find_if(table.columns.begin(), table.columns.end(),
                                       [](const auto& c) { return c.key == "average_accuracy"; });
      if (metric == table.columns.end()) return;
      const double ours = row.values[static_cast<size_t>(metric - table.columns.begin())].mean;
      for (const YAML::Node& entry : file) {
        if (entry["method"].as<std::string>("") != get(settings, "method.name") ||
            !is_dataset(entry["dataset"].as<std::string>(""), settings) ||
            entry["tasks"].as<std::string>("") != get(settings, "stream.tasks") ||
            entry["rep"].as<bool>(false) != uses_rep(settings) || !entry["average_accuracy"]) {
          continue;
        }
        const auto theirs = entry["average_accuracy"].as<double>();
        char text[64];
        std::snprintf(text, sizeof text, "%.2f, ours %+.2f", theirs, ours - theirs);
        std::string label;
        for (const std::string& part : row.labels) label += (label.empty() ? "" : " ") + part;
        table.notes.push_back("published for " +
                              (label.empty() ? get(settings, "method.name") : label) + ": " + text +
                              " (" + entry["backbone"].as<std::string>("") + "; " +
                              entry["source"].as<std::string>("") +
                              (entry["confirmed"].as<bool>(false) ? "" : "; not confirmed") + ")");
      }
    }
  } catch (const YAML::Exception& error) {
    throw Error(path + ": is not readable as YAML: " + error.what());
  }
}

}  // namespace

std::string make_report(const ReportOptions& options) {
  const std::vector<Run> runs = read_runs(options);
  Table table = make_table(runs, options);
  if (!options.published.empty()) add_published(options.published, table);
  return write_table(table, options.format);
}

}  // namespace rep
