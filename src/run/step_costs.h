#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <vector>

#include "tensor/meter.h"

namespace rep {

/// Compute cost: MACs and seconds.
struct Amount {
  double macs = 0, seconds = 0;
  Amount& operator+=(const Amount& other);
  friend Amount operator+(Amount a, const Amount& b) { return a += b; }
  friend Amount operator*(double factor, const Amount& a) {
    return {factor * a.macs, factor * a.seconds};
  }
};
/// Of all phases.
Amount amount_of(const PhaseCost& cost);

/// A training step of a full batch: the query, and the rest, which follows the blocks that run.
struct StepCost {
  Amount select, rest;
  Amount first_select, first_rest;  // while queries are not cached yet (Efficiency)
  double work = 0;                  // tokens_work of the steps that `rest` was measured at
};

/// What the tokens that enter the blocks of width D multiply in them, but for a factor: a block's
/// 12 D^2 a token and 2 N D a token in attention; in the last block that runs 3 D^2 a token, since
/// the rest is for the few outputs only. The mean of the forward and the backward pass, which are
/// taken to multiply alike. `tokens`: of each block, 0 where it is skipped; `backward`: the same, 0
/// also where the gradient goes around the block.
double tokens_work(const std::vector<int64_t>& tokens, const std::vector<int64_t>& backward,
                   int64_t D);

/// A step that was measured.
struct MeasuredStep {
  PhaseCost cost;
  double work = 0;   // tokens_work
  double share = 1;  // of a full batch
};
/// The mean of steps of which the first `fresh` had queries that were not cached yet. The first
/// of either kind only warms up, when there are others. At least one step.
StepCost mean_step(const std::vector<MeasuredStep>& steps, size_t fresh);

/// A step's cost in every task, from some tasks: linear between its neighbours.
StepCost interpolated(const std::map<int64_t, StepCost>& costs, int64_t task);

}  // namespace rep
