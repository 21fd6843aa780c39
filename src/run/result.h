#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "core/json.h"
#include "core/metrics.h"
#include "data/stream.h"
#include "nn/efficiency.h"
#include "tensor/meter.h"
#include "tensor/state.h"

namespace rep {

/// What learning (and testing after) one task cost.
struct TaskCost {
  PhaseCost phases;
  int64_t peak_tensor_bytes = 0;
  int64_t cuda_peak_bytes = -1;  // -1: no CUDA device in use
  int64_t state_bytes = 0;       // what the method carries on from here
  StepLog steps;

  /// Both ways: into a checkpoint and out of it.
  void state(State& s);
};

/// What a run has to say, as it grows: written to result.json after every task
/// (results/schema.json).
class Result {
 public:
  /// `head`: name, rep, libtorch, device, started, config, inputs: what is known before the first
  /// task.
  explicit Result(Json head) : head_(std::move(head)) {}

  /// Begins task `task`'s record; its costs are filled in place.
  TaskCost& begin_task(const Task& task, const std::vector<std::string>& class_names);
  TaskCost& current_cost() { return costs_.back(); }
  /// The row of both accuracy matrices after the task last begun, percent.
  void add_row(const std::vector<double>& class_incremental,
               const std::vector<double>& task_incremental);
  /// What the task last begun came to, before its test.
  void finish_training(int64_t iterations, const StepLog& steps, int64_t state_bytes);
  /// {"total", "trainable"} of the model in the task last begun.
  void set_parameters(const Json& parameters) {
    tasks_.back()["parameters"] = parameters_ = parameters;
  }
  /// Seconds of single training steps, for the median; of this process only.
  void add_step_seconds(double seconds) { step_seconds_.push_back(seconds); }
  /// What omega divides by (read_offline_result).
  void set_offline(std::vector<double> accuracies) {
    class_incremental_.offline = std::move(accuracies);
  }
  void complete() { complete_ = true; }
  bool is_complete() const { return complete_; }

  const AccuracyMatrix& class_incremental() const { return class_incremental_; }
  Json to_json() const;
  /// A short table of the main figures, for the terminal.
  std::string summary() const;

  void state(State& s);

 private:
  Json cost_json() const;
  Json head_, tasks_ = Json::array(), parameters_;
  AccuracyMatrix class_incremental_, task_incremental_;
  std::vector<TaskCost> costs_;
  std::vector<double> step_seconds_;
  bool complete_ = false;
};

/// The upper median of at least one value.
double median(std::vector<double> values);

/// "1.25 G", "17.6 M": three significant digits with a decimal prefix.
std::string human(double value);

}  // namespace rep
