// SD-LoRA: Scalable Decoupled Low-Rank Adaptation for Class Incremental Learning (Wu et al., arXiv
// 2501.13198).
// The idea in three lines: a task adds a low-rank branch to queries and values; those of earlier
// tasks keep their direction, and only a magnitude for each is learned anew with it. Nothing is
// selected at test: all branches are folded into the weights, a test is one plain pass (beside
// weights in bf16, and beside fc1 and fc2, branches stay thin products). Differs from the authors'
// code: earlier branches are one thin product each way instead of a loop; their orthogonality term,
// which never enters the loss, is not computed; no second ViT is kept.
#include <cmath>
#include <string>
#include <vector>

#include "methods/classifier.h"
#include "methods/frozen_features.h"
#include "methods/method.h"
#include "nn/lora.h"
#include "tensor/torch.h"

namespace rep {

namespace {

struct SdLoraOptions {
  int64_t rank = 10;
  std::vector<std::string> targets{"q", "v"};
  double init_magnitude = 0.8;
  std::string rank_schedule = "none";
  std::string share_magnitude = "task";
  bool carry_magnitudes = false;
  template <class Visitor>
  void fields(Visitor&& visit) {
    visit("rank", rank, at_least(1), doc("Rank of a task's branches."));
    visit("targets", targets, doc("Layers with branches, of q, k, v, fc1 and fc2."));
    visit("init_magnitude", init_magnitude, doc("Magnitude with which a branch begins."));
    visit("rank_schedule", rank_schedule, one_of({"none", "rr"}),
          doc("none: the same rank for all tasks; rr: 8 tenths of it from task 4 on, 6 tenths from "
              "task 8 on."));
    visit("share_magnitude", share_magnitude, one_of({"task", "task_block"}),
          doc("A branch's magnitude: one for all blocks (the authors' code), or one for each "
              "(task_block)."));
    visit("carry_magnitudes", carry_magnitudes,
          doc("Magnitudes of earlier branches continue, though the newest one's part jumps by 1 / "
              "(|B| |A|) when it becomes a direction; false: each task restarts them (the authors' "
              "code)."));
  }
};

class SdLora final : public Method {
 public:
  SdLora(const MethodContext& context, const SdLoraOptions& options)
      : options_(options),
        backbone_(context.vit()),
        efficiency_(context.efficiency),
        num_tasks_(context.num_tasks),
        device_(context.device),
        head_(backbone_->feature_dim(), context.num_classes, context.device,
              Classifier::Init::kKaiming) {
    require_frozen(context);
    Lora::check_targets(options.targets, "method: targets");
    magnitudes_.resize(options.share_magnitude == "task" ? 1
                                                         : static_cast<size_t>(backbone_->depth()));
  }

  void begin_task(const Task& task) override {
    trained_ = ClassRange::of(task, "current");
    if (!branches_.empty()) branches_.back().freeze();
    branches_.push_back(new_branch(task.index));
    training_ = true;
    for (torch::Tensor& m : magnitudes_) {
      const torch::Tensor start =
          torch::full({static_cast<int64_t>(branches_.size())}, options_.init_magnitude, device_);
      if (options_.carry_magnitudes && m.defined()) start.narrow(0, 0, m.size(0)).copy_(m.detach());
      m = start.set_requires_grad(true);
    }
    prepare();
  }

  std::vector<torch::Tensor> parameters() override {
    if (!training_) return {};
    std::vector<torch::Tensor> all = head_.parameters();
    const auto add = [&](const std::vector<torch::Tensor>& some) {
      all.insert(all.end(), some.begin(), some.end());
    };
    add(branches_.back().downs());
    add(branches_.back().ups());
    add(magnitudes_);
    return all;
  }
  int64_t frozen_parameters() override {
    int64_t sum = 0;
    for (size_t i = 0; i < directions(); ++i) sum += branches_[i].numel();
    return sum;
  }
  std::vector<TrainedRows> trained_rows() override {
    auto rows = trained_.rows();
    rows.resize(parameters().size());
    return training_ ? rows : std::vector<TrainedRows>{};
  }
  bool has_unseen_logits() const override { return true; }
  bool learns_repeated_classes() const override { return true; }
  bool predicts_within_task() const override { return true; }
  bool loss_is_within_task() const override { return true; }
  bool can_share_batches() const override { return true; }

  torch::Tensor loss(const Batch& batch) override {
    ForwardPlan plan = efficiency_.train_plan(batch.images, batch.indices);
    plan.branches = branches();
    return Classifier::loss(head_.logits(backbone_->features(batch.images, plan)), batch.labels,
                            trained_.first, trained_.last);
  }

  void end_task(const Task&) override {
    branches_.back().freeze();
    for (torch::Tensor& m : magnitudes_) m = m.detach();
    training_ = false;
    prepare();
  }

  torch::Tensor predict(const Batch& batch) override {
    ForwardPlan plan = efficiency_.test_plan();
    plan.branches = training_ ? branches() : folded_;
    return head_.logits(backbone_->features(batch.images, plan));
  }

  void state(State& s) override {
    const int64_t count = s.count("branches", branches_.size(), num_tasks_);
    s("training", training_);
    while (static_cast<int64_t>(branches_.size()) < count) {
      branches_.push_back(new_branch(static_cast<int64_t>(branches_.size())));
    }
    for (size_t i = 0; i < branches_.size(); ++i) {
      s.scope("branch." + std::to_string(i), [&](State& inner) { branches_[i].state(inner); });
    }
    s("magnitude", magnitudes_);
    head_.state(s);
    trained_.state(s);
    if (!s.loading() || branches_.empty()) return;
    for (size_t i = 0; i < directions(); ++i) branches_[i].freeze();
    if (!training_) branches_.back().freeze();
    for (torch::Tensor& m : magnitudes_) m = m.detach().set_requires_grad(training_);
    prepare();
  }

 private:
  // Branches of which the direction alone is left.
  size_t directions() const { return branches_.empty() ? 0 : branches_.size() - 1; }
  size_t block_of_magnitude(size_t block) const { return magnitudes_.size() == 1 ? 0 : block; }

  Lora new_branch(int64_t task) const {
    int64_t rank = options_.rank;
    if (options_.rank_schedule == "rr" && task >= 4) {
      rank = std::max<int64_t>(1, rank * (task >= 8 ? 6 : 8) / 10);
    }
    return Lora(backbone_->depth(), backbone_->feature_dim(),
                backbone_->feature_dim() * backbone_->options.mlp_ratio,
                {rank, options_.targets, /*shared_down=*/false}, device_);
  }

  // What of the branches does not train, ready for passes: the directions B A / (|B| |A|) of
  // earlier ones side by side, and which of their ranks has whose magnitude.
  void prepare() {
    const torch::NoGradGuard no_grad;
    const auto K = static_cast<size_t>(backbone_->depth());
    earlier_.assign(K, {});
    for (size_t i = 0; i < K; ++i) {
      const auto block = static_cast<int64_t>(i);
      for (size_t j = 0; j < directions(); ++j) {
        for (LowRankPairs BlockBranches::*layer : kLayers) {
          BlockBranches one;
          branches_[j].add_to(one, block);
          for (LowRankPair pair : one.*layer) {
            pair.down = pair.down / pair.down.norm().clamp_min(1e-12);
            pair.up = pair.up / pair.up.norm().clamp_min(1e-12);
            (earlier_[i].*layer).push_back(pair);
          }
        }
      }
      for (LowRankPairs BlockBranches::*layer : kLayers)
        earlier_[i].*layer = joined(earlier_[i].*layer);
    }
    std::vector<int64_t> whose;
    for (size_t j = 0; j < directions(); ++j) {
      whose.insert(whose.end(), static_cast<size_t>(branches_[j].down(0, 0).size(0)),
                   static_cast<int64_t>(j));
    }
    whose_ = torch::tensor(whose, torch::kLong).to(device_);
    folded_.clear();
    if (training_) return;
    folded_ = branches();
    for (size_t i = 0; i < K; ++i) {
      folded_[i].qkv = joined(folded_[i].qkv);
      fold_qkv(folded_[i], backbone_->blocks[i]->attn->qkv->weight);
    }
  }

  std::vector<BlockBranches> branches() const {
    std::vector<BlockBranches> all = earlier_;
    if (branches_.empty()) return {};
    for (size_t i = 0; i < all.size(); ++i) {
      const torch::Tensor& m = magnitudes_[block_of_magnitude(i)];
      if (directions() > 0) {
        const torch::Tensor gains = m.index_select(0, whose_);
        for (LowRankPairs BlockBranches::*layer : kLayers) {
          for (LowRankPair& pair : all[i].*layer) pair.gains = gains;
        }
      }
      branches_.back().add_to(all[i], static_cast<int64_t>(i), m[m.size(0) - 1]);
    }
    return all;
  }

  static constexpr LowRankPairs BlockBranches::*kLayers[] = {
      &BlockBranches::qkv, &BlockBranches::fc1, &BlockBranches::fc2};

  SdLoraOptions options_;
  VisionTransformer backbone_;
  Efficiency& efficiency_;
  int64_t num_tasks_;
  torch::Device device_;
  Classifier head_;
  std::vector<Lora> branches_;             // one a task begun, as they were trained
  std::vector<torch::Tensor> magnitudes_;  // [tasks begun], for all blocks or for each
  std::vector<BlockBranches> earlier_;     // [K]
  torch::Tensor whose_;                    // int64 [ranks of all directions]
  std::vector<BlockBranches> folded_;      // [K], between tasks
  ClassRange trained_;
  bool training_ = false;  // the last branch
};

const Registered<MethodKind> kSdLora{"sd_lora", "Wu et al. 2025, SD-LoRA (arXiv 2501.13198)",
                                     method_kind<SdLora, SdLoraOptions>()};

}  // namespace

}  // namespace rep
