#pragma once

#include <cstdint>
#include <vector>

#include "core/config.h"
#include "data/stream.h"
#include "run/observer.h"
#include "run/session.h"
#include "tensor/state.h"

namespace rep {

/// How far a run has come.
struct Position {
  int64_t task = 0;
  int64_t iteration = 0;         // steps done in this task
  int64_t total_iterations = 0;  // in all tasks
  bool trained = false;          // this task's training is over, its test is not
  int64_t macs = 0;              // what the steps done in this task took: multiply-accumulates
  double seconds = 0;            // and time
  void state(State& s) {
    s("task", task);
    s("iteration", iteration);
    s("total_iterations", total_iterations);
    s("trained", trained);
    s("macs", macs);
    s("seconds", seconds);
  }
};

/// Steps that a task of `images` training images takes: epochs, cut at `iterations`. A budget of
/// MACs or seconds may end it before.
int64_t steps_of_task(const TrainConfig& config, int64_t images);

/// The step of a task from which on only the method's head trains (train.decoupled): by epochs, or
/// by steps where `iterations` ends the task before its epochs do. As many as there are: never.
int64_t first_head_step(const TrainConfig& config, int64_t images);

/// Trains one task from `position.iteration` on; the only backward and step of the program. Throws
/// Error naming task, epoch and step when the loss is not finite.
void train_task(Session& session, const Task& task, Position& position,
                const Observers& observers = {});

/// A task's training images in the order in which the loop takes them in an epoch.
std::vector<Sample> epoch_order(const Config& config, int64_t task, int64_t epoch,
                                const std::vector<Sample>& samples);

}  // namespace rep
