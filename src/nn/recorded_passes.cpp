// The idea in three lines: what a pass reads from outside, images and prompts, is copied to places
// of its own, where the recording finds it; prompts of all kinds lie in one row there, so that
// autograd sees one tensor go in and one come out (after PyTorch's make_graphed_callables).
#include "nn/recorded_passes.h"

#include <algorithm>
#include <string>
#include <utility>

#include "tensor/meter.h"

namespace rep {

namespace {

constexpr int64_t kTimesBefore = 2, kMaxRecordings = 8, kMaxSeen = 4096;

bool can_be_recorded(const ForwardPlan& plan) {
  const auto any = [](const std::vector<bool>& blocks) {
    return std::find(blocks.begin(), blocks.end(), true) != blocks.end();
  };
  return !plan.make_prefix && plan.adapters.empty() && plan.branches.empty() && !plan.observe &&
         !plan.kept_patches.defined() && !plan.patch_scores && !any(plan.skip) &&
         !any(plan.detach) && plan.scale.empty();
}

// The plan's tensors that come from outside: prompts, prefixes and offsets.
std::vector<torch::Tensor> learned_of(const ForwardPlan& plan) {
  std::vector<torch::Tensor> tensors;
  if (plan.prompts.defined()) tensors.push_back(plan.prompts);
  for (const auto* list : {&plan.prefixes, &plan.class_offsets}) {
    for (const auto& t : *list) {
      if (t.defined()) tensors.push_back(t);
    }
  }
  return tensors;
}

torch::Tensor in_one_row(const std::vector<torch::Tensor>& tensors) {
  std::vector<torch::Tensor> rows;
  for (const auto& t : tensors) rows.push_back(t.flatten());
  return rows.empty() ? torch::Tensor() : torch::cat(rows);
}

// The plan with its tensors, of the same sizes, taken from the row.
ForwardPlan with_learned(ForwardPlan plan, const torch::Tensor& row) {
  int64_t at = 0;
  const auto take = [&](torch::Tensor& t) {
    if (!t.defined()) return;
    const int64_t count = t.numel();
    t = row.narrow(0, at, count).view(t.sizes());
    at += count;
  };
  take(plan.prompts);
  for (auto& prefix : plan.prefixes) take(prefix);
  for (auto& offset : plan.class_offsets) take(offset);
  return plan;
}

std::vector<int64_t> key_of(const torch::Tensor& images, const torch::Tensor& learned,
                            const ForwardPlan& plan) {
  std::vector<int64_t> key;
  const auto add_sizes = [&](const torch::Tensor& t) {
    key.push_back(t.defined() ? t.dim() : -1);
    if (t.defined()) key.insert(key.end(), t.sizes().begin(), t.sizes().end());
  };
  add_sizes(images);
  add_sizes(plan.prompts);
  for (const auto& prefix : plan.prefixes) add_sizes(prefix);
  for (const auto& offset : plan.class_offsets) add_sizes(offset);
  key.push_back(static_cast<int64_t>(plan.merge.size()));
  key.insert(key.end(), plan.merge.begin(), plan.merge.end());
  key.insert(key.end(), {plan.proportional_attention, plan.size_weighted, plan.outputs.first,
                         plan.outputs.count, learned.defined() && learned.requires_grad(),
                         torch::GradMode::is_enabled(), c10::InferenceMode::is_enabled()});
  return key;
}

// Runs the work, which no method asked for: the MACs it takes, uncounted.
int64_t macs_of(const Work& work) {
  const int64_t before = macs_so_far();
  work();
  const int64_t macs = macs_so_far() - before;
  count_macs(-macs);
  return macs;
}

void check_close(const torch::Tensor& recorded, const torch::Tensor& expected) {
  const auto off = (recorded - expected).norm().item<double>();
  const auto size = expected.norm().item<double>();
  TORCH_CHECK(off <= 0.01 * size, "the recorded pass differs by ", off, " of ", size);
}

}  // namespace

struct RecordedPasses::Recording {
  torch::Tensor images, learned;  // where the recording reads them; learned undefined: none
  torch::Tensor out, d_out, d_learned;
  Work forward, backward;  // backward empty: no gradient wanted
  int64_t forward_macs = 0, backward_macs = 0;
  bool in_use = false;  // its backward is still to come

  torch::Tensor run(const torch::Tensor& new_images, const torch::Tensor& new_learned) {
    const torch::NoGradGuard no_grad;
    images.copy_(new_images);
    if (learned.defined()) learned.copy_(new_learned);
    forward();
    count_macs(forward_macs);
    return out.detach().clone();
  }

  // While it lives, the recording's activations are some pass's.
  struct Lease : torch::CustomClassHolder {
    explicit Lease(std::shared_ptr<Recording> of) : recording(std::move(of)) {
      recording->in_use = true;
    }
    ~Lease() override { recording->in_use = false; }
    std::shared_ptr<Recording> recording;
  };

  struct Function : torch::autograd::Function<Function> {
    static torch::Tensor forward(torch::autograd::AutogradContext* ctx,
                                 const torch::Tensor& learned, const torch::Tensor& images,
                                 const std::shared_ptr<Recording>& recording) {
      ctx->saved_data["lease"] = c10::IValue::make_capsule(c10::make_intrusive<Lease>(recording));
      return recording->run(images, learned);
    }
    static torch::autograd::variable_list backward(torch::autograd::AutogradContext* ctx,
                                                   torch::autograd::variable_list grads) {
      TORCH_CHECK(ctx->saved_data.count("lease") > 0, "a recorded pass goes backward once");
      const auto lease =
          c10::static_intrusive_pointer_cast<Lease>(ctx->saved_data["lease"].toCapsule());
      ctx->saved_data.clear();
      Recording& recording = *lease->recording;
      recording.d_out.copy_(grads[0]);
      recording.backward();
      count_macs(recording.backward_macs);
      return {recording.d_learned.clone(), {}, {}};
    }
  };
};

RecordedPasses::RecordedPasses(Pass pass, Recorder recorder)
    : pass_(std::move(pass)), recorder_(std::move(recorder)) {}
RecordedPasses::~RecordedPasses() = default;

std::shared_ptr<RecordedPasses::Recording> RecordedPasses::record(const torch::Tensor& images,
                                                                  const torch::Tensor& learned,
                                                                  const ForwardPlan& plan) const {
  const auto made = std::make_shared<Recording>();
  Recording* const r = made.get();
  r->images = images.detach().clone();
  if (learned.defined()) {
    r->learned = learned.detach().clone();
    r->learned.set_requires_grad(torch::GradMode::is_enabled() && learned.requires_grad());
  }
  const bool backward = r->learned.defined() && r->learned.requires_grad();
  // Without the plan's own tensors, which would hold whatever they were made of.
  const ForwardPlan sizes =
      with_learned(plan, r->learned.defined() ? r->learned.detach() : learned);
  std::vector<Work> works{[r, sizes, backward, this] {
    const torch::AutoGradMode grad_mode(backward);
    r->out = pass_(r->images, with_learned(sizes, r->learned));
  }};
  if (backward) {
    works.emplace_back(
        [r] { r->d_learned = torch::autograd::grad({r->out}, {r->learned}, {r->d_out})[0]; });
  }

  // The pass itself, for what is to come out.
  r->forward_macs = macs_of(works[0]);
  // A slope along which a norm's outputs change: all ones would have no gradient.
  r->d_out = torch::arange(r->out.numel(), r->out.options()).sin().view(r->out.sizes());
  if (backward) r->backward_macs = macs_of(works[1]);
  const torch::Tensor out = r->out.detach().clone();
  const torch::Tensor d_learned = backward ? r->d_learned.clone() : torch::Tensor();

  macs_of([&] { works = recorder_(works); });
  r->forward = works[0];
  if (backward) r->backward = works[1];
  r->out.detach().zero_();
  if (backward) r->d_learned.zero_();
  for (const Work& work : works) macs_of(work);
  check_close(r->out.detach(), out);
  if (backward) check_close(r->d_learned, d_learned);
  return made;
}

torch::Tensor RecordedPasses::operator()(const torch::Tensor& images, const ForwardPlan& plan) {
  if (!recorder_ || !can_be_recorded(plan)) return pass_(images, plan);
  const torch::Tensor learned = in_one_row(learned_of(plan));
  const auto key = key_of(images, learned, plan);
  if (seen_.size() >= kMaxSeen && seen_.count(key) == 0) return pass_(images, plan);
  Seen& seen = seen_[key];
  if (++seen.times <= kTimesBefore) return pass_(images, plan);
  if (!seen.recording) {
    if (recordings_ == kMaxRecordings) return pass_(images, plan);
    try {
      seen.recording = record(images, learned, plan);
      ++recordings_;
    } catch (const std::exception& e) {
      const std::string why = e.what();
      TORCH_WARN("passes are not recorded: ", why.substr(0, why.find('\n')));
      recorder_ = nullptr;
      return pass_(images, plan);
    }
  }
  if (seen.recording->in_use) return pass_(images, plan);
  ++started_;
  if (!seen.recording->backward) return seen.recording->run(images, learned);
  return Recording::Function::apply(learned, images, seen.recording);
}

}  // namespace rep
