#include "run/plan.h"

#include <algorithm>
#include <filesystem>
#include <string>
#include <utility>
#include <vector>

#include "core/error.h"
#include "data/dataset.h"
#include "nn/backbone.h"
#include "nn/vit.h"
#include "run/footprint.h"
#include "run/memory_fit.h"
#include "run/pretrain.h"
#include "run/rehearsal.h"
#include "run/setup.h"
#include "tensor/device.h"
#include "tensor/torch.h"

namespace rep {

namespace {

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

// ---- costs and memory ----

// Multiply-accumulates of an image's pass through the blocks; 0 where there are none.
double macs_of_a_pass(const BackboneConfig& config) {
  if (!family_of(config.name).has_tokens) return 0;
  const VitOptions vit = vit_options(config.name, config.image_size, config.patch_size);
  const auto D = static_cast<double>(vit.embed_dim);
  const auto N = static_cast<double>(1 + vit.extra_tokens() + vit.num_patches());
  return static_cast<double>(vit.depth) * N * (12 * D * D + 2 * N * D);
}

// Whether whole batches would be rehearsed for more than a minute or so on two cores.
bool takes_long(const Config& config, int64_t steps) {
  constexpr double kMost = 2e12;
  const auto passes =
      static_cast<double>(3 * 3 * steps * config.train.batch_size + 4 * config.eval.batch_size);
  return passes * macs_of_a_pass(config.backbone) > kMost;
}

// Of whole batches and tests, where few images were rehearsed.
Forecast::Peaks peaks_of(const Footprint& footprint, const Config& config) {
  const int64_t images =
      config.train.micro_batch_size > 0 ? config.train.micro_batch_size : config.train.batch_size;
  const int64_t tested = std::min(config.eval.batch_size, footprint.test_images);
  return {std::max(footprint.step.at(images), footprint.begin), footprint.task_end,
          footprint.test.at(tested), footprint.checkpoint};
}

Json ladder_json(const std::vector<Rung>& ladder, int64_t limit) {
  Json json = Json::array();
  for (const Rung& rung : ladder) {
    json.push_back(rung.to_json());
    json.back()["fits"] = limit > 0 ? Json(rung.resident_bytes <= limit) : Json(nullptr);
  }
  return json;
}

}  // namespace

Json plan(const Config& asked, const PlanOptions& options) {
  Config config = asked;
  std::vector<std::string> notes;
  stand_in_for_pretraining(config, notes);
  stand_in_for_weights(config.backbone.weights, "backbone.weights", notes);
  stand_in_for_weights(config.efficiency.query_backbone.weights,
                       "efficiency.query_backbone.weights", notes);
  stand_in_for_images(config, notes);
  const MemoryCap cap = MemoryCap::of(config);
  const bool counted = choose_device(config.device).is_cpu();
  std::vector<Rung> ladder;
  Footprint footprint;
  if (counted) {
    footprint = measure_footprint(config);
    ladder = memory_ladder(config, footprint);
  } else {
    notes.emplace_back(
        "only what the process holds of the CPU's memory is counted, not the GPU's: whether it "
        "fits is not known");
  }
  const bool few = takes_long(config, options.steps) && counted;
  const Forecast forecast = rehearse(config, {few ? 2 : options.steps, few});
  notes.insert(notes.end(), forecast.notes.begin(), forecast.notes.end());
  if (few) {
    notes.emplace_back(
        "an image or two at once were rehearsed: batches cost so many times as much, their time "
        "is a rough one");
  }
  const Forecast::Peaks peak = few ? peaks_of(footprint, config) : forecast.peak;
  const bool judged = cap.bytes > 0 && counted;
  const bool fits = judged && quickest_that_fits(ladder, cap.bytes) != nullptr;
  if (judged && !fits) notes.push_back(nothing_fits(cap, ladder, config));
  return {{"config", config.name},
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
          {"resident_bytes", counted ? Json(ladder.front().resident_bytes) : Json(nullptr)},
          {"state_bytes", forecast.state_bytes},
          {"parameters", forecast.parameters},
          {"seconds_estimated", forecast.seconds},
          {"memory_limit", cap.bytes > 0 ? Json(cap.bytes) : Json(nullptr)},
          {"fits", judged ? Json(fits) : Json(nullptr)},
          {"ladder", ladder_json(ladder, cap.bytes)},
          {"notes", notes}};
}

}  // namespace rep
