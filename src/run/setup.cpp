#include "run/setup.h"

#include "core/error.h"
#include "data/dataset.h"
#include "methods/method.h"
#include "nn/layer_dropping.h"
#include "nn/vit.h"
#include "run/memory_fit.h"

namespace rep {

namespace {

template <class Kinds>
void resolve(const Kinds& registry, Section& section) {
  SectionOptions options = registry.at(section.name).value.options(section);
  section.effective = std::move(options.effective);
  section.identity = std::move(options.identity);
  section.defaults = std::move(options.defaults);
}

void check_decoupled(const TrainConfig& train) {
  const DecoupledConfig& decoupled = train.decoupled;
  if (decoupled.phase_ratio == 1) {
    if (decoupled.train_head_in_phase1) return;
    throw Error(
        "train.decoupled: with phase_ratio 1 and train_head_in_phase1: false the head never "
        "trains; set one of them otherwise");
  }
  if (train.macs > 0 || train.seconds > 0) {
    throw Error(
        "train.decoupled: where macs or seconds end a task its second phase may never come; take "
        "epochs or iterations");
  }
}

// What shows each image once: an online stream, and the any-time accuracy of any stream.
void check_one_pass(const Config& config) {
  const bool online = config.stream.kind == "online";
  if (!online && config.eval.every == 0) return;
  const std::string what = online ? "stream.kind: online" : "eval.every";
  const TrainConfig& train = config.train;
  if (train.epochs != 1) {
    throw Error("train.epochs: " + what + " is one pass over the stream, not " +
                std::to_string(train.epochs) + "; set train.epochs to 1");
  }
  for (const auto& [key, cuts] : {std::pair{"iterations", train.iterations > 0},
                                  {"macs", train.macs > 0},
                                  {"seconds", train.seconds > 0},
                                  {"drop_last", train.drop_last}}) {
    if (!cuts) continue;
    throw Error(std::string("train.") + key + ": " + what +
                " shows every image once, and this would leave some out; remove it");
  }
  if (train.decoupled.phase_ratio != 1) {
    throw Error("train.decoupled: " + what +
                " has one pass, and a second phase would need one of its own; set phase_ratio to "
                "1");
  }
  if (config.eval.every > 0 && config.eval.every < train.batch_size) {
    throw Error("eval.every: " + std::to_string(config.eval.every) +
                " images are less than a batch of " + std::to_string(train.batch_size) +
                "; tests lie between steps, so take at least that many");
  }
}

// Of a step's images so many go through at once.
void check_micro_batches(const TrainConfig& train) {
  if (train.micro_batch_size == 0 || train.batch_size % train.micro_batch_size == 0) return;
  throw Error("train.micro_batch_size: " + std::to_string(train.micro_batch_size) +
              " does not divide train.batch_size, " + std::to_string(train.batch_size) +
              "; take a divisor of it");
}

}  // namespace

Config read_experiment(const std::string& path, const std::vector<std::string>& overrides) {
  Config config = load_config(path, overrides);
  resolve_sections(config);
  return config;
}

Config defaults_of(const std::string& dataset, const std::string& method) {
  Config config;
  config.dataset = Section{dataset, {}, ""};
  config.method = Section{method, {}, ""};
  const auto& datasets = Registry<DatasetKind>::get();
  const auto& methods = Registry<MethodKind>::get();
  if (datasets.entries().count(dataset) > 0) resolve(datasets, config.dataset);
  if (methods.entries().count(method) > 0) resolve(methods, config.method);
  return config;
}

void resolve_sections(Config& config) {
  MemoryCap::of(config);  // can be read
  resolve(Registry<DatasetKind>::get(), config.dataset);
  resolve(Registry<MethodKind>::get(), config.method);
  const BackboneFamily& family = family_of(config.backbone.name);
  trainable_blocks(config.backbone, family.depth(config.backbone));
  if (config.precision != "fp32" && (!family.has_tokens || config.backbone.trainable != "none")) {
    throw Error("precision: " + config.precision +
                " is for a frozen ViT; take precision: fp32, or backbone.trainable: none");
  }
  drop_threshold(config.efficiency.layer_dropping, config.efficiency.token_merging);
  check_decoupled(config.train);
  check_one_pass(config);
  check_micro_batches(config.train);
  const QueryBackboneConfig& query = config.efficiency.query_backbone;
  if (!query.name.empty()) vit_options(query.name, family.image_size(config.backbone));
  if (query.name.empty() && !query.weights.empty()) {
    throw Error(
        "efficiency.query_backbone: weights are given but no name; add name: "
        "vit_tiny_patch16_224 or take the weights away");
  }
}

}  // namespace rep
