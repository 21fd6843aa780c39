// What the meter counts, against arithmetic by hand and the published sizes of the ViTs.

#include "tensor/meter.h"

#include <gtest/gtest.h>

#include <chrono>
#include <cstdint>
#include <string>
#include <thread>

#include "kernels/products.h"
#include "nn/vit.h"
#include "tensor/torch.h"

namespace rep {
namespace {

using torch::Tensor;

class MeterTest : public ::testing::Test {
 protected:
  static void SetUpTestSuite() { install_meter(); }

  /// MACs that `work` takes.
  template <class Work>
  static int64_t macs(Work&& work) {
    const int64_t before = macs_so_far();
    work();
    return macs_so_far() - before;
  }
};

// ---- multiply-accumulates ----

TEST_F(MeterTest, CountsMatrixProductsExactly) {
  const Tensor a = torch::randn({3, 5}), b = torch::randn({5, 7});
  EXPECT_EQ(macs([&] { torch::mm(a, b); }), 3 * 5 * 7);
  EXPECT_EQ(macs([&] { torch::matmul(a, b.select(1, 0)); }), 3 * 5);
  EXPECT_EQ(macs([&] { torch::addmm(torch::zeros({7}), a, b); }), 3 * 5 * 7);
  const Tensor c = torch::randn({2, 4, 3, 5}), d = torch::randn({2, 4, 5, 7});
  EXPECT_EQ(macs([&] { torch::matmul(c, d); }), 2 * 4 * 3 * 5 * 7);
  EXPECT_EQ(macs([&] { torch::matmul(c, b); }), 2 * 4 * 3 * 5 * 7);
}

TEST_F(MeterTest, CountsProductsWhicheverLibraryMakesThem) {
  const int64_t before = macs_so_far();
  product(torch::ones({5, 6}), torch::ones({6, 7}), torch::kFloat);
  EXPECT_EQ(macs_so_far() - before, 5 * 6 * 7);
  add_product(torch::ones({5, 7}), torch::ones({5, 6}), torch::ones({6, 7}));
  EXPECT_EQ(macs_so_far() - before, 2 * 5 * 6 * 7);
}

TEST_F(MeterTest, DoesNotCountElementWiseWork) {
  const Tensor a = torch::randn({30, 50});
  EXPECT_EQ(macs([&] { (torch::gelu(a) * a + a).softmax(-1).sum(); }), 0);
}

TEST_F(MeterTest, CountsALinearLayersForwardAndBackwardExactly) {
  // B = 2 rows of N = 11 tokens through [17 -> 13]: one product forward; backward one for the
  // weight's gradient and one for the input's, where they are wanted.
  constexpr int64_t kProduct = 2 * 11 * 17 * 13;
  for (const bool bias : {false, true}) {
    torch::nn::Linear layer(torch::nn::LinearOptions(17, 13).bias(bias));
    Tensor x = torch::randn({2, 11, 17}).requires_grad_();
    Tensor y;
    EXPECT_EQ(macs([&] { y = layer(x); }), kProduct);
    EXPECT_EQ(macs([&] { y.sum().backward(); }), 2 * kProduct);

    y = layer(x.detach());
    EXPECT_EQ(macs([&] { y.sum().backward(); }), kProduct);

    layer->weight.set_requires_grad(false);  // a frozen layer on a prompt's way
    y = layer(x);
    EXPECT_EQ(macs([&] { y.sum().backward(); }), kProduct);
  }
}

TEST_F(MeterTest, CountsConvolutionsForwardAndBackwardExactly) {
  // 3 -> 8 channels, 5 x 5, stride 2, padding 1, on 2 images of 12 x 16: 5 x 7 positions.
  constexpr int64_t kForward = 2 * 5 * 7 * 8 * 3 * 5 * 5;
  torch::nn::Conv2d layer(torch::nn::Conv2dOptions(3, 8, 5).stride(2).padding(1));
  Tensor x = torch::randn({2, 3, 12, 16}).requires_grad_();
  Tensor y;
  EXPECT_EQ(macs([&] { y = layer(x); }), kForward);
  ASSERT_EQ(y.sizes().vec(), (std::vector<int64_t>{2, 8, 5, 7}));
  EXPECT_EQ(macs([&] { y.sum().backward(); }), 2 * kForward);
  y = layer(x.detach());
  EXPECT_EQ(macs([&] { y.sum().backward(); }), kForward);
}

TEST_F(MeterTest, CountsGroupedConvolutionsExactly) {
  torch::nn::Conv2d layer(torch::nn::Conv2dOptions(4, 8, 3).groups(2));
  const Tensor x = torch::randn({1, 4, 6, 6});
  EXPECT_EQ(macs([&] { layer(x); }), 4 * 4 * 8 * 2 * 3 * 3);  // two input channels a filter
}

TEST_F(MeterTest, SeesEveryThread) {
  const Tensor a = torch::randn({4, 4});
  EXPECT_EQ(macs([&] { std::thread([&] { torch::mm(a, a); }).join(); }), 4 * 4 * 4);
}

struct VitCost {
  const char* name;
  double published_gmacs;  // one plain forward of one 224-pixel image, without a head
};

class VitCostTest : public ::testing::TestWithParam<VitCost> {
 protected:
  static void SetUpTestSuite() { install_meter(); }
};

TEST_P(VitCostTest, OneForwardCostsWhatIsPublished) {
  torch::NoGradGuard no_grad;
  const VitOptions options = vit_options(GetParam().name);
  VisionTransformer vit(options);
  const int64_t before = macs_so_far();
  vit->forward(torch::zeros({1, 3, 224, 224}));
  const auto counted = static_cast<double>(macs_so_far() - before);
  EXPECT_NEAR(counted * 1e-9, GetParam().published_gmacs, 0.01 * GetParam().published_gmacs);

  // Exactly: the patches' projection; a block's four D x D and two D x 4D products a token, and
  // QK^T and PV between all tokens.
  const int64_t D = options.embed_dim, patches = 196, N = 197;
  const int64_t block = N * (4 * D * D + 8 * D * D) + 2 * N * N * D;
  EXPECT_EQ(counted, static_cast<double>(patches * 3 * 16 * 16 * D + options.depth * block));
}

// The class token's feature asks less of the last block: keys and values of all tokens (and their
// queries, which come along in one product), everything else of one.
TEST_P(VitCostTest, AFeatureCostsOneBlocksRestLess) {
  torch::NoGradGuard no_grad;
  const VitOptions options = vit_options(GetParam().name);
  VisionTransformer vit(options);
  const int64_t before = macs_so_far();
  vit->features(torch::zeros({1, 3, 224, 224}));
  const int64_t D = options.embed_dim, patches = 196, N = 197;
  const int64_t block = N * (4 * D * D + 8 * D * D) + 2 * N * N * D;
  const int64_t last = N * 3 * D * D + 9 * D * D + 2 * N * D;
  EXPECT_EQ(macs_so_far() - before, patches * 3 * 16 * 16 * D + (options.depth - 1) * block + last);
}

INSTANTIATE_TEST_SUITE_P(Sizes, VitCostTest,
                         ::testing::Values(VitCost{"vit_tiny_patch16_224", 1.25},
                                           VitCost{"vit_base_patch16_224", 17.56},
                                           VitCost{"vit_large_patch16_224", 61.55}),
                         [](const auto& test) { return std::string(test.param.name); });

// ---- bytes ----

TEST_F(MeterTest, BytesRiseAndFallWithATensor) {
  const int64_t before = tensor_bytes();
  {
    const Tensor a = torch::empty({1000, 3});
    EXPECT_EQ(tensor_bytes() - before, 12000);
    const Tensor view = a.slice(0, 5, 10);
    EXPECT_EQ(tensor_bytes() - before, 12000) << "a view holds nothing of its own";
    const Tensor b = torch::empty({7}, torch::kInt64);
    EXPECT_EQ(tensor_bytes() - before, 12056);
    const Tensor nothing = torch::empty({0});
    EXPECT_EQ(tensor_bytes() - before, 12056);
  }
  EXPECT_EQ(tensor_bytes(), before);
}

TEST_F(MeterTest, PeakIsTheMostSinceItsReset) {
  reset_peak_tensor_bytes();
  const int64_t before = tensor_bytes();
  EXPECT_EQ(peak_tensor_bytes(), before);
  {
    const Tensor a = torch::empty({1 << 20});
    { const Tensor b = torch::empty({1 << 18}); }
    const Tensor c = torch::empty({1 << 10});
  }
  EXPECT_EQ(tensor_bytes(), before);
  EXPECT_EQ(peak_tensor_bytes() - before, (int64_t{4} << 20) + (int64_t{4} << 18));
  reset_peak_tensor_bytes();
  EXPECT_EQ(peak_tensor_bytes(), before);
}

TEST_F(MeterTest, BytesFollowATensorAcrossThreads) {
  const int64_t before = tensor_bytes();
  Tensor made;
  std::thread([&] { made = torch::empty({500}); }).join();
  EXPECT_EQ(tensor_bytes() - before, 2000);
  made.reset();
  EXPECT_EQ(tensor_bytes(), before);
}

TEST_F(MeterTest, ResizedAndAlignedMemoryWorks) {
  for (const int64_t size : {1, 15, 16, 17, 4096, 100003}) {
    Tensor a = torch::arange(size, torch::kFloat);
    EXPECT_EQ(reinterpret_cast<uintptr_t>(a.data_ptr()) % 64, 0u);
    a.resize_({2 * size});
    EXPECT_EQ(a[size - 1].item<double>(), static_cast<double>(size - 1));
  }
}

TEST_F(MeterTest, ResidentSetHoldsTheTensors) {
  const Tensor a = torch::ones({16 << 20});  // 64 MiB, touched
  EXPECT_GE(peak_rss_bytes(), int64_t{64} << 20);
  EXPECT_LT(peak_rss_bytes(), int64_t{1} << 40);
}

// ---- phases ----

using Clock = std::chrono::steady_clock;

double seconds_between(Clock::time_point from, Clock::time_point to) {
  return std::chrono::duration<double>(to - from).count();
}

double seconds(const PhaseCost& cost, Phase phase) {
  return cost.seconds[static_cast<size_t>(phase)];
}

int64_t macs_in(const PhaseCost& cost, Phase phase) {
  return cost.macs[static_cast<size_t>(phase)];
}

TEST_F(MeterTest, PhasesShareTheTimeWithoutOverlapOrGap) {
  const auto nap = [] { std::this_thread::sleep_for(std::chrono::milliseconds(30)); };
  const auto earliest = Clock::now();
  const PhaseCost before = metered();
  const auto latest_start = Clock::now();
  {
    const PhaseScope forward(Phase::kForward);
    nap();
    {
      const PhaseScope select(Phase::kSelect);
      nap();
      nap();
    }
    nap();
  }
  nap();  // nobody's
  const auto earliest_end = Clock::now();
  const PhaseCost cost = metered() - before;
  const auto latest = Clock::now();

  EXPECT_GE(seconds(cost, Phase::kForward), 0.060);
  EXPECT_GE(seconds(cost, Phase::kSelect), 0.060);
  EXPECT_GE(seconds(cost, Phase::kOther), 0.030);
  EXPECT_EQ(seconds(cost, Phase::kBackward), 0);
  double total = 0;
  for (const double s : cost.seconds) total += s;
  // Together they are the wall clock's time: nothing twice, nothing lost.
  EXPECT_GE(total, seconds_between(latest_start, earliest_end) - 1e-6);
  EXPECT_LE(total, seconds_between(earliest, latest) + 1e-6);
}

TEST_F(MeterTest, MacsGoToTheInnermostPhase) {
  const Tensor a = torch::randn({2, 3}), b = torch::randn({3, 5});
  const auto work = [&](int64_t times) {
    for (int64_t i = 0; i < times; ++i) torch::mm(a, b);
  };
  const PhaseCost before = metered();
  {
    const PhaseScope forward(Phase::kForward);
    work(1);
    {
      const PhaseScope select(Phase::kSelect);
      work(2);
    }
    work(4);
  }
  work(8);
  const PhaseCost cost = metered() - before;
  EXPECT_EQ(macs_in(cost, Phase::kForward), 5 * 30);
  EXPECT_EQ(macs_in(cost, Phase::kSelect), 2 * 30);
  EXPECT_EQ(macs_in(cost, Phase::kOther), 8 * 30);
  EXPECT_EQ(macs_in(cost, Phase::kStep), 0);
}

TEST_F(MeterTest, TestingIsOnePhaseWhateverItRuns) {
  const Tensor a = torch::randn({2, 3}), b = torch::randn({3, 5});
  const PhaseCost before = metered();
  {
    const PhaseScope testing(Phase::kEval);
    const PhaseScope query(Phase::kSelect);
    torch::mm(a, b);
  }
  const PhaseCost cost = metered() - before;
  EXPECT_EQ(macs_in(cost, Phase::kEval), 30);
  EXPECT_EQ(macs_in(cost, Phase::kSelect), 0);
}

TEST_F(MeterTest, AnOpenScopesShareIsIncluded) {
  const PhaseCost before = metered();
  const PhaseScope backward(Phase::kBackward);
  torch::mm(torch::randn({2, 3}), torch::randn({3, 5}));
  EXPECT_EQ(macs_in(metered() - before, Phase::kBackward), 30);
}

TEST_F(MeterTest, CostsAddAndSubtractByPhase) {
  PhaseCost a, b;
  a.seconds[1] = 2.5;
  a.macs[1] = 10;
  b.seconds[1] = 0.5;
  b.macs[1] = 4;
  b.macs[2] = 7;
  a += b;
  EXPECT_EQ(a.seconds[1], 3.0);
  EXPECT_EQ(a.macs[1], 14);
  EXPECT_EQ(a.macs[2], 7);
  const PhaseCost difference = a - b;
  EXPECT_EQ(difference.seconds[1], 2.5);
  EXPECT_EQ(difference.macs[1], 10);
  EXPECT_EQ(difference.macs[2], 0);
}

}  // namespace
}  // namespace rep
