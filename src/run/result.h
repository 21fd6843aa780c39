#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "core/json.h"
#include "core/metrics.h"
#include "data/stream.h"
#include "nn/step_planner.h"
#include "run/observer.h"
#include "tensor/meter.h"
#include "tensor/state.h"

namespace rep {

/// What learning (and testing after) one task cost.
struct TaskCost {
  PhaseCost phases;
  int64_t peak_tensor_bytes = 0;
  int64_t cuda_peak_bytes = -1;  // -1: no CUDA device in use
  int64_t state_bytes = 0;       // what the method carries on from here
  int64_t step_macs = 0;         // of the training steps: the rest is a task's begin and end
  StepLog steps;

  /// Both ways: into a checkpoint and out of it.
  void state(State& s);
};

/// A row of both accuracy matrices, percent.
struct AccuracyRows {
  std::vector<double> class_incremental, task_incremental;
};

/// A test in the middle of the stream (run/anytime.h).
struct AnytimePoint {
  int64_t images = 0;   // learned before it
  double accuracy = 0;  // percent
  int64_t classes = 0;  // shown before it, and tested
};

/// What a run has to say, as it grows: written to result.json after every task
/// (results/schema.json).
class Result final : public Observer {
 public:
  /// `head`: name, rep, libtorch, device, started, config, identity, inputs and, where there are
  /// any, notes: what is known before the first task.
  explicit Result(Json head) : head_(std::move(head)) {}

  /// Begins the record of a task, learned by a backbone of so many blocks.
  void begin_task(const Task& task, const std::vector<std::string>& class_names, int64_t blocks);
  void after_step(const Step& step, Optimizer&) override;
  TaskCost& current_cost() { return costs_.back(); }
  /// After the task last begun.
  void add_row(const AccuracyRows& rows);
  /// Which classes were taken for which in the last test (run/confusion.h).
  void set_confusion(Json confusion) { confusion_ = std::move(confusion); }
  /// What the task last begun came to, before its test.
  void finish_training(int64_t iterations, int64_t step_macs, int64_t state_bytes);
  /// {"total", "trainable"} of the model in the task last begun.
  void set_parameters(const Json& parameters) {
    tasks_.back()["parameters"] = parameters_ = parameters;
  }
  void set_queries_computed_once(const std::vector<std::string>& splits) {
    head_["inputs"]["queries_computed_once"] = splits;
  }
  /// {"train", "test"}: images whose queries other runs had computed (efficiency.query_cache).
  void set_queries_from_files(const Json& images) {
    if (images != Json{{"train", 0}, {"test", 0}}) head_["inputs"]["queries_from_files"] = images;
  }
  void add_anytime(const AnytimePoint& point);
  /// Then accuracies among a task's own classes say nothing, and are left out.
  void set_tasks_share_classes() { tasks_share_classes_ = true; }
  /// MemoryLimit::to_json(), or null.
  void set_memory(const Json& memory) {
    if (!memory.is_null()) head_["memory"] = memory;
  }
  Json memory() const { return head_.value("memory", Json()); }
  /// What omega divides by (read_offline_result).
  void set_offline(std::vector<double> accuracies) {
    class_incremental_.offline = std::move(accuracies);
  }
  /// The configuration changed when the run went on after it diverged; `notes` say from where.
  void change(const Json& config, const Json& identity, const std::vector<std::string>& notes);
  /// Of a complete run, as state() gave it, that goes on under another head.
  void go_on(Json head) {
    head_ = std::move(head);
    complete_ = false;
  }
  void complete() { complete_ = true; }
  bool is_complete() const { return complete_; }

  const Json& head() const { return head_; }
  Json to_json() const;

  void state(State& s);

 private:
  Json cost_json() const;
  Json head_, tasks_ = Json::array(), parameters_, confusion_;
  AccuracyMatrix class_incremental_, task_incremental_;
  std::vector<TaskCost> costs_;
  std::vector<double> step_seconds_;  // for the median; of this process only
  std::vector<AnytimePoint> anytime_;
  bool tasks_share_classes_ = false;
  bool complete_ = false;
};

/// The upper median of at least one value.
double median(std::vector<double> values);

}  // namespace rep
