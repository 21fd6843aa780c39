// The idea in three lines: the right factor lies in panels of 16 columns, row after row; a few rows
// of the left one meet one or two panels in sums that fill the processor's registers, each entry of
// the left factor multiplied with the panels' row (Goto and van de Geijn, ACM TOMS 34(3), 2008, the
// innermost loops).
#include "kernels/small_matrices.h"

#include <algorithm>
#include <type_traits>

#include "kernels/lanes.h"

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
      Floats b[kVectors];
      for (int64_t v = 0; v < kVectors; ++v) {
        const int64_t column = v * kWidth;
        b[v] = lanes<L>(panels + column / kPanel * k * kPanel + column % kPanel);
      }
      // Row by row: eight lanes have 16 registers, 12 for sums and 2 for b, which leaves one entry;
      // four lanes (NEON) have 32, 24 for sums and 4 for b.
      for (int64_t i = 0; i < kRows; ++i) {
        const float entry = entries[i * a.row];
        for (int64_t v = 0; v < kVectors; ++v) add_product<L>(sums[i][v], b[v], entry);
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

// c = alpha a b, as multiply() has it.
template <class L>
REP_INLINE void multiply_on(int64_t m, int64_t n, int64_t k, float alpha, const Strided& a,
                            const float* panels, bool add, float* c, int64_t c_row,
                            bool whole_panels) {
  int64_t j = 0;
  if constexpr (L::kCount == kPanel) {
    // 16 of the 32 registers hold sums, the others two panels' rows and what is on its way.
    j = Tile<L, 8, 2>::multiply_panels(j, m, n, k, alpha, a, panels, add, c, c_row, whole_panels);
    Tile<L, 8, 1>::multiply_panels(j, m, n, k, alpha, a, panels, add, c, c_row, whole_panels);
  } else {
    Tile<L, 6, 1>::multiply_panels(j, m, n, k, alpha, a, panels, add, c, c_row, whole_panels);
  }
}

}  // namespace

void pack(const NumberRows<float>& rows, int64_t count, int64_t n, int64_t first, int64_t total,
          float* panels) {
  for (int64_t j = 0; j < n; j += kPanel) {
    const int64_t columns = std::min(kPanel, n - j);
    float* to = panels + j * total + first * kPanel;
    for (int64_t p = 0; p < count; ++p, to += kPanel) {
      const float* from = rows.from(p).at + j;
      for (int64_t l = 0; l < columns; ++l) to[l] = from[l];
      std::fill(to + columns, to + kPanel, 0.0f);
    }
  }
}

void pack(const NumberRows<Bf16>& rows, int64_t count, int64_t n, int64_t first, int64_t total,
          float* panels) {
  using Word = uint32_t __attribute__((may_alias));
  for (int64_t j = 0; j < n; j += kPanel) {
    const int64_t columns = std::min(kPanel, n - j);
    auto* const panel = reinterpret_cast<Word*>(panels) + j * words<Bf16>(total);
    for (int64_t p = 0; p < count; ++p) {
      const Bf16* from = rows.from(p).at + j;
      Word* to = panel + (first + p) / 2 * kPanel;
      if ((first + p) % 2 == 0) {
        for (int64_t l = 0; l < columns; ++l) to[l] = from[l];
        std::fill(to + columns, to + kPanel, 0u);
      } else {
        for (int64_t l = 0; l < columns; ++l) to[l] |= static_cast<uint32_t>(from[l]) << 16;
      }
    }
  }
}

void pack_as_columns(const Strided& rows, int64_t count, int64_t k, int64_t first, int64_t total,
                     float* panels) {
  const auto column = [&](int64_t j) { return panels + j / kPanel * kPanel * k + j % kPanel; };
  for (int64_t j = 0; j < count; ++j) {
    float* to = column(first + j);
    const float* from = rows.from(j).at;
    for (int64_t p = 0; p < k; ++p) to[p * kPanel] = from[p * rows.column];
  }
  if (first + count != total) return;
  for (int64_t j = total; j < padded(total); ++j) {
    for (int64_t p = 0; p < k; ++p) column(j)[p * kPanel] = 0;
  }
}

template <class T>
void multiply(int64_t m, int64_t n, int64_t k, float alpha, const Strided& a, const float* panels,
              bool add, float* c, int64_t c_row, bool whole_panels) {
  dispatch_simd_for<T>([&](auto width) REP_ALWAYS_INLINE {
    multiply_on<decltype(width)>(m, n, k, alpha, a, panels, add, c, c_row, whole_panels);
  });
}

template <class T>
Strided as_left(float* c, int64_t m, int64_t wide) {
  if constexpr (std::is_same_v<T, Bf16>) {
    dispatch_simd_for<T>([&](auto width) REP_ALWAYS_INLINE {
      using L = decltype(width);
      for (int64_t i = 0; i < m; ++i) {
        const float* from = c + i * wide;
        auto* to = reinterpret_cast<Bf16*>(c + i * wide);
        for (int64_t j = 0; j < wide; j += L::kCount) store<L>(lanes<L>(from + j), to + j);
      }
    });
  }
  return {c, wide};
}

template <class T>
Strided as_left_transposed(const float* c, int64_t m, int64_t wide, float* memory) {
  if constexpr (std::is_same_v<T, Bf16>) {
    dispatch_simd_for<T>([&](auto width) REP_ALWAYS_INLINE {
      using L = decltype(width);
      for (int64_t i = 0; i < m; i += 2) {
        for (int64_t j = 0; j < wide; j += L::kCount) {
          const float* from = c + i * wide + j;
          typename L::Floats second = {};
          if (i + 1 < m) second = lanes<L>(from + wide);
          store_pairs<L>(lanes<L>(from), second, memory + i / 2 * wide + j);
        }
      }
    });
    return {memory, 1, wide};
  }
  return {c, 1, wide};
}

#define REP_INSTANTIATE(T)                                                                        \
  template void multiply<T>(int64_t, int64_t, int64_t, float, const Strided&, const float*, bool, \
                            float*, int64_t, bool);                                               \
  template Strided as_left<T>(float*, int64_t, int64_t);                                          \
  template Strided as_left_transposed<T>(const float*, int64_t, int64_t, float*);
REP_INSTANTIATE(float)
REP_INSTANTIATE(Bf16)
#undef REP_INSTANTIATE

}  // namespace rep
