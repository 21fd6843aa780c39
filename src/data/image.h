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

enum class Filter {
  kBilinear,
  kBicubic
};  // triangle; cubic with a = -0.5 (Pillow's, not OpenCV's)

/// A rectangle of whole pixels inside an image.
struct Region {
  int64_t top = 0, left = 0, height = 0, width = 0;
};

/// Pillow's Image.crop(region).resize(size, filter): nothing outside the region is read. Separable,
/// antialiased when shrinking (support scales), 8-bit intermediate between the horizontal and the
/// vertical pass, 22-bit fixed-point weights; equal to Pillow 9.4 to the last bit.
Image resize_region(const Image& image, const Region& region, int64_t height, int64_t width,
                    Filter filter);
Image resize(const Image& image, int64_t height, int64_t width, Filter filter);
/// The same into an image that has its size already, without an allocation once its thread is warm.
void resize_region(const Image& image, const Region& region, Filter filter, Image& out);

/// torchvision's Resize(int): the shorter side becomes `size`, the longer int(size * long / short).
Image resize_shorter_side(const Image& image, int64_t size, Filter filter);
/// torchvision's CenterCrop: crop_top = round((h - size) / 2), zero padding when the image is
/// smaller.
Image center_crop(const Image& image, int64_t size);
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
