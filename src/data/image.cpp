#include "data/image.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <opencv2/imgcodecs.hpp>
#include <opencv2/imgproc.hpp>
#include <optional>
#include <utility>

#include "core/error.h"
#include "core/files.h"

namespace rep {
namespace {

constexpr int64_t kMaxPixels = 178956970;

// ---- resampling, after Pillow's Resample.c (the functions named 8bpc) ----

// Fractional bits of a weight: 32 less 8 of the pixel and 2 of headroom.
constexpr int kPrecision = 32 - 8 - 2;
constexpr int32_t kHalf = 1 << (kPrecision - 1);

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

/// The inputs that make up each output of one axis: output i is the sum over k < count[i] of input
/// first[i] + k times weights[i * stride + k].
struct Taps {
  std::vector<int32_t> first, count, weights;
  int64_t stride = 0;
};

/// Overwrites `taps`, whose memory is used again.
void find_taps(int64_t in_size, int64_t out_size, Filter filter, Taps& taps) {
  const double scale = static_cast<double>(in_size) / static_cast<double>(out_size);
  const double filter_scale = std::max(scale, 1.0);
  const double support = (filter == Filter::kBilinear ? 1 : 2) * filter_scale;
  const double step = 1 / filter_scale;
  thread_local std::vector<double> exact;
  taps.stride = static_cast<int64_t>(std::ceil(support)) * 2 + 1;
  exact.resize(static_cast<size_t>(taps.stride));
  taps.first.resize(static_cast<size_t>(out_size));
  taps.count.resize(static_cast<size_t>(out_size));
  taps.weights.resize(static_cast<size_t>(out_size * taps.stride));
  int32_t* weights = taps.weights.data();
  for (size_t i = 0; i < taps.first.size(); ++i, weights += taps.stride) {
    const double center = (static_cast<double>(i) + 0.5) * scale;
    const auto first = std::max<int64_t>(static_cast<int64_t>(center - support + 0.5), 0);
    const auto last = std::min(static_cast<int64_t>(center + support + 0.5), in_size);
    const auto count = static_cast<size_t>(last - first);
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
    taps.first[i] = static_cast<int32_t>(first);
    taps.count[i] = static_cast<int32_t>(count);
  }
}

inline uint8_t to_byte(int32_t sum) {
  return static_cast<uint8_t>(std::min(std::max(sum >> kPrecision, 0), 255));
}

/// One pixel from `count` neighbours; a count known when compiling unrolls.
inline void sum_pixels(const uint8_t* in, const int32_t* weights, int32_t count, uint8_t* out) {
  int32_t red = kHalf, green = kHalf, blue = kHalf;
  for (int32_t k = 0; k < count; ++k) {
    red += in[3 * k] * weights[k];
    green += in[3 * k + 1] * weights[k];
    blue += in[3 * k + 2] * weights[k];
  }
  out[0] = to_byte(red);
  out[1] = to_byte(green);
  out[2] = to_byte(blue);
}

/// One row of pixels, made wider or narrower.
void resample_row(const uint8_t* in, const Taps& taps, uint8_t* out) {
  const int32_t* weights = taps.weights.data();
  for (size_t i = 0; i < taps.first.size(); ++i, weights += taps.stride, out += 3) {
    const uint8_t* const first = in + int64_t{taps.first[i]} * 3;
    switch (taps.count[i]) {
      case 2:
        sum_pixels(first, weights, 2, out);
        break;
      case 4:
        sum_pixels(first, weights, 4, out);
        break;
      default:
        sum_pixels(first, weights, taps.count[i], out);
    }
  }
}

/// The weighted sum of kCount rows of n bytes each; a fixed count keeps the sums in registers.
template <int kCount>
void sum_rows(const uint8_t* __restrict rows, const int32_t* weights, int64_t n,
              uint8_t* __restrict out) {
  int32_t weight[kCount];
  for (int k = 0; k < kCount; ++k) weight[k] = weights[k];
  for (int64_t i = 0; i < n; ++i) {
    int32_t sum = kHalf;
    for (int k = 0; k < kCount; ++k) sum += rows[k * n + i] * weight[k];
    out[i] = to_byte(sum);
  }
}

/// The same for any number of rows, a stretch of sums at a time.
void sum_many_rows(const uint8_t* __restrict rows, const int32_t* weights, int32_t count, int64_t n,
                   uint8_t* __restrict out) {
  constexpr int64_t kStretch = 256;
  int32_t sums[kStretch];
  for (int64_t start = 0; start < n; start += kStretch) {
    const int64_t length = std::min(kStretch, n - start);
    std::fill_n(sums, length, kHalf);
    for (int32_t k = 0; k < count; ++k) {
      const uint8_t* row = rows + k * n + start;
      const int32_t weight = weights[k];
      for (int64_t i = 0; i < length; ++i) sums[i] += row[i] * weight;
    }
    for (int64_t i = 0; i < length; ++i) out[start + i] = to_byte(sums[i]);
  }
}

/// One output row from the rows that it is made of. Enlarging takes 2 rows (bilinear) or 4
/// (bicubic), fewer at the edges.
void resample_column(const uint8_t* rows, const int32_t* weights, int32_t count, int64_t n,
                     uint8_t* out) {
  switch (count) {
    case 1:
      return sum_rows<1>(rows, weights, n, out);
    case 2:
      return sum_rows<2>(rows, weights, n, out);
    case 3:
      return sum_rows<3>(rows, weights, n, out);
    case 4:
      return sum_rows<4>(rows, weights, n, out);
    default:
      return sum_many_rows(rows, weights, count, n, out);
  }
}

/// Where a crop of `want` begins in an extent of `have`; negative: that much zero padding in front.
int64_t crop_offset(int64_t have, int64_t want) {
  if (have < want) return -((want - have) / 2);
  return static_cast<int64_t>(std::nearbyint(static_cast<double>(have - want) / 2));
}

// ---- decoding ----

struct Extent {
  uint64_t width, height;
};

/// An untrusted file's bytes; what lies past the end reads as zero.
struct Bytes {
  const uint8_t* data;
  size_t size;
  uint64_t at(size_t i) const { return i < size ? data[i] : 0; }
  uint64_t big(size_t i, size_t bytes) const {
    uint64_t value = 0;
    for (size_t k = 0; k < bytes; ++k) value = value << 8 | at(i + k);
    return value;
  }
  uint64_t little(size_t i, size_t bytes) const {
    uint64_t value = 0;
    for (size_t k = bytes; k > 0; --k) value = value << 8 | at(i + k - 1);
    return value;
  }
  template <size_t kLength>
  bool has(size_t i, const char (&text)[kLength]) const {
    return i + kLength - 1 <= size && std::memcmp(data + i, text, kLength - 1) == 0;
  }
};

/// The extent in the first frame header; none when the file ends before its scan or has no end
/// marker after it (a download cut short, which libjpeg would fill up with grey).
std::optional<Extent> jpeg_extent(const Bytes& file) {
  std::optional<Extent> extent;
  for (size_t i = 2; i + 4 < file.size;) {
    if (file.at(i) != 0xFF) {
      ++i;
      continue;
    }
    const uint64_t marker = file.at(i + 1);
    const bool bare = marker == 0 || marker == 1 || (marker >= 0xD0 && marker <= 0xD8);
    const bool frame =
        marker >= 0xC0 && marker <= 0xCF && marker != 0xC4 && marker != 0xC8 && marker != 0xCC;
    if (frame && !extent) extent = Extent{file.big(i + 7, 2), file.big(i + 5, 2)};
    if (marker == 0xDA) {
      const uint8_t end[] = {0xFF, 0xD9};
      const uint8_t* const stop = file.data + file.size;
      return std::find_end(file.data + i, stop, end, end + 2) != stop ? extent : std::nullopt;
    }
    i += marker == 0xFF ? 1 : bare ? 2 : 2 + static_cast<size_t>(file.big(i + 2, 2));
  }
  return std::nullopt;
}

std::optional<Extent> webp_extent(const Bytes& file) {
  if (file.has(12, "VP8 ")) return Extent{file.little(26, 2) & 0x3FFF, file.little(28, 2) & 0x3FFF};
  if (file.has(12, "VP8X")) return Extent{file.little(24, 3) + 1, file.little(27, 3) + 1};
  if (!file.has(12, "VP8L")) return std::nullopt;
  const uint64_t bits = file.little(21, 4);
  return Extent{(bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1};
}

/// A BMP's height is negative when its rows go from top to bottom.
Extent bmp_extent(const Bytes& file) {
  if (file.little(14, 4) == 12) return {file.little(18, 2), file.little(20, 2)};
  const auto magnitude = [&](size_t i) {
    const int64_t value = static_cast<int32_t>(file.little(i, 4));
    return static_cast<uint64_t>(std::abs(value));
  };
  return {magnitude(18), magnitude(22)};
}

/// What the header announces, read before anything is allocated; none for an unknown format.
std::optional<Extent> announced_extent(const Bytes& file) {
  if (file.has(0, "\xFF\xD8\xFF")) return jpeg_extent(file);
  if (file.has(0, "\x89PNG\r\n\x1A\n")) return Extent{file.big(16, 4), file.big(20, 4)};
  if (file.has(0, "RIFF") && file.has(8, "WEBP")) return webp_extent(file);
  if (file.has(0, "BM")) return bmp_extent(file);
  return std::nullopt;
}

/// Empty when OpenCV cannot make sense of the bytes.
cv::Mat decode_bgr(const uint8_t* bytes, size_t size) {
  // The loader's threads are the parallelism; a pool inside each of them would only get in the way.
  static const bool single_threaded = (cv::setNumThreads(1), true);
  static_cast<void>(single_threaded);
  const cv::Mat buffer(1, static_cast<int>(size), CV_8UC1, const_cast<uint8_t*>(bytes));
  try {
    return cv::imdecode(buffer, cv::IMREAD_COLOR);
  } catch (const cv::Exception&) {
    return {};
  }
}

}  // namespace

void resize_region(const Image& image, const Region& region, Filter filter, Image& out) {
  thread_local Taps across, down;
  thread_local std::vector<uint8_t> rows;  // the needed rows at their new width
  find_taps(region.width, out.width, filter, across);
  find_taps(region.height, out.height, filter, down);
  const int64_t first_row = down.first.front();
  const int64_t last_row = down.first.back() + down.count.back();
  const int64_t row_bytes = out.width * 3;
  rows.resize(static_cast<size_t>((last_row - first_row) * row_bytes));
  for (int64_t y = first_row; y < last_row; ++y) {
    const int64_t start = ((region.top + y) * image.width + region.left) * 3;
    resample_row(image.pixels.data() + start, across, rows.data() + (y - first_row) * row_bytes);
  }
  for (int64_t y = 0; y < out.height; ++y) {
    const auto i = static_cast<size_t>(y);
    resample_column(rows.data() + (down.first[i] - first_row) * row_bytes,
                    down.weights.data() + y * down.stride, down.count[i], row_bytes,
                    out.pixels.data() + y * row_bytes);
  }
}

Image resize_region(const Image& image, const Region& region, int64_t height, int64_t width,
                    Filter filter) {
  Image out = Image::make(height, width);
  resize_region(image, region, filter, out);
  return out;
}

Image resize(const Image& image, int64_t height, int64_t width, Filter filter) {
  return resize_region(image, {0, 0, image.height, image.width}, height, width, filter);
}

Image resize_shorter_side(const Image& image, int64_t size, Filter filter) {
  const auto [shorter, longer] = std::minmax(image.height, image.width);
  const int64_t other = size * longer / shorter;
  if (other > kMaxPixels / size) {
    throw Error("an image of " + std::to_string(image.width) + " x " +
                std::to_string(image.height) +
                " pixels is too elongated to resize; remove it from the data set");
  }
  return image.height <= image.width ? resize(image, size, other, filter)
                                     : resize(image, other, size, filter);
}

Image center_crop(const Image& image, int64_t size) {
  const int64_t top = crop_offset(image.height, size), left = crop_offset(image.width, size);
  Image out = Image::make(size, size);
  const int64_t width = std::min(image.width, size);
  for (int64_t y = std::max<int64_t>(-top, 0); y < size && y + top < image.height; ++y) {
    std::copy_n(image.pixels.data() + ((y + top) * image.width + std::max<int64_t>(left, 0)) * 3,
                width * 3, out.pixels.data() + (y * size + std::max<int64_t>(-left, 0)) * 3);
  }
  return out;
}

void flip_horizontally(Image& image) {
  for (int64_t y = 0; y < image.height; ++y) {
    uint8_t* const row = image.pixels.data() + y * image.width * 3;
    for (int64_t left = 0, right = image.width - 1; left < right; ++left, --right) {
      std::swap_ranges(row + left * 3, row + left * 3 + 3, row + right * 3);
    }
  }
}

Image decode_image(const uint8_t* bytes, size_t size, const std::string& name) {
  const auto extent = announced_extent({bytes, size});
  if (extent && extent->height > 0 && extent->width > kMaxPixels / extent->height) {
    throw Error(name + ": an image of " + std::to_string(extent->width) + " x " +
                std::to_string(extent->height) + " pixels is more than the " +
                std::to_string(kMaxPixels) + " that are accepted; scale it down");
  }
  const cv::Mat bgr = extent && size <= INT32_MAX ? decode_bgr(bytes, size) : cv::Mat();
  if (bgr.empty()) {
    throw Error(name + ": not a whole JPEG, PNG, BMP or WebP image; fetch it again or remove it");
  }
  Image image = Image::make(bgr.rows, bgr.cols);
  cv::Mat rgb(bgr.rows, bgr.cols, CV_8UC3, image.pixels.data());
  cv::cvtColor(bgr, rgb, cv::COLOR_BGR2RGB);
  return image;
}

Image read_image(const std::string& path) {
  const std::string bytes = read_file(path);
  return decode_image(reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size(), path);
}

std::vector<uint8_t> encode_png(const Image& image) {
  const cv::Mat rgb(static_cast<int>(image.height), static_cast<int>(image.width), CV_8UC3,
                    const_cast<uint8_t*>(image.pixels.data()));
  cv::Mat bgr;
  cv::cvtColor(rgb, bgr, cv::COLOR_RGB2BGR);
  std::vector<uint8_t> png;
  cv::imencode(".png", bgr, png);
  return png;
}

void write_png(const std::string& path, const Image& image) {
  const std::vector<uint8_t> png = encode_png(image);
  write_file_atomically(path, std::string(png.begin(), png.end()));
}

}  // namespace rep
