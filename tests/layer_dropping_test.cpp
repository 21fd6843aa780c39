// ALD and its alternatives: keep probabilities by hand and by reference, and draws that follow
// them.

#include "nn/layer_dropping.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <numeric>
#include <string>
#include <vector>

#include "core/error.h"
#include "nn/token_merging.h"
#include "tests/golden.h"

namespace rep {
namespace {

constexpr int64_t kImageTokens = 196;

TokenMergingConfig atom(int64_t n) {
  TokenMergingConfig config;
  config.kind = "atom";
  config.n = n;
  return config;
}

LayerDroppingConfig dropping(const std::string& kind) {
  LayerDroppingConfig config;  // theta_bar 0.5, gamma 0.001, alpha 0.9: the paper's
  config.kind = kind;
  return config;
}

StepTime at_iteration(int64_t iteration, int64_t seed = 0) {
  StepTime time;
  time.seed = seed;
  time.task_iteration = time.iteration = iteration;
  return time;
}

/// The first block, counted from 1, whose keep probability is lowered at t = 0; 0: none.
int64_t first_adjusted_block(int64_t depth, int64_t n, bool count_own) {
  LayerDroppingConfig config = dropping("ald");
  config.count = "nominal";
  config.count_own = count_own;
  const Drops drops = draw_drops(config, merging_schedule(atom(n), depth), kImageTokens,
                                 at_iteration(0), drop_threshold(config, atom(n)));
  for (size_t block = 0; block < drops.keep.size(); ++block) {
    if (drops.keep[block] != 1.0) return static_cast<int64_t>(block) + 1;
  }
  return 0;
}

TEST(KeepRatioTest, DecaysFromOneToTheMinimum) {
  EXPECT_EQ(keep_ratio(0.5, 0.001, 0), 1.0);
  EXPECT_NEAR(keep_ratio(0.5, 0.001, 1000), 0.5 + 0.5 / std::exp(1.0), 1e-15);
  EXPECT_NEAR(keep_ratio(0.75, 0.01, 100), 0.75 + 0.25 / std::exp(1.0), 1e-15);
  EXPECT_NEAR(keep_ratio(0.5, 0.001, 1e6), 0.5, 1e-15);
}

std::vector<double> keeps(const LayerDroppingConfig& config, const StepTime& time,
                          const std::vector<bool>& prompted = {}) {
  return draw_drops(config, std::vector<int64_t>(4, 0), kImageTokens, time, 16, prompted).keep;
}

TEST(DroppingTest, ExemptBlocksRunAndMoveNoOthersDraw) {
  LayerDroppingConfig config = dropping("random");
  config.keep = 0.25;
  LayerDroppingConfig first = config, prompted = config;
  first.exempt_first = 2;
  prompted.exempt_prompted = true;
  const std::vector<bool> with_prompts{false, true, false, true};
  EXPECT_EQ(keeps(first, {}), (std::vector<double>{1, 1, 0.25, 0.25}));
  EXPECT_EQ(keeps(prompted, {}, with_prompts), (std::vector<double>{0.25, 1, 0.25, 1}));
  EXPECT_EQ(keeps(config, {}, with_prompts), (std::vector<double>(4, 0.25)));
  int64_t dropped = 0;
  for (int64_t i = 0; i < 50; ++i) {
    const auto skips = [&](const LayerDroppingConfig& c) {
      return draw_drops(c, std::vector<int64_t>(4, 0), kImageTokens, at_iteration(i), 16,
                        with_prompts)
          .skip;
    };
    const auto all = skips(config), but_first = skips(first), but_prompted = skips(prompted);
    for (size_t block = 0; block < 4; ++block) {
      EXPECT_EQ(but_first[block], block >= 2 && all[block]);
      EXPECT_EQ(but_prompted[block], block % 2 == 0 && all[block]);
      dropped += all[block] ? 1 : 0;
    }
  }
  EXPECT_GT(dropped, 100) << "of 200, three quarters";
}

// The reading of CPS-Prompt's authors: t is the epoch, gamma 1 / E, theta_bar 0.8, alpha 1.
TEST(DroppingTest, TheClockMayCountEpochs) {
  LayerDroppingConfig config = dropping("ald");
  config.time = "epoch";
  config.min_keep = 0.8;
  config.decay = 1.0 / 20;
  config.adjustment = 1;
  StepTime time{7, 2, 1234, 54321, 5};
  for (const double keep : keeps(config, time)) {
    EXPECT_NEAR(keep, 0.2 * std::exp(-0.25) + 0.8, 1e-12);
  }
  time.epoch = 0;
  EXPECT_EQ(keeps(config, time), (std::vector<double>(4, 1.0)));
}

// Ten tokens a block and a tau of 15, where all but nothing is kept: what is skipped merges
// nothing, what is left out of the backward pass only does.
TEST(DroppingTest, BackwardOnlyCountsTheMergesOfDroppedBlocks) {
  LayerDroppingConfig config = dropping("ald");
  config.min_keep = 1e-9;
  config.decay = 1e9;
  config.adjustment = 0.5;
  const auto keep = [&] {
    return draw_drops(config, std::vector<int64_t>(4, 10), kImageTokens, at_iteration(1), 15).keep;
  };
  EXPECT_EQ(keep(), (std::vector<double>(4, 1e-9)));
  config.backward_only = true;
  EXPECT_EQ(keep(), (std::vector<double>{1e-9, 1e-9, 0.5e-9, 0.5e-9}));
}

TEST(DroppingTest, RefusesWhatContradictsItself) {
  const auto message = [](const LayerDroppingConfig& config) -> std::string {
    try {
      check_dropping(config, 12);
    } catch (const Error& e) {
      return e.what();
    }
    return "";
  };
  LayerDroppingConfig config = dropping("ald");
  config.exempt_first = 11;
  EXPECT_EQ(message(config), "");
  config.exempt_first = 12;
  EXPECT_NE(message(config).find("leaves none of the backbone's 12 blocks to drop"),
            std::string::npos);
  config.exempt_first = 0;
  config.rescale = config.backward_only = true;
  EXPECT_NE(message(config).find("rescale makes up for"), std::string::npos);
}

// Algorithm 2 with Algorithm 1's nominal schedule: ViT-L (24 blocks) and ViT-B (12 blocks).
TEST(AldTest, AdjustsFromTheBlockAfterTwiceNMerges) {
  struct Case {
    int64_t depth, n, before, own;
  };
  for (const Case& c : {Case{24, 8, 10, 9}, Case{24, 6, 10, 9}, Case{24, 4, 10, 9},
                        Case{12, 8, 7, 6}, Case{12, 6, 7, 6}, Case{12, 4, 8, 7}}) {
    EXPECT_EQ(first_adjusted_block(c.depth, c.n, false), c.before) << c.depth << " n " << c.n;
    EXPECT_EQ(first_adjusted_block(c.depth, c.n, true), c.own) << c.depth << " n " << c.n;
  }
}

TEST(AldTest, KeepIsThePapersFormula) {
  LayerDroppingConfig config = dropping("ald");
  config.count = "nominal";
  const double theta = 0.5 * std::exp(-0.7) + 0.5;  // 700 iterations, gamma 0.001
  const Drops drops =
      draw_drops(config, merging_schedule(atom(8), 12), kImageTokens, at_iteration(700), 16);
  ASSERT_EQ(drops.keep.size(), 12u);
  for (size_t block = 0; block < 12; ++block) {
    EXPECT_NEAR(drops.keep[block], block < 6 ? theta : 0.9 * theta, 1e-15) << block;
  }
}

TEST(AldTest, WithoutMergingDropsAreUniformOverDepth) {
  const Drops drops =
      draw_drops(dropping("ald"), std::vector<int64_t>(24, 0), kImageTokens, at_iteration(1000), 0);
  for (const double keep : drops.keep) EXPECT_NEAR(keep, 0.5 + 0.5 / std::exp(1.0), 1e-15);
}

TEST(AldTest, ActualCountLeavesOutSkippedBlocksAndNominalDoesNot) {
  const auto merge = merging_schedule(atom(8), 24);
  int64_t differ = 0;
  for (const char* count : {"actual", "nominal"}) {
    for (int64_t seed = 0; seed < 200; ++seed) {
      LayerDroppingConfig config = dropping("ald");
      config.count = count;
      const Drops drops = draw_drops(config, merge, kImageTokens, at_iteration(5000, seed), 16);
      const double theta = 0.5 + 0.5 * std::exp(-5.0);
      int64_t executed = 0, nominal = 0;
      for (size_t block = 0; block < 24; ++block) {
        const int64_t counted = config.count == "actual" ? executed : nominal;
        ASSERT_NEAR(drops.keep[block], (counted > 16 ? 0.9 : 1.0) * theta, 1e-15)
            << count << ", seed " << seed << ", block " << block;
        differ += config.count == "actual" && (executed > 16) != (nominal > 16);
        nominal += merge[block];
        if (!drops.skip[block]) executed += merge[block];
      }
    }
  }
  EXPECT_GT(differ, 200);  // the two readings are told apart
}

TEST(AldTest, CountsOnlyMergesThatTheTokensAllow) {
  LayerDroppingConfig config = dropping("ald");  // at t = 0 block 0 surely runs
  // 9 tokens: 50 asked for, 4 merged; then 5: 2 merged; then 3: 1.
  const Drops drops = draw_drops(config, {50, 50, 50, 50}, 9, at_iteration(0), 5);
  EXPECT_EQ(drops.keep, (std::vector<double>{1, 1, 0.9, 0.9}));
}

TEST(AldTest, ThresholdIsTwiceNOrANumber) {
  LayerDroppingConfig config = dropping("ald");
  EXPECT_EQ(drop_threshold(config, atom(8)), 16);
  EXPECT_EQ(drop_threshold(config, atom(6)), 12);
  config.threshold = "10.5";
  EXPECT_EQ(drop_threshold(config, atom(8)), 10.5);
  for (const char* wrong : {"", "many", "12 tokens", "-1", "nan"}) {
    config.threshold = wrong;
    EXPECT_THROW(drop_threshold(config, atom(8)), Error) << "'" << wrong << "'";
  }
}

TEST(AldTest, TimeIsCountedWithinTheTaskByDefault) {
  StepTime time;
  time.task = 3;
  time.task_iteration = 0;
  time.iteration = 3000;
  LayerDroppingConfig config = dropping("ald");
  const std::vector<int64_t> merge(12, 0);
  EXPECT_EQ(draw_drops(config, merge, kImageTokens, time, 16).keep[5], 1.0);
  config.time = "iteration";
  EXPECT_NEAR(draw_drops(config, merge, kImageTokens, time, 16).keep[5], 0.5 + 0.5 * std::exp(-3.0),
              1e-15);
}

// ---- REP's published code ----

TEST(PldTest, KeepProbabilitiesMatchThePublishedCode) {
  const nlohmann::json file = golden::load("rep_ald.json");
  for (const auto& schedule : file["schedule"]) {
    LayerDroppingConfig config = dropping("pld");
    config.min_keep = schedule["theta"];
    config.decay = schedule["gamma"];
    config.time = "iteration";
    for (const auto& value : schedule["values"]) {
      const int64_t step = value["global_step"];
      EXPECT_NEAR(keep_ratio(config.min_keep, config.decay, static_cast<double>(step)),
                  value["theta_bar"].get<double>(), 1e-14);
      const Drops drops =
          draw_drops(config, std::vector<int64_t>(12, 0), kImageTokens, at_iteration(step), 16);
      const auto expected = value["keep_prob_blocks_0_11"].get<std::vector<double>>();
      ASSERT_EQ(drops.keep.size(), expected.size());
      for (size_t block = 0; block < expected.size(); ++block) {
        EXPECT_NEAR(drops.keep[block], expected[block], 1e-14) << "step " << step;
      }
      EXPECT_NEAR(std::accumulate(drops.keep.begin(), drops.keep.end(), 0.0),
                  value["expected_executed"].get<double>(), 1e-13);
    }
  }
}

// The published clock ticks once a block: the theta that an iteration finds is the one that the
// last block of the iteration before it used. ALD without merging keeps exactly theta.
TEST(PldTest, BlockClockMatchesThePublishedCode) {
  const nlohmann::json file = golden::load("rep_ald.json");
  for (const auto& schedule : file["schedule"]) {
    LayerDroppingConfig config = dropping("ald");
    config.min_keep = schedule["theta"];
    config.decay = schedule["gamma"];
    config.time = "block";
    const auto found = schedule["theta_bar_at_iteration_0_4"].get<std::vector<double>>();
    ASSERT_EQ(found.size(), 5u);
    for (size_t iteration = 0; iteration < 4; ++iteration) {
      const Drops drops = draw_drops(config, std::vector<int64_t>(12, 0), kImageTokens,
                                     at_iteration(static_cast<int64_t>(iteration)), 16);
      if (iteration == 0) {
        EXPECT_EQ(drops.keep.front(), found[0]);
      }
      EXPECT_NEAR(drops.keep.back(), found[iteration + 1], 1e-14) << "iteration " << iteration;
    }
  }
}

// ---- draws ----

TEST(RandomDropTest, KeepsEveryBlockAlike) {
  LayerDroppingConfig config = dropping("random");
  config.keep = 0.75;
  const Drops drops =
      draw_drops(config, merging_schedule(atom(8), 12), kImageTokens, at_iteration(9), 16);
  EXPECT_EQ(drops.keep, std::vector<double>(12, 0.75));
}

TEST(NoDropTest, RunsEveryBlock) {
  const Drops drops =
      draw_drops(dropping("none"), std::vector<int64_t>(12, 8), kImageTokens, at_iteration(9), 16);
  EXPECT_EQ(drops.skip, std::vector<bool>(12, false));
  EXPECT_EQ(drops.keep, std::vector<double>(12, 1.0));
}

class DrawTest : public ::testing::TestWithParam<const char*> {};

TEST_P(DrawTest, BlocksRunAsOftenAsTheirProbabilityAndIndependently) {
  constexpr int64_t kDraws = 20000;
  constexpr size_t kDepth = 12;
  LayerDroppingConfig config = dropping(GetParam());
  config.count = "nominal";  // so that no probability depends on another block's draw
  StepTime time;
  time.task_iteration = 1000;  // the probabilities' clock; `iteration` draws anew
  std::vector<double> keep, runs(kDepth, 0), both(kDepth, 0);
  for (int64_t draw = 0; draw < kDraws; ++draw) {
    time.iteration = draw;
    const Drops drops = draw_drops(config, merging_schedule(atom(8), 12), kImageTokens, time, 16);
    keep = drops.keep;
    for (size_t block = 0; block < kDepth; ++block) {
      runs[block] += !drops.skip[block];
      both[block] += !drops.skip[block] && !drops.skip[(block + 1) % kDepth];
    }
  }
  for (size_t block = 0; block < kDepth; ++block) {
    const auto expect_frequency = [&](double count, double p) {
      EXPECT_NEAR(count / kDraws, p, 4 * std::sqrt(p * (1 - p) / kDraws) + 1e-12) << block;
    };
    expect_frequency(runs[block], keep[block]);
    expect_frequency(both[block], keep[block] * keep[(block + 1) % kDepth]);
  }
}

INSTANTIATE_TEST_SUITE_P(Kinds, DrawTest, ::testing::Values("ald", "pld", "random"));

TEST(DrawsTest, IsAFunctionOfSeedAndTime) {
  LayerDroppingConfig config = dropping("random");
  config.keep = 0.5;
  const std::vector<int64_t> merge(24, 0);
  const auto skip = [&](int64_t iteration, int64_t seed) {
    return draw_drops(config, merge, kImageTokens, at_iteration(iteration, seed), 16).skip;
  };
  for (int64_t i = 0; i < 20; ++i) {
    EXPECT_EQ(skip(i, 42), skip(i, 42));
    EXPECT_NE(skip(i, 42), skip(i + 1, 42));  // equal by chance: 2^-24
    EXPECT_NE(skip(i, 42), skip(i, 43));
  }
}

}  // namespace
}  // namespace rep
