#pragma once

#include <cstdint>
#include <random>
#include <vector>

namespace rep {

/// 0, 1, ..., n - 1.
std::vector<int64_t> iota(int64_t n);

/// iota(n) after numpy.random.RandomState(seed).shuffle: where the published class orders come
/// from (iCaRL's and its successors' seed 1993). n below 2^32.
std::vector<int64_t> numpy_shuffled(int64_t n, uint32_t seed);

/// iota(n) after random.seed(seed) and random.shuffle in Python 3: Stream-51's orders. n below
/// 2^32.
std::vector<int64_t> python_shuffled(int64_t n, uint32_t seed);

/// The draws of torch.Generator().manual_seed(seed) on the CPU: Si-Blurry's streams.
class TorchDraws {
 public:
  explicit TorchDraws(uint32_t seed) : generator_(seed) {}
  /// torch.randperm(n), n below 2^32 / 20.
  std::vector<int64_t> permutation(int64_t n);
  /// torch.randint(0, high, (count,)), high below 2^28.
  std::vector<int64_t> below(int64_t high, int64_t count);

 private:
  std::mt19937 generator_;
};

}  // namespace rep
