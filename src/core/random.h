#pragma once

#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <utility>
#include <vector>

namespace rep {

/// Counter-based random numbers: every draw is a function of its key alone, so that a batch, an
/// augmentation or a dropped layer is the same whoever computes it, in whatever order, on whatever
/// platform, before or after a resume. The mixer is SplitMix64 (Steele et al. 2014).
class Random {
 public:
  /// A stream of its own for every different list of keys, e.g. Random({seed, task, epoch, image}).
  explicit Random(std::initializer_list<uint64_t> keys) {
    for (const uint64_t key : keys) state_ = mix(state_ + kGamma) ^ mix(key + kGamma * 2);
  }

  uint64_t next() { return mix(state_ += kGamma); }

  /// Uniform in [0, 1), 53 bits.
  double uniform() { return static_cast<double>(next() >> 11) * 0x1.0p-53; }
  double uniform(double low, double high) { return low + (high - low) * uniform(); }

  /// Uniform in {0, ..., n-1}, without modulo bias. n >= 1.
  uint64_t below(uint64_t n) {
    const uint64_t limit = UINT64_MAX - UINT64_MAX % n;
    uint64_t draw = next();
    while (draw >= limit) draw = next();
    return draw % n;
  }

  bool bernoulli(double probability) { return uniform() < probability; }

  /// Fisher-Yates.
  template <class T>
  void shuffle(std::vector<T>& items) {
    for (size_t i = items.size(); i > 1; --i) std::swap(items[i - 1], items[below(i)]);
  }

 private:
  static constexpr uint64_t kGamma = 0x9E3779B97F4A7C15ULL;
  static uint64_t mix(uint64_t x) {
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9ULL;
    x = (x ^ (x >> 27)) * 0x94D049BB133111EBULL;
    return x ^ (x >> 31);
  }
  uint64_t state_ = 0;
};

/// What a stream of random numbers is for: the first key after the seed, so that no two uses of one
/// seed ever share draws.
enum class RandomUse : uint64_t {
  kClassOrder = 1,
  kEpochOrder,
  kAugmentation,
  kLayerDropping,
  kSyntheticImage,
  kSubset,
  kBuffer,
  kReplayDraw,
  kReplayView,
  kPatchSampling,
  kValidation,
  kDomainOrder,
  kRandomFeatures = 1001,  // RanPAC's
  kQueryProjection = 1002,
  kGeneratedPictures = 1003,
};

}  // namespace rep
