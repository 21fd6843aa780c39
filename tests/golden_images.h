#pragma once

#include <algorithm>
#include <cstdint>
#include <string>

#include "data/image.h"
#include "tests/golden.h"

namespace rep::golden {

/// The reference cases' inputs: bytes of the generator, as they are or in cells of 8 x 8.
inline Image image(const std::string& kind, uint32_t seed, int64_t height, int64_t width) {
  const int64_t cell = kind == "blocks" ? 8 : 1, columns = (width + cell - 1) / cell;
  Image out = Image::make(height, width);
  for (int64_t y = 0; y < height; ++y) {
    for (int64_t x = 0; x < width; ++x) {
      for (int64_t c = 0; c < 3; ++c) {
        const int64_t i = ((y / cell) * columns + x / cell) * 3 + c;
        out.pixels[static_cast<size_t>((y * width + x) * 3 + c)] =
            static_cast<uint8_t>((k16(seed, static_cast<uint32_t>(i)) + 32768) >> 8);
      }
    }
  }
  return out;
}

inline void flip_horizontally(Image& picture) {
  for (int64_t y = 0; y < picture.height; ++y) {
    uint8_t* const row = picture.pixels.data() + y * picture.width * 3;
    for (int64_t left = 0, right = picture.width - 1; left < right; ++left, --right) {
      std::swap_ranges(row + left * 3, row + left * 3 + 3, row + right * 3);
    }
  }
}

}  // namespace rep::golden
