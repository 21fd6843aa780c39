#include "run/setup.h"

#include "core/bytes.h"
#include "core/error.h"
#include "core/numbers.h"
#include "methods/method.h"
#include "nn/layer_dropping.h"
#include "nn/resnet.h"
#include "run/learner.h"

namespace rep {

namespace {

constexpr char kUntrained[] =
    "the backbone is not pre-trained: accuracies say nothing about the method";

bool is_resnet(const BackboneConfig& config) {
  return Registry<ResNetOptions>::get().entries().count(config.name) > 0;
}

ResNetOptions resnet_options(const BackboneConfig& config) {
  ResNetOptions options;
  if (config.image_size > 0) options.image_size = config.image_size;
  options.width = config.width;
  options.stem = config.stem;
  return options;
}

// none, all, or the number of last blocks.
int64_t trainable_blocks(const BackboneConfig& config, int64_t depth) {
  if (config.trainable == "none") return 0;
  if (config.trainable == "all") return depth;
  if (const auto blocks = parse_number<uint16_t>(config.trainable)) {
    if (*blocks <= depth) return *blocks;
    throw Error("backbone.trainable: " + config.trainable + " is more than the " +
                std::to_string(depth) + " blocks of " + config.name + "; all trains them all");
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
  parse_bytes(config.memory_limit, "memory_limit");
  config.dataset.effective =
      Registry<DatasetKind>::get().at(config.dataset.name).value.options(config.dataset);
  config.method.effective =
      Registry<MethodKind>::get().at(config.method.name).value.options(config.method);
  const bool resnet = is_resnet(config.backbone);
  const VitOptions options = resnet ? VitOptions{}
                                    : vit_options(config.backbone.name, config.backbone.image_size,
                                                  config.backbone.patch_size);
  trainable_blocks(config.backbone, resnet ? 4 : options.depth);
  if (config.precision != "fp32" && (resnet || config.backbone.trainable != "none")) {
    throw Error("precision: " + config.precision +
                " is for a frozen ViT; take precision: fp32, or backbone.trainable: none");
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

VisionTransformer make_vit(const BackboneConfig& config, Json* inputs) {
  const VitOptions options = vit_options(config.name, config.image_size, config.patch_size);
  VisionTransformer vit(options);
  *inputs = load_weights(vit, config.weights).inputs;
  vit->train_last_blocks(trainable_blocks(config, options.depth));
  vit->recompute_mlps(config.recompute);
  return vit;
}

std::shared_ptr<Backbone> make_backbone(const BackboneConfig& config, Json* inputs) {
  if (!is_resnet(config)) return make_vit(config, inputs).ptr();
  if (config.weights != "random") {
    throw Error("backbone.weights: " + config.name +
                " is trained from scratch; set weights: random and trainable: all");
  }
  auto resnet = std::make_shared<ResNet18Impl>(resnet_options(config));
  const int64_t blocks = trainable_blocks(config, resnet->depth());
  resnet->train_last_blocks(blocks);
  *inputs = {{"path", "random"}};
  if (blocks < resnet->depth()) (*inputs)["warning"] = kUntrained;
  return resnet;
}

Learner::Learner(const Config& config, const Stream& stream, const Dataset& train,
                 const torch::Device& device_, const std::string& folder)
    : device(device_) {
  inputs = Json::object();
  backbone = make_backbone(config.backbone, &inputs["weights"]);
  backbone->to(device);
  backbone->eval();  // a network that trains switches for itself
  const QueryBackboneConfig& query = config.efficiency.query_backbone;
  if (!query.name.empty()) {
    BackboneConfig small;
    small.name = query.name;
    small.weights = query.weights;
    small.image_size = backbone->image_size();
    query_backbone = make_vit(small, &inputs["query_weights"]);
    query_backbone->to(device);
  }
  efficiency =
      std::make_unique<Efficiency>(config.efficiency, backbone, query_backbone, config.seed);
  images = std::make_unique<TaskImages>(
      train, transform(config, /*train=*/true), transform(config, /*train=*/false),
      TaskImages::Options{config.eval.batch_size, config.train.workers, config.seed}, device);
  if (config.train.augment == "none") efficiency->remember_train_queries(train.size());
  method =
      Registry<MethodKind>::get()
          .at(config.method.name)
          .value.make({config.method, backbone, *efficiency, *images, stream.num_classes(),
                       static_cast<int64_t>(stream.tasks.size()), config.seed, device, folder});
  if (config.eval.classes == "all" && !method->has_unseen_logits()) {
    throw Error("eval.classes: " + config.method.name +
                " has logits of the classes seen so far only; set it to seen");
  }
  efficiency->check_prompted_blocks(config.method.name);
  // Not before the method has said what of the backbone it trains (ConvPrompt: the norms).
  const auto prepare = [&](VisionTransformerImpl& vit) {
    if (config.precision == "bf16") vit.multiply_in_bf16();
    if (config.backbone.graphs) vit.record_passes(graph_recorder(device));
  };
  if (const auto vit = std::dynamic_pointer_cast<VisionTransformerImpl>(backbone)) prepare(*vit);
  if (!query_backbone.is_empty()) prepare(*query_backbone);
}

void Learner::join(std::shared_ptr<World> processes, const Config& config) {
  world = std::move(processes);
  if (world->size() == 1) return;
  const std::string several = std::to_string(world->size()) + " processes";
  if (!method->can_share_batches()) {
    throw Error("method: " + config.method.name +
                ", with these options, learns from whole batches, which " + several +
                " cannot share; run one process");
  }
  if (!backbone->buffers().empty() && config.backbone.trainable != "none") {
    throw Error("backbone: the batch norms of " + config.backbone.name +
                " need whole batches, which " + several +
                " cannot share; run one process, or freeze the backbone");
  }
  if (config.train.macs > 0 || config.train.seconds > 0) {
    throw Error("train: budgets of macs and seconds would end in different steps in " + several +
                "; take train.iterations");
  }
}

Transform Learner::transform(const Config& config, bool train) const {
  return Transform(config.train.augment, backbone->image_size(),
                   normalisation(config.backbone.normalise), train);
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
  total += method->frozen_parameters();
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
