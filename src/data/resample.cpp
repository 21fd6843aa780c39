// Resampling after Pillow's Resample.c (the functions named 8bpc), with its results to the last
// bit. Both passes are one kernel, the weighted sum of neighbouring rows of bytes: for the
// horizontal pass the image is transposed, 32 rows at a time, so that what was a column is such a
// row.
#include "data/resample.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "kernels/lanes.h"

namespace rep {
namespace {

// Fractional bits of a weight: 32 less 8 of the pixel and 2 of headroom.
constexpr int kPrecision = 32 - 8 - 2;
constexpr int32_t kHalf = 1 << (kPrecision - 1);

// ---- the weights of an axis ----

double triangle(double x) {
  x = std::abs(x);
  return x < 1 ? 1 - x : 0;
}

double cubic(double x) {
  constexpr double a = -0.5;
  x = std::abs(x);
  if (x < 1) return ((a + 2) * x - (a + 3)) * x * x + 1;
  if (x < 2) return (((x - 5) * x + 8) * x - 4) * a;
  return 0;
}

/// Pixels [in_first, in_first + in_size) become `full` pixels, of which [out_first, out_first +
/// out_size) are wanted.
struct Axis {
  int64_t in_first, in_size, full, out_first, out_size;
};

/// The inputs that make up each wanted output of one axis: output i is the sum over k < count[i] of
/// input first[i] + k of the image times weights[i * stride + k].
struct Taps {
  std::vector<int64_t> first;
  std::vector<int32_t> count, weights;
  int64_t stride = 0;
  int64_t begin() const { return first.front(); }
  int64_t end() const { return end_of(first.size() - 1); }
  int64_t end_of(size_t i) const { return first[i] + count[i]; }
};

/// How an axis is filtered.
struct Support {
  Support(const Axis& axis, Filter filter)
      : in_size(axis.in_size),
        scale(static_cast<double>(axis.in_size) / static_cast<double>(axis.full)),
        filter_scale(std::max(scale, 1.0)),
        radius((filter == Filter::kBilinear ? 1 : 2) * filter_scale) {}
  double center(int64_t output) const { return (static_cast<double>(output) + 0.5) * scale; }
  /// The inputs [first, last) of the output centred there.
  int64_t first(double center) const {
    return std::max<int64_t>(static_cast<int64_t>(center - radius + 0.5), 0);
  }
  int64_t last(double center) const {
    return std::min(static_cast<int64_t>(center + radius + 0.5), in_size);
  }

  int64_t in_size;
  double scale, filter_scale, radius;
};

/// Overwrites `taps`, whose memory is used again.
void find_taps(const Axis& axis, Filter filter, Taps& taps) {
  const Support support(axis, filter);
  const double step = 1 / support.filter_scale;
  thread_local std::vector<double> exact;
  const auto size = static_cast<size_t>(axis.out_size);
  taps.stride = static_cast<int64_t>(std::ceil(support.radius)) * 2 + 1;
  exact.resize(static_cast<size_t>(taps.stride));
  taps.first.resize(size);
  taps.count.resize(size);
  taps.weights.resize(size * static_cast<size_t>(taps.stride));
  int32_t* weights = taps.weights.data();
  for (size_t i = 0; i < size; ++i, weights += taps.stride) {
    const double center = support.center(axis.out_first + static_cast<int64_t>(i));
    const int64_t first = support.first(center);
    const auto count = static_cast<size_t>(support.last(center) - first);
    double sum = 0;
    for (size_t k = 0; k < count; ++k) {
      const double x = (static_cast<double>(first + static_cast<int64_t>(k)) - center + 0.5) * step;
      exact[k] = filter == Filter::kBilinear ? triangle(x) : cubic(x);
      sum += exact[k];
    }
    for (size_t k = 0; k < count; ++k) {
      const double weight = (sum != 0 ? exact[k] / sum : exact[k]) * (1 << kPrecision);
      weights[k] = static_cast<int32_t>(weight < 0 ? weight - 0.5 : weight + 0.5);
    }
    taps.first[i] = axis.in_first + first;
    taps.count[i] = static_cast<int32_t>(count);
  }
}

// ---- the kernel ----

REP_INLINE uint8_t to_byte(int32_t sum) {
  return static_cast<uint8_t>(std::min(std::max(sum >> kPrecision, 0), 255));
}

/// The weighted sum of kCount rows of n bytes; a fixed count keeps the sums in registers.
template <int kCount>
REP_INLINE void sum_rows_of(const uint8_t* __restrict rows, int64_t stride, const int32_t* weights,
                            int64_t n, uint8_t* __restrict out) {
  int32_t weight[kCount];
  for (int k = 0; k < kCount; ++k) weight[k] = weights[k];
  for (int64_t i = 0; i < n; ++i) {
    int32_t sum = kHalf;
    for (int k = 0; k < kCount; ++k) sum += rows[k * stride + i] * weight[k];
    out[i] = to_byte(sum);
  }
}

/// The same for any number of rows, a stretch of sums at a time.
REP_INLINE void sum_many_rows(const uint8_t* __restrict rows, int64_t stride,
                              const int32_t* weights, int32_t count, int64_t n,
                              uint8_t* __restrict out) {
  constexpr int64_t kStretch = 96;
  int32_t sums[kStretch];
  for (int64_t start = 0; start < n; start += kStretch) {
    const int64_t length = std::min(kStretch, n - start);
    std::fill_n(sums, length, kHalf);
    for (int32_t k = 0; k < count; ++k) {
      const uint8_t* row = rows + k * stride + start;
      const int32_t weight = weights[k];
      for (int64_t i = 0; i < length; ++i) sums[i] += row[i] * weight;
    }
    for (int64_t i = 0; i < length; ++i) out[start + i] = to_byte(sums[i]);
  }
}

/// Enlarging takes 2 rows (bilinear) or 4 (bicubic), fewer at the edges; shrinking takes more.
REP_INLINE void sum_rows(const uint8_t* rows, int64_t stride, const int32_t* weights, int32_t count,
                         int64_t n, uint8_t* out) {
  switch (count) {
    case 1:
      return sum_rows_of<1>(rows, stride, weights, n, out);
    case 2:
      return sum_rows_of<2>(rows, stride, weights, n, out);
    case 3:
      return sum_rows_of<3>(rows, stride, weights, n, out);
    case 4:
      return sum_rows_of<4>(rows, stride, weights, n, out);
    case 5:
      return sum_rows_of<5>(rows, stride, weights, n, out);
    case 6:
      return sum_rows_of<6>(rows, stride, weights, n, out);
    case 7:
      return sum_rows_of<7>(rows, stride, weights, n, out);
    default:
      return sum_many_rows(rows, stride, weights, count, n, out);
  }
}

// ---- transposing ----

constexpr int64_t kTile = 16;               // bytes a side of what is transposed at once
constexpr int64_t kTransposed = 2 * kTile;  // rows that go through the horizontal pass together
constexpr int64_t kPixel =
    3 * kTransposed;             // bytes of a transposed pixel: red, green, blue of those rows
constexpr int64_t kStrip = 256;  // transposed pixels that stay in the first-level cache

using Tile = uint8_t __attribute__((vector_size(16), aligned(1), may_alias));

/// out[x * out_stride + y] = in[y][x] for x, y < 16. Interleaving the first eight rows with the
/// last eight turns the eight bits of a byte's place by one; four times swaps row and column.
REP_INLINE void transpose_tile(const uint8_t* const* in, int64_t x, uint8_t* out,
                               int64_t out_stride) {
  Tile even[kTile], odd[kTile];
  for (int64_t y = 0; y < kTile; ++y) even[y] = *reinterpret_cast<const Tile*>(in[y] + x);
  const auto interleave = [](const Tile* from, Tile* to) __attribute__((always_inline)) {
    for (int64_t i = 0; i < kTile / 2; ++i) {
      const Tile& a = from[i];
      const Tile& b = from[i + kTile / 2];
      to[2 * i] =
          __builtin_shufflevector(a, b, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
      to[2 * i + 1] = __builtin_shufflevector(a, b, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29,
                                              14, 30, 15, 31);
    }
  };
  interleave(even, odd);
  interleave(odd, even);
  interleave(even, odd);
  interleave(odd, even);
  for (int64_t i = 0; i < kTile; ++i) *reinterpret_cast<Tile*>(out + i * out_stride) = even[i];
}

/// The first `bytes` bytes of kTransposed rows, transposed: byte x of row y goes to out[x *
/// kTransposed + y].
REP_INLINE void transpose_rows(const uint8_t* const* rows, int64_t bytes, uint8_t* out) {
  for (int64_t y = 0; y < kTransposed; y += kTile) {
    if (bytes < kTile) {
      for (int64_t i = 0; i < kTile; ++i) {
        for (int64_t x = 0; x < bytes; ++x) out[x * kTransposed + y + i] = rows[y + i][x];
      }
      continue;
    }
    for (int64_t x = 0; x < bytes; x += kTile) {
      const int64_t at = std::min(x, bytes - kTile);  // the last tile overlaps, never reads beyond
      transpose_tile(rows + y, at, out + at * kTransposed + y, kTransposed);
    }
  }
}

/// The way back: every `step`-th transposed byte, `bytes` of them, rounded up to whole tiles, into
/// kTransposed rows.
REP_INLINE void transpose_back(const uint8_t* transposed, int64_t step, int64_t bytes, uint8_t* out,
                               int64_t out_stride) {
  for (int64_t x = 0; x < bytes; x += kTile) {
    const uint8_t* columns[kTile];
    for (int64_t i = 0; i < kTile; ++i) columns[i] = transposed + (x + i) * step * kTransposed;
    for (int64_t y = 0; y < kTransposed; y += kTile) {
      transpose_tile(columns, y, out + y * out_stride + x, out_stride);
    }
  }
}

// ---- the two passes ----

int64_t rounded_up(int64_t n, int64_t multiple) { return (n + multiple - 1) / multiple * multiple; }

/// Where an image's pixels lie, of which (top, left) are the first.
struct SourceImage {
  const uint8_t* pixels;
  int64_t width, top, left;
  const uint8_t* at(int64_t y, int64_t x) const {
    return pixels + ((y - top) * width + x - left) * 3;
  }
};

/// A thread's memory, which grows to what its images need.
struct Workspace {
  Taps across, down;
  std::vector<uint8_t> rows;  // the needed rows at their new width
  int64_t row_bytes = 0;      // from one to the next
  int64_t plane = 0;          // from a colour of a row to the next, when each has its own bytes
  std::vector<uint8_t> transposed, narrowed, row;
};

/// The horizontal pass over rows [top, top + count), count <= kTransposed, into `out`, where whole
/// tiles are written. Goes from strip to strip of outputs whose inputs fit the cache.
REP_CLONES void resample_rows(const SourceImage& image, int64_t top, int64_t count, Workspace& work,
                              uint8_t* out) {
  const Taps& taps = work.across;
  const size_t size = taps.first.size();
  for (size_t start = 0, stop; start < size; start = stop) {
    const int64_t left = taps.first[start];
    for (stop = start + 1; stop < size && taps.end_of(stop) - left <= kStrip;) ++stop;
    const int64_t pixels = taps.end_of(stop - 1) - left;
    const auto outputs = static_cast<int64_t>(stop - start);
    if (static_cast<int64_t>(work.transposed.size()) < pixels * kPixel) {
      work.transposed.resize(static_cast<size_t>(pixels * kPixel));
    }
    const uint8_t* rows[kTransposed];
    for (int64_t y = 0; y < kTransposed; ++y) {  // past the last row: the last row once more
      rows[y] = image.at(top + std::min(y, count - 1), left);
    }
    transpose_rows(rows, pixels * 3, work.transposed.data());
    for (size_t i = start; i < stop; ++i) {
      sum_rows(work.transposed.data() + (taps.first[i] - left) * kPixel, kPixel,
               taps.weights.data() + static_cast<int64_t>(i) * taps.stride, taps.count[i], kPixel,
               work.narrowed.data() + static_cast<int64_t>(i - start) * kPixel);
    }
    const uint8_t* const narrowed = work.narrowed.data();
    const auto x = static_cast<int64_t>(start);
    if (work.plane == 0) {
      transpose_back(narrowed, 1, outputs * 3, out + x * 3, work.row_bytes);
    } else {
      for (int64_t c = 0; c < 3; ++c) {
        transpose_back(narrowed + c * kTransposed, 3, outputs, out + c * work.plane + x,
                       work.row_bytes);
      }
    }
  }
}

/// The vertical pass of output row i: its first n bytes.
REP_CLONES void pass_down(const Workspace& work, size_t i, int64_t n, uint8_t* out) {
  const Taps& taps = work.down;
  sum_rows(work.rows.data() + (taps.first[i] - taps.begin()) * work.row_bytes, work.row_bytes,
           taps.weights.data() + static_cast<int64_t>(i) * taps.stride, taps.count[i], n, out);
}

Axis down(const Resizing& r) {
  return {r.region.top, r.region.height, r.height, r.window.top, r.window.height};
}
Axis across(const Resizing& r) {
  return {r.region.left, r.region.width, r.width, r.window.left, r.window.width};
}

/// The horizontal pass over every row that counts, in this thread's memory.
Workspace& pass_across(const Image& image, int64_t image_top, int64_t image_left,
                       const Resizing& resizing, bool planes) {
  thread_local Workspace work;
  find_taps(across(resizing), resizing.filter, work.across);
  find_taps(down(resizing), resizing.filter, work.down);
  const SourceImage source{image.pixels.data(), image.width, image_top, image_left};
  const int64_t width = resizing.window.width;
  const int64_t top = work.down.begin(), bottom = work.down.end();
  // Whole tiles are written, so what ends in the middle of one has room for it.
  work.plane = planes ? rounded_up(width, kTile) + kTile : 0;
  work.row_bytes = planes ? 3 * work.plane : rounded_up(width * 3, kTile) + kTile;
  work.row.resize(static_cast<size_t>(work.row_bytes));
  work.rows.resize(static_cast<size_t>(rounded_up(bottom - top, kTransposed) * work.row_bytes));
  work.narrowed.resize(static_cast<size_t>((rounded_up(width, kTile) + kTile) * kPixel));
  for (int64_t y = top; y < bottom; y += kTransposed) {
    resample_rows(source, y, std::min(kTransposed, bottom - y), work,
                  work.rows.data() + (y - top) * work.row_bytes);
  }
  return work;
}

/// Where a crop of `want` begins in an extent of `have`.
int64_t crop_offset(int64_t have, int64_t want) {
  return static_cast<int64_t>(std::nearbyint(static_cast<double>(have - want) / 2));
}

}  // namespace

Region pixels_of(const Resizing& resizing) {
  const auto range = [&](const Axis& axis, int64_t& first, int64_t& size) {
    const Support support(axis, resizing.filter);
    first = support.first(support.center(axis.out_first));
    size = support.last(support.center(axis.out_first + axis.out_size - 1)) - first;
    first += axis.in_first;
  };
  Region region;
  range(down(resizing), region.top, region.height);
  range(across(resizing), region.left, region.width);
  return region;
}

void resize(const Image& image, int64_t top, int64_t left, const Resizing& resizing, Image& out) {
  const Workspace& work = pass_across(image, top, left, resizing, /*planes=*/false);
  const int64_t n = out.width * 3;
  for (size_t i = 0; i < work.down.first.size(); ++i) {
    pass_down(work, i, n, out.pixels.data() + static_cast<int64_t>(i) * n);
  }
}

void resize(const Image& image, int64_t top, int64_t left, const Resizing& resizing,
            const TakeRow& take) {
  Workspace& work = pass_across(image, top, left, resizing, /*planes=*/true);
  for (size_t i = 0; i < work.down.first.size(); ++i) {
    pass_down(work, i, 3 * work.plane, work.row.data());
    take(static_cast<int64_t>(i), work.row.data(), work.plane);
  }
}

void weigh(const Resizing& resizing, int64_t height, int64_t width, std::vector<float>& down_rows,
           std::vector<float>& across_rows) {
  thread_local Taps taps;
  const auto fill = [&](const Axis& axis, int64_t inputs, std::vector<float>& rows) {
    find_taps(axis, resizing.filter, taps);
    rows.assign(taps.first.size() * static_cast<size_t>(inputs), 0.0f);
    const int32_t* weights = taps.weights.data();
    for (size_t i = 0; i < taps.first.size(); ++i, weights += taps.stride) {
      float* const row = rows.data() + static_cast<int64_t>(i) * inputs + taps.first[i];
      for (int32_t k = 0; k < taps.count[i]; ++k) {
        row[k] = static_cast<float>(weights[k]) / (1 << kPrecision);
      }
    }
  };
  fill(down(resizing), height, down_rows);
  fill(across(resizing), width, across_rows);
}

Image resize_region(const Image& image, const Region& region, int64_t height, int64_t width,
                    Filter filter) {
  Image out = Image::make(height, width);
  resize(image, 0, 0, {region, height, width, {0, 0, height, width}, filter}, out);
  return out;
}

Image resize(const Image& image, int64_t height, int64_t width, Filter filter) {
  return resize_region(image, {0, 0, image.height, image.width}, height, width, filter);
}

Resizing resizing_to_center(int64_t height, int64_t width, int64_t shorter_side, int64_t size,
                            Filter filter) {
  const int64_t shorter = std::min(height, width);
  const int64_t tall = shorter_side * height / shorter, wide = shorter_side * width / shorter;
  return {{0, 0, height, width},
          tall,
          wide,
          {crop_offset(tall, size), crop_offset(wide, size), size, size},
          filter};
}

}  // namespace rep
