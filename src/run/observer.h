#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <utility>
#include <vector>

#include "core/progress.h"
#include "data/loader.h"
#include "data/stream.h"
#include "nn/step_planner.h"
#include "tensor/optimizer.h"

namespace rep {

/// A training step that was taken.
struct Step {
  int64_t task = 0, epoch = 0;
  int64_t iteration = 0;  // steps taken in the task by now
  int64_t images = 0;     // in its batch, of all processes
  double lr = 0, seconds = 0;
  BlockTokens tokens{};          // that entered each block (StepPlanner::train_tokens)
  std::optional<double> loss{};  // where it was read: on a GPU that waits for the step
  bool is_logged = false;        // one of those that metrics.jsonl has
};

/// Test images that were predicted.
struct TestedBatch {
  const Batch& images;
  const torch::Tensor& logits;     // [B, C]
  const torch::Tensor& predicted;  // [B]: the label with the highest of the logits [0, candidates)
  int64_t candidates;
};

/// Who is told what happens in training and testing, and may stop it by throwing.
class Observer {
 public:
  virtual ~Observer() = default;
  /// Before the first step of a task that takes `steps`, `done` of them before (a resume), with its
  /// fresh optimiser.
  virtual void begin_training(const Task&, int64_t /*steps*/, int64_t /*done*/, Optimizer&) {}
  /// When the state may be saved.
  virtual void after_step(const Step&, Optimizer&) {}
  virtual void end_training() {}
  virtual void after_test_batch(const TestedBatch&) {}
  /// After this process's part of a task's test images, when every process has done its own.
  virtual void end_test(const Task&) {}
};

/// Told in this order.
using Observers = std::vector<Observer*>;

/// Does one thing after each step.
class AfterEachStep final : public Observer {
 public:
  explicit AfterEachStep(std::function<void(const Step&)> then) : then_(std::move(then)) {}
  void after_step(const Step& step, Optimizer&) override { then_(step); }

 private:
  std::function<void(const Step&)> then_;
};

/// Draws the line of a task in training.
class ProgressObserver final : public Observer {
 public:
  ProgressObserver(Progress& progress, int64_t tasks) : progress_(progress), tasks_(tasks) {}
  void begin_training(const Task& task, int64_t steps, int64_t done, Optimizer&) override {
    progress_.begin_task(task.index, tasks_, steps, done);
  }
  void after_step(const Step& step, Optimizer&) override {
    if (step.loss) progress_.step(step.iteration, step.images, *step.loss);
  }
  void end_training() override { progress_.end_task(); }

 private:
  Progress& progress_;
  int64_t tasks_;
};

}  // namespace rep
