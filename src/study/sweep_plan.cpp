#include "study/sweep_plan.h"

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <map>
#include <set>
#include <utility>

#include "core/config.h"
#include "core/error.h"
#include "core/hash.h"
#include "core/json.h"

namespace rep {
namespace {

constexpr size_t kKeyLength = 10;  // hexadecimal digits: 40 bits, for thousands of runs
constexpr size_t kMaxName = 160;   // of the readable part; file systems allow 255 in all

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

std::string key_of(const Config& config, const Json& inputs) {
  return sha256_of_text(to_text(identity(config, inputs))).substr(0, kKeyLength);
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
  return name.substr(0, kMaxName) + "-s" + std::to_string(config.seed);
}

/// The folders of earlier sweeps, by the key that their names end in.
std::map<std::string, std::string> folders_by_key(const std::string& output) {
  std::map<std::string, std::string> folders;
  std::error_code none;
  for (std::filesystem::directory_iterator entry(output, none), end; !none && entry != end;
       entry.increment(none)) {
    const std::string name = entry->path().filename().string();
    const size_t dash = name.rfind('-');
    if (dash == std::string::npos || name.size() - dash - 1 != kKeyLength) continue;
    std::string& folder = folders[name.substr(dash + 1)];
    if (folder.empty() || name < folder) folder = name;
  }
  return folders;
}

}  // namespace

std::vector<SweepRun> plan_sweep(const SweepOptions& options, const ExperimentReader& reader) {
  const std::vector<GridAxis> axes = parse_grid(options.grid);
  const auto folders = folders_by_key(options.output);
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
        const std::string key = key_of(config, reader.inputs(config));
        if (first) first_keys.push_back(key);
        if (!known_keys.insert(key).second) continue;
        const auto known = folders.find(key);
        const std::string directory =
            known == folders.end() ? readable_name(config, choices) + "-" + key : known->second;
        runs.push_back({path, overrides, seed, key, directory, config.threads});
      }
    }
  }
  refuse_idle_axes(axes, first_keys);
  return runs;
}

}  // namespace rep
