#pragma once

#include <cstdint>
#include <functional>

#include "core/config.h"
#include "core/progress.h"
#include "data/augment.h"
#include "data/dataset.h"
#include "data/stream.h"
#include "run/learner.h"
#include "run/result.h"
#include "tensor/optimizer.h"

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

/// What the training loop tells whoever keeps the run.
struct StepReport {
  int64_t task, epoch, iteration;
  double loss, lr;
};

/// Called after every step, when the state may be saved; throws Interrupted to stop. `report` is
/// null between log intervals.
using AfterStep = std::function<void(Optimizer& optimizer, const StepReport* report)>;

/// Steps that a task of `images` training images takes: epochs, cut at `iterations`. A budget of
/// MACs or seconds may end it before.
int64_t steps_of_task(const TrainConfig& config, int64_t images);

/// Trains one task of `tasks` from `position.iteration` on; the only backward and step of the
/// program. `restore`, when set, is handed the fresh optimiser of a task that is resumed in its
/// middle, and then let go: it holds a whole checkpoint. Throws Error naming task, epoch and step
/// when the loss is not finite.
void train_task(Learner& learner, const Dataset& data, const Task& task, int64_t tasks,
                const Config& config, Position& position, std::function<void(Optimizer&)> restore,
                const AfterStep& after_step, Result& result, Progress& progress);

/// Whether CPU tensors held more than config.memory_limit since the last reset of their peak.
bool is_over_memory_limit(const Config& config);
/// Throws Error saying what to change, in training or (`phase` kEval) in testing, when they did.
void enforce_memory_limit(const Config& config, Phase phase);

/// Correct answers among `task`'s test images: against the classes [0, seen), or all of the stream
/// (eval.classes: all), and against the task's own.
struct Correct {
  int64_t class_incremental = 0, task_incremental = 0, images = 0;
};
/// How many rows of logits [B, C] have their highest at their label: among the classes
/// [first, last), int64 [] on the logits' device.
torch::Tensor count_correct(const torch::Tensor& logits, const torch::Tensor& labels, int64_t first,
                            int64_t last);
Correct evaluate(Learner& learner, const Dataset& data, const Task& task, int64_t seen,
                 const Config& config);

}  // namespace rep
