#pragma once

#include <cstdint>

#include "data/image.h"

namespace rep {

enum class Filter {
  kBilinear,
  kBicubic
};  // triangle; cubic with a = -0.5 (Pillow's, not OpenCV's)

/// Pillow's Image.crop(region).resize(size, filter): nothing outside the region counts. Separable,
/// antialiased when shrinking (support scales), 8-bit intermediate between the horizontal and the
/// vertical pass, 22-bit fixed-point weights; equal to Pillow 9.4 to the last bit.
Image resize_region(const Image& image, const Region& region, int64_t height, int64_t width,
                    Filter filter);
Image resize(const Image& image, int64_t height, int64_t width, Filter filter);
/// The same into an image that has its size already, without an allocation once its thread is warm.
void resize_region(const Image& image, const Region& region, Filter filter, Image& out);

/// torchvision's Resize(shorter_side) and CenterCrop(out's size), of which only what the crop keeps
/// is computed. The longer side becomes int(shorter_side * longer / shorter); the crop begins at
/// round((side - size) / 2), halves to even. Neither of out's sides exceeds shorter_side.
void resize_and_center_crop(const Image& image, int64_t shorter_side, Filter filter, Image& out);

}  // namespace rep
