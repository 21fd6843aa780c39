#pragma once

#include <cstdint>

#include "kernels/lanes.h"

namespace rep {

/// Products of matrices that fit into the second cache level, on the calling thread. A BLAS is at
/// its best on large ones; a head of attention has 197 x 64, where its set-up costs more than the
/// product. Only where lanes_are_fast() (kernels/lanes.h).

/// Columns that a product makes at a time: buffers that receive whole rows are a multiple of it
/// wide.
constexpr int64_t kPanel = 16;
constexpr int64_t padded(int64_t columns) { return (columns + kPanel - 1) / kPanel * kPanel; }

/// Factors come in words of a float's size: a number of fp32, or two of bf16, neighbours along the
/// terms of the product's sums (the last may stand beside a 0). T says which, float or Bf16; the
/// latter needs pairs_are_fast(). Sums and results are fp32.
template <class T>
constexpr int64_t kTermsOfWord = sizeof(float) / sizeof(T);
template <class T>
constexpr int64_t words(int64_t terms) {
  return (terms + kTermsOfWord<T> - 1) / kTermsOfWord<T>;
}

/// Words inside a matrix: (i, j) is at[i * row + j * column].
struct Strided {
  const float* at;
  int64_t row, column = 1;
  Strided from(int64_t i) const { return {at + i * row, row, column}; }
};

/// Rows of numbers, `row` of them apart.
template <class T>
struct NumberRows {
  const T* at;
  int64_t row;
  NumberRows from(int64_t i) const { return {at + i * row, row}; }
  /// As a left factor, or transposed as a right one; row and a row's length even for bf16.
  Strided words() const { return {reinterpret_cast<const float*>(at), row / kTermsOfWord<T>}; }
};

/// Puts `count` rows of n, the terms from `first` on of `total`, into the right factor `panels`
/// [padded(n) / 16, words<T>(total), 16], one call after the other in the order of terms; columns
/// beyond n become 0.
void pack(const NumberRows<float>& rows, int64_t count, int64_t n, int64_t first, int64_t total,
          float* panels);
void pack(const NumberRows<Bf16>& rows, int64_t count, int64_t n, int64_t first, int64_t total,
          float* panels);

/// Puts `count` rows of k words, the columns from `first` on of `total`, into the right factor
/// `panels` [padded(total) / 16, k, 16]; the last call (first + count == total) also fills the
/// padding with 0.
void pack_as_columns(const Strided& rows, int64_t count, int64_t k, int64_t first, int64_t total,
                     float* panels);

/// c [m, n] = alpha a b, or with `add` += it; a [m, k], b [k, n] in panels, k in words; c's rows
/// `c_row` apart. With `whole_panels` every row of c has room for padded(n) entries, and gets them.
template <class T>
void multiply(int64_t m, int64_t n, int64_t k, float alpha, const Strided& a, const float* panels,
              bool add, float* c, int64_t c_row, bool whole_panels = false);

/// A result c [m, wide] of whole panels as a left factor, in its place: of bf16, c is lost.
template <class T>
Strided as_left(float* c, int64_t m, int64_t wide);

/// Its transpose as a left factor, in c or, for bf16, in `memory` [words<T>(m), wide].
template <class T>
Strided as_left_transposed(const float* c, int64_t m, int64_t wide, float* memory);

}  // namespace rep
