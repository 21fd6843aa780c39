#include "data/image.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <opencv2/imgcodecs.hpp>
#include <string>
#include <vector>

#include "core/error.h"
#include "tests/golden.h"

namespace rep {
namespace {

/// One colour, or two: the left half and the right half.
cv::Mat halves(int height, int width, const cv::Scalar& left_bgr, const cv::Scalar& right_bgr) {
  cv::Mat mat(height, width, CV_8UC3, left_bgr);
  mat.colRange(width / 2, width) = right_bgr;
  return mat;
}

std::vector<uint8_t> encode(const std::string& extension, const cv::Mat& mat) {
  std::vector<uint8_t> bytes;
  cv::imencode(extension, mat, bytes);
  return bytes;
}

Image decode(const std::vector<uint8_t>& bytes) {
  return decode_image(bytes.data(), bytes.size(), "picture");
}

std::vector<int> pixel(const Image& image, int64_t y, int64_t x) {
  const auto first = image.pixels.begin() + (y * image.width + x) * 3;
  return {first, first + 3};
}

void expect_near(const std::vector<int>& actual, const std::vector<int>& expected, int tolerance) {
  for (size_t c = 0; c < 3; ++c) EXPECT_NEAR(actual[c], expected[c], tolerance) << "channel " << c;
}

/// Swallows what the codecs print on stderr about damaged bytes, so that the log shows only
/// failures.
class Quiet {
 public:
  Quiet() { ::testing::internal::CaptureStderr(); }
  ~Quiet() { ::testing::internal::GetCapturedStderr(); }
  Quiet(const Quiet&) = delete;
  Quiet& operator=(const Quiet&) = delete;
};

std::string decoding_error(const std::vector<uint8_t>& bytes) {
  const Quiet quiet;
  try {
    decode(bytes);
  } catch (const Error& error) {
    return error.what();
  }
  return "none";
}

TEST(Decode, GivesRedGreenBlueFromEveryFormat) {
  const cv::Mat mat = halves(16, 32, {10, 100, 200}, {250, 40, 30});
  for (const std::string format : {".png", ".bmp", ".webp", ".jpg"}) {
    SCOPED_TRACE(format);
    const Image image = decode(encode(format, mat));
    EXPECT_EQ(image.height, 16);
    EXPECT_EQ(image.width, 32);
    const int tolerance = format == ".png" || format == ".bmp" ? 0 : 4;
    expect_near(pixel(image, 8, 4), {200, 100, 10}, tolerance);
    expect_near(pixel(image, 8, 28), {30, 40, 250}, tolerance);
  }
}

TEST(Decode, MakesGreySixteenBitAndAlphaIntoRgb) {
  const Image grey = decode(encode(".png", cv::Mat(4, 4, CV_8UC1, cv::Scalar(77))));
  EXPECT_EQ(pixel(grey, 1, 2), (std::vector<int>{77, 77, 77}));
  const Image grey_jpeg = decode(encode(".jpg", cv::Mat(8, 8, CV_8UC1, cv::Scalar(77))));
  expect_near(pixel(grey_jpeg, 1, 2), {77, 77, 77}, 1);
  const cv::Mat deep(4, 4, CV_16UC3, cv::Scalar(0x12FF, 0x3400, 0x5680));
  EXPECT_EQ(pixel(decode(encode(".png", deep)), 0, 0), (std::vector<int>{0x56, 0x34, 0x12}));
  const cv::Mat clear(4, 4, CV_8UC4, cv::Scalar(1, 2, 3, 0));
  EXPECT_EQ(pixel(decode(encode(".png", clear)), 3, 3), (std::vector<int>{3, 2, 1}));
}

TEST(Decode, MakesCmykIntoRgb) {
  // 8 x 8 pixels of cyan 200, magenta 60, yellow 20, black 50 of 255, which Pillow, the writer of
  // this file, reads back as (44, 157, 189).
  const std::vector<uint8_t> jpeg = {
      0xFF, 0xD8, 0xFF, 0xEE, 0x00, 0x0E, 0x41, 0x64, 0x6F, 0x62, 0x65, 0x00, 0x64, 0x00, 0x00,
      0x00, 0x00, 0x00, 0xFF, 0xDB, 0x00, 0x43, 0x00, 0x02, 0x01, 0x01, 0x01, 0x01, 0x01, 0x02,
      0x01, 0x01, 0x01, 0x02, 0x02, 0x02, 0x02, 0x02, 0x04, 0x03, 0x02, 0x02, 0x02, 0x02, 0x05,
      0x04, 0x04, 0x03, 0x04, 0x06, 0x05, 0x06, 0x06, 0x06, 0x05, 0x06, 0x06, 0x06, 0x07, 0x09,
      0x08, 0x06, 0x07, 0x09, 0x07, 0x06, 0x06, 0x08, 0x0B, 0x08, 0x09, 0x0A, 0x0A, 0x0A, 0x0A,
      0x0A, 0x06, 0x08, 0x0B, 0x0C, 0x0B, 0x0A, 0x0C, 0x09, 0x0A, 0x0A, 0x0A, 0xFF, 0xC0, 0x00,
      0x14, 0x08, 0x00, 0x08, 0x00, 0x08, 0x04, 0x43, 0x11, 0x00, 0x4D, 0x11, 0x00, 0x59, 0x11,
      0x00, 0x4B, 0x11, 0x00, 0xFF, 0xC4, 0x00, 0x14, 0x00, 0x01, 0x00, 0x00, 0x00, 0x00, 0x00,
      0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x09, 0xFF, 0xC4, 0x00, 0x14,
      0x10, 0x01, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
      0x00, 0x00, 0x00, 0xFF, 0xDA, 0x00, 0x0E, 0x04, 0x43, 0x00, 0x4D, 0x00, 0x59, 0x00, 0x4B,
      0x00, 0x00, 0x3F, 0x00, 0x36, 0xC8, 0x61, 0xAC, 0x26, 0x8F, 0xFF, 0xD9};
  const Image image = decode(jpeg);
  EXPECT_EQ(image.width, 8);
  expect_near(pixel(image, 3, 3), {44, 157, 189}, 2);
}

TEST(Decode, TurnsAPictureAsItsExifOrientationSays) {
  std::vector<uint8_t> jpeg = encode(".jpg", halves(16, 32, {0, 0, 0}, {255, 255, 255}));
  // APP1 with one big-endian TIFF entry: tag 0x0112, a short, 6 = turn by 90 degrees clockwise.
  const std::vector<uint8_t> exif = {0xFF, 0xE1, 0, 34, 'E', 'x', 'i', 'f', 0, 0,    'M', 'M',
                                     0,    42,   0, 0,  0,   8,   0,   1,   1, 0x12, 0,   3,
                                     0,    0,    0, 1,  0,   6,   0,   0,   0, 0,    0,   0};
  jpeg.insert(jpeg.begin() + 2, exif.begin(), exif.end());
  const Image image = decode(jpeg);
  EXPECT_EQ(image.height, 32);
  EXPECT_EQ(image.width, 16);
  expect_near(pixel(image, 4, 8), {0, 0, 0}, 4);  // the left half, black, came to the top
  expect_near(pixel(image, 28, 8), {255, 255, 255}, 4);
}

TEST(Decode, RefusesAPictureThatAnnouncesTooManyPixels) {
  std::vector<uint8_t> png = encode(".png", cv::Mat(4, 4, CV_8UC3, cv::Scalar(0)));
  png[18] = 0x40;  // the width in bytes 16 to 19: 16,388 pixels
  png[22] = 0x40;
  EXPECT_NE(decoding_error(png).find("16388 x 16388"), std::string::npos) << decoding_error(png);

  std::vector<uint8_t> jpeg = encode(".jpg", cv::Mat(8, 8, CV_8UC3, cv::Scalar(0)));
  const uint8_t frame[] = {0xFF, 0xC0};
  const auto found = std::search(jpeg.begin(), jpeg.end(), frame, frame + 2);
  ASSERT_NE(found, jpeg.end());
  std::fill(found + 5, found + 9, uint8_t{0xFF});
  EXPECT_NE(decoding_error(jpeg).find("65535 x 65535"), std::string::npos) << decoding_error(jpeg);

  std::vector<uint8_t> bmp = encode(".bmp", cv::Mat(4, 4, CV_8UC3, cv::Scalar(0)));
  bmp[20] = 1;  // the width in bytes 18 to 21
  bmp[24] = 1;
  EXPECT_NE(decoding_error(bmp).find("65540 x 65540"), std::string::npos) << decoding_error(bmp);

  const std::string canvas = "RIFF....WEBPVP8X\x0A...\x10...\xFF\xFF\xFF\xFF\xFF\xFF";
  const std::vector<uint8_t> webp(canvas.begin(), canvas.end());
  EXPECT_NE(decoding_error(webp).find("16777216 x 16777216"), std::string::npos);
}

TEST(Decode, RefusesFilesCutShortAndFilesThatAreNoPictures) {
  for (const std::string format : {".png", ".jpg", ".webp"}) {
    SCOPED_TRACE(format);
    std::vector<uint8_t> bytes = encode(format, halves(64, 64, {10, 100, 200}, {250, 40, 30}));
    bytes.resize(bytes.size() * 3 / 4);
    EXPECT_NE(decoding_error(bytes).find("picture: not a whole JPEG"), std::string::npos);
  }
  const std::vector<std::vector<uint8_t>> no_pictures = {
      {}, {'h', 'e', 'l', 'l', 'o'}, {0xFF, 0xD8, 0xFF}, {'B', 'M'}};
  for (const auto& bytes : no_pictures) {
    EXPECT_NE(decoding_error(bytes).find("picture: not a whole JPEG"), std::string::npos);
  }
}

TEST(Decode, SurvivesEveryDamagedByteOfAHeader) {
  // What is damaged either still decodes to a picture of sane size or is an Error; nothing else.
  const Quiet quiet;
  for (const std::string format : {".png", ".jpg", ".webp", ".bmp"}) {
    const std::vector<uint8_t> whole = encode(format, halves(8, 8, {10, 100, 200}, {250, 40, 30}));
    for (size_t i = 0; i < std::min<size_t>(whole.size(), 200); ++i) {
      for (const int value : {0x00, 0x01, 0x7F, 0xFF}) {
        std::vector<uint8_t> damaged = whole;
        damaged[i] = static_cast<uint8_t>(value);
        try {
          const Image image = decode(damaged);
          EXPECT_EQ(static_cast<int64_t>(image.pixels.size()), image.height * image.width * 3);
        } catch (const Error&) {
          SUCCEED();
        }
      }
    }
  }
}

TEST(ReadImage, NamesTheFileThatItCannotRead) {
  const std::string path = ::testing::TempDir() + "/not_a_picture.jpg";
  std::ofstream(path) << "<html>404</html>";
  try {
    read_image(path);
    FAIL() << "read a page as a picture";
  } catch (const Error& error) {
    EXPECT_EQ(std::string(error.what()).rfind(path, 0), 0u) << error.what();
  }
  EXPECT_THROW(read_image(path + ".missing"), Error);
}

TEST(WritePng, GivesBackTheSamePixels) {
  const std::string path = ::testing::TempDir() + "/written.png";
  Image image = Image::make(11, 17);
  for (size_t i = 0; i < image.pixels.size(); ++i) {
    image.pixels[i] = static_cast<uint8_t>(golden::k16(3, static_cast<uint32_t>(i)) >> 8);
  }
  write_png(path, image);
  const Image again = read_image(path);
  EXPECT_EQ(again.height, 11);
  EXPECT_EQ(again.width, 17);
  EXPECT_EQ(again.pixels, image.pixels);
}

TEST(ReadImage, ReadsRealPhotographs) {
  SKIP_WITHOUT_SHARED("data/README.md");
  int64_t pictures = 0;
  for (const auto& entry :
       std::filesystem::recursive_directory_iterator(golden::shared("data/imagenet-subset/val"))) {
    if (!entry.is_regular_file()) continue;
    const Image image = read_image(entry.path().string());
    EXPECT_EQ(image.height, 224);
    EXPECT_EQ(image.width, 224);
    ++pictures;
  }
  EXPECT_EQ(pictures, 60);
}

}  // namespace
}  // namespace rep
