#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "core/config.h"
#include "nn/layer_dropping.h"
#include "nn/vit.h"
#include "tensor/state.h"

namespace rep {

/// Tokens that enter each block in a pass: 0 where it is skipped, and in `backward` also where the
/// gradient goes around it. Empty for a backbone without tokens.
struct BlockTokens {
  std::vector<int64_t> forward, backward;
};

/// What REP does to the passes of a step: which tokens merge, which blocks are skipped. Nothing but
/// a function of the configuration and the time.
class StepPlanner {
 public:
  /// Throws Error when a backbone without tokens is to merge or to drop.
  StepPlanner(const EfficiencyConfig& config, const Backbone& backbone);

  /// The blocks into which the method puts prompts of their own (prefixes; not tokens that enter
  /// with the image): what layer_dropping.exempt_prompted is about. A method names them when made.
  void set_prompted_blocks(const std::vector<int64_t>& blocks);
  /// Throws Error where exempt_prompted is asked for and `method` named no blocks, or all that
  /// could be dropped.
  void check_prompted_blocks(const std::string& method) const;

  ForwardPlan train_plan(const StepTime& time) const;
  ForwardPlan test_plan() const;
  /// Whether training, or testing, is more than the plain pass.
  bool changes_training() const;
  bool changes_testing() const;
  bool drops_blocks() const { return dropping_.kind != "none"; }

  /// Of a training step that carries `prompts` prompt tokens; of a step that trains the head alone,
  /// on features as at test, through which no gradient flows.
  BlockTokens train_tokens(const StepTime& time, int64_t prompts) const;
  BlockTokens head_tokens(int64_t prompts) const;
  /// The backbone's, when it has tokens.
  int64_t blocks() const { return vit_ ? vit_->depth : 0; }

 private:
  ForwardPlan merging_plan() const;

  TokenMergingConfig merging_;
  LayerDroppingConfig dropping_;
  std::optional<VitOptions> vit_;  // the backbone's, when it is a ViT
  std::vector<int64_t> merge_;     // the schedule of token_merging
  std::vector<bool> prompted_;     // per block; empty: none
};

/// What the training steps of a task did, for the result: exact integers.
struct StepLog {
  explicit StepLog(int64_t blocks = 0)
      : tokens(static_cast<size_t>(blocks)),
        executions(tokens),
        backward_tokens(tokens),
        backward_executions(tokens) {}

  int64_t steps = 0;
  std::vector<int64_t> tokens;               // per block: tokens that entered it, summed over steps
  std::vector<int64_t> executions;           // per block: steps in which it ran
  std::vector<int64_t> backward_tokens;      // of the tokens, those of steps in which it was also
  std::vector<int64_t> backward_executions;  // part of the backward pass; and these steps

  void add(const BlockTokens& step);
  StepLog& operator+=(const StepLog& other);
  void state(State& s);
};

}  // namespace rep
