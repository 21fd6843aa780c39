// The idea in three lines: the right factor lies in panels of 16 columns, row after row; a few rows
// of the left one meet one or two panels in sums that fill the processor's registers, each entry of
// the left factor multiplied with the panels' row (Goto and van de Geijn, ACM TOMS 34(3), 2008, the
// innermost loops).
#include "nn/small_matrices.h"

#include <algorithm>

#include "core/lanes.h"

namespace rep {

namespace {

// kRows rows of c by kPanels panels, in registers.
template <class L, int64_t kRows, int64_t kPanels>
struct Tile {
  using Floats = typename L::Floats;
  static constexpr int64_t kWidth = L::kCount;
  static constexpr int64_t kVectors = kPanels * kPanel / kWidth;

  // `columns`: how many of the kPanels * 16 are c's.
  REP_INLINE static void multiply(int64_t k, float alpha, const Strided& a, const float* panels,
                                  bool add, float* c, int64_t c_row, int64_t columns) {
    Floats sums[kRows][kVectors] = {};
    const float* entries = a.at;
    for (int64_t p = 0; p < k; ++p, panels += kPanel, entries += a.column) {
      for (int64_t v = 0; v < kVectors; ++v) {
        const int64_t column = v * kWidth;
        const Floats b = lanes<L>(panels + column / kPanel * k * kPanel + column % kPanel);
        for (int64_t i = 0; i < kRows; ++i) sums[i][v] += b * entries[i * a.row];
      }
    }
    for (int64_t i = 0; i < kRows; ++i, c += c_row) {
      for (int64_t v = 0; v < kVectors; ++v) {
        const Floats sum = sums[i][v] * alpha;
        float* to = c + v * kWidth;
        if ((v + 1) * kWidth <= columns) {
          lanes<L>(to) = add ? lanes<L>(to) + sum : sum;
          continue;
        }
        for (int64_t l = 0; l < kWidth && v * kWidth + l < columns; ++l) {
          to[l] = add ? to[l] + sum[l] : sum[l];
        }
      }
    }
  }

  // The same for the last `rows` < kRows.
  REP_INLINE static void multiply_rest(int64_t rows, int64_t k, float alpha, const Strided& a,
                                       const float* panels, bool add, float* c, int64_t c_row,
                                       int64_t columns) {
    if constexpr (kRows > 1) {
      using Smaller = Tile<L, kRows - 1, kPanels>;
      if (rows == kRows - 1) {
        Smaller::multiply(k, alpha, a, panels, add, c, c_row, columns);
      } else {
        Smaller::multiply_rest(rows, k, alpha, a, panels, add, c, c_row, columns);
      }
    }
  }

  // kPanels panels at a time from column j on; returns the column after the last.
  REP_INLINE static int64_t multiply_panels(int64_t j, int64_t m, int64_t n, int64_t k, float alpha,
                                            const Strided& a, const float* panels, bool add,
                                            float* c, int64_t c_row, bool whole_panels) {
    for (; j + (kPanels - 1) * kPanel < n; j += kPanels * kPanel) {
      const int64_t columns = whole_panels ? kPanels * kPanel : n - j;
      const float* b = panels + j * k;
      int64_t i = 0;
      for (; i + kRows <= m; i += kRows) {
        multiply(k, alpha, a.from(i), b, add, c + i * c_row + j, c_row, columns);
      }
      if (i < m)
        multiply_rest(m - i, k, alpha, a.from(i), b, add, c + i * c_row + j, c_row, columns);
    }
    return j;
  }
};

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

void multiply(int64_t m, int64_t n, int64_t k, float alpha, const Strided& a, const float* panels,
              bool add, float* c, int64_t c_row, bool whole_panels) {
  on_widest_lanes([&](auto width) REP_ALWAYS_INLINE {
    using L = decltype(width);
    int64_t j = 0;
    if constexpr (L::kCount == kPanel) {
      // 16 of the 32 registers hold sums, the others two panels' rows and what is on its way.
      j = Tile<L, 8, 2>::multiply_panels(j, m, n, k, alpha, a, panels, add, c, c_row, whole_panels);
      Tile<L, 8, 1>::multiply_panels(j, m, n, k, alpha, a, panels, add, c, c_row, whole_panels);
    } else {
      Tile<L, 6, 1>::multiply_panels(j, m, n, k, alpha, a, panels, add, c, c_row, whole_panels);
    }
  });
}

}  // namespace rep
