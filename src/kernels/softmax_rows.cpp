#include "kernels/softmax_rows.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "kernels/lanes.h"
#include "kernels/small_matrices.h"

namespace rep {

template <class T>
void softmax_rows(float* s, int64_t rows, int64_t keys, const float* bias, float* lse) {
  dispatch_simd([=](auto width) REP_ALWAYS_INLINE {
    using L = decltype(width);
    using Floats = typename L::Floats;
    const int64_t wide = padded(keys);
    float* row = s;
    for (int64_t i = 0; i < rows; ++i, row += wide) {
      std::fill(row + keys, row + wide, std::numeric_limits<float>::lowest());
      Floats most = lanes<L>(row) + (bias ? lanes<L>(bias) : Floats{});
      for (int64_t j = 0; j < wide; j += L::kCount) {
        if (bias) lanes<L>(row + j) += lanes<L>(bias + j);
        most = lanes<L>(row + j) > most ? lanes<L>(row + j) : most;
      }
      float top = most[0];
      for (int64_t l = 1; l < L::kCount; ++l) top = most[l] > top ? most[l] : top;
      Floats sums = {};
      for (int64_t j = 0; j < wide; j += L::kCount) {
        Floats e = lanes<L>(row + j) - top;
        to_exp_of_negative<L, T>(e);
        lanes<L>(row + j) = e;
        sums += e;
      }
      const float sum = sum_of<L>(sums);
      const float scale = 1.0f / sum;
      for (int64_t j = 0; j < wide; j += L::kCount) lanes<L>(row + j) *= scale;
      lse[i] = top + std::log(sum);
    }
  });
}

template <class T>
void softmax_rows_again(float* s, int64_t rows, int64_t keys, const float* bias, const float* lse) {
  dispatch_simd([=](auto width) REP_ALWAYS_INLINE {
    using L = decltype(width);
    using Floats = typename L::Floats;
    const int64_t wide = padded(keys);
    float* row = s;
    for (int64_t i = 0; i < rows; ++i, row += wide) {
      const float sum = lse[i];
      for (int64_t j = 0; j < wide; j += L::kCount) {
        Floats e = (bias ? lanes<L>(row + j) + lanes<L>(bias + j) : lanes<L>(row + j)) - sum;
        to_exp_of_negative<L, T>(e);
        lanes<L>(row + j) = e;
      }
      // Beside a sum's logarithm far below 0 even these, which are no logits, would overflow.
      std::fill(row + keys, row + wide, 0.0f);
    }
  });
}

void softmax_rows_backward(const float* p, float* g, int64_t rows, int64_t keys) {
  dispatch_simd([=](auto width) REP_ALWAYS_INLINE {
    using L = decltype(width);
    using Floats = typename L::Floats;
    const int64_t wide = padded(keys);
    for (int64_t i = 0; i < rows; ++i) {
      const float* weights = p + i * wide;
      float* slopes = g + i * wide;
      Floats sums = {};
      for (int64_t j = 0; j < wide; j += L::kCount) {
        sums += lanes<L>(weights + j) * lanes<L>(slopes + j);
      }
      const float sum = sum_of<L>(sums);
      for (int64_t j = 0; j < wide; j += L::kCount) {
        lanes<L>(slopes + j) = lanes<L>(weights + j) * (lanes<L>(slopes + j) - sum);
      }
    }
  });
}

#define REP_INSTANTIATE(T)                                                       \
  template void softmax_rows<T>(float*, int64_t, int64_t, const float*, float*); \
  template void softmax_rows_again<T>(float*, int64_t, int64_t, const float*, const float*);
REP_INSTANTIATE(float)
REP_INSTANTIATE(Bf16)
#undef REP_INSTANTIATE

}  // namespace rep
