#include "core/random.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <set>

namespace rep {
namespace {

TEST(Random, WithoutKeysIsSplitMix64FromZero) {
  // The generator's first outputs from state 0, as its published implementations give them.
  Random random(std::initializer_list<uint64_t>{});
  for (const uint64_t expected : {0xE220A8397B1DCDAFULL, 0x6E789E6AA1B965F4ULL,
                                  0x06C45D188009454FULL, 0xF88BB8A8724C81ECULL}) {
    EXPECT_EQ(random.next(), expected);
  }
}

TEST(Random, IsAFunctionOfItsKeys) {
  Random a({42, 3, 1}), b({42, 3, 1});
  for (int i = 0; i < 100; ++i) EXPECT_EQ(a.next(), b.next());
}

TEST(Random, DifferentKeysGiveDifferentStreams) {
  std::set<uint64_t> first_draws;
  int64_t keys = 0;
  const auto draw = [&](Random random) {
    first_draws.insert(random.next());
    ++keys;
  };
  draw(Random(std::initializer_list<uint64_t>{}));
  for (uint64_t i = 0; i < 60; ++i) {
    draw(Random({i}));
    for (uint64_t j = 0; j < 60; ++j) {  // also {i, j} against {j, i}
      draw(Random({i, j}));
      draw(Random({i, j, 0}));
    }
  }
  EXPECT_EQ(static_cast<int64_t>(first_draws.size()), keys);
}

TEST(Random, NeighbouringKeysShareNoDraws) {
  std::set<uint64_t> draws;
  for (uint64_t key = 0; key < 100; ++key) {
    Random random({42, key});
    for (int i = 0; i < 100; ++i) draws.insert(random.next());
  }
  EXPECT_EQ(draws.size(), 10000u);
}

/// Pearson's statistic of counts that should be equal.
template <size_t n>
double chi_square(const std::array<int64_t, n>& counts, int64_t draws) {
  const double expected = static_cast<double>(draws) / n;
  double sum = 0;
  for (const int64_t count : counts) {
    const double off = static_cast<double>(count) - expected;
    sum += off * off / expected;
  }
  return sum;
}

TEST(Random, BelowIsUniform) {
  constexpr int64_t kDraws = 100000;
  std::array<int64_t, 10> counts{};
  Random random({1});
  for (int64_t i = 0; i < kDraws; ++i) ++counts.at(random.below(10));
  EXPECT_LT(chi_square(counts, kDraws), 33.72);  // 9 degrees of freedom, p = 0.0001
  EXPECT_EQ(random.below(1), 0u);
}

TEST(Random, BelowHasNoModuloBiasWhereItWouldShowMost) {
  // Of 2^64 remainders by 3 * 2^62 the lowest third would come up twice as often as the others.
  constexpr int64_t kDraws = 30000;
  std::array<int64_t, 3> thirds{};
  Random random({2});
  for (int64_t i = 0; i < kDraws; ++i) ++thirds.at(random.below(3ULL << 62) >> 62);
  EXPECT_LT(chi_square(thirds, kDraws), 18.42);  // 2 degrees of freedom, p = 0.0001
}

TEST(Random, KeysOneApartAreUniformTogether) {
  // One draw a key, as augmentation and layer dropping use it.
  constexpr int64_t kDraws = 100000;
  std::array<int64_t, 10> counts{};
  for (int64_t i = 0; i < kDraws; ++i) {
    Random random({42, static_cast<uint64_t>(i)});
    ++counts.at(static_cast<size_t>(random.uniform() * 10));
  }
  EXPECT_LT(chi_square(counts, kDraws), 33.72);
}

TEST(Random, UniformStaysInItsRange) {
  Random random({3});
  double low = 1, high = 0;
  for (int i = 0; i < 100000; ++i) {
    const double draw = random.uniform();
    low = std::min(low, draw);
    high = std::max(high, draw);
  }
  EXPECT_GE(low, 0);
  EXPECT_LT(high, 1);
  EXPECT_LT(low, 0.001);
  EXPECT_GT(high, 0.999);
  for (int i = 0; i < 1000; ++i) {
    const double draw = random.uniform(-2, 3);
    EXPECT_GE(draw, -2);
    EXPECT_LT(draw, 3);
  }
}

TEST(Random, BernoulliHitsItsProbability) {
  Random random({4});
  int64_t hits = 0;
  for (int i = 0; i < 100000; ++i) hits += random.bernoulli(0.3);
  EXPECT_NEAR(hits, 30000, 580);  // 4 standard deviations of sqrt(100000 * 0.3 * 0.7) = 145
  EXPECT_FALSE(random.bernoulli(0));
  EXPECT_TRUE(random.bernoulli(1));
}

TEST(Random, ShuffleGivesEveryOrderEquallyOften) {
  constexpr int64_t kDraws = 60000;
  std::array<int64_t, 6> counts{};
  Random random({5});
  for (int64_t i = 0; i < kDraws; ++i) {
    std::vector<int> items = {0, 1, 2};
    random.shuffle(items);
    // Rank among the permutations of three, by the first item and the order of the other two.
    ++counts.at(static_cast<size_t>(2 * items[0] + (items[1] > items[2])));
  }
  EXPECT_LT(chi_square(counts, kDraws), 25.74);  // 5 degrees of freedom, p = 0.0001
}

}  // namespace
}  // namespace rep
