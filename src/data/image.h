#pragma once

#include <cstdint>
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

void flip_horizontally(Image& image);

/// Decodes a JPEG, PNG, BMP or WebP file with EXIF orientation applied; grey, palette, CMYK and
/// 16-bit become eight-bit RGB, alpha is dropped. `name` is used in messages. Throws Error when the
/// bytes are none of these, are cut short or damaged, or announce more than 178,956,970 pixels
/// (Pillow's limit).
Image decode_image(const uint8_t* bytes, size_t size, const std::string& name);
Image read_image(const std::string& path);
std::vector<uint8_t> encode_png(const Image& image);
/// Throws Error.
void write_png(const std::string& path, const Image& image);

}  // namespace rep
