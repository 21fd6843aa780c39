#pragma once

#include <cstdint>

namespace rep {

/// Products of matrices that fit into the second cache level, on the calling thread, in fp32. A
/// BLAS is at its best on large ones; a head of attention has 197 x 64, where its set-up costs more
/// than the product. Only where lanes_are_fast() (core/lanes.h).

/// Columns that a product makes at a time: buffers that receive whole rows are a multiple of it
/// wide.
constexpr int64_t kPanel = 16;
constexpr int64_t padded(int64_t columns) { return (columns + kPanel - 1) / kPanel * kPanel; }

/// A matrix inside another: entry (i, j) is at[i * row + j * column].
struct Strided {
  const float* at;
  int64_t row, column = 1;
  Strided from(int64_t i) const { return {at + i * row, row, column}; }
};

/// Puts rows [first, first + k) of a right factor into `panels` [padded(n) / 16, total, 16], for a
/// product over `total` rows; columns beyond n become 0.
void pack(const Strided& b, int64_t k, int64_t n, int64_t first, int64_t total, float* panels);

/// Puts columns [first, first + n) of a right factor of `total` columns into `panels`
/// [padded(total) / 16, k, 16]; the last call (first + n == total) also fills the padding with 0.
void pack_columns(const Strided& b, int64_t k, int64_t n, int64_t first, int64_t total,
                  float* panels);

/// c [m, n] = alpha a b, or with `add` += it; a [m, k], b [k, n] in panels, c's rows `c_row` apart.
/// With `whole_panels` every row of c has room for padded(n) entries, and gets them.
void multiply(int64_t m, int64_t n, int64_t k, float alpha, const Strided& a, const float* panels,
              bool add, float* c, int64_t c_row, bool whole_panels = false);

}  // namespace rep
