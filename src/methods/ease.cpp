// EASE: Expandable Subspace Ensemble for Pre-Trained Model-Based Class-Incremental Learning (Zhou
// et al., arXiv 2403.12030). The idea in three lines: each task trains adapters of its own, and
// earlier ones stay as they are; an image has a feature through each of them and is compared in
// each with the classes' means, those of its own task's adapters counting most; means that an old
// class never had in a new subspace are put together from those of similar new classes. Differs
// from the authors' code: their variant that keeps only the plain ViT's and the newest features
// (use_diagonal) is not here.
#include "methods/ease.h"

#include <limits>
#include <string>

#include "methods/adapter_options.h"
#include "methods/cosine_head.h"
#include "methods/frozen_features.h"
#include "methods/method.h"
#include "tensor/torch.h"

namespace rep {

void complete_prototypes(const torch::Tensor& prototypes, const std::vector<int64_t>& task_sizes,
                         int64_t from) {
  const auto tasks = static_cast<int64_t>(task_sizes.size());
  int64_t first = 0;  // class of task i
  for (int64_t i = 0; i < tasks; ++i) {
    const int64_t size = task_sizes[static_cast<size_t>(i)];
    int64_t source = first;  // first class of task j
    for (int64_t j = i; j < tasks; ++j) {
      if (j > i && j >= from) {
        const torch::Tensor old = prototypes.narrow(0, first, size);
        const torch::Tensor sources = prototypes.narrow(0, source, prototypes.size(0) - source);
        const torch::Tensor alike = cosines(old.select(1, i), sources.select(1, i)).softmax(1);
        old.select(1, j).copy_(torch::mm(alike, sources.select(1, j)));
      }
      source += task_sizes[static_cast<size_t>(j)];
    }
    first += size;
  }
}

torch::Tensor reweighted_logits(const torch::Tensor& features, const torch::Tensor& prototypes,
                                const std::vector<int64_t>& task_sizes, double alpha) {
  const int64_t S = features.size(1);
  // [S, B, C]
  const torch::Tensor alike = torch::matmul(unit_length(features).transpose(0, 1),
                                            unit_length(prototypes).permute({1, 2, 0}));
  const double others = S > 1 ? alpha / static_cast<double>(S - 1) : 0;
  torch::Tensor logits = others * alike.sum(0);
  int64_t first = 0;
  for (int64_t i = 0; i < S; ++i) {
    const int64_t size = task_sizes[static_cast<size_t>(i)];
    logits.narrow(1, first, size).add_(alike[i].narrow(1, first, size), 1 - others);
    first += size;
  }
  return logits;
}

namespace {

struct EaseOptions : AdapterOptions {
  double alpha = 0.1;
  double beta = 0;
  std::string complement = "recalc";
  bool reweight = true;
  template <class Visitor>
  void fields(Visitor&& visit) {
    adapter_fields(visit);
    visit("alpha", alpha, at_least(0),
          doc("Weight of all other tasks' adapters together, beside 1 for a class's own."));
    visit("beta", beta, at_least(0),
          doc("Weight of the plain ViT, for one more pass; 0: not asked."));
    visit("complement", complement, one_of({"recalc", "newest", "zero"}),
          doc("Old classes' means in new subspaces. recalc: all, after every task; newest: once, "
              "in the newest; zero: none."));
    visit("reweight", reweight,
          doc("Weigh subspaces by alpha; false: one cosine over all features side by side."));
  }
};

class Ease final : public Method {
 public:
  Ease(const MethodContext& context, const EaseOptions& options)
      : options_(options),
        backbone_(context.vit()),
        efficiency_(context.efficiency),
        features_(context),
        images_(context.images),
        num_classes_(context.num_classes),
        num_tasks_(context.num_tasks),
        device_(context.device),
        prototypes_(torch::zeros({0, 0, features_.dim()}, context.device)),
        plain_(torch::zeros({0, features_.dim()}, context.device)),
        counts_(torch::zeros({0}, context.device)) {}

  void begin_task(const Task& task) override {
    trained_ = ClassRange::of(task, "current");
    if (!sets_.empty()) sets_.back().freeze();
    sets_.push_back(new_set());
    training_ = true;
    head_ = CosineHead(features_.dim(), trained_.size(), device_);
  }
  std::vector<torch::Tensor> parameters() override {
    if (!training_) return {};
    std::vector<torch::Tensor> parameters = head_.parameters();
    for (const auto& parameter : sets_.back().parameters()) parameters.push_back(parameter);
    return parameters;
  }
  int64_t frozen_parameters() override {
    int64_t sum = 0;
    for (const AdapterSet& set : sets_) sum += set.numel();
    return training_ ? sum - sets_.back().numel() : sum;
  }
  bool loss_is_within_task() const override { return true; }
  bool can_share_batches() const override { return options_.adapter_dropout == 0; }

  torch::Tensor loss(const Batch& batch) override {
    ForwardPlan plan = efficiency_.train_plan(batch.images, batch.indices);
    plan.adapters = sets_.back().for_training();
    return torch::cross_entropy_loss(head_.logits(backbone_->features(batch.images, plan)),
                                     batch.labels - trained_.first);
  }

  void end_task(const Task& task) override {
    torch::NoGradGuard no_grad;
    training_ = false;
    sets_.back().freeze();
    const int64_t first = task.first_label, size = task.last_label() - first;
    const auto S = static_cast<int64_t>(sets_.size());
    task_sizes_.push_back(size);
    torch::Tensor sums = torch::zeros({size, S + plain(), features_.dim()},
                                      torch::device(device_).dtype(torch::kDouble));
    torch::Tensor counts = torch::zeros({size}, sums.options());
    images_.each_batch(task.train, [&](const Batch& batch) {
      const torch::Tensor labels = batch.labels - first;
      sums.index_add_(0, labels, features(batch, /*test=*/false).to(torch::kDouble));
      counts.index_add_(0, labels, torch::ones_like(labels, counts.options()));
    });
    const torch::Tensor means = (sums / counts.clamp_min(1).view({-1, 1, 1})).to(torch::kFloat);
    // Old classes' prototypes in the new subspace are not known yet.
    prototypes_ =
        torch::cat({torch::constant_pad_nd(prototypes_, {0, 0, 0, S - prototypes_.size(1)}),
                    means.narrow(1, plain(), S)});
    if (plain() > 0) plain_ = torch::cat({plain_, means.select(1, 0)});
    counts_ = torch::cat({counts_, counts.to(torch::kFloat)});
    if (options_.complement == "zero") return;
    complete_prototypes(prototypes_, task_sizes_, options_.complement == "newest" ? S - 1 : 1);
  }

  torch::Tensor predict(const Batch& batch) override {
    const torch::Tensor all = features(batch, /*test=*/true);
    const int64_t S = prototypes_.size(1);
    const torch::Tensor own = all.narrow(1, plain(), S);
    torch::Tensor logits;
    if (options_.reweight) {
      logits = reweighted_logits(own, prototypes_, task_sizes_, options_.alpha);
      if (plain() > 0) logits = logits + options_.beta * cosines(all.select(1, 0), plain_);
    } else {
      torch::Tensor rows = prototypes_;
      if (plain() > 0) rows = torch::cat({plain_.unsqueeze(1), rows}, 1);
      logits = cosines(all.narrow(1, 0, plain() + S).flatten(1), rows.flatten(1));
    }
    const double never = -std::numeric_limits<double>::infinity();
    return torch::constant_pad_nd(logits.masked_fill(counts_.eq(0), never),
                                  {0, num_classes_ - logits.size(1)}, never);
  }

  void state(State& s) override {
    const int64_t count = s.count("sets", sets_.size(), num_tasks_);
    s("training", training_);
    while (static_cast<int64_t>(sets_.size()) < count) sets_.push_back(new_set());
    for (size_t i = 0; i < sets_.size(); ++i) {
      s.scope("set." + std::to_string(i), [&](State& inner) { sets_[i].state(inner); });
    }
    s("prototype", prototypes_);
    s("plain_prototype", plain_);
    s("count", counts_);
    s("task_sizes", task_sizes_);
    if (s.loading()) {
      for (size_t i = 0; i + (training_ ? 1 : 0) < sets_.size(); ++i) sets_[i].freeze();
      if (training_) head_ = CosineHead(features_.dim(), 1, device_);  // its sizes are the state's
    }
    if (!training_) return;
    head_.state(s);
    trained_.state(s);
  }

 private:
  int64_t plain() const { return options_.beta > 0 ? 1 : 0; }

  AdapterSet new_set() const {
    return AdapterSet(backbone_->depth(), features_.dim(), options_.of_set(), device_);
  }

  // A pass each: of the plain ViT where it counts, and through every task's adapters.
  torch::Tensor features(const Batch& batch, bool test) const {
    const auto pass = [&](const std::vector<Adapter>& adapters) {
      return test ? features_.test(batch, adapters) : features_.fixed(batch, adapters);
    };
    std::vector<torch::Tensor> all;
    if (plain() > 0) all.push_back(pass({}));
    for (const AdapterSet& set : sets_) all.push_back(pass(set.for_testing()));
    return torch::stack(all, 1);  // [B, plain + S, D]
  }

  EaseOptions options_;
  VisionTransformer backbone_;
  Efficiency& efficiency_;
  FrozenFeatures features_;
  const TaskImages& images_;
  int64_t num_classes_, num_tasks_;
  torch::Device device_;
  std::vector<AdapterSet> sets_;      // one a task begun
  torch::Tensor prototypes_, plain_;  // of the classes learned: [C, S, D], [C, D]
  torch::Tensor counts_;              // their images, [C]
  std::vector<int64_t> task_sizes_;   // of the tasks learned
  CosineHead head_;                   // of the task in hand
  ClassRange trained_;
  bool training_ = false;  // the last set
};

const Registered<MethodKind> kEase{"ease", "Zhou et al. 2024, EASE (arXiv 2403.12030)",
                                   method_kind<Ease, EaseOptions>()};

}  // namespace

}  // namespace rep
