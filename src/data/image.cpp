#include "data/image.h"

#include <cstdlib>
#include <cstring>
#include <opencv2/imgcodecs.hpp>
#include <opencv2/imgproc.hpp>
#include <optional>
#include <utility>

#include "core/error.h"
#include "core/files.h"
#include "data/jpeg.h"

namespace rep {
namespace {

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

bool is_jpeg(const Bytes& file) { return file.has(0, "\xFF\xD8\xFF"); }

/// What the header announces, read before anything is allocated; none for an unknown format.
std::optional<Extent> announced_extent(const Bytes& file) {
  if (is_jpeg(file)) return jpeg_extent(file);
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

Region everything(int64_t height, int64_t width) { return {0, 0, height, width}; }

}  // namespace

Image decode_image(const uint8_t* bytes, size_t size, const std::string& name) {
  ImagePart part;
  decode_part(bytes, size, name, everything, part);
  return std::move(part.pixels);
}

void decode_part(const uint8_t* bytes, size_t size, const std::string& name, const Wanted& wanted,
                 ImagePart& out) {
  const Bytes file{bytes, size};
  const auto extent = announced_extent(file);
  if (extent && extent->height > 0 && extent->width > kMaxPixels / extent->height) {
    throw Error(name + ": an image of " + std::to_string(extent->width) + " x " +
                std::to_string(extent->height) + " pixels is more than the " +
                std::to_string(kMaxPixels) + " that are accepted; scale it down");
  }
  if (extent && is_jpeg(file) && decode_jpeg(bytes, size, wanted, out)) return;
  const cv::Mat bgr = extent && size <= INT32_MAX ? decode_bgr(bytes, size) : cv::Mat();
  if (bgr.empty()) {
    throw Error(name + ": not a whole JPEG, PNG, BMP or WebP image; fetch it again or remove it");
  }
  wanted(bgr.rows, bgr.cols);
  out.resize(everything(bgr.rows, bgr.cols));
  cv::Mat rgb(bgr.rows, bgr.cols, CV_8UC3, out.pixels.pixels.data());
  cv::cvtColor(bgr, rgb, cv::COLOR_BGR2RGB);
}

Image read_image(const std::string& path) {
  ImagePart part;
  read_part(path, everything, part);
  return std::move(part.pixels);
}

void read_part(const std::string& path, const Wanted& wanted, ImagePart& out) {
  const std::string bytes = read_file(path);
  decode_part(reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size(), path, wanted, out);
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
