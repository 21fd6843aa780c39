#pragma once

#include <chrono>
#include <functional>
#include <string>

#include "core/config.h"
#include "core/json.h"
#include "run/learner.h"
#include "run/loops.h"
#include "run/observer.h"
#include "run/result.h"
#include "tensor/optimizer.h"

namespace rep {

/// A run's place on disk: DIR/result.json, metrics.jsonl, run.log and checkpoint/state.safetensors.
/// Whatever moment the process dies in, the last checkpoint is whole and says how to go on so that
/// the result comes out the same: optimiser, random numbers, position, the method's whole state,
/// the costs.
class RunFolder {
 public:
  /// Makes the folder. With `resume` false, a folder that holds an unfinished run is refused and a
  /// finished result is kept as result.previous.json. Throws Error.
  /// A process that does not write (`writes` false) reads what another one wrote.
  RunFolder(std::string path, bool resume, const Config& config, bool writes = true);

  /// Reads the checkpoint, when there is one, into the parts of the run; false when there is none.
  /// Throws Error when it was made with another configuration or by another version's layout.
  bool restore(Learner& learner, Position& position, Result& result);
  /// Puts the optimiser of the task that restore() went back into in its state, and lets the
  /// checkpoint go; nothing otherwise.
  void restore_optimizer(Optimizer& optimizer);

  /// Books the costs since the last call on the task in hand, and writes a checkpoint.
  void save(Learner& learner, Position& position, Result& result, Optimizer* optimizer);
  /// The same when an interrupt has arrived (then throws Interrupted) or `checkpoint_seconds` are
  /// over.
  void save_if_due(Learner& learner, Position& position, Result& result, Optimizer& optimizer);
  void book(Result& result);
  void write_result(const Result& result);
  void log_step(const Step& step);

  std::string result_path() const { return path_ + "/result.json"; }

 private:
  void everything(State& s, Learner& learner, Position& position, Result& result);
  std::string checkpoint_path() const { return path_ + "/checkpoint/state.safetensors"; }
  std::string metrics_path() const { return path_ + "/metrics.jsonl"; }

  std::string path_;
  bool writes_;
  Json config_;  // what may not differ between a run and its resume
  double checkpoint_seconds_;
  int64_t metrics_bytes_ = 0;
  PhaseCost booked_;
  std::chrono::steady_clock::time_point last_save_;
  std::function<void(Optimizer&)> optimizer_;
};

/// Saves a run in its folder as it goes.
class Checkpoints final : public Observer {
 public:
  Checkpoints(RunFolder& folder, Learner& learner, Position& position, Result& result)
      : folder_(folder), learner_(learner), position_(position), result_(result) {}
  void begin_training(const Task&, int64_t, int64_t, Optimizer& optimizer) override {
    folder_.restore_optimizer(optimizer);
  }
  void after_step(const Step& step, Optimizer& optimizer) override {
    if (step.is_logged) folder_.log_step(step);
    folder_.save_if_due(learner_, position_, result_, optimizer);
  }
  void save(Optimizer* optimizer = nullptr) {
    folder_.save(learner_, position_, result_, optimizer);
  }

 private:
  RunFolder& folder_;
  Learner& learner_;
  Position& position_;
  Result& result_;
};

}  // namespace rep
