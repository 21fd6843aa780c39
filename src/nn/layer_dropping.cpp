// ALD: adaptive layer dropping (REP, arXiv 2406.04772, Algorithm 2), and PLD (Zhang & He,
// 2010.13369). The idea in three lines: a training step skips whole blocks at random, more of them
// as the task goes on; blocks that follow much token merging are skipped a little more often, since
// they see less. Differs from REP's published code, which is PLD throughout and never reads tau:
// this follows the paper; `kind: pld`, `time: block` is that code.
#include "nn/layer_dropping.h"

#include <cmath>

#include "core/error.h"
#include "core/numbers.h"
#include "core/random.h"

namespace rep {

double keep_ratio(double min_keep, double decay, double t) {
  return (1 - min_keep) * std::exp(-decay * t) + min_keep;
}

double drop_threshold(const LayerDroppingConfig& config, const TokenMergingConfig& merging) {
  if (config.threshold == "auto") return 2.0 * static_cast<double>(merging.n);
  const auto tokens = parse_number<double>(config.threshold);
  if (tokens && *tokens >= 0) return *tokens;
  throw Error("efficiency.layer_dropping.threshold: '" + config.threshold +
              "' must be 'auto' or a number of tokens, at least 0");
}

void check_dropping(const LayerDroppingConfig& config, int64_t depth) {
  if (config.kind == "none") return;
  if (config.exempt_first >= depth) {
    throw Error("efficiency.layer_dropping.exempt_first: " + std::to_string(config.exempt_first) +
                " leaves none of the backbone's " + std::to_string(depth) +
                " blocks to drop; take fewer, or kind: none");
  }
  if (config.rescale && config.backward_only) {
    throw Error(
        "efficiency.layer_dropping: rescale makes up for blocks that are missing in the forward "
        "pass, and with backward_only none is; take one of them");
  }
}

namespace {

double read_clock(const LayerDroppingConfig& config, const StepTime& time) {
  if (config.time == "epoch") return static_cast<double>(time.epoch);
  return static_cast<double>(config.time == "task_iteration" ? time.task_iteration
                                                             : time.iteration);
}

}  // namespace

Drops draw_drops(const LayerDroppingConfig& config, const std::vector<int64_t>& merge,
                 int64_t image_tokens, const StepTime& time, double threshold,
                 const std::vector<bool>& prompted) {
  const int64_t depth = static_cast<int64_t>(merge.size());
  Drops drops{std::vector<bool>(merge.size(), false), std::vector<double>(merge.size(), 1.0)};
  if (config.kind == "none") return drops;

  Random random({static_cast<uint64_t>(time.seed), static_cast<uint64_t>(RandomUse::kLayerDropping),
                 static_cast<uint64_t>(time.iteration)});
  const double now = read_clock(config, time);
  int64_t merged = 0, left = image_tokens;
  for (int64_t l = 0; l < depth; ++l) {
    const auto i = static_cast<size_t>(l);
    // The published code's clock ticks once a block and never goes back.
    const double t =
        config.time == "block" ? now * static_cast<double>(depth) + static_cast<double>(l) : now;
    const double theta = keep_ratio(config.min_keep, config.decay, t);
    const int64_t own = std::min(merge[i], left / 2);
    if (config.kind == "ald") {
      const auto counted = static_cast<double>(config.count_own ? merged + own : merged);
      drops.keep[i] = (counted > threshold ? config.adjustment : 1.0) * theta;
    } else if (config.kind == "pld") {
      drops.keep[i] = 1 - static_cast<double>(l) * (1 - theta) / static_cast<double>(depth);
    } else {
      drops.keep[i] = config.keep;
    }
    const bool has_prompts = !prompted.empty() && prompted[i];
    if (l < config.exempt_first || (config.exempt_prompted && has_prompts)) drops.keep[i] = 1;
    drops.skip[i] = !random.bernoulli(drops.keep[i]);
    // A skipped block merges nothing.
    if (drops.skip[i] && config.count == "actual" && !config.backward_only) continue;
    merged += own;
    left -= own;
  }
  return drops;
}

}  // namespace rep
