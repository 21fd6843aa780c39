#include "run/run_folder.h"

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <memory>

#include "core/error.h"
#include "core/files.h"
#include "core/interrupt.h"
#include "core/what_counts.h"
#include "tensor/checkpoint.h"
#include "tensor/device.h"
#include "tensor/meter.h"

namespace rep {

namespace {

// "train.epochs was 5 and is 6": the first difference, for a message.
std::string first_difference(const Json& was, const Json& is, const std::string& path = "") {
  for (const auto& [key, value] : was.items()) {
    const std::string full = path.empty() ? key : path + "." + key;
    if (!is.contains(key)) return full + " is gone";
    if (value == is[key]) continue;
    if (value.is_object()) return first_difference(value, is[key], full);
    return full + " was " + value.dump() + " and is " + is[key].dump();
  }
  return "there are new keys";
}

}  // namespace

RunFolder::RunFolder(std::string path, bool resume, const Config& config, bool writes)
    : path_(std::move(path)),
      writes_(writes),
      config_(what_counts(config)),
      checkpoint_seconds_(config.train.checkpoint_seconds),
      booked_(metered()),
      last_save_(std::chrono::steady_clock::now()) {
  if (!writes_) return;
  namespace fs = std::filesystem;
  make_directories(path_ + "/checkpoint");
  if (resume) return;
  std::error_code ignored;
  bool finished = false;
  if (fs::exists(result_path(), ignored)) {
    const Json old = Json::parse(read_file(result_path()), nullptr, /*allow_exceptions=*/false);
    finished = old.is_object() && old.value("complete", false);
  }
  if (!finished && fs::exists(checkpoint_path(), ignored)) {
    throw Error(path_ +
                ": holds an unfinished run; add --resume to go on with it, or choose another "
                "--output");
  }
  if (finished) fs::rename(result_path(), path_ + "/result.previous.json", ignored);
  for (const std::string& old : {checkpoint_path(), metrics_path()}) fs::remove(old, ignored);
}

void RunFolder::everything(State& s, Learner& learner, Position& position, Result& result) {
  s("metrics_bytes", metrics_bytes_);
  s.scope("position", [&](State& inner) { position.state(inner); });
  s.scope("learner", [&](State& inner) { learner.state(inner); });
  const auto rng = [&](const std::string& name, const torch::Device& device) {
    torch::Tensor state = rng_state(device);
    s.on_cpu(name, state);
    if (s.loading()) set_rng_state(device, state);
  };
  rng("rng.cpu", torch::kCPU);
  if (learner.device.is_cuda()) rng("rng.cuda", learner.device);
  // Last, with what collecting the rest took: a run that goes on from here does not take it again.
  if (!s.loading()) book(result);
  s.scope("result", [&](State& inner) { result.state(inner); });
}

bool RunFolder::restore(Learner& learner, Position& position, Result& result) {
  if (!std::filesystem::exists(checkpoint_path())) return false;
  const auto state = std::make_shared<State>(read_checkpoint(checkpoint_path(), learner.device));
  Json config, inputs = learner.inputs;
  (*state)("config", config);
  (*state)("inputs", inputs);
  if (config != config_) {
    throw Error(checkpoint_path() + ": was made with another configuration (" +
                first_difference(config, config_) +
                "); resume with the same one or choose another --output");
  }
  if (inputs != learner.inputs) {
    throw Error(checkpoint_path() +
                ": was made with other weights; resume with the same files or choose another "
                "--output");
  }
  everything(*state, learner, position, result);
  if (position.iteration > 0 && !position.trained) {
    optimizer_ = [state](Optimizer& optimizer) {
      state->scope("optimizer", [&](State& inner) { optimizer.state(inner); });
    };
  }
  // Lines of steps that will be taken again.
  std::error_code failed;
  if (writes_ && std::filesystem::exists(metrics_path())) {
    std::filesystem::resize_file(metrics_path(), static_cast<uintmax_t>(metrics_bytes_), failed);
  }
  if (failed) throw Error(metrics_path() + ": cannot be cut: " + failed.message());
  booked_ = metered();
  return true;
}

void RunFolder::restore_optimizer(Optimizer& optimizer) {
  if (!optimizer_) return;
  optimizer_(optimizer);
  optimizer_ = nullptr;       // and with it the checkpoint that it held,
  reset_peak_tensor_bytes();  // which an uninterrupted run does not have
}

void RunFolder::book(Result& result) {
  const PhaseCost now = metered();
  TaskCost& cost = result.current_cost();
  cost.phases += now - booked_;
  cost.peak_tensor_bytes = std::max(cost.peak_tensor_bytes, peak_tensor_bytes());
  cost.cuda_peak_bytes = std::max(cost.cuda_peak_bytes, cuda_peak_bytes());
  booked_ = now;
}

void RunFolder::save(Learner& learner, Position& position, Result& result, Optimizer* optimizer) {
  if (!writes_) return book(result);
  State state;
  state("config", config_);
  state("inputs", learner.inputs);
  if (optimizer) state.scope("optimizer", [&](State& inner) { optimizer->state(inner); });
  everything(state, learner, position, result);
  write_checkpoint(checkpoint_path(), state);
  last_save_ = std::chrono::steady_clock::now();
}

void RunFolder::save_if_due(Learner& learner, Position& position, Result& result,
                            Optimizer& optimizer) {
  const std::chrono::duration<double> since = std::chrono::steady_clock::now() - last_save_;
  if (!interrupted() && since.count() < checkpoint_seconds_) return;
  save(learner, position, result, &optimizer);
  if (interrupted()) {
    throw Interrupted("stopped in task " + std::to_string(position.task) + " after step " +
                      std::to_string(position.iteration) +
                      "; the same command with --resume goes on from here");
  }
}

void RunFolder::write_result(const Result& result) {
  if (writes_) write_file_atomically(result_path(), result.to_json().dump(1) + "\n");
}

void RunFolder::log_step(const Step& step) {
  if (!writes_) return;
  const Json line{{"task", step.task},
                  {"epoch", step.epoch},
                  {"iteration", step.iteration},
                  {"loss", step.loss.value()},
                  {"lr", step.lr}};
  const std::string text = line.dump() + "\n";
  std::ofstream file(metrics_path(), std::ios::app);
  file << text;
  if (!file.flush()) throw Error(metrics_path() + ": cannot be written (is the disk full?)");
  metrics_bytes_ += static_cast<int64_t>(text.size());
}

}  // namespace rep
