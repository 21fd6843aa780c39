// The idea in three lines: the right factor lies in panels of 16 columns, row after row; 6 rows of
// the left one meet a panel in 12 registers of 8 sums, each entry of the left factor multiplied
// with the panel's row (Goto and van de Geijn, ACM TOMS 34(3), 2008, the innermost loops).
#include "nn/small_matrices.h"

#include <algorithm>

#include "core/lanes.h"

namespace rep {

namespace {

constexpr int64_t kRows = 6;

// kRowsNow x 16 sums of one panel. `columns`: how many of the 16 are c's.
template <int64_t kRowsNow>
REP_INLINE void multiply_tile(int64_t k, float alpha, const float* a, int64_t a_row,
                              int64_t a_column, const float* panel, bool add, float* c,
                              int64_t c_row, int64_t columns) {
  Lanes low[kRowsNow] = {}, high[kRowsNow] = {};
  for (int64_t p = 0; p < k; ++p) {
    const Lanes b_low = lanes(panel + p * kPanel), b_high = lanes(panel + p * kPanel + kLanes);
    const float* entry = a + p * a_column;
    for (int64_t i = 0; i < kRowsNow; ++i) {
      low[i] += b_low * entry[i * a_row];
      high[i] += b_high * entry[i * a_row];
    }
  }
  for (int64_t i = 0; i < kRowsNow; ++i, c += c_row) {
    low[i] *= alpha;
    high[i] *= alpha;
    if (columns == kPanel) {
      lanes(c) = add ? lanes(c) + low[i] : low[i];
      lanes(c + kLanes) = add ? lanes(c + kLanes) + high[i] : high[i];
      continue;
    }
    for (int64_t j = 0; j < columns; ++j) {
      const float sum = j < kLanes ? low[i][j] : high[i][j - kLanes];
      c[j] = add ? c[j] + sum : sum;
    }
  }
}

}  // namespace

void pack(const Strided& b, int64_t k, int64_t n, int64_t first, int64_t total, float* panels) {
  for (int64_t j = 0; j < n; j += kPanel) {
    const int64_t columns = std::min(kPanel, n - j);
    float* to = panels + j * total + first * kPanel;
    for (int64_t p = 0; p < k; ++p, to += kPanel) {
      const float* from = b.at + p * b.row + j * b.column;
      for (int64_t l = 0; l < columns; ++l) to[l] = from[l * b.column];
      std::fill(to + columns, to + kPanel, 0.0f);
    }
  }
}

void pack_columns(const Strided& b, int64_t k, int64_t n, int64_t first, int64_t total,
                  float* panels) {
  for (int64_t j = 0; j < n; ++j) {
    const int64_t column = first + j;
    float* to = panels + column / kPanel * kPanel * k + column % kPanel;
    const float* from = b.at + j * b.column;
    for (int64_t p = 0; p < k; ++p) to[p * kPanel] = from[p * b.row];
  }
  if (first + n != total) return;
  for (int64_t column = total; column < padded(total); ++column) {
    float* to = panels + column / kPanel * kPanel * k + column % kPanel;
    for (int64_t p = 0; p < k; ++p) to[p * kPanel] = 0;
  }
}

REP_CLONES void multiply(int64_t m, int64_t n, int64_t k, float alpha, const Strided& a,
                         const float* panels, bool add, float* c, int64_t c_row,
                         bool whole_panels) {
  for (int64_t j = 0; j < n; j += kPanel, panels += k * kPanel) {
    const int64_t columns = whole_panels ? kPanel : std::min(kPanel, n - j);
    int64_t i = 0;
    for (; i + kRows <= m; i += kRows) {
      multiply_tile<kRows>(k, alpha, a.at + i * a.row, a.row, a.column, panels, add,
                           c + i * c_row + j, c_row, columns);
    }
    for (; i < m; ++i) {
      multiply_tile<1>(k, alpha, a.at + i * a.row, a.row, a.column, panels, add, c + i * c_row + j,
                       c_row, columns);
    }
  }
}

}  // namespace rep
