#include "run/learner.h"

#include <algorithm>
#include <utility>

#include "core/error.h"
#include "core/interrupt.h"
#include "tensor/recorder.h"
#include "tensor/torch.h"

namespace rep {

std::vector<std::string> remarks(const Json& inputs) {
  std::vector<std::string> lines;
  for (const auto& [name, input] : inputs.items()) {
    for (const Json& note : input.value("notes", Json::array())) {
      lines.push_back(name + ": " + note.get<std::string>());
    }
    if (input.contains("hint")) lines.push_back(name + ": " + input["hint"].get<std::string>());
  }
  return lines;
}

void report_inputs(const Json& inputs, Progress& progress) {
  for (const auto& [name, input] : inputs.items()) {
    if (input.contains("warning")) progress.warn(name + ": " + input["warning"].get<std::string>());
  }
  for (const std::string& line : remarks(inputs)) progress.info(line);
}

Learner::Learner(const Config& config, const Stream& stream, const Dataset& train,
                 const torch::Device& device_, const std::string& folder)
    : device(device_) {
  inputs = Json::object();
  const MethodKind& kind = Registry<MethodKind>::get().at(config.method.name).value;
  // Elsewhere, and where norms train, once all is in its place: the sums are rounded as they were.
  const bool at_once = config.precision == "bf16" && device.is_cpu() && !kind.trains_norms;
  backbone = family_of(config.backbone.name).make(config.backbone, &inputs["weights"], at_once);
  backbone->to(device);
  backbone->eval();  // a network that trains switches for itself
  const QueryBackboneConfig& query = config.efficiency.query_backbone;
  if (!query.name.empty()) {
    BackboneConfig small;
    small.name = query.name;
    small.weights = query.weights;
    small.weights_key = query.weights_key;
    small.normalise = config.backbone.normalise;
    small.image_size = backbone->image_size();
    query_backbone = make_vit(small, &inputs["query_weights"]);
    query_backbone->to(device);
  }
  efficiency =
      std::make_unique<Efficiency>(config.efficiency, backbone, query_backbone, config.seed);
  TaskImages::Options of_images;
  of_images.workers = config.train.workers;
  of_images.seed = config.seed;
  images = std::make_unique<TaskImages>(train, transform(config, /*train=*/true),
                                        transform(config, /*train=*/false), of_images, device);
  if (config.train.augment == "none") efficiency->queries.cache_train(train.size());
  const RoomConfig& room = config.stream.room_for;
  made_for = {std::max(stream.num_classes(), room.classes),
              std::max(static_cast<int64_t>(stream.tasks.size()), room.tasks)};
  method = kind.make({config.method, backbone, *efficiency, *images, made_for.classes,
                      made_for.tasks, config.seed, device, folder});
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

std::string Learner::why_batches_stay_whole(const Config& config) const {
  if (!method->can_share_batches()) {
    return "method: " + config.method.name + ", with these options, learns from whole batches";
  }
  if (!backbone->buffers().empty() && config.backbone.trainable != "none") {
    return "backbone: the batch norms of " + config.backbone.name + " need whole batches";
  }
  return "";
}

void Learner::join(std::shared_ptr<World> processes, const Config& config) {
  world = std::move(processes);
  const std::string whole = why_batches_stay_whole(config);
  if (config.train.micro_batch_size > 0 && !whole.empty()) {
    throw Error(whole + ", which cannot be cut; leave train.micro_batch_size out");
  }
  if (world->size() == 1) return;
  synchronise_interrupts();  // a pre-training before this was one process's own
  const std::string several = std::to_string(world->size()) + " processes";
  if (!whole.empty()) throw Error(whole + ", which " + several + " cannot share; run one process");
  if (config.train.micro_batch_size > 0) {
    throw Error("train.micro_batch_size: " + several +
                " share each batch already; leave it out, or run one process");
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
  s.scope("efficiency", [&](State& inner) { efficiency->queries.state(inner); });
  s.scope("method", [&](State& inner) { method->state(inner); });
}

int64_t Learner::state_bytes() {
  State s;
  method->state(s);
  return s.bytes() + efficiency->queries.carried_bytes();
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
