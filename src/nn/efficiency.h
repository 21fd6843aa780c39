#pragma once

#include <torch/types.h>

#include <cstdint>
#include <memory>
#include <vector>

#include "core/config.h"
#include "nn/layer_dropping.h"
#include "nn/vit.h"
#include "tensor/state.h"

namespace rep {

/// What the training steps of a task did, for the result: exact integers.
struct StepLog {
  int64_t steps = 0;
  std::vector<int64_t>
      tokens;  // per block: tokens that entered it, summed over steps (0 if skipped)
  std::vector<int64_t> executions;  // per block: steps in which it ran
  StepLog& operator+=(const StepLog& other);
  void state(State& s);
};

/// REP (arXiv 2406.04772) around one frozen ViT, for any prompt method: the query (swift prompt
/// selection), the merging and the dropping of a step. Not a method: it hands out queries and
/// plans.
class Efficiency {
 public:
  /// `query_backbone` may be empty: then the backbone itself computes queries. `seed` draws the
  /// projection.
  Efficiency(const EfficiencyConfig& config, VisionTransformer backbone,
             VisionTransformer query_backbone, int64_t seed);

  /// q(x): the [CLS] feature of the query model, projected to the backbone's width by a fixed
  /// random N(0, 1/d) matrix when the models' widths differ. [B, D], no gradient.
  torch::Tensor query(const torch::Tensor& images);

  /// The same for test images, which never change: computed once a run and remembered by the
  /// images' positions in the data set, int64 [B] on the CPU. Exact, since the query model is
  /// frozen.
  torch::Tensor test_query(const torch::Tensor& images, const torch::Tensor& indices);
  /// Makes room for `images` test queries; without it test_query remembers nothing.
  void remember_test_queries(int64_t images);
  /// Whether the backbone itself answers queries, so that a query is its plain feature.
  bool query_is_feature() const { return query_backbone_.is_empty(); }

  /// The plan of a training step that carries `prompts` prompt tokens (merging and dropping drawn
  /// for the time last set), entered in the log.
  ForwardPlan train_plan(int64_t prompts = 0);
  ForwardPlan test_plan() const;

  /// The loop tells the time before each step, and takes the log after each task.
  void set_time(const StepTime& time) { time_ = time; }
  const StepLog& log() const { return log_; }
  void clear_log();

  /// What is carried from task to task: the projection.
  void state(State& s);
  /// What a resumed run needs besides, to cost what an uninterrupted one does.
  void bookkeeping(State& s);

 private:
  EfficiencyConfig config_;
  VisionTransformer backbone_{nullptr}, query_backbone_{nullptr};
  torch::Tensor projection_;    // [d, D] or undefined
  std::vector<int64_t> merge_;  // the schedule of token_merging
  StepTime time_;
  StepLog log_;
  torch::Tensor test_queries_, test_known_;  // float [images, D], bool [images], on the CPU
};

}  // namespace rep
