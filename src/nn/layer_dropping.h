#pragma once

#include <cstdint>
#include <vector>

#include "core/config.h"

namespace rep {

/// Which blocks a training step skips, and how likely each was to run.
struct Drops {
  std::vector<bool> skip;
  std::vector<double> keep;  // the probability of running, per block
};

/// When a step happens: ALD's clock.
struct StepTime {
  int64_t seed = 0;
  int64_t task = 0;
  int64_t task_iteration = 0;  // within the task
  int64_t iteration = 0;       // since the start of the run
  int64_t epoch = 0;           // within the task
};

/// Draws a step's dropped blocks. ald: REP Algorithm 2, keep(t, l) = a(l) theta(t), a(l) = alpha
/// once more than tau tokens were merged before block l, else 1. pld: 1 - l (1 - theta(t)) / K for
/// l = 0.. (Zhang & He 2010.13369, as REP's published code does it). theta(t): keep_ratio().
/// random: `keep` everywhere. `merge` is the merging schedule and `image_tokens` their number, so
/// that merges are counted as they will be executed (a skipped block merges nothing; one that is
/// left out of the backward pass only does). `prompted`: whether the method puts prompts into each
/// block; empty: into none. A block that is exempt runs with probability 1, and no other block's
/// draw moves by it.
Drops draw_drops(const LayerDroppingConfig& config, const std::vector<int64_t>& merge,
                 int64_t image_tokens, const StepTime& time, double threshold,
                 const std::vector<bool>& prompted = {});

/// Throws Error where the options contradict each other, or exempt_first leaves none of `depth`
/// blocks to drop (exempt_prompted: StepPlanner::check_prompted_blocks).
void check_dropping(const LayerDroppingConfig& config, int64_t depth);

/// tau: `config.threshold` in merged tokens, or 2 n for "auto". Throws Error when it is neither.
double drop_threshold(const LayerDroppingConfig& config, const TokenMergingConfig& merging);

/// theta(t) = (1 - theta_bar) e^(-gamma t) + theta_bar.
double keep_ratio(double min_keep, double decay, double t);

}  // namespace rep
