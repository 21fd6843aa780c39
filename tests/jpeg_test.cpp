// The partial decoder against OpenCV's decoding of the whole file: the same pixels wherever both
// have one, for every way in which a JPEG file may store its colours.
#include "data/jpeg.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <memory>
#include <opencv2/imgcodecs.hpp>
#include <opencv2/imgproc.hpp>
#include <string>
#include <vector>

#include "core/error.h"
#include "core/random.h"
#include "tests/golden.h"
#include "tests/jpeg_bytes.h"

namespace rep {
namespace {

using testing::encode_jpeg;
using Format = testing::JpegFormat;

/// Smooth colours and a little noise: every coefficient counts, and a colour differs from its
/// neighbours.
Image landscape(int64_t height, int64_t width) {
  Image image = Image::make(height, width);
  for (int64_t y = 0; y < height; ++y) {
    for (int64_t x = 0; x < width; ++x) {
      uint8_t* pixel = image.pixels.data() + (y * width + x) * 3;
      const auto noise = static_cast<uint32_t>(y * width + x);
      pixel[0] = static_cast<uint8_t>(128 + (x * 13 + y * 5) % 97 - 48);
      pixel[1] = static_cast<uint8_t>(((x / 3) * 37 + (y / 2) * 11) % 256);
      pixel[2] = static_cast<uint8_t>((golden::k16(7, noise) + 32768) >> 8);
    }
  }
  return image;
}

cv::Mat whole_by_opencv(const std::vector<uint8_t>& file) {
  cv::Mat rgb;
  cv::cvtColor(cv::imdecode(file, cv::IMREAD_COLOR), rgb, cv::COLOR_BGR2RGB);
  return rgb;
}

/// The first pixel of `part` that `whole` has otherwise, or what of `region` is missing; "" if
/// none.
std::string difference(const ImagePart& part, const cv::Mat& whole, const Region& region) {
  const Image& pixels = part.pixels;
  if (part.top > region.top || part.left > region.left ||
      part.top + pixels.height < region.top + region.height ||
      part.left + pixels.width < region.left + region.width) {
    return "it lacks a part";
  }
  for (int64_t y = region.top; y < region.top + region.height; ++y) {
    const uint8_t* const expected = whole.ptr(static_cast<int>(y));
    for (int64_t x = region.left; x < region.left + region.width; ++x) {
      const uint8_t* const got =
          pixels.pixels.data() + ((y - part.top) * pixels.width + x - part.left) * 3;
      if (!std::equal(got, got + 3, expected + x * 3)) {
        return "row " + std::to_string(y) + ", column " + std::to_string(x);
      }
    }
  }
  return "";
}

std::string describe(const Region& r) {
  return ::testing::PrintToString(std::vector<int64_t>{r.top, r.left, r.height, r.width});
}

Region draw(int64_t height, int64_t width, Random& random) {
  const auto below = [&](int64_t n) {
    return static_cast<int64_t>(random.below(static_cast<uint64_t>(n)));
  };
  Region region;
  region.height = 1 + below(height);
  region.width = 1 + below(width);
  if (random.bernoulli(0.3)) region.height = std::min<int64_t>(height, 1 + below(4));
  if (random.bernoulli(0.3)) region.width = std::min<int64_t>(width, 1 + below(4));
  region.top = below(height - region.height + 1);
  region.left = below(width - region.width + 1);
  return region;
}

const std::vector<Format> kPlain = {
    {"4:4:4"},          {"4:2:2", 3, 2, 1},         {"4:2:0", 3, 2, 2},
    {"4:4:0", 3, 1, 2}, {"4:1:1", 3, 4, 1},         {"4:1:0", 3, 4, 2},
    {"grey", 1},        {"grey of 2 x 2", 1, 2, 2}, {"4:2:0, restarts", 3, 2, 2, false, false, 3}};

TEST(DecodeJpeg, HasTheWholeDecodesPixelsInEveryCrop) {
  Random random({2024});
  for (const Format& format : kPlain) {
    for (const auto& [height, width] : std::vector<std::pair<int, int>>{
             {1, 1}, {7, 3}, {16, 16}, {17, 33}, {64, 48}, {99, 131}, {150, 203}}) {
      const std::vector<uint8_t> file = encode_jpeg(format, landscape(height, width));
      const cv::Mat whole = whole_by_opencv(file);
      ASSERT_EQ(whole.rows, height);
      for (int draws = 0; draws < 150; ++draws) {
        const Region region =
            draws == 0 ? Region{0, 0, height, width} : draw(height, width, random);
        ImagePart part;
        const bool decoded = decode_jpeg(
            file.data(), file.size(),
            [&](int64_t h, int64_t w) {
              EXPECT_EQ(h, height);
              EXPECT_EQ(w, width);
              return region;
            },
            part);
        ASSERT_TRUE(decoded) << format.name;
        ASSERT_EQ(difference(part, whole, region), "")
            << format.name << " of " << height << " x " << width << ": " << describe(region);
      }
    }
  }
}

TEST(DecodeJpeg, DecodesLittleMoreThanTheCrop) {
  // A pixel to either side, then whole blocks of 16: columns 32 to 96 for 45 to 80.
  const std::vector<uint8_t> file = encode_jpeg({"4:2:0", 3, 2, 2}, landscape(150, 203));
  ImagePart part;
  const Region region{30, 45, 50, 35};
  ASSERT_TRUE(decode_jpeg(
      file.data(), file.size(), [&](int64_t, int64_t) { return region; }, part));
  EXPECT_EQ(part.top, 30);
  EXPECT_EQ(part.pixels.height, 50);
  EXPECT_EQ(part.left, 32);
  EXPECT_EQ(part.pixels.width, 64);
}

Region everything(int64_t height, int64_t width) { return {0, 0, height, width}; }

TEST(DecodeJpeg, LeavesOtherKindsToOpenCvWithTheSamePixels) {
  for (const Format& format :
       {Format{"progressive", 3, 2, 2, true}, Format{"arithmetic", 3, 2, 2, false, true}}) {
    const std::vector<uint8_t> file = encode_jpeg(format, landscape(99, 131));
    ImagePart part;
    EXPECT_FALSE(decode_jpeg(file.data(), file.size(), everything, part)) << format.name;
    const Region region{10, 20, 30, 40};
    decode_part(
        file.data(), file.size(), "picture", ExifOrientation::kApply,
        [&](int64_t, int64_t) { return region; }, part);
    EXPECT_EQ(difference(part, whole_by_opencv(file), region), "") << format.name;
  }
}

std::vector<uint8_t> with_exif(const std::vector<uint8_t>& entry) {
  std::vector<uint8_t> file = encode_jpeg({"4:2:0", 3, 2, 2}, landscape(40, 60));
  std::vector<uint8_t> exif = {0xFF, 0xE1, 0, 34, 'E', 'x', 'i', 'f', 0, 0, 'M', 'M',
                               0,    42,   0, 0,  0,   8,   0,   1,   0, 0, 0,   0,
                               0,    0,    0, 0,  0,   0,   0,   0,   0, 0, 0,   0};
  std::copy(entry.begin(), entry.end(), exif.begin() + 20);
  file.insert(file.begin() + 2, exif.begin(), exif.end());
  return file;
}

TEST(DecodeJpeg, TurnsAPictureAsOpenCvDoesOrLeavesItAsItIsStored) {
  for (const std::vector<uint8_t>& entry :
       {std::vector<uint8_t>{0x01, 0x12, 0, 3, 0, 0, 0, 1, 0, 6},
        {0x01, 0x12, 0, 3, 0, 0, 0, 1, 0, 3},
        {0x01, 0x12, 0, 3, 0, 0, 0, 1, 0, 1},
        {0x01, 0x10, 0, 3, 0, 0, 0, 1, 0, 6}}) {
    const std::vector<uint8_t> file = with_exif(entry);
    const bool quarter = entry[1] == 0x12 && entry[9] == 6;
    const Region all = quarter ? Region{0, 0, 60, 40} : Region{0, 0, 40, 60};
    ImagePart part;
    decode_part(file.data(), file.size(), "picture", ExifOrientation::kApply, everything, part);
    EXPECT_EQ(part.pixels.height, all.height);
    EXPECT_EQ(difference(part, whole_by_opencv(file), all), "");

    cv::Mat stored;
    cv::cvtColor(cv::imdecode(file, cv::IMREAD_COLOR | cv::IMREAD_IGNORE_ORIENTATION), stored,
                 cv::COLOR_BGR2RGB);
    decode_part(file.data(), file.size(), "picture", ExifOrientation::kIgnore, everything, part);
    EXPECT_EQ(part.pixels.height, 40);
    EXPECT_EQ(difference(part, stored, {0, 0, 40, 60}), "");
  }
}

// Any damage ends as it does for OpenCV: in its pixels, or in an Error; a crop, which need not read
// all, has OpenCV's pixels as long as OpenCV has any. And nothing is printed but by OpenCV itself.
TEST(DecodeJpeg, TreatsDamagedFilesAsOpenCvDoes) {
  ::testing::internal::CaptureStderr();
  int refused = 0, survived = 0;
  for (const Format& format : kPlain) {
    const std::vector<uint8_t> valid = encode_jpeg(format, landscape(40, 50));
    for (uint64_t round = 0; round < 250; ++round) {
      Random random({77, round});
      std::vector<uint8_t> file = valid;
      for (uint64_t changes = 1 + random.below(3); changes > 0; --changes) {
        file[2 + random.below(file.size() - 2)] = static_cast<uint8_t>(random.next());
      }
      if (random.bernoulli(0.2)) file.erase(file.end() - 40, file.end() - 2);
      ImagePart all, part;
      Region region;
      try {
        decode_part(file.data(), file.size(), "picture", ExifOrientation::kApply, everything, all);
      } catch (const Error&) {
        ++refused;
        continue;
      }
      ++survived;
      cv::Mat expected = whole_by_opencv(file);
      ASSERT_EQ(difference(all, expected, everything(expected.rows, expected.cols)), "")
          << format.name << " " << round;
      decode_part(
          file.data(), file.size(), "picture", ExifOrientation::kApply,
          [&](int64_t height, int64_t width) {
            Random again({78, round});
            return region = draw(height, width, again);
          },
          part);
      ASSERT_EQ(difference(part, expected, region), "") << format.name << " " << round;
    }
  }
  ::testing::internal::GetCapturedStderr();
  EXPECT_GT(refused, 50);
  EXPECT_GT(survived, 500);
}

TEST(DecodeJpeg, PrintsNothingAboutDamage) {
  std::vector<uint8_t> file = encode_jpeg({"4:2:0", 3, 2, 2}, landscape(99, 131));
  file.erase(file.end() - file.size() / 2, file.end() - 2);  // the end marker stays
  ImagePart part;
  ::testing::internal::CaptureStderr();
  EXPECT_FALSE(decode_jpeg(file.data(), file.size(), everything, part));
  EXPECT_FALSE(decode_jpeg(file.data(), 30, everything, part));
  EXPECT_EQ(::testing::internal::GetCapturedStderr(), "");
  // What comes before the damage is as whole as ever.
  const Region top{0, 0, 16, 131};
  ASSERT_TRUE(decode_jpeg(
      file.data(), file.size(), [&](int64_t, int64_t) { return top; }, part));
  const std::vector<uint8_t> undamaged = encode_jpeg({"4:2:0", 3, 2, 2}, landscape(99, 131));
  EXPECT_EQ(difference(part, whole_by_opencv(undamaged), top), "");
}

TEST(DecodeJpeg, PassesOnWhatTheCallerThrows) {
  const std::vector<uint8_t> file = encode_jpeg({"4:4:4"}, landscape(9, 9));
  ImagePart part;
  EXPECT_THROW(decode_jpeg(
                   file.data(), file.size(),
                   [](int64_t, int64_t) -> Region { throw Error("no such box"); }, part),
               Error);
}

TEST(DecodeJpeg, HasThePixelsOfRealPhotographs) {
  SKIP_WITHOUT_SHARED("data/README.md");
  Random random({5});
  int64_t decoded = 0;
  for (const auto& entry :
       std::filesystem::recursive_directory_iterator(golden::shared("data/imagenet-subset/val"))) {
    if (!entry.is_regular_file()) continue;
    Region region;
    ImagePart part;
    read_part(
        entry.path().string(), ExifOrientation::kApply,
        [&](int64_t height, int64_t width) { return region = draw(height, width, random); }, part);
    cv::Mat rgb;
    cv::cvtColor(cv::imread(entry.path().string(), cv::IMREAD_COLOR), rgb, cv::COLOR_BGR2RGB);
    ASSERT_EQ(difference(part, rgb, region), "") << entry.path() << describe(region);
    ++decoded;
  }
  EXPECT_EQ(decoded, 60);
}

}  // namespace
}  // namespace rep
