#pragma once

#include <torch/types.h>

#include <cstdint>
#include <memory>
#include <optional>
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
  std::vector<int64_t> executions;  // per block: steps in which it ran,
  std::vector<int64_t> backward_tokens;      // of the tokens, those of steps in which it was also
  std::vector<int64_t> backward_executions;  // part of the backward pass; and these steps
  StepLog& operator+=(const StepLog& other);
  void state(State& s);
};

/// REP (arXiv 2406.04772) around one frozen backbone, for any method: the query (swift prompt
/// selection), the merging and the dropping of a step. Not a method: it hands out queries and
/// plans.
class Efficiency {
 public:
  /// `query_backbone` may be empty: then the backbone itself computes queries. `seed` draws the
  /// projection. Throws Error when a backbone without tokens is to merge or to drop.
  Efficiency(const EfficiencyConfig& config, std::shared_ptr<Backbone> backbone,
             VisionTransformer query_backbone, int64_t seed);

  /// q(x): the feature ([CLS]) of the query model, projected to the backbone's width by a fixed
  /// random N(0, 1/d) matrix when the models' widths differ. [B, D], no gradient. Of images that a
  /// memory was made for it is computed once a run: exact, since the query model is frozen and
  /// those images never change. `indices`: their positions in the data set, int64 [B] on the CPU.
  torch::Tensor train_query(const torch::Tensor& images, const torch::Tensor& indices) {
    return remembered(train_, images, indices);
  }
  torch::Tensor test_query(const torch::Tensor& images, const torch::Tensor& indices) {
    return remembered(test_, images, indices);
  }
  /// The same of a training image in its fixed view, as statistics take it.
  torch::Tensor fixed_query(const torch::Tensor& images, const torch::Tensor& indices) {
    return train_query(images, indices);  // has a memory only where all views are fixed
  }
  /// Makes room for that many images' queries; without it nothing is remembered. Training images
  /// only where the pipeline gives every one of them a single view.
  void remember_train_queries(int64_t images) { train_ = make_memory(images); }
  void remember_test_queries(int64_t images) { test_ = make_memory(images); }
  bool remembers_train_queries() const { return train_.known.defined(); }
  /// Whether the backbone itself answers queries, so that a query is its plain feature.
  bool query_is_feature() const { return query_backbone_.is_empty(); }

  /// The blocks into which the method puts prompts of their own (prefixes; not tokens that enter
  /// with the image): what layer_dropping.exempt_prompted is about. A method names them when made.
  void set_prompted_blocks(const std::vector<int64_t>& blocks);
  /// Throws Error where exempt_prompted is asked for and `method` named no blocks.
  void check_prompted_blocks(const std::string& method) const;
  /// The plan of a training step that carries `prompts` prompt tokens (merging and dropping drawn
  /// for the time last set), entered in the log: a step with several passes counts once.
  ForwardPlan train_plan(int64_t prompts = 0);
  ForwardPlan test_plan() const;
  /// Whether training, or testing, is more than the plain pass.
  bool changes_training() const;
  bool changes_testing() const {
    return config_.token_merging.kind != "none" && config_.token_merging.when == "always";
  }

  /// The loop tells the time before each step, and takes the log after each task.
  void set_time(const StepTime& time) {
    time_ = time;
    logged_ = false;
  }
  const StepLog& log() const { return log_; }
  void clear_log();

  /// What is carried from task to task: the projection.
  void state(State& s);
  /// What a resumed run needs besides, to cost what an uninterrupted one does.
  void bookkeeping(State& s);

 private:
  void enter(const ForwardPlan& plan, int64_t prompts);  // in the log
  struct Memory {
    torch::Tensor queries, known;  // float [images, D], bool [images], on the CPU
  };
  Memory make_memory(int64_t images) const;
  torch::Tensor query(const torch::Tensor& images);
  torch::Tensor remembered(Memory& memory, const torch::Tensor& images,
                           const torch::Tensor& indices);

  EfficiencyConfig config_;
  std::shared_ptr<Backbone> backbone_;
  std::optional<VitOptions> vit_;  // the backbone's, when it is a ViT
  VisionTransformer query_backbone_{nullptr};
  torch::Tensor projection_;    // [d, D] or undefined
  std::vector<int64_t> merge_;  // the schedule of token_merging
  std::vector<bool> prompted_;  // per block; empty: none
  StepTime time_;
  StepLog log_;
  bool logged_ = false;  // this time's plan
  Memory train_, test_;
};

}  // namespace rep
