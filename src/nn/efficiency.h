#pragma once

#include <torch/types.h>

#include <cstdint>
#include <memory>
#include <string>
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
             VisionTransformer query_backbone, int64_t seed)
      : planner(config, *backbone), queries(std::move(backbone), std::move(query_backbone), seed) {}

  /// q(x) [B, D], as QueryModel has it.
  torch::Tensor train_query(const torch::Tensor& images, const torch::Tensor& indices) {
    return queries.train_query(images, indices);
  }
  torch::Tensor test_query(const torch::Tensor& images, const torch::Tensor& indices) {
    return queries.test_query(images, indices);
  }
  /// The same of a training image in its fixed view, as statistics take it.
  torch::Tensor fixed_query(const torch::Tensor& images, const torch::Tensor& indices) {
    return train_query(images, indices);  // is cached only where all views are fixed
  }
  bool query_is_feature() const { return queries.is_backbone(); }

  /// As StepPlanner has them.
  void set_prompted_blocks(const std::vector<int64_t>& blocks) {
    planner.set_prompted_blocks(blocks);
  }
  void check_prompted_blocks(const std::string& method) const {
    planner.check_prompted_blocks(method);
  }
  /// The plan of the training step in hand, and of a test's passes.
  ForwardPlan train_plan() const { return planner.train_plan(time_); }
  ForwardPlan test_plan() const { return planner.test_plan(); }
  bool changes_training() const { return planner.changes_training(); }
  bool changes_testing() const { return planner.changes_testing(); }

  /// The loop tells the time before each step.
  void set_time(const StepTime& time) { time_ = time; }

  StepPlanner planner;
  QueryModel queries;

 private:
  StepTime time_;
};

}  // namespace rep
