#include "data/image.h"

#include <opencv2/core.hpp>
#include <opencv2/imgcodecs.hpp>
#include <opencv2/imgproc.hpp>
#include <utility>

#include "core/error.h"
#include "core/files.h"
#include "core/utf8.h"
#include "data/image_format.h"
#include "data/jpeg.h"

namespace rep {
namespace {

/// The pixels as they are stored; empty when OpenCV cannot make sense of the bytes.
cv::Mat decode_bgr(const uint8_t* bytes, size_t size) {
  // The loader's threads are the parallelism; a pool inside each of them would only get in the way.
  static const bool single_threaded = (cv::setNumThreads(1), true);
  static_cast<void>(single_threaded);
  const cv::Mat buffer(1, static_cast<int>(size), CV_8UC1, const_cast<uint8_t*>(bytes));
  try {
    return cv::imdecode(buffer, cv::IMREAD_COLOR | cv::IMREAD_IGNORE_ORIENTATION);
  } catch (const cv::Exception&) {
    return {};
  }
}

/// The same where the file is a TIFF that says how to turn it, which OpenCV does whatever it is
/// told.
cv::Mat decode_unturned_tiff(const uint8_t* bytes, size_t size, size_t orientation_at) {
  std::vector<uint8_t> upright(bytes, bytes + size);
  upright[orientation_at] = 1;
  return decode_bgr(upright.data(), size);
}

/// Transposed for 5 to 8, then mirrored: TIFF 6.0, page 36.
cv::Mat turned(const cv::Mat& image, int orientation) {
  constexpr int kUpsideDown = 0, kMirrored = 1, kBoth = -1;
  constexpr int kFlips[] = {kMirrored, kBoth, kUpsideDown, 2, kMirrored, kBoth, kUpsideDown};
  if (orientation == 1) return image;
  cv::Mat out = image;
  if (orientation >= 5) cv::transpose(image, out);
  if (const int flip = kFlips[orientation - 2]; flip != 2) cv::flip(out, out, flip);
  return out;
}

Region everything(int64_t height, int64_t width) { return {0, 0, height, width}; }

}  // namespace

Image decode_image(const uint8_t* bytes, size_t size, const std::string& name) {
  ImagePart part;
  decode_part(bytes, size, name, ExifOrientation::kApply, everything, part);
  return std::move(part.pixels);
}

void decode_part(const uint8_t* bytes, size_t size, const std::string& name, ExifOrientation exif,
                 const Wanted& wanted, ImagePart& out) {
  const FileBytes file{bytes, size};
  const auto extent = announced_extent(file);
  if (extent && extent->height > 0 && extent->width > kMaxPixels / extent->height) {
    throw Error(name + ": an image of " + std::to_string(extent->width) + " x " +
                std::to_string(extent->height) + " pixels is more than the " +
                std::to_string(kMaxPixels) + " that are accepted; scale it down");
  }
  const Orientation stored = orientation_of(file);
  const int orientation = exif == ExifOrientation::kApply ? stored.value : 1;
  if (extent && is_jpeg(file) && orientation == 1 && decode_jpeg(bytes, size, wanted, out)) return;
  cv::Mat bgr;
  if (extent && size <= INT32_MAX) {
    bgr = is_tiff(file) && stored.value != 1 ? decode_unturned_tiff(bytes, size, stored.at)
                                             : decode_bgr(bytes, size);
  }
  if (bgr.empty()) {
    throw Error(name +
                (size == 0 ? ": the file is empty"
                           : ": not a whole image (JPEG, PNG, BMP, WebP, TIFF, PNM or JPEG 2000)") +
                "; fetch it again or remove it");
  }
  bgr = turned(bgr, orientation);
  wanted(bgr.rows, bgr.cols);
  out.resize(everything(bgr.rows, bgr.cols));
  cv::Mat rgb(bgr.rows, bgr.cols, CV_8UC3, out.pixels.pixels.data());
  cv::cvtColor(bgr, rgb, cv::COLOR_BGR2RGB);
}

Image read_image(const std::string& path) {
  ImagePart part;
  read_part(path, ExifOrientation::kApply, everything, part);
  return std::move(part.pixels);
}

void read_part(const std::string& path, ExifOrientation exif, const Wanted& wanted,
               ImagePart& out) {
  const std::string bytes = read_file(path);
  decode_part(reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size(), printable(path), exif,
              wanted, out);
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
