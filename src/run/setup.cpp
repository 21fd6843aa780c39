#include "run/setup.h"

#include <regex>

#include "core/error.h"
#include "methods/method.h"
#include "nn/layer_dropping.h"
#include "run/learner.h"

namespace rep {

namespace {

// none, all, or the number of last blocks.
int64_t trainable_blocks(const BackboneConfig& config, int64_t depth) {
  if (config.trainable == "none") return 0;
  if (config.trainable == "all") return depth;
  if (std::regex_match(config.trainable, std::regex("[0-9]{1,4}"))) {
    return std::stoll(config.trainable);
  }
  throw Error("backbone.trainable: '" + config.trainable +
              "' must be none, all or a number of last blocks");
}

}  // namespace

Config read_experiment(const std::string& path, const std::vector<std::string>& overrides) {
  Config config = load_config(path, overrides);
  resolve_sections(config);
  return config;
}

void resolve_sections(Config& config) {
  config.dataset.effective =
      Registry<DatasetKind>::get().at(config.dataset.name).value.options(config.dataset);
  config.method.effective =
      Registry<MethodKind>::get().at(config.method.name).value.options(config.method);
  const VitOptions options =
      vit_options(config.backbone.name, config.backbone.image_size, config.backbone.patch_size);
  trainable_blocks(config.backbone, options.depth);
  if (config.precision != "fp32") {
    throw Error("precision: this version computes in fp32 only; take precision: fp32");
  }
  drop_threshold(config.efficiency.layer_dropping, config.efficiency.token_merging);
  const QueryBackboneConfig& query = config.efficiency.query_backbone;
  if (!query.name.empty()) vit_options(query.name, options.image_size);
  if (query.name.empty() && !query.weights.empty()) {
    throw Error(
        "efficiency.query_backbone: weights are given but no name; add name: "
        "vit_tiny_patch16_224 or take the weights away");
  }
}

VisionTransformer make_backbone(const BackboneConfig& config, Json* inputs) {
  const VitOptions options = vit_options(config.name, config.image_size, config.patch_size);
  VisionTransformer vit(options);
  *inputs = load_weights(vit, config.weights).inputs;
  vit->train_last_blocks(trainable_blocks(config, options.depth));
  return vit;
}

Learner::Learner(const Config& config, const Stream& stream, const torch::Device& device_)
    : device(device_) {
  inputs = Json::object();
  backbone = make_backbone(config.backbone, &inputs["weights"]);
  backbone->to(device);
  const QueryBackboneConfig& query = config.efficiency.query_backbone;
  if (!query.name.empty()) {
    BackboneConfig small;
    small.name = query.name;
    small.weights = query.weights;
    small.image_size = backbone->options.image_size;
    query_backbone = make_backbone(small, &inputs["query_weights"]);
    query_backbone->to(device);
  }
  efficiency =
      std::make_unique<Efficiency>(config.efficiency, backbone, query_backbone, config.seed);
  method = Registry<MethodKind>::get()
               .at(config.method.name)
               .value.make({config.method, backbone, *efficiency, stream.num_classes(),
                            static_cast<int64_t>(stream.tasks.size()), device});
}

void Learner::state(State& s) {
  s.scope("efficiency", [&](State& inner) { efficiency->state(inner); });
  s.scope("method", [&](State& inner) { method->state(inner); });
}

int64_t Learner::state_bytes() {
  State s;
  state(s);
  return s.bytes();
}

Json Learner::parameters() {
  int64_t total = 0, trainable = 0;
  const auto count = [&](const torch::Tensor& parameter) { total += parameter.numel(); };
  for (const auto& parameter : backbone->parameters()) count(parameter);
  if (!query_backbone.is_empty()) {
    for (const auto& parameter : query_backbone->parameters()) count(parameter);
  }
  for (const auto& parameter : method->parameters()) {
    trainable += parameter.numel();
    // A backbone that trains along was counted above.
    bool in_backbone = false;
    for (const auto& own : backbone->parameters()) in_backbone |= own.is_same(parameter);
    if (!in_backbone) count(parameter);
  }
  return {{"total", total}, {"trainable", trainable}};
}

}  // namespace rep
