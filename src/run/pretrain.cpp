#include "run/pretrain.h"

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <filesystem>
#include <thread>

#include "core/error.h"
#include "core/files.h"
#include "core/hash.h"
#include "core/identity.h"
#include "core/interrupt.h"
#include "formats/safetensors.h"
#include "methods/head_methods.h"
#include "run/evaluation.h"
#include "run/inputs.h"
#include "run/loops.h"
#include "run/memory_limit.h"
#include "run/session.h"
#include "run/setup.h"
#include "tensor/torch.h"

namespace rep {

namespace {

// Bumped whenever the same configuration yields other weights.
constexpr int kVersion = 1;
constexpr const char* kSuffix = ".safetensors";

// Everything that bears on the weights, but for the data's digests.
Json identity_without_data(const Config& config) {
  const Json whole = identity(config);
  Json json{{"version", kVersion}};
  for (const char* key : {"seed", "precision", "dataset", "backbone", "train"}) {
    json[key] = whole[key];
  }
  for (const char* key : {"weights_key", "positions"}) {  // of weights to begin with, and no others
    json["backbone"].erase(key);
  }
  if (json["backbone"]["feature"] == "auto") json["backbone"].erase("feature");
  return json;
}

std::string root_of(const Config& config) { return config.dataset.effective.value("root", ""); }

// Everything that bears on the weights.
Json pretraining_identity(const Config& config) {
  Json json = identity_without_data(config);
  if (!root_of(config).empty()) {  // what lies there is another data set than what lies elsewhere
    const Json data = digests_of_data(config);
    json["data"] = data["dataset"].get<std::string>() + " " + data["classes"].get<std::string>();
  }
  return json;
}

std::string named(const Config& config, const Json& identity) {
  return config.backbone.name + "-" + sha256_of_text(to_text(identity)).substr(0, 16);
}

std::string short_name(const Config& config, const Json& identity) {
  return named(config, without_defaults(identity, identity_of_defaults(config)));
}

void refuse_what_means_nothing(const Config& config, const std::string& path) {
  const auto refuse = [&](const std::string& key, const std::string& reason) {
    throw Error(path + ": " + key + " is not used in pre-training, " + reason + "; remove it");
  };
  if (!config.method.node.IsNull()) refuse("method", "where a linear head learns all classes");
  const Json given = to_json(config), fresh = to_json(Config());
  for (const char* key : {"stream", "efficiency"}) {
    if (given[key] != fresh[key]) refuse(key, "where all classes are one task");
  }
  if (!config.backbone.weights.empty()) refuse("backbone.weights", "which begins at random ones");
  if (!config.backbone.weights_key.empty()) {
    refuse("backbone.weights_key", "which begins at random weights");
  }
  if (given["backbone"]["trainable"] != fresh["backbone"]["trainable"]) {
    refuse("backbone.trainable", "where all of it trains");
  }
}

std::string percent(double value) {
  char text[32];
  std::snprintf(text, sizeof text, "%.2f %%", value);
  return text;
}

}  // namespace

Config read_pretraining(const std::string& path, const std::vector<std::string>& overrides) {
  Config config = load_config(path, overrides);
  refuse_what_means_nothing(config, path);
  config.method = Section{kFinetuneName, {}, path};
  config.stream.tasks = 1;
  config.backbone.weights = "random";
  config.backbone.trainable = "all";
  resolve_sections(config);
  return config;
}

std::string pretrained_name(const Config& pretraining) {
  return short_name(pretraining, pretraining_identity(pretraining));
}

std::string pretrained_path(const Config& pretraining, const std::string& folder) {
  const Json identity = pretraining_identity(pretraining);
  const std::string path = folder + "/" + short_name(pretraining, identity) + kSuffix;
  const std::string before = folder + "/" + named(pretraining, identity) + kSuffix;
  return !std::filesystem::exists(path) && std::filesystem::exists(before) ? before : path;
}

std::string pretraining_request(const Config& pretraining, const std::string& folder) {
  Json asked = identity_without_data(pretraining);
  asked["root"] = absolute_path(root_of(pretraining));
  return folder + "/asked-" + named(pretraining, asked);
}

FileLock lock_pretraining(const std::string& path, Progress* waiting) {
  const std::string folder = std::filesystem::path(path).parent_path().string();
  if (!folder.empty()) make_directories(folder);
  for (bool first = true;; first = false) {
    if (auto lock = FileLock::try_take(path + ".lock")) {
      remove_leftovers(path);
      return std::move(*lock);
    }
    if (!waiting) {
      throw Error(absolute_path(path) +
                  ": another process is pre-training these weights; wait for it, or choose another "
                  "--output");
    }
    if (first) waiting->info("waiting for another process, which is pre-training " + path);
    if (interrupted()) throw Interrupted("stopped while waiting for " + path);
    std::this_thread::sleep_for(std::chrono::milliseconds(100));
  }
}

Pretrained pretrain(const Config& config, const std::string& path, Progress& progress) {
  if (std::filesystem::path(path).extension() != kSuffix) {
    throw Error(absolute_path(path) + ": weights are written as safetensors; let the name end in " +
                kSuffix);
  }
  const std::string folder = std::filesystem::path(path).parent_path().string();
  if (!folder.empty()) make_directories(folder);
  MemoryLimit limit(config);
  Session session = open_session(config);
  for (const std::string& note : session.notes) progress.info("note: " + note);
  Learner& learner = session.learner;
  const Task& all = session.stream.tasks.front();
  learner.images->set_task(all);
  learner.method->begin_task(all);
  Position position;
  ProgressObserver line(progress, /*tasks=*/1);
  AfterEachStep stop([](const Step&) {
    if (interrupted()) throw Interrupted("stopped while pretraining; nothing was written");
  });
  const Observers observers{&line, &stop, &limit};
  train_task(session, all, position, observers);
  learner.method->end_task(all);
  const Correct correct = evaluate(session, all, all.last_label(), observers);
  const Pretrained done{100.0 * static_cast<double>(correct.class_incremental) /
                            static_cast<double>(std::max<int64_t>(1, correct.images)),
                        correct.images};

  NamedTensors tensors;
  for (const auto& item : learner.backbone->named_parameters()) {
    tensors.emplace_back(item.key(), item.value().detach());
  }
  const std::string text = to_text(pretraining_identity(config));
  write_safetensors(path, tensors,
                    {{"format", "pt"},
                     {"pretraining", text},
                     {"pretraining_sha256", sha256_of_text(text)},
                     {"held_out_accuracy", percent(done.accuracy)}});
  progress.info("pretrained " + config.backbone.name + ": " + percent(done.accuracy) + " of " +
                std::to_string(done.images) + " held-out images in " +
                std::to_string(session.stream.num_classes()) + " classes; " + path);
  return done;
}

std::string pretrained(const std::string& config_path, Progress& progress,
                       const std::string& folder) {
  const Config config = read_pretraining(config_path);
  std::string path = pretrained_path(config, folder);
  if (!std::filesystem::exists(path)) {
    const FileLock lock = lock_pretraining(path, &progress);
    if (!std::filesystem::exists(path)) {  // nor did another process make it meanwhile
      progress.info("pretraining once, as " + config_path + " says: " + path);
      pretrain(config, path, progress);
      return path;
    }
  }
  progress.detail("pretrained before: " + path);
  return path;
}

void resolve_pretrained(Config& experiment, Progress* progress, const std::string& folder) {
  const std::string prefix = kPretrainPrefix;
  const auto resolve = [&](std::string& weights) {
    if (weights.rfind(prefix, 0) != 0) return;
    const std::string config_path = weights.substr(prefix.size());
    if (progress) {
      weights = pretrained(config_path, *progress, folder);
    } else {
      const std::string path = pretrained_path(read_pretraining(config_path), folder);
      weights = std::filesystem::exists(path) ? path : "random";
    }
  };
  resolve(experiment.backbone.weights);
  resolve(experiment.efficiency.query_backbone.weights);
}

}  // namespace rep
