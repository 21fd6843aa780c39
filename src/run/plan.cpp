#include "run/plan.h"

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "core/bytes.h"
#include "core/error.h"
#include "data/dataset.h"
#include "nn/backbone.h"
#include "nn/patch_sampling.h"
#include "run/pretrain.h"
#include "run/rehearsal.h"
#include "run/setup.h"
#include "tensor/device.h"
#include "tensor/torch.h"

namespace rep {

namespace {

constexpr int64_t kMemorySteps = 2;  // an optimiser has its state from the second on

// ---- what stands in for files that are not there ----

void stand_in_for_weights(std::string& weights, const std::string& key,
                          std::vector<std::string>& notes) {
  std::error_code ignored;
  if (weights.empty() || weights == "random" || std::filesystem::exists(weights, ignored)) return;
  notes.push_back(key + ": " + weights + " is not there; random weights cost the same");
  weights = "random";
}

void stand_in_for_pretraining(Config& config, std::vector<std::string>& notes) {
  const Config asked = config;
  resolve_pretrained(config, nullptr);
  const auto note = [&](const std::string& key, const std::string& was, const std::string& is) {
    if (was == "random" || is != "random") return;
    notes.push_back(key + ": " + was + " is not made yet; random weights cost the same");
  };
  note("backbone.weights", asked.backbone.weights, config.backbone.weights);
  note("efficiency.query_backbone.weights", asked.efficiency.query_backbone.weights,
       config.efficiency.query_backbone.weights);
}

void stand_in_for_images(Config& config, std::vector<std::string>& notes) {
  try {
    open_splits(config);
  } catch (const Error& error) {
    const DatasetKind& kind = Registry<DatasetKind>::get().at(config.dataset.name).value;
    if (!kind.stand_in) {
      throw Error(std::string(error.what()) +
                  "; to plan without the images, --set 'dataset={name: synthetic, classes: N, "
                  "train_per_class: N, test_per_class: N}'");
    }
    StandIn stand_in = kind.stand_in(config.dataset);
    notes.push_back(stand_in.note);
    config.dataset = std::move(stand_in.section);
    resolve_sections(config);
  }
}

// ---- what to change ----

struct Change {
  std::vector<std::string> set;  // as --set takes it
  Config config;
  Forecast forecast;
};

class Advice {
 public:
  Advice(const Config& config, const Forecast& forecast, int64_t limit)
      : limit_(limit), base_{{}, config, forecast} {}

  Json proposals() {
    if (base_.forecast.peak.test > limit_) {
      if (!shrink(base_, "eval.batch_size", &Config::eval, &Forecast::Peaks::test)) return json_;
      if (fits(base_)) {
        add(base_);
        return json_;
      }
    }
    Change smaller = base_;
    if (shrink(smaller, "train.batch_size", &Config::train, &Forecast::Peaks::train)) add(smaller);
    Change all = base_;
    const auto try_it = [&](const std::string& set, auto&& change) {
      Change one = base_;
      one.set.push_back(set);
      change(one.config);
      one.forecast = rehearse(one.config, kMemorySteps, /*memory_only=*/true);
      if (one.forecast.peak.highest() >= base_.forecast.peak.highest()) return;
      add(one);
      all.set.push_back(set);
      change(all.config);
    };
    if (!family_of(base_.config.backbone.name).has_tokens) return json_;
    if (base_.config.backbone.recompute < 1) {
      try_it("backbone.recompute=1", [](Config& c) { c.backbone.recompute = 1; });
    }
    if (base_.config.efficiency.token_merging.kind == "none") {
      try_it("efficiency.token_merging={kind: atom, n: 8}",
             [](Config& c) { c.efficiency.token_merging.kind = "atom"; });
    } else if (samples_patches(base_.config.efficiency.token_merging)) {
      const double ratio = (1 + base_.config.efficiency.token_merging.ratio) / 2;
      try_it("efficiency.token_merging.ratio=" + Json(ratio).dump(),
             [ratio](Config& c) { c.efficiency.token_merging.ratio = ratio; });
    } else {
      const int64_t n = 2 * base_.config.efficiency.token_merging.n;
      try_it("efficiency.token_merging.n=" + std::to_string(n),
             [n](Config& c) { c.efficiency.token_merging.n = n; });
    }
    if (base_.config.precision == "fp32" && base_.config.backbone.trainable == "none") {
      try_it("precision=bf16", [](Config& c) { c.precision = "bf16"; });
    }
    if (!any_fits_ && all.set.size() > base_.set.size() + 1) {
      all.forecast = rehearse(all.config, kMemorySteps, /*memory_only=*/true);
      if (!fits(all)) shrink(all, "train.batch_size", &Config::train, &Forecast::Peaks::train);
      add(all);
    }
    return json_;
  }

 private:
  bool fits(const Change& change) const { return change.forecast.peak.highest() <= limit_; }

  void add(const Change& change) {
    any_fits_ |= fits(change);
    json_.push_back({{"set", change.set},
                     {"peak_tensor_bytes", change.forecast.peak.highest()},
                     {"fits", fits(change)}});
  }

  // Makes a batch as large as fits: a batch's memory is nearly a line, and two rehearsals give one
  // to start from. False when a batch of one image does not change enough.
  template <class Part>
  bool shrink(Change& change, const std::string& key, Part Config::*part,
              int64_t Forecast::Peaks::*peak) {
    const int64_t whole = (change.config.*part).batch_size;
    if (whole == 1) return false;
    Change tried = change;
    int64_t batch = 0, taken = 0;
    // With at most `size` images; false when a run would refuse all such batches (as too short).
    const auto rehearse_with = [&](int64_t size) {
      for (batch = size; batch > 0; --batch) {
        (tried.config.*part).batch_size = batch;
        try {
          tried.forecast = rehearse(tried.config, kMemorySteps, /*memory_only=*/true);
          taken = tried.forecast.peak.*peak;
          return true;
        } catch (const Error&) {
        }
      }
      return false;
    };
    if (!rehearse_with(whole / 2)) return false;
    const double slope = static_cast<double>(change.forecast.peak.*peak - taken) /
                         static_cast<double>(whole - batch);
    if (slope <= 0) return false;
    // A hundredth of room, since it is nearly a line only.
    const double line = static_cast<double>(batch) +
                        (0.99 * static_cast<double>(limit_) - static_cast<double>(taken)) / slope;
    const int64_t guess = std::clamp<int64_t>(static_cast<int64_t>(std::floor(line)), 1, whole - 1);
    if (guess != batch && !rehearse_with(guess)) return false;
    if (taken > limit_ && batch > 1 && !rehearse_with(std::max<int64_t>(1, batch * 3 / 4))) {
      return false;
    }
    if (taken > limit_) return false;
    tried.set.push_back(key + "=" + std::to_string(batch));
    change = std::move(tried);
    return true;
  }

  int64_t limit_;
  Change base_;
  Json json_ = Json::array();
  bool any_fits_ = false;
};

}  // namespace

Json plan(const Config& asked, const PlanOptions& options) {
  Config config = asked;
  std::vector<std::string> notes;
  stand_in_for_pretraining(config, notes);
  stand_in_for_weights(config.backbone.weights, "backbone.weights", notes);
  stand_in_for_weights(config.efficiency.query_backbone.weights,
                       "efficiency.query_backbone.weights", notes);
  stand_in_for_images(config, notes);
  const int64_t limit = options.memory_limit > 0 ? options.memory_limit
                                                 : parse_bytes(config.memory_limit, "memory_limit");
  const bool counted = choose_device(config.device).is_cpu();
  if (!counted) {
    notes.emplace_back(
        "only the CPU's tensors are counted, not the GPU's: whether it fits is not known");
  }
  const Forecast forecast = rehearse(config, options.steps);
  notes.insert(notes.end(), forecast.notes.begin(), forecast.notes.end());
  const Forecast::Peaks& peak = forecast.peak;
  const bool judged = limit > 0 && counted;
  const bool fits = peak.highest() <= limit;
  Json json{{"config", config.name},
            {"steps", forecast.steps},
            {"macs_per_step",
             forecast.steps == 0 ? 0 : forecast.step_macs / static_cast<double>(forecast.steps)},
            {"macs_total", forecast.train_macs + forecast.test_macs},
            {"macs", {{"train", forecast.train_macs}, {"eval", forecast.test_macs}}},
            {"peak_tensor_bytes", peak.highest()},
            {"peaks",
             {{"train", peak.train},
              {"task_end", peak.task_end},
              {"eval", peak.test},
              {"checkpoint", peak.checkpoint}}},
            {"state_bytes", forecast.state_bytes},
            {"parameters", forecast.parameters},
            {"seconds_estimated", forecast.seconds},
            {"memory_limit", limit > 0 ? Json(limit) : Json(nullptr)},
            {"fits", judged ? Json(fits) : Json(nullptr)},
            {"proposals", Json::array()}};
  if (judged && !fits) {
    json["proposals"] = Advice(config, forecast, limit).proposals();
    const bool helps = std::any_of(json["proposals"].begin(), json["proposals"].end(),
                                   [](const Json& proposal) { return proposal["fits"] == true; });
    if (!helps)
      notes.emplace_back(
          "no change of batches, merging or precision makes it fit; take a smaller backbone");
  }
  json["notes"] = notes;
  return json;
}

}  // namespace rep
