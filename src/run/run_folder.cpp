#include "run/run_folder.h"

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <memory>
#include <thread>

#include "core/error.h"
#include "core/files.h"
#include "core/identity.h"
#include "core/interrupt.h"
#include "core/json_file.h"
#include "tensor/checkpoint.h"
#include "tensor/device.h"
#include "tensor/meter.h"

namespace rep {
namespace {

namespace fs = std::filesystem;

// What may change when a run that diverged goes on.
constexpr const char* kCures[] = {"/train/optimizer/lr", "/train/clip_norm"};

std::string dotted(std::string pointer) {
  std::replace(pointer.begin(), pointer.end(), '/', '.');
  return pointer.substr(1);
}

bool are_finite(const std::vector<torch::Tensor>& tensors) {
  torch::Tensor bad;  // of those on a GPU, which is waited for once
  for (const torch::Tensor& tensor : tensors) {
    const torch::Tensor values = tensor.detach();
    if (values.is_cpu() && values.is_contiguous() && values.scalar_type() == torch::kFloat) {
      const auto* const first = values.data_ptr<float>();  // without a tensor that would be metered
      const auto finite = [](float value) { return std::isfinite(value); };
      if (!std::all_of(first, first + values.numel(), finite)) return false;
      continue;
    }
    const torch::Tensor some = values.isfinite().logical_not().any();
    bad = bad.defined() ? bad.logical_or(some) : some;
  }
  return !bad.defined() || !bad.item<bool>();
}

// Why a run with another identity cannot go on from a checkpoint; "" when it can.
std::string refusal(const Json& was, const Json& is) {
  const std::string difference = first_difference(was, is);
  if (difference.empty()) return "";
  const std::string key = difference.substr(0, difference.find(' '));
  if (key == "inputs.dataset" || key == "inputs.classes") {
    return std::string("was made from other data (") +
           (key == "inputs.classes" ? "a class has another name" : "its fingerprint differs") +
           "); put the files back as they were, or start again in another --output";
  }
  if (key.rfind("inputs.", 0) == 0) {
    return "was made with other " + key.substr(7) +
           "; resume with the same file or start again in another --output";
  }
  return "was made with another configuration (" + difference +
         "); resume with the same one or choose another --output";
}

// What the last bits of sums depend on beside the identity.
Json machine_of(const Learner& learner) {
  return {{"device", learner.device.is_cpu() ? "CPU" : "GPU"},
          {"processes", learner.world->size()},
          {"threads", threads_in_use()}};
}

// The same of a checkpoint that another machine has made.
std::string refusal_of_machine(const Json& was, const Json& is, bool any_threads) {
  const auto number = [&](const char* key) { return std::to_string(was[key].get<int64_t>()); };
  if (was["device"] != is["device"]) {
    const bool cpu = was["device"] == "CPU";
    return std::string("was made on a ") + (cpu ? "CPU" : "GPU") + ", and this is a " +
           is["device"].get<std::string>() + ", whose sums round otherwise; resume with --device " +
           (cpu ? "cpu" : "cuda") + ", or choose another --output";
  }
  if (was["processes"] != is["processes"]) {
    return "was made by " + number("processes") + " processes together, and now there are " +
           std::to_string(is["processes"].get<int64_t>()) +
           ", whose sums round otherwise; start as many again, or choose another --output";
  }
  if (!any_threads && was["threads"] != is["threads"]) {
    return "was made with " + number("threads") +
           " threads, on which the last bits of sums depend; resume with --set threads=" +
           number("threads") + " (or threads: 0), or choose another --output";
  }
  return "";
}

}  // namespace

FileLock lock_run_folder(const std::string& path) {
  make_directories(path);
  const std::string lock_path = path + "/lock";
  if (auto lock = FileLock::inherited(lock_path)) return std::move(*lock);
  // Whoever asks how far a run is (rep sweep --status) has the lock for a moment.
  for (int tries = 0; tries < 10; ++tries) {
    if (tries > 0) std::this_thread::sleep_for(std::chrono::milliseconds(50));
    if (auto lock = FileLock::try_take(lock_path)) return std::move(*lock);
  }
  throw Error(absolute_path(path) +
              ": another process is at work there; wait for it, or choose another --output");
}

RunFolder::RunFolder(std::string path, bool resume, const Config& config, Json identity,
                     bool writes)
    : path_(std::move(path)),
      writes_(writes),
      config_(config),
      identity_(std::move(identity)),
      costs_recorded_(metered()),
      last_save_(std::chrono::steady_clock::now()) {
  if (!writes_) return;
  make_directories(path_ + "/checkpoint");
  for (const std::string& written : {checkpoint_path(), diverged_path(), result_path()}) {
    remove_leftovers(written);
  }
  if (resume) return;
  std::error_code ignored;
  bool finished = false;
  if (fs::exists(result_path(), ignored)) {
    const Json old = read_json_file(result_path());
    finished = old.is_object() && old.value("complete", Json()) == true;
  }
  if (!finished && fs::exists(checkpoint_path(), ignored)) {
    throw Error(absolute_path(path_) +
                ": holds an unfinished run; add --resume to go on with it, or choose another "
                "--output");
  }
  if (finished) fs::rename(result_path(), path_ + "/result.previous.json", ignored);
  for (const std::string& old : {checkpoint_path(), good_path(), diverged_path(), metrics_path()}) {
    fs::remove(old, ignored);
  }
  fs::remove_all(predictions_path(), ignored);  // of another run, whose tasks may be more
}

void RunFolder::serialize(State& s, Learner& learner, Position& position, Result& result) {
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
  if (!s.loading()) add_costs(result);
  s.scope("result", [&](State& inner) { result.state(inner); });
}

// `was`: the checkpoint's identity. Throws Error unless this run may go on from it; notes what has
// changed.
void RunFolder::compare(Json was, const Position& at) {
  was = as_of_this_build(was, config_);
  Json changes = was.value("changes", Json::array());
  was.erase("changes");
  if (fs::exists(diverged_path())) {
    for (const char* cure : kCures) {
      const Json::json_pointer pointer(cure);
      if (!was.contains(pointer) || was[pointer] == identity_[pointer]) continue;
      changes.push_back({{"key", dotted(cure)},
                         {"was", was[pointer]},
                         {"is", identity_[pointer]},
                         {"task", at.task},
                         {"iteration", at.iteration}});
      notes_.push_back(dotted(cure) + " was " + to_text(was[pointer]) + " and is " +
                       to_text(identity_[pointer]) + " from task " + std::to_string(at.task + 1) +
                       ", step " + std::to_string(at.iteration) + " on, since the run diverged");
      was[pointer] = identity_[pointer];
    }
  }
  const std::string why = refusal(was, identity_);
  if (!why.empty()) throw Error(absolute_path(checkpoint_path()) + ": " + why);
  if (!changes.empty()) identity_["changes"] = changes;
}

bool RunFolder::restore(Learner& learner, Position& position, Result& result) {
  std::error_code failed;
  if (!fs::exists(checkpoint_path())) {
    if (writes_) fs::remove(metrics_path(), failed);  // of a run that ended before its first one
    return false;
  }
  const auto state = std::make_shared<State>(read_checkpoint(checkpoint_path(), learner.device));
  Json was, machine = Json::object();
  int64_t threads = 0;
  (*state)("identity", was);
  (*state)("threads", threads);
  if (state->values().contains("machine")) (*state)("machine", machine);  // else an earlier build's
  state->scope("position", [&](State& inner) { position.state(inner); });
  compare(std::move(was), position);
  Json made_on = machine_of(learner);
  made_on.merge_patch(machine);
  made_on["threads"] = threads;
  const std::string other = refusal_of_machine(made_on, machine_of(learner), config_.threads == 0);
  if (!other.empty()) throw Error(absolute_path(checkpoint_path()) + ": " + other);
  serialize(*state, learner, position, result);
  if (!notes_.empty()) result.change(to_json(config_), identity_, notes_);
  if (threads != threads_in_use()) {
    set_threads(threads);
    notes_.push_back("on " + std::to_string(threads) +
                     " threads, as the run began: the last bits of sums depend on their number");
  }
  saved_iteration_ = position.iteration;
  // After a run diverged, its last good one is what there is.
  good_ = (position.iteration == 0 && !position.trained) || fs::exists(diverged_path());
  if (position.iteration > 0 && !position.trained) {
    optimizer_ = [state](Optimizer& optimizer) {
      state->scope("optimizer", [&](State& inner) { optimizer.state(inner); });
    };
  }
  // Lines of steps that will be taken again.
  if (writes_ && fs::exists(metrics_path())) {
    fs::resize_file(metrics_path(), static_cast<uintmax_t>(metrics_bytes_), failed);
  }
  if (failed) throw Error(absolute_path(metrics_path()) + ": cannot be cut: " + failed.message());
  costs_recorded_ = metered();
  return true;
}

void RunFolder::go_on_from(State& state, const std::string& metrics, Learner& learner,
                           Position& position, Result& result) {
  state.scope("position", [&](State& inner) { position.state(inner); });
  serialize(state, learner, position, result);
  metrics_bytes_ = 0;
  if (writes_ && fs::exists(metrics)) {
    const std::string lines = read_file(metrics);
    write_file_atomically(metrics_path(), lines);
    metrics_bytes_ = static_cast<int64_t>(lines.size());
  }
  costs_recorded_ = metered();
}

void RunFolder::restore_optimizer(Optimizer& optimizer) {
  if (!optimizer_) return;
  optimizer_(optimizer);
  optimizer_ = nullptr;       // and with it the checkpoint that it held,
  reset_peak_tensor_bytes();  // which an uninterrupted run does not have
}

void RunFolder::add_costs(Result& result) {
  const PhaseCost now = metered();
  TaskCost& cost = result.current_cost();
  cost.phases += now - costs_recorded_;
  cost.peak_tensor_bytes = std::max(cost.peak_tensor_bytes, peak_tensor_bytes());
  cost.cuda_peak_bytes = std::max(cost.cuda_peak_bytes, cuda_peak_bytes());
  costs_recorded_ = now;
}

// A moment that is infinite leaves its parameter where it is, for ever, and no loss tells.
void RunFolder::require_finite(Learner& learner, const Position& position,
                               const Optimizer* optimizer) {
  const bool good = are_finite(learner.method->parameters());
  if (good && (!optimizer || are_finite(optimizer->moments()))) return;
  throw Diverged(std::string(good ? "the optimiser's moments" : "the parameters") +
                 " are not finite in task " + std::to_string(position.task + 1) + " after step " +
                 std::to_string(position.iteration));
}

void RunFolder::save(Learner& learner, Position& position, Result& result, Optimizer* optimizer) {
  require_finite(learner, position, optimizer);
  if (!writes_) return add_costs(result);
  State state;
  state("identity", identity_);
  int64_t threads = threads_in_use();
  Json machine = machine_of(learner);
  state("threads", threads);
  state("machine", machine);
  if (optimizer) state.scope("optimizer", [&](State& inner) { optimizer->state(inner); });
  serialize(state, learner, position, result);

  // Between tasks the parameters have just been tested.
  const bool tested = !optimizer && !position.trained;
  good_ = good_ || finite_iteration_ > saved_iteration_;  // and the parameters are finite, too
  std::error_code failed;
  if (good_ && !tested && fs::exists(checkpoint_path(), failed)) {
    fs::remove(good_path(), failed);
    fs::create_hard_link(checkpoint_path(), good_path(), failed);
    if (failed) fs::copy_file(checkpoint_path(), good_path(), failed);
  }
  write_checkpoint(checkpoint_path(), state);
  if (tested) fs::remove(good_path(), failed);
  fs::remove(diverged_path(), failed);
  good_ = tested;
  saved_iteration_ = position.iteration;
  if (tested) finite_iteration_ = 0;
  last_save_ = std::chrono::steady_clock::now();
}

// A loss two steps on was computed from parameters that a step from the checkpoint led to.
void RunFolder::saw_finite_loss(int64_t iteration) {
  finite_iteration_ = iteration;
  good_ = good_ || iteration > saved_iteration_ + 1;
}

void RunFolder::step_back() {
  if (!writes_) return;
  std::error_code failed;
  if (good_) {
    fs::remove(good_path(), failed);
  } else if (fs::exists(good_path(), failed)) {
    fs::rename(good_path(), checkpoint_path(), failed);
  } else {
    fs::remove(checkpoint_path(), failed);
  }
  write_file_atomically(diverged_path(), "");
}

void RunFolder::save_if_due(Learner& learner, Position& position, Result& result,
                            Optimizer& optimizer) {
  if (learner.device.is_cpu()) saw_finite_loss(position.iteration);  // else it is read now and then
  const std::chrono::duration<double> since = std::chrono::steady_clock::now() - last_save_;
  if (!interrupted() && since.count() < config_.train.checkpoint_seconds) return;
  save(learner, position, result, &optimizer);
  if (interrupted()) {
    throw Interrupted("stopped in task " + std::to_string(position.task + 1) + " after step " +
                      std::to_string(position.iteration) +
                      "; the same command with --resume goes on from here");
  }
}

void RunFolder::write_result(const Result& result) {
  if (writes_) write_file_atomically(result_path(), to_text(result.to_json(), 1) + "\n");
}

void RunFolder::log_step(const Step& step) {
  saw_finite_loss(step.iteration);
  if (!writes_) return;
  const Json line{{"task", step.task},
                  {"epoch", step.epoch},
                  {"iteration", step.iteration},
                  {"loss", step.loss.value()},
                  {"lr", step.lr}};
  const std::string text = to_text(line) + "\n";
  std::ofstream file(metrics_path(), std::ios::app);
  file << text;
  if (!file.flush())
    throw Error(absolute_path(metrics_path()) + ": cannot be written (is the disk full?)");
  metrics_bytes_ += static_cast<int64_t>(text.size());
}

}  // namespace rep
