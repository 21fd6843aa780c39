#pragma once

#include <torch/types.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "core/config.h"
#include "nn/query_model.h"
#include "nn/step_planner.h"

namespace rep {

/// REP (arXiv 2406.04772) around one frozen backbone, for any method: the query that selects
/// prompts, and the plan of the step in hand, what merges and what is skipped. Not a method: it
/// hands out queries and plans.
class Efficiency {
 public:
  /// `query_backbone` may be empty: then the backbone itself computes queries. `seed` draws the
  /// projection. Throws Error when a backbone without tokens is to merge or to drop.
  Efficiency(const EfficiencyConfig& config, std::shared_ptr<Backbone> backbone,
             VisionTransformer query_backbone, int64_t seed);

  /// q(x) [B, D], as QueryModel has it. Of a step's images one pass is made, whoever asks for it.
  torch::Tensor train_query(const torch::Tensor& images, const torch::Tensor& indices) {
    return answer(images, indices).queries;
  }
  torch::Tensor test_query(const torch::Tensor& images, const torch::Tensor& indices) {
    return queries.test_query(images, indices);
  }
  /// The same of a training image in its fixed view, as statistics take it.
  torch::Tensor fixed_query(const torch::Tensor& images, const torch::Tensor& indices) {
    return queries.train_query(images, indices);  // is cached only where all views are fixed
  }
  /// Throws Error where a query backbone is configured that method `name` has no use for.
  void expect_no_query(const std::string& name) const;
  bool query_is_feature() const { return queries.is_backbone(); }

  /// As StepPlanner has them.
  void set_prompted_blocks(const std::vector<int64_t>& blocks) {
    planner.set_prompted_blocks(blocks);
  }
  void check_prompted_blocks(const std::string& method) const {
    planner.check_prompted_blocks(method);
  }
  /// The plan of the training step in hand, on these images, with the patches drawn that they keep;
  /// and of a test's passes.
  ForwardPlan train_plan(const torch::Tensor& images, const torch::Tensor& indices);
  ForwardPlan test_plan() const { return planner.test_plan(); }
  /// Of a training step whose passes take whole images. Throws Error where patches are drawn.
  ForwardPlan train_plan() const;
  bool changes_training() const {
    return head_only_ ? planner.changes_testing() : planner.changes_training();
  }
  bool changes_testing() const { return planner.changes_testing(); }
  /// As StepPlanner has them, of the training step in hand.
  BlockTokens train_tokens(int64_t prompts) const {
    return head_only_ ? planner.head_tokens(prompts) : planner.train_tokens(time_, prompts);
  }

  /// The loop tells the time before each step, and whether it trains the method's head alone
  /// (train.decoupled): on whole images, through all blocks, as at test.
  void set_time(const StepTime& time) {
    time_ = time;
    step_ = {};
  }
  void train_head_only(bool only) { head_only_ = only; }
  bool head_only() const { return head_only_; }
  /// What patches are drawn from instead of patch_uniforms (nn/patch_sampling.h).
  using Uniforms = std::function<torch::Tensor(const StepTime& time, const torch::Tensor& indices,
                                               int64_t patches)>;
  void draw_patches_from(Uniforms uniforms) { uniforms_ = std::move(uniforms); }

  StepPlanner planner;
  QueryModel queries;

 private:
  struct StepQuery {
    torch::Tensor images;
    QueryAnswer answer;
  };
  bool scores_patches() const;
  QueryAnswer answer(const torch::Tensor& images, const torch::Tensor& indices);

  TokenMergingConfig merging_;
  int64_t patches_ = 0;  // of the backbone's images, where some are left out
  StepTime time_;
  bool head_only_ = false;
  Uniforms uniforms_;
  StepQuery step_;  // this time's query pass, where its scores are wanted, too
};

}  // namespace rep
