#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

namespace rep {

/// Eight-bit RGB, rows top to bottom, HWC. No LibTorch: made and changed on the loader's threads.
struct Image {
  int64_t height = 0, width = 0;
  std::vector<uint8_t> pixels;  // height * width * 3

  static Image make(int64_t height, int64_t width) {
    return {height, width, std::vector<uint8_t>(static_cast<size_t>(height * width * 3))};
  }
};

/// A rectangle of whole pixels inside an image.
struct Region {
  int64_t top = 0, left = 0, height = 0, width = 0;
};

/// What was decoded of an image: its pixels from (top, left) on.
struct ImagePart {
  Image pixels;
  int64_t top = 0, left = 0;

  /// Of this extent, with pixels of any value; the memory is used again.
  void resize(const Region& region) {
    top = region.top;
    left = region.left;
    pixels.height = region.height;
    pixels.width = region.width;
    pixels.pixels.resize(static_cast<size_t>(region.height * region.width * 3));
  }
};

/// Which pixels of an image of that extent are wanted: a function of the extent alone, a region
/// that is not empty and lies inside. It may be called more than once; the last call counts.
using Wanted = std::function<Region(int64_t height, int64_t width)>;

/// What an image may have: Pillow's limit.
constexpr int64_t kMaxPixels = 178956970;

/// Whether the orientation that a file's EXIF (or a TIFF's tag) asks for is applied: the same for
/// every format. Cameras and telephones store pixels as the sensor lay; Pillow's convert("RGB"),
/// which most published loaders use, leaves them so.
enum class ExifOrientation { kApply, kIgnore };

/// Decodes a file of any kind that has_image_ending() names, told by its content; grey, palette,
/// CMYK and 16-bit become eight-bit RGB, alpha is dropped, of several pages or frames the first is
/// taken. `name` is used in messages. Throws Error when the bytes are of no such kind, are cut
/// short or damaged, or announce more than kMaxPixels.
Image decode_image(const uint8_t* bytes, size_t size, const std::string& name);
/// Into `out` at least the wanted part of that image: of most JPEG files not much more, which is
/// quicker, and pixel by pixel what the whole has there. Throws what decode_image() and `wanted`
/// throw.
void decode_part(const uint8_t* bytes, size_t size, const std::string& name, ExifOrientation exif,
                 const Wanted& wanted, ImagePart& out);
Image read_image(const std::string& path);
void read_part(const std::string& path, ExifOrientation exif, const Wanted& wanted, ImagePart& out);
std::vector<uint8_t> encode_png(const Image& image);
/// Throws Error.
void write_png(const std::string& path, const Image& image);

}  // namespace rep
