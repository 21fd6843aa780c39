#pragma once

#include <cstdint>
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

}  // namespace rep
