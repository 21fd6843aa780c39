// no_prompt, linear_probe, finetune and joint: the references without a continual-learning idea.
// no_prompt is a prompt method's loop with all prompts off (what any prompt must improve on):
// frozen backbone, a head trained on the current task's classes only. linear_probe trains the same
// head against every class seen so far. finetune trains the backbone too, as far as
// backbone.trainable says. joint has every task's images at once: the upper bound.
#include "methods/head_methods.h"

namespace rep {

namespace {

struct CurrentOptions : NetworkOptions {
  CurrentOptions() { logits = "current"; }
  template <class Visitor>
  void fields(Visitor&& visit) {
    network_fields(visit);
  }
};
struct SeenOptions : NetworkOptions {
  template <class Visitor>
  void fields(Visitor&& visit) {
    network_fields(visit);
  }
};

class FrozenHead final : public HeadMethod {
 public:
  FrozenHead(const MethodContext& context, const NetworkOptions& options)
      : HeadMethod(context, options) {
    if (!network_.frozen()) {
      throw Error("backbone.trainable: " + context.options.name +
                  " keeps the backbone frozen; take method finetune or trainable: none");
    }
  }
};

class Finetune final : public HeadMethod {
 public:
  Finetune(const MethodContext& context, const NetworkOptions& options)
      : HeadMethod(context, options) {
    if (network_.frozen()) {
      throw Error(
          "backbone.trainable: finetune has nothing but the head to train; set it to all or to a "
          "number of last blocks, or take method linear_probe");
    }
  }
};

MethodKind joint_kind() {
  MethodKind kind = method_kind<HeadMethod, SeenOptions>();
  kind.rearrange = give_all_training_to_the_last_task;
  return kind;
}

const Registered<MethodKind> kNoPrompt{"no_prompt",
                                       "the prompt methods' loop without prompts (l2p-pytorch "
                                       "issue 35: the baseline every prompt table needs)",
                                       method_kind<FrozenHead, CurrentOptions>()};
const Registered<MethodKind> kLinearProbe{
    "linear_probe", "a linear head on the frozen backbone, trained task after task",
    method_kind<FrozenHead, SeenOptions>()};
const Registered<MethodKind> kFinetune{
    kFinetuneName, "sequential fine-tuning of backbone and head (the lower bound)",
    method_kind<Finetune, SeenOptions>()};
const Registered<MethodKind> kJoint{
    "joint", "all tasks at once (the upper bound); the backbone as backbone.trainable says",
    joint_kind()};

}  // namespace

}  // namespace rep
