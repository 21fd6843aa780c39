#pragma once

#include <cstdint>

namespace rep {

/// The softmax of rows of `keys` logits, in place, on the calling thread. A row has room for
/// padded(keys) floats (kernels/small_matrices.h): padding columns are ignored and set to
/// (approximately) 0. `bias` [padded(keys)] or null is added to the logits of every row. Only where
/// lanes_are_fast() (kernels/lanes.h). T, float or Bf16, is what the softmax is for: with the
/// latter, exponentials are as exact as that needs.

/// lse [rows] receives the logarithm of each row's sum of exponentials.
template <class T>
void softmax_rows(float* s, int64_t rows, int64_t keys, const float* bias, float* lse);

/// The same, given lse (Dao et al., arXiv 2205.14135, section 3.1).
template <class T>
void softmax_rows_again(float* s, int64_t rows, int64_t keys, const float* bias, const float* lse);

/// The gradient of the logits, g = p (g - sum_j p g), in place; p the softmax.
void softmax_rows_backward(const float* p, float* g, int64_t rows, int64_t keys);

}  // namespace rep
