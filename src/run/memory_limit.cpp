#include "run/memory_limit.h"

#include <algorithm>
#include <cmath>
#include <memory>
#include <utility>

#include "core/bytes.h"
#include "core/error.h"
#include "nn/vit.h"
#include "tensor/device.h"
#include "tensor/meter.h"
#include "tensor/resident.h"

namespace rep {

namespace {

// "1.08"
std::string in_hundredths(double factor) {
  const auto hundredths = std::llround(100 * factor);
  const std::string rest = std::to_string(hundredths % 100);
  return std::to_string(hundredths / 100) + (rest.size() < 2 ? ".0" : ".") + rest;
}

}  // namespace

MemoryLimit::MemoryLimit(const Config& config) : cap_(MemoryCap::of(config)), asked_(config) {
  const torch::Device device = choose_device(config.device);
  if (!is_set() || device.is_cpu()) return;
  throw Error(
      "memory_limit: only what the process holds of the CPU's memory is counted, and this "
      "run computes on " +
      device.str() + "; leave it out, or set device: cpu");
}

Config MemoryLimit::fit(const Config& config, bool divides,
                        const std::function<void(std::string)>& say) {
  if (!is_set()) return config;
  say_ = say;
  Footprint footprint = measure_footprint(config);
  footprint.divides_batches &= divides;
  ladder_ = memory_ladder(config, footprint);
  const Rung* fits = quickest_that_fits(ladder_, cap_.bytes);
  if (!fits) throw Error(nothing_fits(cap_, ladder_, config));
  const Rung& first = ladder_.front();
  if (fits == &first) {
    say(cap_.name + ": the run takes about " + show_bytes(first.resident_bytes) +
        " as it is configured");
  } else {
    say(cap_.name + ": as configured the run takes about " + show_bytes(first.resident_bytes) +
        "; with " + fits->difference(config) + " it takes about " +
        show_bytes(fits->resident_bytes) + ", at " + in_hundredths(fits->step_time) +
        " of a step's time");
  }
  now_ = *fits;
  release_unused_memory();  // what measuring left
  return now_.applied_to(config);
}

void MemoryLimit::watch(Session& session, const Json& earlier, const Position& from) {
  if (!is_set()) return;
  task_ = from.task;
  step_ = from.iteration;
  session_ = &session;
  Rung wanted = now_;
  if (earlier.is_object() && !earlier.at("used").empty()) {
    used_ = earlier.at("used");
    if (earlier.at("limit_bytes") == cap_.bytes) wanted = Rung::from_json(used_.back());
  }
  release_unused_memory();
  use(wanted);
}

void MemoryLimit::use(const Rung& rung) {
  now_ = rung;
  session_->config = now_.applied_to(session_->config);
  const auto vit = std::dynamic_pointer_cast<VisionTransformerImpl>(session_->learner.backbone);
  if (vit) {
    vit->recompute_mlps(now_.recompute);
    vit->recompute_blocks(now_.recompute_blocks);
  }
  if (!used_.empty() && now_.same_settings(Rung::from_json(used_.back()))) return;
  Json entry = now_.to_json();
  entry["from_task"] = task_;
  entry["from_step"] = step_;
  used_.push_back(std::move(entry));
}

Json MemoryLimit::to_json() const {
  if (!is_set()) return nullptr;
  return {{"limit", cap_.name}, {"limit_bytes", cap_.bytes}, {"used", used_}};
}

void MemoryLimit::begin_training(const Task& task, int64_t, int64_t done, Optimizer&) {
  task_ = task.index;
  step_ = done;
  if (is_set()) release_unused_memory();
}

void MemoryLimit::end_training() {
  if (is_set()) release_unused_memory();
}

void MemoryLimit::after_step(const Step& step, Optimizer& optimizer) {
  step_ = step.iteration;
  if (!is_exceeded() || take_next()) return;
  save(optimizer);
  enforce("training");
}

bool MemoryLimit::is_exceeded() const { return is_set() && peak_rss_bytes() > cap_.bytes; }

// The quickest of those that hold less than these.
bool MemoryLimit::take_next() {
  if (!session_) return false;
  const auto next = std::find_if(ladder_.begin(), ladder_.end(), [&](const Rung& rung) {
    return rung.resident_bytes < now_.resident_bytes;
  });
  if (next == ladder_.end()) return false;
  const int64_t reached = peak_rss_bytes();
  used_.back()["resident_bytes_reached"] = reached;
  say_(cap_.name + ": the process took " + show_bytes(reached) + "; going on with " +
       next->difference(asked_) + ", at " + in_hundredths(next->step_time) + " of a step's time");
  use(*next);
  release_unused_memory();
  reset_peak_rss_bytes();
  changed();
  return true;
}

void MemoryLimit::enforce(const char* when) {
  if (!is_exceeded() || take_next()) return;
  throw Error(cap_.name + ": the process took " + show_bytes(peak_rss_bytes()) + " in " + when +
              (session_ ? ", at the least that this run can take" : "") + "; raise it" +
              (session_ ? " and go on with --resume" : "") +
              ", or take a smaller backbone or train.batch_size");
}

}  // namespace rep
