// The idea in three lines: forward, the blocks run without a gradient; backward, they run again on
// copies of what they take from outside, cut off from the graph, and the gradients of the copies
// are those of what was copied.
#include "nn/block_recompute.h"

#include <algorithm>
#include <memory>
#include <utility>

#include "tensor/meter.h"

namespace rep {

namespace {

// Calls visit(tensor) for what wants a gradient of all that these blocks take from the plan.
template <class Visit>
void each_learned(ForwardPlan& plan, const std::vector<int64_t>& blocks, const Visit& visit) {
  const auto one = [&](torch::Tensor& t) {
    if (t.defined() && t.requires_grad()) visit(t);
  };
  for (const int64_t index : blocks) {
    if (plan.detaches(index)) continue;  // learns nothing
    const auto block = static_cast<size_t>(index);
    if (!plan.prefixes.empty()) one(plan.prefixes[block]);
    if (!plan.class_offsets.empty()) one(plan.class_offsets[block]);
    if (!plan.adapters.empty()) {
      Adapter& a = plan.adapters[block];
      for (torch::Tensor* t : {&a.down_weight, &a.down_bias, &a.up_weight, &a.up_bias}) one(*t);
    }
    if (plan.branches.empty()) continue;
    BlockBranches& branches = plan.branches[block];
    one(branches.qkv_weight);
    for (LowRankPairs* pairs : {&branches.qkv, &branches.fc1, &branches.fc2}) {
      for (LowRankPair& pair : *pairs) {
        for (torch::Tensor* t : {&pair.down, &pair.up, &pair.bias, &pair.gains}) one(*t);
      }
    }
  }
}

// The blocks, and all that they take but their input.
struct Again : torch::CustomClassHolder {
  RunBlocks run;
  std::vector<int64_t> blocks;
  ForwardPlan plan;
  TokenStream stream;  // without x

  TokenStream run_on(const torch::Tensor& x, const ForwardPlan& with) const {
    TokenStream tokens = stream;
    tokens.x = x;
    run(tokens, with, blocks);
    return tokens;
  }
};

struct KeepingInput : torch::autograd::Function<KeepingInput> {
  // x [B, N, D] and what the blocks learn from, in the order of each_learned.
  static torch::Tensor forward(torch::autograd::AutogradContext* ctx, const torch::Tensor& x,
                               const at::TensorList& /*learned*/,
                               const c10::intrusive_ptr<Again>& again, TokenStream* out) {
    ctx->save_for_backward({x});
    ctx->saved_data["again"] = c10::IValue::make_capsule(again);
    ctx->saved_data["x"] = x.requires_grad();
    *out = again->run_on(x, again->plan);
    return out->x;
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* ctx,
                                                 torch::autograd::variable_list grads) {
    const auto again =
        c10::static_intrusive_pointer_cast<Again>(ctx->saved_data["again"].toCapsule());
    const bool wants_x = ctx->saved_data["x"].toBool();
    const torch::AutoGradMode on(true);
    const torch::Tensor x = ctx->get_saved_variables()[0].detach().set_requires_grad(wants_x);
    ForwardPlan plan = again->plan;
    torch::autograd::variable_list inputs;
    if (wants_x) inputs.push_back(x);
    each_learned(plan, again->blocks, [&](torch::Tensor& t) {
      t = t.detach().set_requires_grad(true);
      inputs.push_back(t);
    });
    torch::Tensor out;
    {
      const UncountedMacs made_before;
      out = again->run_on(x, plan).x;
    }
    torch::autograd::variable_list all =
        torch::autograd::grad({out}, inputs, {grads[0]}, /*retain_graph=*/false,
                              /*create_graph=*/false, /*allow_unused=*/true);
    if (!wants_x) all.insert(all.begin(), torch::Tensor());
    all.resize(all.size() + 2);  // of `again` and `out`
    return all;
  }
};

}  // namespace

bool can_run_again(const ForwardPlan& plan) {
  const bool draws = std::any_of(plan.adapters.begin(), plan.adapters.end(),
                                 [](const Adapter& adapter) { return adapter.dropout > 0; });
  return !draws && !plan.make_prefix && !plan.observe && !plan.patch_scores;
}

void run_keeping_input(TokenStream& stream, const ForwardPlan& plan,
                       const std::vector<int64_t>& blocks, const RunBlocks& run) {
  auto again = c10::make_intrusive<Again>();
  again->run = run;
  again->blocks = blocks;
  again->plan = plan;
  std::vector<torch::Tensor> learned;
  each_learned(again->plan, blocks, [&](torch::Tensor& t) { learned.push_back(t); });
  if (learned.empty() && !stream.x.requires_grad()) return run(stream, plan, blocks);
  again->plan.prompts = torch::Tensor();  // entered with the image
  again->stream = stream;
  again->stream.x = torch::Tensor();
  TokenStream out;
  const torch::Tensor x = KeepingInput::apply(stream.x, at::TensorList(learned), again, &out);
  stream = out;
  stream.x = x;
}

}  // namespace rep
