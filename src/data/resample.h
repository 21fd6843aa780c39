#pragma once

#include <cstdint>
#include <functional>
#include <vector>

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

/// `region` of an image as height x width pixels, of which `window` is kept: known before a pixel
/// of the image is.
struct Resizing {
  Region region;
  int64_t height = 0, width = 0;
  Region window;
  Filter filter = Filter::kBilinear;
};

/// torchvision's Resize(shorter_side) and CenterCrop(size) of an image of that extent. The longer
/// side becomes int(shorter_side * longer / shorter); the crop begins at round((side - size) / 2),
/// halves to even. `size` does not exceed shorter_side.
Resizing resizing_to_center(int64_t height, int64_t width, int64_t shorter_side, int64_t size,
                            Filter filter);

/// The smallest region of the image that holds every pixel which counts.
Region pixels_of(const Resizing& resizing);
/// Only what the window keeps is computed. `image` begins at (top, left) of the whole one and holds
/// pixels_of(resizing) at least; `out` has the window's size. Allocates nothing once its thread is
/// warm.
void resize(const Image& image, int64_t top, int64_t left, const Resizing& resizing, Image& out);
/// Gets row y of a picture: the reds of its pixels, `plane` bytes on their greens, then their
/// blues.
using TakeRow = std::function<void(int64_t y, const uint8_t* colours, int64_t plane)>;
/// The same picture row by row, colours apart, as soon as a row is made.
void resize(const Image& image, int64_t top, int64_t left, const Resizing& resizing,
            const TakeRow& take);

/// The same as two matrices, for a whole image of that extent: row y of `down` [window.height,
/// height] is what the image's rows weigh in the output's row y, row x of `across` [window.width,
/// width] what its columns weigh in column x. Each pass, first across, then down, is a product
/// whose sums are rounded (halves up) to a byte. Weights are multiples of 2^-22, so that sums are
/// exact in double precision and the bytes are resize()'s, in whatever order they are added up.
void weigh(const Resizing& resizing, int64_t height, int64_t width, std::vector<float>& down,
           std::vector<float>& across);

}  // namespace rep
