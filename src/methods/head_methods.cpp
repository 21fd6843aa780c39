// no_prompt, linear_probe and finetune: the references without a continual-learning idea.
// no_prompt is a prompt method's loop with all prompts off (what any prompt must improve on):
// frozen backbone, a head trained on the current task's classes only. linear_probe trains the same
// head against every class seen so far. finetune trains the backbone too, as far as
// backbone.trainable says.
#include "methods/head_methods.h"

namespace rep {

HeadMethod::HeadMethod(const MethodContext& context, const HeadOptions& options)
    : options_(options),
      backbone_(context.backbone),
      efficiency_(context.efficiency),
      head_(backbone_->options.embed_dim, context.num_classes, context.device) {}

std::vector<torch::Tensor> HeadMethod::parameters() {
  auto parameters = head_.parameters();
  for (const auto& parameter : backbone_->parameters()) {
    if (parameter.requires_grad()) parameters.push_back(parameter);
  }
  return parameters;
}

torch::Tensor HeadMethod::loss(const Batch& batch) {
  const torch::Tensor features =
      backbone_->forward(batch.images, efficiency_.train_plan()).select(1, 0);
  return Classifier::loss(head_.logits(features), batch.labels, trained_.first, trained_.last);
}

torch::Tensor HeadMethod::predict(const Batch& batch) {
  return head_.logits(backbone_->forward(batch.images, efficiency_.test_plan()).select(1, 0));
}

void HeadMethod::state(State& s) {
  head_.state(s);
  trained_.state(s);
  for (auto& item : backbone_->named_parameters()) {
    if (item.value().requires_grad()) s("backbone." + item.key(), item.value());
  }
}

namespace {

struct CurrentOptions : HeadOptions {
  CurrentOptions() { logits = "current"; }
};
struct SeenOptions : HeadOptions {
  SeenOptions() { logits = "seen"; }
};

class FrozenHead final : public HeadMethod {
 public:
  FrozenHead(const MethodContext& context, const HeadOptions& options)
      : HeadMethod(context, options) {
    if (parameters().size() > 2) {
      throw Error("backbone.trainable: " + context.options.name +
                  " keeps the backbone frozen; take method finetune or trainable: none");
    }
  }
  // A frozen backbone's feature of a test image is its query: computed once a run.
  torch::Tensor predict(const Batch& batch) override {
    const bool merges = !efficiency_.test_plan().merge.empty();
    if (merges || !efficiency_.query_is_feature()) return HeadMethod::predict(batch);
    return head_.logits(efficiency_.test_query(batch.images, batch.indices));
  }
};

class Finetune final : public HeadMethod {
 public:
  Finetune(const MethodContext& context, const HeadOptions& options)
      : HeadMethod(context, options) {
    if (parameters().size() <= 2) {
      throw Error(
          "backbone.trainable: finetune has nothing but the head to train; set it to all or to a "
          "number of last blocks, or take method linear_probe");
    }
  }
};

const Registered<MethodKind> kNoPrompt{"no_prompt",
                                       "the prompt methods' loop without prompts (l2p-pytorch "
                                       "issue 35: the baseline every prompt table needs)",
                                       method_kind<FrozenHead, CurrentOptions>()};
const Registered<MethodKind> kLinearProbe{
    "linear_probe", "a linear head on the frozen backbone, trained task after task",
    method_kind<FrozenHead, SeenOptions>()};
const Registered<MethodKind> kFinetune{
    "finetune", "sequential fine-tuning of backbone and head (the lower bound)",
    method_kind<Finetune, SeenOptions>()};

}  // namespace

}  // namespace rep
