// APER: Revisiting Class-Incremental Learning with Pre-Trained Models (Zhou et al., arXiv
// 2303.07338), with an adapter.
// The idea in three lines: the first task adapts the ViT through small adapters, then everything is
// frozen; the features of the plain and of the adapted ViT are put side by side; an image gets the
// class whose mean of them has the largest cosine with it. Differs from the authors' code: the test
// set is not tested after every epoch of the first task; of its kinds of adaption the adapter only.
#include <algorithm>
#include <string>
#include <vector>

#include "methods/adapter_options.h"
#include "methods/class_means.h"
#include "methods/cosine_head.h"
#include "methods/frozen_features.h"
#include "methods/method.h"
#include "tensor/torch.h"

namespace rep {

namespace {

struct AperOptions : AdapterOptions {
  std::vector<std::string> branches{"plain", "adapted"};
  template <class Visitor>
  void fields(Visitor&& visit) {
    adapter_fields(visit);
    visit("branches", branches,
          doc("Whose features an image is compared by: plain, adapted, or both side by side."));
  }
  bool has(const std::string& branch) const {
    return std::count(branches.begin(), branches.end(), branch) > 0;
  }
};

class Aper final : public Method {
 public:
  Aper(const MethodContext& context, const AperOptions& options)
      : options_(checked(options)),
        backbone_(context.vit()),
        efficiency_(context.efficiency),
        features_(context),
        images_(context.images),
        device_(context.device),
        adapters_(backbone_->depth(), features_.dim(), options.of_set(), context.device),
        means_(context.num_classes, features_.dim() * static_cast<int64_t>(options.branches.size()),
               context.device) {}

  void begin_task(const Task& task) override {
    adapting_ = task.index == 0;
    if (adapting_) head_ = CosineHead(features_.dim(), task.last_label(), device_);
  }
  std::vector<torch::Tensor> parameters() override {
    if (!adapting_) return {};
    std::vector<torch::Tensor> parameters = head_.parameters();
    for (const auto& parameter : adapters_.parameters()) parameters.push_back(parameter);
    return parameters;
  }
  int64_t frozen_parameters() override { return adapting_ ? 0 : adapters_.numel(); }
  bool can_share_batches() const override { return options_.adapter_dropout == 0; }

  torch::Tensor loss(const Batch& batch) override {
    ForwardPlan plan = efficiency_.train_plan(batch.images, batch.indices);
    plan.adapters = adapters_.for_training();
    return torch::cross_entropy_loss(head_.logits(backbone_->features(batch.images, plan)),
                                     batch.labels);
  }

  void end_task(const Task& task) override {
    adapting_ = false;
    adapters_.freeze();
    means_.fit(task, [&](const ClassMeans::Take& take) {
      images_.each_batch(task.train, [&](const Batch& batch) {
        take(side_by_side([&](const auto& adapters) { return features_.fixed(batch, adapters); }),
             batch.labels);
      });
    });
  }
  bool learns_repeated_classes() const override { return true; }
  torch::Tensor predict(const Batch& batch) override {
    return means_.logits(
        side_by_side([&](const auto& adapters) { return features_.test(batch, adapters); }));
  }

  void state(State& s) override {
    s("adapting", adapting_);
    adapters_.state(s);
    means_.state(s);
    if (adapting_) {
      if (s.loading())
        head_ = CosineHead(features_.dim(), 1, device_);  // its sizes are the state's
      head_.state(s);
    } else if (s.loading()) {
      adapters_.freeze();
    }
  }

 private:
  static const AperOptions& checked(const AperOptions& options) {
    const auto& branches = options.branches;
    if (branches.empty() ||
        !std::all_of(branches.begin(), branches.end(), [&](const std::string& branch) {
          return (branch == "plain" || branch == "adapted") &&
                 std::count(branches.begin(), branches.end(), branch) == 1;
        })) {
      throw Error("method: branches of aper must be [plain, adapted], [adapted] or [plain]");
    }
    return options;
  }

  // The branches' features [B, D], each of a pass of its own.
  template <class Pass>
  torch::Tensor side_by_side(const Pass& pass) const {
    std::vector<torch::Tensor> parts;
    if (options_.has("plain")) parts.push_back(pass(std::vector<Adapter>{}));
    if (options_.has("adapted")) parts.push_back(pass(adapters_.for_testing()));
    return torch::cat(parts, 1);
  }

  AperOptions options_;
  VisionTransformer backbone_;
  Efficiency& efficiency_;
  FrozenFeatures features_;
  const TaskImages& images_;
  torch::Device device_;
  AdapterSet adapters_;
  CosineHead head_;  // of the first task
  ClassMeans means_;
  bool adapting_ = false;  // in the first task, before its end
};

const Registered<MethodKind> kAper{"aper",
                                   "Zhou et al. 2023, APER with an adapter (arXiv 2303.07338)",
                                   method_kind<Aper, AperOptions>()};

}  // namespace

}  // namespace rep
