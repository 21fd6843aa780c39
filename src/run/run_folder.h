#pragma once

#include <chrono>
#include <functional>
#include <string>
#include <vector>

#include "core/config.h"
#include "core/files.h"
#include "core/json.h"
#include "run/learner.h"
#include "run/loops.h"
#include "run/observer.h"
#include "run/result.h"
#include "tensor/optimizer.h"

namespace rep {

/// The run's folder, made and held by this process alone until the lock goes: the first thing that
/// a run does. A lock that whoever started the process holds there (a sweep, a batch job) is taken
/// over. Throws Error when another process is at work there.
FileLock lock_run_folder(const std::string& path);

/// A run's place on disk: DIR/result.json, metrics.jsonl, run.log and checkpoint/state.safetensors.
/// Whatever moment the process dies in, the last checkpoint is whole and says how to go on so that
/// the result comes out the same: optimiser, random numbers, position, the method's whole state,
/// the costs.
///
/// No checkpoint holds parameters or an optimiser's moments that are not finite. One that was
/// written in the middle of a task is known to be good once the loss that was computed from it and
/// the parameters after that step are finite, too. Until then the last good one stays beside it:
/// when a run diverges, step_back() puts that one in its place.
class RunFolder {
 public:
  /// Makes the folder. With `resume` false, a folder that holds an unfinished run is refused and a
  /// finished result is kept as result.previous.json. `identity`: what may not differ between a run
  /// and its resume. Throws Error.
  /// A process that does not write (`writes` false) reads what another one wrote.
  RunFolder(std::string path, bool resume, const Config& config, Json identity, bool writes = true);

  /// Reads the checkpoint, when there is one, into the parts of the run; false when there is none.
  /// Throws Error when it is another run's (in configuration, weights, data, kind of device, or
  /// number of threads or processes) or of another version's layout. Of a run that diverged,
  /// train.optimizer.lr and train.clip_norm may have changed, and its result says so.
  bool restore(Learner& learner, Position& position, Result& result);
  /// Begins where another run ended: `state` is its checkpoint, `metrics` its metrics.jsonl, of
  /// which this run gets a copy.
  void go_on_from(State& state, const std::string& metrics, Learner& learner, Position& position,
                  Result& result);
  /// What restore() did that the user should know, a sentence each.
  const std::vector<std::string>& notes() const { return notes_; }
  /// Puts the optimiser of the task that restore() went back into in its state, and lets the
  /// checkpoint go; nothing otherwise.
  void restore_optimizer(Optimizer& optimizer);

  /// Adds the costs since the last call to the task in hand, and writes a checkpoint. Throws
  /// Diverged when a parameter, or one of the optimiser's moments, is not finite.
  void save(Learner& learner, Position& position, Result& result, Optimizer* optimizer);
  /// Throws Diverged when a parameter, or one of the optimiser's moments, is not finite.
  void require_finite(Learner& learner, const Position& position, const Optimizer* optimizer);
  /// The same when an interrupt has arrived (then throws Interrupted) or `checkpoint_seconds` are
  /// over.
  void save_if_due(Learner& learner, Position& position, Result& result, Optimizer& optimizer);
  void add_costs(Result& result);
  void write_result(const Result& result);
  void log_step(const Step& step);
  /// The run diverged: the last good checkpoint becomes the one to go on from.
  void step_back();

  std::string result_path() const { return path_ + "/result.json"; }
  std::string predictions_path() const { return path_ + "/predictions"; }

 private:
  void serialize(State& s, Learner& learner, Position& position, Result& result);
  void compare(Json was, const Position& at);
  void saw_finite_loss(int64_t iteration);
  std::string checkpoint_path() const { return path_ + "/checkpoint/state.safetensors"; }
  std::string good_path() const { return path_ + "/checkpoint/good.safetensors"; }
  std::string diverged_path() const { return path_ + "/checkpoint/diverged"; }
  std::string metrics_path() const { return path_ + "/metrics.jsonl"; }

  std::string path_;
  bool writes_;
  Config config_;
  Json identity_;
  int64_t metrics_bytes_ = 0;
  PhaseCost costs_recorded_;
  std::chrono::steady_clock::time_point last_save_;
  std::function<void(Optimizer&)> optimizer_;
  std::vector<std::string> notes_;
  bool good_ = true;              // the checkpoint at checkpoint_path()
  int64_t saved_iteration_ = 0;   // of its task
  int64_t finite_iteration_ = 0;  // of the same task: the last one whose loss was seen to be finite
};

/// Saves a run in its folder as it goes.
class Checkpoints final : public Observer {
 public:
  Checkpoints(RunFolder& folder, Learner& learner, Position& position, Result& result)
      : folder_(folder), learner_(learner), position_(position), result_(result) {}
  void begin_training(const Task&, int64_t, int64_t, Optimizer& optimizer) override {
    folder_.restore_optimizer(optimizer);
    optimizer_ = &optimizer;
  }
  void end_training() override { folder_.require_finite(learner_, position_, optimizer_); }
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
  Optimizer* optimizer_ = nullptr;  // of the task in training
};

}  // namespace rep
