// The idea in three lines: what a step holds is a line in the images that are in it at once, with a
// slope that recomputing lowers; every combination of settings gets its bytes and its time by
// arithmetic; the ladder is those that nothing beats in both.
#include "run/memory_fit.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <utility>

#include "core/bytes.h"
#include "core/cgroup.h"
#include "nn/backbone.h"

namespace rep {

namespace {

// A part of a batch takes as long as so many images more: operations to start, products of fewer
// rows. An assumption.
constexpr double kCostOfAPart = 0.1;
// The heap's gaps, and what grows while a run lasts.
constexpr double kGaps = 0.03;
constexpr int64_t kRoom = int64_t{8} << 20;

int64_t at_once(const TrainConfig& train) {
  return train.micro_batch_size > 0 ? train.micro_batch_size : train.batch_size;
}

class LadderMaker {
 public:
  LadderMaker(const Config& config, const Footprint& footprint)
      : config_(config), foot_(footprint) {}

  std::vector<Rung> make() const {
    const Rung first = estimated(as_configured());
    std::vector<Rung> all;
    for (const int64_t images : parts()) {
      for (const auto& [share, blocks] : recomputations()) {
        for (const int64_t workers : {config_.train.workers, int64_t{1}}) {
          Rung rung = as_configured();
          rung.micro_batch_size = images == config_.train.batch_size ? 0 : images;
          rung.recompute = share;
          rung.recompute_blocks = blocks;
          rung.workers = workers;
          all.push_back(estimated(with_tests(rung)));
        }
      }
    }
    std::stable_sort(all.begin(), all.end(), [](const Rung& a, const Rung& b) {
      return std::pair(a.step_time, a.resident_bytes) < std::pair(b.step_time, b.resident_bytes);
    });
    std::vector<Rung> ladder{first};
    for (const Rung& rung : all) {
      // What saves less than a hundredth is no rung.
      const auto least = static_cast<double>(ladder.back().resident_bytes);
      if (static_cast<double>(rung.resident_bytes) < 0.99 * least) ladder.push_back(rung);
    }
    return ladder;
  }

 private:
  Rung as_configured() const {
    Rung rung;
    rung.micro_batch_size = config_.train.micro_batch_size;
    rung.eval_batch_size = config_.eval.batch_size;
    rung.recompute = config_.backbone.recompute;
    rung.recompute_blocks = config_.backbone.recompute_blocks;
    rung.workers = config_.train.workers;
    return rung;
  }

  // The divisors of what is at once now, from all of it on down.
  std::vector<int64_t> parts() const {
    const int64_t most = at_once(config_.train);
    if (!foot_.divides_batches) return {most};
    std::vector<int64_t> sizes;
    for (int64_t n = most; n > 0; --n) {
      if (config_.train.batch_size % n == 0) sizes.push_back(n);
    }
    return sizes;
  }

  // Share of the MLPs, and blocks in a row.
  std::vector<std::pair<double, int64_t>> recomputations() const {
    const double share = config_.backbone.recompute;
    const int64_t blocks = config_.backbone.recompute_blocks;
    std::vector<std::pair<double, int64_t>> ways{{share, blocks}};
    if (foot_.mlps > 0 && share < 1) ways.emplace_back(1, blocks);
    if (foot_.blocks > 0 && blocks == 0) {
      for (const int64_t each : {4, 2, 1}) ways.emplace_back(share, each);
    }
    return ways;
  }

  // Of an image in a step.
  double slope(const Rung& rung) const {
    double bytes = foot_.step.an_image;
    const double asked = config_.backbone.recompute;
    if (rung.recompute > asked) bytes -= foot_.mlps * (rung.recompute - asked) / (1 - asked);
    if (rung.recompute_blocks > 0 && config_.backbone.recompute_blocks == 0 && foot_.depth > 1) {
      // With K blocks, each of which keeps `each` bytes beside its input, footprint.blocks =
      // (K - 1) each: all but the last run again, one at a time. Of k in a row, K / k - 1 inputs
      // are kept, and k blocks at work.
      const auto K = static_cast<double>(foot_.depth);
      const double each = foot_.blocks / (K - 1) + foot_.entering;
      const auto k = static_cast<double>(rung.recompute_blocks);
      bytes += -K * each + std::max(0.0, K / k - 1) * foot_.entering + k * each;
    }
    bytes -= static_cast<double>((config_.train.workers - rung.workers) * foot_.image_bytes);
    return std::max(0.0, bytes);
  }

  // Without tests, the highest.
  int64_t tensors_in_training(const Rung& rung) const {
    const int64_t images =
        rung.micro_batch_size > 0 ? rung.micro_batch_size : config_.train.batch_size;
    const int64_t more = rung.micro_batch_size > 0 ? foot_.parts : 0;
    return std::max(BytesLine{foot_.step.fixed, slope(rung)}.at(images) + more, foot_.checkpoint);
  }

  int64_t tensors_in_tests(int64_t images) const {
    return std::max(
        {foot_.test.at(std::min(images, foot_.test_images)), foot_.begin, foot_.task_end});
  }

  // As many images in a test as take no more than a step does.
  Rung with_tests(Rung rung) const {
    if (!foot_.divides_tests) return rung;
    const int64_t most = std::max({tensors_in_training(rung), foot_.begin, foot_.task_end});
    while (rung.eval_batch_size > 1 && tensors_in_tests(rung.eval_batch_size) > most) {
      rung.eval_batch_size = (rung.eval_batch_size + 1) / 2;
    }
    return rung;
  }

  Rung estimated(Rung rung) const {
    const auto batch = static_cast<double>(config_.train.batch_size);
    const auto cost = [&](int64_t images) {
      return 1 + kCostOfAPart / static_cast<double>(images) - kCostOfAPart / batch;
    };
    const int64_t images =
        rung.micro_batch_size > 0 ? rung.micro_batch_size : config_.train.batch_size;
    // The first of an MLP's products is a third of a block's.
    double again = std::max(0.0, rung.recompute - config_.backbone.recompute) / 3;
    if (rung.recompute_blocks > 0 && config_.backbone.recompute_blocks == 0) {
      const auto K = static_cast<double>(std::max<int64_t>(1, foot_.depth));
      again += std::max(0.0, 1 - static_cast<double>(rung.recompute_blocks) / K);
    }
    rung.step_time = cost(images) / cost(at_once(config_.train)) + again * foot_.forward_share;
    rung.peak_tensor_bytes =
        std::max(tensors_in_training(rung), tensors_in_tests(rung.eval_batch_size));
    const auto held = static_cast<double>(rung.peak_tensor_bytes);
    const auto with_gaps = static_cast<int64_t>(std::llround((1 + kGaps) * held));
    rung.resident_bytes = std::max(foot_.loading, foot_.beside + with_gaps + kRoom);
    return rung;
  }

  const Config& config_;
  const Footprint& foot_;
};

}  // namespace

Config Rung::applied_to(Config config) const {
  config.train.micro_batch_size = micro_batch_size;
  config.eval.batch_size = eval_batch_size;
  config.backbone.recompute = recompute;
  config.backbone.recompute_blocks = recompute_blocks;
  config.train.workers = workers;
  return config;
}

Json Rung::to_json() const {
  return {{"micro_batch_size", micro_batch_size},
          {"eval_batch_size", eval_batch_size},
          {"recompute", recompute},
          {"recompute_blocks", recompute_blocks},
          {"workers", workers},
          {"peak_tensor_bytes", peak_tensor_bytes},
          {"resident_bytes", resident_bytes},
          {"step_time", step_time}};
}

Rung Rung::from_json(const Json& json) {
  Rung rung;
  json.at("micro_batch_size").get_to(rung.micro_batch_size);
  json.at("eval_batch_size").get_to(rung.eval_batch_size);
  json.at("recompute").get_to(rung.recompute);
  json.at("recompute_blocks").get_to(rung.recompute_blocks);
  json.at("workers").get_to(rung.workers);
  json.at("peak_tensor_bytes").get_to(rung.peak_tensor_bytes);
  json.at("resident_bytes").get_to(rung.resident_bytes);
  json.at("step_time").get_to(rung.step_time);
  return rung;
}

std::string Rung::difference(const Config& config) const {
  std::string text;
  const auto add = [&](bool differs, const std::string& part) {
    if (differs) text += (text.empty() ? "" : ", ") + part;
  };
  add(micro_batch_size != config.train.micro_batch_size,
      "micro-batches of " + std::to_string(micro_batch_size));
  char share[32];
  std::snprintf(share, sizeof share, "%g", recompute);
  add(recompute != config.backbone.recompute, std::string("recompute ") + share);
  add(recompute_blocks != config.backbone.recompute_blocks,
      "every " +
          (recompute_blocks == 1 ? std::string("block")
                                 : std::to_string(recompute_blocks) + " blocks") +
          " recomputed");
  add(eval_batch_size != config.eval.batch_size, "tests of " + std::to_string(eval_batch_size) +
                                                     (eval_batch_size == 1 ? " image" : " images"));
  add(workers != config.train.workers, std::to_string(workers) + " loader thread");
  return text.empty() ? "as configured" : text;
}

bool Rung::same_settings(const Rung& other) const {
  return micro_batch_size == other.micro_batch_size && eval_batch_size == other.eval_batch_size &&
         recompute == other.recompute && recompute_blocks == other.recompute_blocks &&
         workers == other.workers;
}

std::vector<Rung> memory_ladder(const Config& config, const Footprint& footprint) {
  return LadderMaker(config, footprint).make();
}

MemoryCap MemoryCap::of(const Config& config) {
  MemoryCap cap{parse_bytes(config.memory_limit, "memory_limit"),
                "memory_limit: " + config.memory_limit};
  if (cap.bytes == 0) return {};
  const auto group = cgroup_memory_limit();
  if (group && group->bytes < cap.bytes) {
    cap = {group->bytes, show_bytes(group->bytes) + ", of " + group->file +
                             ", which is less than memory_limit: " + config.memory_limit};
  }
  return cap;
}

const Rung* quickest_that_fits(const std::vector<Rung>& ladder, int64_t bytes) {
  const Rung* quickest = nullptr;
  for (const Rung& rung : ladder) {
    if (rung.resident_bytes > bytes) continue;
    if (!quickest || rung.step_time < quickest->step_time) quickest = &rung;
  }
  return quickest;
}

std::string nothing_fits(const MemoryCap& cap, const std::vector<Rung>& ladder,
                         const Config& config) {
  const Rung& least = ladder.back();
  const std::string how = least.difference(config);
  const bool may_halve = config.precision == "fp32" && config.backbone.trainable == "none" &&
                         family_of(config.backbone.name).has_tokens;
  return cap.name + ": the run takes " + show_bytes(least.resident_bytes) + " at the least" +
         (how == "as configured" ? "" : ", with " + how) + "; raise it, or take " +
         (may_halve ? "precision: bf16, " : "") + "a smaller backbone or train.batch_size";
}

}  // namespace rep
