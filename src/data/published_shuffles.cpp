#include "data/published_shuffles.h"

#include <algorithm>
#include <numeric>
#include <utility>

namespace rep {
namespace {

/// Uniform in 0..most as numpy's legacy generator draws it: bits beyond the most significant one of
/// `most` are masked away, and what is still too large is drawn again.
uint32_t draw_up_to(uint32_t most, std::mt19937& generator) {
  uint32_t mask = most;
  for (int shift = 1; shift <= 16; shift *= 2) mask |= mask >> shift;
  while (true) {
    const auto draw = static_cast<uint32_t>(generator()) & mask;
    if (draw <= most) return draw;
  }
}

/// The state that Python's random.seed(n) gives its Mersenne Twister (init_by_array of one key).
struct PythonSeed {
  uint32_t key;
  using result_type = uint32_t;
  template <class Iterator>
  void generate(Iterator first, Iterator last) const {
    const auto size = static_cast<size_t>(last - first);
    std::vector<uint32_t> x(size);
    x[0] = 19650218U;
    for (size_t i = 1; i < size; ++i) {
      x[i] = 1812433253U * (x[i - 1] ^ (x[i - 1] >> 30)) + static_cast<uint32_t>(i);
    }
    size_t i = 1;
    const auto advance = [&] {
      if (++i < size) return;
      x[0] = x[size - 1];
      i = 1;
    };
    for (size_t k = 0; k < size; ++k) {
      x[i] = (x[i] ^ ((x[i - 1] ^ (x[i - 1] >> 30)) * 1664525U)) + key;
      advance();
    }
    for (size_t k = 0; k + 1 < size; ++k) {
      x[i] = (x[i] ^ ((x[i - 1] ^ (x[i - 1] >> 30)) * 1566083941U)) - static_cast<uint32_t>(i);
      advance();
    }
    x[0] = 0x80000000U;
    std::copy(x.begin(), x.end(), first);
  }
};

}  // namespace

std::vector<int64_t> iota(int64_t n) {
  std::vector<int64_t> numbers(static_cast<size_t>(n));
  std::iota(numbers.begin(), numbers.end(), 0);
  return numbers;
}

std::vector<int64_t> numpy_shuffled(int64_t n, uint32_t seed) {
  std::vector<int64_t> order = iota(n);
  std::mt19937 generator(seed);
  for (size_t i = order.size(); i > 1; --i) {
    std::swap(order[i - 1], order[draw_up_to(static_cast<uint32_t>(i - 1), generator)]);
  }
  return order;
}

std::vector<int64_t> python_shuffled(int64_t n, uint32_t seed) {
  std::vector<int64_t> order = iota(n);
  PythonSeed sequence{seed};
  std::mt19937 generator(sequence);
  for (size_t i = order.size(); i-- > 1;) {
    int bits = 0;
    while ((i + 1) >> bits) ++bits;
    size_t j = 0;
    do {
      j = static_cast<uint32_t>(generator()) >> (32 - bits);
    } while (j > i);
    std::swap(order[i], order[j]);
  }
  return order;
}

std::vector<int64_t> TorchDraws::permutation(int64_t n) {
  std::vector<int64_t> order = iota(n);
  for (size_t i = 0; i + 1 < order.size(); ++i) {
    const auto draw = static_cast<uint32_t>(generator_());
    std::swap(order[i], order[i + draw % (order.size() - i)]);
  }
  return order;
}

std::vector<int64_t> TorchDraws::below(int64_t high, int64_t count) {
  std::vector<int64_t> numbers;
  for (int64_t i = 0; i < count; ++i) {
    numbers.push_back(static_cast<int64_t>(static_cast<uint32_t>(generator_()) % high));
  }
  return numbers;
}

}  // namespace rep
