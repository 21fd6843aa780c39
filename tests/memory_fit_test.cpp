// Which settings hold how much, by hand.
#include "run/memory_fit.h"

#include <gtest/gtest.h>

#include "core/cgroup.h"
#include "core/error.h"
#include "nn/vit.h"
#include "tensor/meter.h"
#include "tensor/resident.h"
#include "tests/run_command.h"

namespace rep {
namespace {

constexpr int64_t kMiB = 1 << 20;

Config sixteen() {
  Config config;
  config.train.batch_size = 16;
  config.eval.batch_size = 64;
  config.train.workers = 3;
  config.backbone.recompute = 0.25;
  return config;
}

Footprint in_mebibytes() {
  Footprint foot;
  foot.step = {10.0 * kMiB, 20.0 * kMiB};
  foot.test = {10.0 * kMiB, 5.0 * kMiB};
  foot.begin = foot.task_end = 9 * kMiB;
  foot.test_images = 100;
  foot.checkpoint = 12 * kMiB;
  foot.mlps = 6.0 * kMiB;     // of the three quarters that are kept
  foot.blocks = 11.0 * kMiB;  // 11 blocks hold a mebibyte each beside their input
  foot.entering = 0.125 * kMiB;
  foot.depth = 12;
  foot.forward_share = 1.0 / 3;
  foot.image_bytes = kMiB / 2;
  foot.beside = 100 * kMiB;
  foot.loading = 120 * kMiB;
  foot.divides_batches = foot.divides_tests = true;
  return foot;
}

const Rung* with(const std::vector<Rung>& ladder, int64_t micro, double recompute, int64_t blocks) {
  for (const Rung& rung : ladder) {
    if (rung.micro_batch_size == micro && rung.recompute == recompute &&
        rung.recompute_blocks == blocks) {
      return &rung;
    }
  }
  return nullptr;
}

TEST(MemoryLadder, BeginsAsConfiguredAndHoldsLessInMoreTime) {
  const std::vector<Rung> ladder = memory_ladder(sixteen(), in_mebibytes());
  ASSERT_GT(ladder.size(), 4U);
  EXPECT_EQ(ladder.front().difference(sixteen()), "as configured");
  EXPECT_EQ(ladder.front().step_time, 1);
  // A step's 10 + 16 * 20 and a test's 10 + 64 * 5: 330 both.
  EXPECT_EQ(ladder.front().peak_tensor_bytes, 330 * kMiB);
  EXPECT_NEAR(static_cast<double>(ladder.front().resident_bytes), (108 + 1.03 * 330) * kMiB, 1);
  for (size_t i = 1; i < ladder.size(); ++i) {
    EXPECT_LT(ladder[i].resident_bytes, ladder[i - 1].resident_bytes);
    EXPECT_GE(ladder[i].step_time, ladder[i - 1].step_time);
  }
  // Nothing takes less than loading does.
  EXPECT_GE(ladder.back().resident_bytes, 120 * kMiB);
}

TEST(MemoryLadder, TakesLoaderThreadsFirstThenMicroBatches) {
  const std::vector<Rung> ladder = memory_ladder(sixteen(), in_mebibytes());
  // Two threads' places of half a mebibyte for each of 16 images.
  EXPECT_EQ(ladder[1].workers, 1);
  EXPECT_EQ(ladder[1].micro_batch_size, 0);
  EXPECT_EQ(ladder[1].peak_tensor_bytes, 314 * kMiB);
  const Rung* of_four = with(ladder, 4, 0.25, 0);
  ASSERT_NE(of_four, nullptr);
  // 10 + 4 * (20 - 1) = 86, more than a test of 8 of the 64 images, 10 + 8 * 5, but not of 16.
  EXPECT_EQ(of_four->peak_tensor_bytes, 86 * kMiB);
  EXPECT_EQ(of_four->eval_batch_size, 8);
  EXPECT_NEAR(of_four->step_time, (1 + 0.1 / 4 - 0.1 / 16), 1e-9);
}

TEST(MemoryLadder, RecomputesWhereBatchesStayWhole) {
  Footprint foot = in_mebibytes();
  foot.divides_batches = false;
  const std::vector<Rung> ladder = memory_ladder(sixteen(), foot);
  for (const Rung& rung : ladder) EXPECT_EQ(rung.micro_batch_size, 0);
  const Rung* mlps = with(ladder, 0, 1, 0);
  ASSERT_NE(mlps, nullptr);
  EXPECT_EQ(mlps->peak_tensor_bytes, (330 - 16 * 6 - 16) * kMiB);  // and two loader threads less
  EXPECT_NEAR(mlps->step_time, 1 + 0.75 / 3 / 3, 1e-9);
  const Rung* blocks = with(ladder, 0, 0.25, 1);
  ASSERT_NE(blocks, nullptr);
  EXPECT_EQ(blocks->peak_tensor_bytes, (330 - 16 * 11 - 16) * kMiB);
  EXPECT_NEAR(blocks->step_time, 1 + (11.0 / 12) / 3, 1e-9);
  // Of two in a row: 12 blocks of 1.125 go, 5 inputs of 0.125 and 2 blocks stay.
  const Rung* pairs = with(ladder, 0, 0.25, 2);
  ASSERT_NE(pairs, nullptr);
  EXPECT_EQ(pairs->peak_tensor_bytes, (330 - 170 - 16) * kMiB);
  EXPECT_LT(blocks->step_time, 1.35);
}

TEST(MemoryLadder, KeepsTestsWholeWherePredictionsAreOfBatches) {
  Footprint foot = in_mebibytes();
  foot.divides_tests = false;
  for (const Rung& rung : memory_ladder(sixteen(), foot)) EXPECT_EQ(rung.eval_batch_size, 64);
}

TEST(MemoryLadder, GivesTheQuickestThatFits) {
  const std::vector<Rung> ladder = memory_ladder(sixteen(), in_mebibytes());
  EXPECT_EQ(quickest_that_fits(ladder, int64_t{1} << 40), &ladder.front());
  EXPECT_EQ(quickest_that_fits(ladder, ladder.back().resident_bytes), &ladder.back());
  EXPECT_EQ(quickest_that_fits(ladder, ladder.back().resident_bytes - 1), nullptr);
  EXPECT_EQ(quickest_that_fits(ladder, ladder[2].resident_bytes), &ladder[2]);
}

TEST(MemoryLadder, OfABatchOfOneImageHasNoMicroBatches) {
  Config config = sixteen();
  config.train.batch_size = 1;
  for (const Rung& rung : memory_ladder(config, in_mebibytes())) {
    EXPECT_EQ(rung.micro_batch_size, 0);
  }
}

TEST(MemoryLadder, GoesThroughJsonAsItIs) {
  for (const Rung& rung : memory_ladder(sixteen(), in_mebibytes())) {
    const Rung again = Rung::from_json(rung.to_json());
    EXPECT_TRUE(again.same_settings(rung));
    EXPECT_EQ(again.resident_bytes, rung.resident_bytes);
    EXPECT_EQ(again.step_time, rung.step_time);
  }
}

TEST(Cgroup, TheLeastLimitOnTheWayUpCounts) {
  const std::string root = fresh_folder("cgroup");
  const auto limit = [&](const std::string& groups) {
    return cgroup_memory_limit(write_text(root + "/groups", groups), root);
  };
  const auto put = [&](const std::string& file, const std::string& text) {
    std::filesystem::create_directories(std::filesystem::path(root + file).parent_path());
    write_text(root + file, text);
  };
  EXPECT_FALSE(limit("0::/a/b\n"));
  put("/a/b/memory.max", "max\n");
  EXPECT_FALSE(limit("0::/a/b\n"));
  put("/a/memory.max", "1000000\n");
  ASSERT_TRUE(limit("0::/a/b\n"));
  EXPECT_EQ(limit("0::/a/b\n")->bytes, 1000000);
  EXPECT_EQ(limit("0::/a/b\n")->file, root + "/a/memory.max");
  put("/a/b/memory.max", "900000\n");
  EXPECT_EQ(limit("0::/a/b\n")->bytes, 900000);
  EXPECT_FALSE(limit("0::/c\n"));
  // Version 1, beside version 2 without the controller.
  put("/memory/x/memory.limit_in_bytes", "9223372036854771712\n");
  put("/memory/memory.limit_in_bytes", "800000\n");
  EXPECT_FALSE(limit("5:cpu:/x\n"));
  EXPECT_EQ(limit("5:cpu:/x\n4:memory:/x\n0::/\n")->bytes, 800000);
  EXPECT_EQ(limit("4:cpu,memory:/x\n")->bytes, 800000);
}

int64_t resident_now() {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);) {
    if (line.rfind("VmRSS:", 0) == 0) return std::stoll(line.substr(6)) * 1024;
  }
  return 0;
}

// Relocated pages of libraries hold addresses: were they dropped, the next call would crash.
TEST(ReleaseUnusedMemory, LeavesAllThatIsNeeded) {
  const torch::Tensor a = torch::randn({64, 64});
  const torch::Tensor expected = torch::mm(a, a).softmax(1);
  const int64_t before = resident_now();
  release_unused_memory();
  EXPECT_LT(resident_now(), before - 16 * kMiB);
  EXPECT_TRUE(torch::mm(a, a).softmax(1).equal(expected));
  EXPECT_THROW(throw Error("unwinding reads tables of many libraries"), Error);
}

// ViT-S holds 84 MiB in fp32, 42 in bf16.
TEST(WeightsInBf16, AreNeverThereInBothTypesAtOnce) {
  BackboneConfig config;
  config.name = "vit_small_patch16_224";
  config.weights = "random";
  Json ignored;
  release_unused_memory();
  reset_peak_rss_bytes();
  const int64_t before = peak_rss_bytes();
  const VisionTransformer vit = make_vit(config, &ignored, /*in_bf16=*/true);
  EXPECT_LT(peak_rss_bytes() - before, 75 * kMiB);
}

}  // namespace
}  // namespace rep
