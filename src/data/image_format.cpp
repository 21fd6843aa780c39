#include "data/image_format.h"

#include <algorithm>
#include <array>
#include <cctype>
#include <cstdlib>
#include <filesystem>
#include <opencv2/imgcodecs.hpp>
#include <vector>

namespace rep {
namespace {

constexpr uint64_t kWidthTag = 256, kHeightTag = 257, kOrientationTag = 274;

std::optional<Extent> jpeg_extent(const FileBytes& file) {
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

std::optional<Extent> webp_extent(const FileBytes& file) {
  if (file.has(12, "VP8 ")) return Extent{file.little(26, 2) & 0x3FFF, file.little(28, 2) & 0x3FFF};
  if (file.has(12, "VP8X")) return Extent{file.little(24, 3) + 1, file.little(27, 3) + 1};
  if (!file.has(12, "VP8L")) return std::nullopt;
  const uint64_t bits = file.little(21, 4);
  return Extent{(bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1};
}

/// A BMP's height is negative when its rows go from top to bottom.
Extent bmp_extent(const FileBytes& file) {
  if (file.little(14, 4) == 12) return {file.little(18, 2), file.little(20, 2)};
  const auto magnitude = [&](size_t i) {
    const int64_t value = static_cast<int32_t>(file.little(i, 4));
    return static_cast<uint64_t>(std::abs(value));
  };
  return {magnitude(18), magnitude(22)};
}

/// A TIFF structure, which EXIF is, too.
struct Tiff {
  FileBytes bytes;
  bool is_little() const { return bytes.has(0, "II\x2A\0"); }
  bool is_valid() const { return is_little() || bytes.has(0, "MM\0\x2A"); }
  uint64_t number(size_t i, size_t length) const {
    return is_little() ? bytes.little(i, length) : bytes.big(i, length);
  }
  /// Where the first directory's entry of that tag begins: tag, type, count, value.
  std::optional<size_t> entry(uint64_t tag) const {
    if (!is_valid()) return std::nullopt;
    const auto directory = static_cast<size_t>(number(4, 4));
    const uint64_t entries = number(directory, 2);
    for (size_t k = 0; k < entries; ++k) {
      const size_t at = directory + 2 + 12 * k;
      if (at >= bytes.size) break;
      if (number(at, 2) == tag) return at;
    }
    return std::nullopt;
  }
  /// A single number of two or four bytes.
  std::optional<uint64_t> value(uint64_t tag) const {
    const auto at = entry(tag);
    if (!at || number(*at + 4, 4) != 1) return std::nullopt;
    const uint64_t type = number(*at + 2, 2);
    if (type != 3 && type != 4) return std::nullopt;
    return number(*at + 8, type == 3 ? 2 : 4);
  }
};

std::optional<Extent> tiff_extent(const FileBytes& file) {
  const Tiff tiff{file};
  const auto width = tiff.value(kWidthTag), height = tiff.value(kHeightTag);
  if (!width || !height) return std::nullopt;
  return Extent{*width, *height};
}

/// "P6 width height ...": numbers, blanks, and comments from # to the end of a line.
std::optional<Extent> pnm_extent(const FileBytes& file) {
  std::array<uint64_t, 2> numbers{};
  size_t i = 2;
  for (uint64_t& number : numbers) {
    while (i < file.size && (std::isspace(file.data[i]) != 0 || file.data[i] == '#')) {
      const bool comment = file.data[i] == '#';
      while (comment && i < file.size && file.data[i] != '\n') ++i;
      ++i;
    }
    if (std::isdigit(static_cast<int>(file.at(i))) == 0) return std::nullopt;
    for (; i < file.size && std::isdigit(file.data[i]) != 0; ++i) {
      number = std::min<uint64_t>(10 * number + (file.data[i] - '0'), UINT32_MAX);
    }
  }
  return Extent{numbers[0], numbers[1]};
}

/// The extent in the image header box of a JPEG 2000 file.
std::optional<Extent> jp2_extent(const FileBytes& file) {
  const char name[] = {'i', 'h', 'd', 'r'};
  const uint8_t* const stop = file.data + std::min<size_t>(file.size, 4096);
  const uint8_t* const found = std::search(file.data, stop, name, name + 4);
  if (found == stop) return std::nullopt;
  const auto at = static_cast<size_t>(found - file.data) + 4;
  return Extent{file.big(at + 4, 4), file.big(at, 4)};
}

/// EXIF's TIFF structure, with or without the name that JPEG files put before it.
FileBytes exif_body(const FileBytes& exif) { return exif.has(0, "Exif\0\0") ? exif.from(6) : exif; }

FileBytes exif_of_jpeg(const FileBytes& file) {
  for (size_t i = 2; i + 4 < file.size && file.at(i) == 0xFF;) {
    const uint64_t marker = file.at(i + 1);
    if (marker == 0xDA || marker == 0xD9) break;
    if (marker == 0xFF) {
      ++i;
      continue;
    }
    const auto length = static_cast<size_t>(file.big(i + 2, 2));
    if (marker == 0xE1 && file.has(i + 4, "Exif\0\0")) {
      return {file.data + i + 4, std::min(file.size - i - 4, length < 2 ? 0 : length - 2)};
    }
    i += 2 + length;
  }
  return {};
}

/// The first chunk of that name: a PNG file's length stands before its name, big-endian, a RIFF
/// file's behind it, little-endian.
FileBytes chunk(const FileBytes& file, size_t first, const char (&name)[5], bool riff) {
  for (size_t i = first; i + 8 <= file.size;) {
    const auto length = static_cast<size_t>(riff ? file.little(i + 4, 4) : file.big(i, 4));
    if (file.has(riff ? i : i + 4, name)) {
      return {file.data + i + 8, std::min(length, file.size - i - 8)};
    }
    i += riff ? 8 + length + length % 2 : 12 + length;
  }
  return {};
}

bool reads_gif() {
  // One black pixel.
  static const std::vector<uint8_t> kGif{'G', 'I', 'F', '8', '9', 'a', 1, 0,    1, 0, 0x80, 0,
                                         0,   0,   0,   0,   1,   1,   1, ',',  0, 0, 0,    0,
                                         1,   0,   1,   0,   0,   2,   2, 0x44, 1, 0, ';'};
  static const bool reads = [] {
    try {
      return !cv::imdecode(kGif, cv::IMREAD_COLOR).empty();
    } catch (const cv::Exception&) {
      return false;
    }
  }();
  return reads;
}

}  // namespace

bool is_jpeg(const FileBytes& file) { return file.has(0, "\xFF\xD8\xFF"); }
bool is_tiff(const FileBytes& file) { return Tiff{file}.is_valid(); }

std::optional<Extent> announced_extent(const FileBytes& file) {
  if (is_jpeg(file)) return jpeg_extent(file);
  if (file.has(0, "\x89PNG\r\n\x1A\n")) return Extent{file.big(16, 4), file.big(20, 4)};
  if (file.has(0, "RIFF") && file.has(8, "WEBP")) return webp_extent(file);
  if (file.has(0, "BM")) return bmp_extent(file);
  if (Tiff{file}.is_valid()) return tiff_extent(file);
  if (file.at(0) == 'P' && file.at(1) >= '1' && file.at(1) <= '6') return pnm_extent(file);
  if (file.has(4, "jP  \r\n\x87\n")) return jp2_extent(file);
  if (file.has(0, "GIF8")) return Extent{file.little(6, 2), file.little(8, 2)};
  return std::nullopt;
}

Orientation orientation_of(const FileBytes& file) {
  FileBytes exif{};
  if (is_jpeg(file)) {
    exif = exif_body(exif_of_jpeg(file));
  } else if (file.has(0, "\x89PNG\r\n\x1A\n")) {
    exif = exif_body(chunk(file, 8, "eXIf", /*riff=*/false));
  } else if (file.has(0, "RIFF") && file.has(8, "WEBP")) {
    exif = exif_body(chunk(file, 12, "EXIF", /*riff=*/true));
  } else if (Tiff{file}.is_valid()) {
    exif = file;
  }
  const Tiff tiff{exif};
  const auto value = tiff.value(kOrientationTag);
  if (!value || *value < 1 || *value > 8) return {};
  const size_t at = *tiff.entry(kOrientationTag) + (tiff.is_little() ? 8 : 9);
  return {static_cast<int>(*value), static_cast<size_t>(exif.data - file.data) + at};
}

bool has_image_ending(const std::string& name) {
  std::string ending = std::filesystem::path(name).extension().string();
  std::transform(ending.begin(), ending.end(), ending.begin(),
                 [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  static const std::array<const char*, 15> kEndings{".jpg", ".jpeg", ".jpe",  ".jfif", ".png",
                                                    ".bmp", ".dib",  ".webp", ".tif",  ".tiff",
                                                    ".ppm", ".pgm",  ".pbm",  ".pnm",  ".jp2"};
  if (ending == ".gif") return reads_gif();
  return std::find(kEndings.begin(), kEndings.end(), ending) != kEndings.end();
}

}  // namespace rep
