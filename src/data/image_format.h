#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <optional>
#include <string>

namespace rep {

/// An untrusted file's bytes; what lies past the end reads as zero.
struct FileBytes {
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
    return i < size && kLength - 1 <= size - i && std::memcmp(data + i, text, kLength - 1) == 0;
  }
  FileBytes from(size_t i) const { return i < size ? FileBytes{data + i, size - i} : FileBytes{}; }
};

struct Extent {
  uint64_t width, height;
};

bool is_jpeg(const FileBytes& file);
bool is_tiff(const FileBytes& file);

/// What the header announces, read before anything is allocated. None for an unknown format, and
/// for a JPEG file without a frame or end marker (a download cut short, which libjpeg would fill up
/// with grey).
std::optional<Extent> announced_extent(const FileBytes& file);

/// How a viewer has to turn the stored pixels: the EXIF tag 274 of a JPEG, PNG or WebP file, or the
/// same tag of a TIFF file. 1: not at all; 2 to 8: as in the TIFF 6.0 specification.
struct Orientation {
  int value = 1;
  size_t at = 0;  // where its low byte stands in the file
};
Orientation orientation_of(const FileBytes& file);

/// Whether a file's name ends as those of images do that are read here: .jpg, .jpeg, .jpe, .jfif,
/// .png, .bmp, .dib, .webp, .tif, .tiff, .ppm, .pgm, .pbm, .pnm, .jp2, and .gif where OpenCV has a
/// decoder for it; capitals or not.
bool has_image_ending(const std::string& name);

}  // namespace rep
