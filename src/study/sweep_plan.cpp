#include "study/sweep_plan.h"

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <map>
#include <set>
#include <utility>

#include "core/config.h"
#include "core/error.h"
#include "core/files.h"
#include "core/hash.h"
#include "core/identity.h"
#include "core/json.h"
#include "core/json_file.h"

namespace rep {
namespace {

constexpr size_t kKeyLength = 10;       // hexadecimal digits: 40 bits, for thousands of runs
constexpr size_t kMaxFolderName = 160;  // of the readable part; file systems allow 255 in all

struct GridAxis {
  std::string key;
  std::vector<std::string> values;
};

/// At commas that lie outside of brackets and quotes.
std::vector<std::string> split_at_commas(const std::string& text, const std::string& where) {
  std::vector<std::string> parts(1);
  std::string closers;  // of the brackets and the quote that are open, innermost last
  for (size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    const char closer = closers.empty() ? '\0' : closers.back();
    if (closer != '\0' && c == closer) {
      closers.pop_back();
    } else if (closer == '"' || closer == '\'') {
      if (closer == '"' && c == '\\' && i + 1 < text.size()) parts.back() += text[i++];
    } else if (c == '[' || c == '{') {
      closers += c == '[' ? ']' : '}';
    } else if (c == '"' || c == '\'') {
      closers += c;
    } else if (c == ',' && closers.empty()) {
      parts.emplace_back();
      continue;
    }
    parts.back() += text[i];
  }
  if (!closers.empty()) throw Error(where + ": a bracket or a quote is not closed");
  return parts;
}

GridAxis parse_axis(const std::string& text) {
  const size_t equals = text.find('=');
  const std::string where = "--grid " + text.substr(0, equals);
  if (equals == std::string::npos || equals == 0) {
    throw Error(where + ": expected KEY=V1,V2, e.g. --grid train.optimizer.lr=0.01,0.001");
  }
  GridAxis axis{text.substr(0, equals), split_at_commas(text.substr(equals + 1), where)};
  for (std::string& value : axis.values) {
    value.erase(0, value.find_first_not_of(' '));
    value.erase(value.find_last_not_of(' ') + 1);
    if (!value.empty()) continue;
    throw Error(where + (axis.values.size() == 1 ? ": has no values" : ": a value is empty") +
                "; write " + axis.key + "=V1,V2, and \"\" for an empty text");
  }
  if (axis.key == "seed") throw Error(where + ": seeds are given by --seeds, e.g. --seeds 1,2,3");
  return axis;
}

std::vector<GridAxis> parse_grid(const std::vector<std::string>& grid) {
  std::vector<GridAxis> axes;
  for (const std::string& text : grid) {
    GridAxis axis = parse_axis(text);
    for (const GridAxis& other : axes) {
      if (other.key == axis.key) {
        throw Error("--grid " + axis.key + ": is given twice; write all its values in one");
      }
    }
    axes.push_back(std::move(axis));
  }
  return axes;
}

/// Every choice of one "key=value" an axis, the last axis fastest; one empty choice without axes.
std::vector<std::vector<std::string>> combinations(const std::vector<GridAxis>& axes) {
  std::vector<std::vector<std::string>> all(1);
  for (const GridAxis& axis : axes) {
    std::vector<std::vector<std::string>> longer;
    for (const auto& shorter : all) {
      for (const std::string& value : axis.values) {
        longer.push_back(shorter);
        longer.back().push_back(axis.key + "=" + value);
      }
    }
    all = std::move(longer);
  }
  return all;
}

/// The experiment; a complaint of a key of the grid says so.
Config read(const ExperimentReader& reader, const std::string& path,
            const std::vector<std::string>& overrides, const std::vector<GridAxis>& axes) {
  try {
    return reader.read(path, overrides);
  } catch (const Error& error) {
    const std::string message = error.what();
    for (const GridAxis& axis : axes) {
      const std::string tag = kOverrideTag + axis.key + ":";
      if (message.rfind(tag, 0) != 0) continue;
      throw Error("--grid " + message.substr(std::strlen(kOverrideTag)));
    }
    if (message.find(path) != std::string::npos) throw;
    throw Error(path + ": " + message);
  }
}

/// Of what is not at its default, in whatever order it was written.
std::string key_of(const Json& identity, const Config& config) {
  const nlohmann::json sorted(without_defaults(identity, identity_of_defaults(config)));
  return sha256_of_text(to_text(Json(sorted))).substr(0, kKeyLength);
}

/// `keys`: of every configuration and choice, in the order of combinations(). Refuses an axis whose
/// values make no difference to any of them.
void refuse_idle_axes(const std::vector<GridAxis>& axes, const std::vector<std::string>& keys) {
  size_t stride = 1;  // between two values of an axis, others equal
  for (auto axis = axes.rbegin(); axis != axes.rend(); ++axis) {
    const size_t values = axis->values.size();
    bool idle = values > 1;
    for (size_t i = 0; i < keys.size() && idle; ++i) {
      const size_t first = i - (i / stride % values) * stride;
      idle = keys[i] == keys[first];
    }
    if (idle) {
      throw Error("--grid " + axis->key +
                  ": no number depends on it, so its values would all be one run; give it with "
                  "--set");
    }
    stride *= values;
  }
}

/// Letters, digits and a few signs; whatever lies between becomes one dash.
std::string for_file_name(const std::string& text) {
  static const std::string kSafe =
      "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._=+-";
  std::string name;
  bool gap = false;
  for (const char c : text) {
    const bool safe = kSafe.find(c) != std::string::npos;
    if (safe && gap && !name.empty() && name.back() != '=') name += '-';
    if (safe) name += c;
    gap = !safe;
  }
  return name;
}

std::string readable_name(const Config& config, const std::vector<std::string>& choices) {
  std::string name = for_file_name(config.name);
  for (const std::string& choice : choices) name += "-" + for_file_name(choice);
  return name.substr(0, kMaxFolderName) + "-s" + std::to_string(config.seed);
}

/// The folders of earlier sweeps.
class Folders {
 public:
  explicit Folders(std::string output) : output_(std::move(output)) {
    std::error_code none;
    for (std::filesystem::directory_iterator entry(output_, none), end; !none && entry != end;
         entry.increment(none)) {
      const std::string name = entry->path().filename().string();
      const size_t dash = name.rfind('-');
      if (dash == std::string::npos || name.size() - dash - 1 != kKeyLength) continue;
      std::string& folder = by_key_[name.substr(dash + 1)];
      if (folder.empty() || name < folder) folder = name;
      names_.insert(name);
    }
  }

  /// The one whose name ends in the run's key, or where another build, whose keys were others, has
  /// put a result with this identity; "" for none. Throws Error when the first holds a run of
  /// another configuration, which the key cannot tell when a default has changed.
  std::string of(const std::string& key, const Json& identity, const Config& config) {
    const auto named = by_key_.find(key);
    if (named == by_key_.end()) return by_result(key, config);
    Json was = identity_in(named->second), is = identity;
    if (was.is_null() || was.contains("changes")) return named->second;
    was = as_of_this_build(was, config);
    for (Json* json : {&was, &is}) json->erase("inputs");  // what the key tells
    const std::string difference = first_difference(was, is);
    if (difference.empty()) return named->second;
    throw Error(absolute_path(output_ + "/" + named->second) +
                ": holds a run of another configuration (" + difference +
                ") under the same key, since a default has changed; choose another --output");
  }

 private:
  /// What the folder's result says; null where there is none.
  const Json& identity_in(const std::string& name) {
    const auto [known, fresh] = identities_.emplace(name, Json());
    const std::string path = output_ + "/" + name + "/result.json";
    if (fresh && std::filesystem::exists(path)) {
      const Json result = read_json_file(path);
      if (result.is_object()) known->second = result.value("identity", Json());
    }
    return known->second;
  }

  std::string by_result(const std::string& key, const Config& config) {
    const std::string kind = config.dataset.name + " " + config.method.name;
    auto& keys = by_result_[kind];  // of the results of that data set and method
    if (keys.empty()) {
      keys.emplace("", "");
      for (const std::string& name : names_) {
        const Json& was = identity_in(name);
        if (!was.is_object() || was.contains("changes")) continue;
        keys.emplace(key_of(as_of_this_build(was, config), config), name);
      }
    }
    const auto found = keys.find(key);
    return found == keys.end() ? "" : found->second;
  }

  std::string output_;
  std::set<std::string> names_;
  std::map<std::string, std::string> by_key_;
  std::map<std::string, Json> identities_;
  std::map<std::string, std::map<std::string, std::string>> by_result_;
};

}  // namespace

std::vector<SweepRun> plan_sweep(const SweepOptions& options, const ExperimentReader& reader) {
  const std::vector<GridAxis> axes = parse_grid(options.grid);
  Folders folders(options.output);
  std::vector<SweepRun> runs;
  std::set<std::string> known_keys;
  std::vector<std::string> first_keys;  // with the first seed, of every choice
  for (const std::string& path : options.configs) {
    for (const std::vector<std::string>& choices : combinations(axes)) {
      std::vector<std::string> overrides = options.set;
      overrides.insert(overrides.end(), choices.begin(), choices.end());
      Config config = read(reader, path, overrides, axes);
      if (options.on_validation && config.stream.validation == 0) {
        overrides.emplace_back(SweepOptions::kDefaultValidation);
        config = read(reader, path, overrides, axes);
      }
      const std::vector<int64_t> own{config.seed};
      for (const int64_t seed : options.seeds.empty() ? own : options.seeds) {
        const bool first = options.seeds.empty() || seed == options.seeds.front();
        config.seed = seed;
        const Json whole = identity(config, reader.inputs(config));
        const std::string key = key_of(whole, config);
        if (first) first_keys.push_back(key);
        if (!known_keys.insert(key).second) continue;
        std::string directory = folders.of(key, whole, config);
        if (directory.empty()) directory = readable_name(config, choices) + "-" + key;
        runs.push_back({path, overrides, seed, key, directory, config.threads});
      }
    }
  }
  refuse_idle_axes(axes, first_keys);
  return runs;
}

}  // namespace rep
