#include "data/image.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <opencv2/imgcodecs.hpp>
#include <string>
#include <vector>

#include "core/error.h"
#include "data/image_format.h"
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

// ---- one picture in four formats, with the orientation that its EXIF or TIFF tag says ----

/// Big-endian, as everything below that is not said to be otherwise.
std::vector<uint8_t> number(uint32_t value, int bytes) {
  std::vector<uint8_t> out;
  for (int i = bytes - 1; i >= 0; --i) out.push_back(static_cast<uint8_t>(value >> (8 * i)));
  return out;
}

std::vector<uint8_t> joined(std::initializer_list<std::vector<uint8_t>> parts) {
  std::vector<uint8_t> all;
  for (const auto& part : parts) all.insert(all.end(), part.begin(), part.end());
  return all;
}

std::vector<uint8_t> text(const std::string& letters) { return {letters.begin(), letters.end()}; }

/// A TIFF structure of one entry: tag 0x0112, a short.
std::vector<uint8_t> exif(uint8_t orientation) {
  return joined({text("MM"),
                 number(42, 2),
                 number(8, 4),
                 number(1, 2),
                 number(0x0112, 2),
                 number(3, 2),
                 number(1, 4),
                 {0, orientation, 0, 0},
                 number(0, 4)});
}

std::vector<uint8_t> jpeg_with(uint8_t orientation, const cv::Mat& mat) {
  const auto app1 = joined({text("Exif"), {0, 0}, exif(orientation)});
  auto jpeg = encode(".jpg", mat);
  const auto segment =
      joined({{0xFF, 0xE1}, number(static_cast<uint32_t>(app1.size()) + 2, 2), app1});
  jpeg.insert(jpeg.begin() + 2, segment.begin(), segment.end());
  return jpeg;
}

/// PNG's checksum (RFC 2083, appendix 15).
uint32_t crc_of(const std::vector<uint8_t>& bytes) {
  uint32_t crc = 0xFFFFFFFF;
  for (const uint8_t byte : bytes) {
    crc ^= byte;
    for (int k = 0; k < 8; ++k) crc = crc & 1 ? 0xEDB88320 ^ (crc >> 1) : crc >> 1;
  }
  return crc ^ 0xFFFFFFFF;
}

std::vector<uint8_t> png_with(uint8_t orientation, const cv::Mat& mat) {
  const auto body = exif(orientation);
  const auto named = joined({text("eXIf"), body});
  const auto chunk =
      joined({number(static_cast<uint32_t>(body.size()), 4), named, number(crc_of(named), 4)});
  auto png = encode(".png", mat);
  png.insert(png.begin() + 33, chunk.begin(), chunk.end());  // behind the header's chunk
  return png;
}

std::vector<uint8_t> little(uint32_t value, int bytes) {
  auto out = number(value, bytes);
  std::reverse(out.begin(), out.end());
  return out;
}

std::vector<uint8_t> webp_with(uint8_t orientation, const cv::Mat& mat) {
  std::vector<uint8_t> plain;
  cv::imencode(".webp", mat, plain, {cv::IMWRITE_WEBP_QUALITY, 101});  // lossless
  const std::vector<uint8_t> pixels(plain.begin() + 12, plain.end());
  const auto body = exif(orientation);
  const auto extended = joined({text("VP8X"),
                                little(10, 4),
                                {0x08, 0, 0, 0},
                                little(static_cast<uint32_t>(mat.cols) - 1, 3),
                                little(static_cast<uint32_t>(mat.rows) - 1, 3)});
  const auto chunks = joined({text("WEBP"), extended, pixels, text("EXIF"),
                              little(static_cast<uint32_t>(body.size()), 4), body});
  return joined({text("RIFF"), little(static_cast<uint32_t>(chunks.size()), 4), chunks});
}

/// Uncompressed: the header, the directory, bits a sample, the pixels.
std::vector<uint8_t> tiff_with(uint8_t orientation, const cv::Mat& mat) {
  const auto rows = static_cast<uint32_t>(mat.rows), columns = static_cast<uint32_t>(mat.cols);
  const uint32_t entries = 10, bits_at = 8 + 2 + 12 * entries + 4, pixels_at = bits_at + 6;
  const auto entry = [](uint32_t tag, uint32_t type, uint32_t count, uint32_t value) {
    const auto held =
        type == 3 && count == 1 ? joined({number(value, 2), {0, 0}}) : number(value, 4);
    return joined({number(tag, 2), number(type, 2), number(count, 4), held});
  };
  std::vector<uint8_t> pixels;
  for (int y = 0; y < mat.rows; ++y) {
    for (int x = 0; x < mat.cols; ++x) {
      const auto bgr = mat.at<cv::Vec3b>(y, x);
      pixels.insert(pixels.end(), {bgr[2], bgr[1], bgr[0]});
    }
  }
  return joined({text("MM"), number(42, 2), number(8, 4), number(entries, 2),
                 entry(256, 4, 1, columns), entry(257, 4, 1, rows), entry(258, 3, 3, bits_at),
                 entry(259, 3, 1, 1), entry(262, 3, 1, 2), entry(273, 4, 1, pixels_at),
                 entry(274, 3, 1, orientation), entry(277, 3, 1, 3), entry(278, 4, 1, rows),
                 entry(279, 4, 1, static_cast<uint32_t>(pixels.size())), number(0, 4), number(8, 2),
                 number(8, 2), number(8, 2), pixels});
}

using Encoder = std::vector<uint8_t> (*)(uint8_t, const cv::Mat&);
const std::vector<std::pair<std::string, Encoder>> kEncoders{
    {"JPEG", jpeg_with}, {"PNG", png_with}, {"WebP", webp_with}, {"TIFF", tiff_with}};

/// The red of the four corners' quarters: A, B above, C, D below.
std::string quarters(const Image& image) {
  std::string found;
  for (const auto& [y, x] : {std::pair{1, 1}, {1, 3}, {3, 1}, {3, 3}}) {
    const int red = pixel(image, y * image.height / 4, x * image.width / 4)[0];
    found += red < 40 ? 'A' : red < 120 ? 'B' : red < 200 ? 'C' : 'D';
  }
  return found;
}

cv::Mat four_quarters() {
  cv::Mat mat(32, 64, CV_8UC3);
  mat(cv::Rect(0, 0, 32, 16)) = cv::Scalar::all(0);
  mat(cv::Rect(32, 0, 32, 16)) = cv::Scalar::all(80);
  mat(cv::Rect(0, 16, 32, 16)) = cv::Scalar::all(160);
  mat(cv::Rect(32, 16, 32, 16)) = cv::Scalar::all(240);
  return mat;
}

// TIFF 6.0, page 36: which side of the picture the stored first row and column are.
TEST(Decode, TurnsEveryFormatAsItsOrientationSays) {
  const std::vector<std::string> expected{"ABCD", "BADC", "DCBA", "CDAB",
                                          "ACBD", "CADB", "DBCA", "BDAC"};
  for (const auto& [name, encoder] : kEncoders) {
    for (uint8_t orientation = 1; orientation <= 8; ++orientation) {
      SCOPED_TRACE(name + " " + std::to_string(orientation));
      const Image image = decode(encoder(orientation, four_quarters()));
      EXPECT_EQ(image.height, orientation < 5 ? 32 : 64);
      EXPECT_EQ(quarters(image), expected[orientation - 1U]);
    }
  }
}

TEST(Decode, LeavesEveryFormatAsItIsStoredWhenTold) {
  for (const auto& [name, encoder] : kEncoders) {
    for (uint8_t orientation = 1; orientation <= 8; ++orientation) {
      SCOPED_TRACE(name + " " + std::to_string(orientation));
      const auto file = encoder(orientation, four_quarters());
      ImagePart part;
      decode_part(
          file.data(), file.size(), "picture", ExifOrientation::kIgnore,
          [](int64_t height, int64_t width) {
            return Region{0, 0, height, width};
          },
          part);
      EXPECT_EQ(part.pixels.height, 32);
      EXPECT_EQ(quarters(part.pixels), "ABCD");
    }
  }
}

TEST(Decode, ReadsWhateverItsEndingsPromise) {
  const cv::Mat mat = four_quarters();
  for (const std::string ending : {".jpg", ".jpeg", ".jpe", ".png", ".bmp", ".dib", ".webp", ".tif",
                                   ".tiff", ".ppm", ".pgm", ".pnm", ".jp2"}) {
    SCOPED_TRACE(ending);
    EXPECT_TRUE(has_image_ending("a/b" + ending));
    cv::Mat grey;
    cv::extractChannel(mat, grey, 0);
    EXPECT_EQ(quarters(decode(encode(ending, ending == ".pgm" ? grey : mat))), "ABCD");
  }
  EXPECT_TRUE(has_image_ending("a.JFIF"));  // JPEG by another name
  for (const char* other : {"a.txt", "a", ".png", "a.png.zip", "a.exr", "jpg"}) {
    EXPECT_FALSE(has_image_ending(other)) << other;
  }
  // GIF is read where OpenCV (4.11 and later) reads it.
  const std::vector<uint8_t> gif = {'G', 'I', 'F', '8', '9', 'a', 1, 0,    1, 0, 0x80, 0,
                                    0,   0,   0,   0,   1,   1,   1, ',',  0, 0, 0,    0,
                                    1,   0,   1,   0,   0,   2,   2, 0x44, 1, 0, ';'};
  const Quiet quiet;
  EXPECT_EQ(has_image_ending("a.gif"), !cv::imdecode(gif, cv::IMREAD_COLOR).empty());
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

  for (std::vector<uint8_t> tiff : {tiff_with(1, cv::Mat(4, 4, CV_8UC3, cv::Scalar(0)))}) {
    tiff[8 + 2 + 9] = 1;       // the width in the first entry's last four bytes,
    tiff[8 + 2 + 12 + 9] = 1;  // the height in the second's
    EXPECT_NE(decoding_error(tiff).find("65540 x 65540"), std::string::npos);
  }
  EXPECT_NE(decoding_error(text("P6 # large\n 70000 70000 255 ")).find("70000 x 70000"),
            std::string::npos);
  std::vector<uint8_t> jp2 = encode(".jp2", cv::Mat(64, 64, CV_8UC3, cv::Scalar(0)));
  const std::string box = "ihdr";
  const auto extent = std::search(jp2.begin(), jp2.end(), box.begin(), box.end());
  ASSERT_NE(extent, jp2.end());
  extent[5] = extent[9] = 1;  // height and width behind the name
  EXPECT_NE(decoding_error(jp2).find("65600 x 65600"), std::string::npos) << decoding_error(jp2);

  const std::string canvas = "RIFF....WEBPVP8X\x0A...\x10...\xFF\xFF\xFF\xFF\xFF\xFF";
  const std::vector<uint8_t> webp(canvas.begin(), canvas.end());
  EXPECT_NE(decoding_error(webp).find("16777216 x 16777216"), std::string::npos);
}

TEST(Decode, RefusesFilesCutShortAndFilesThatAreNoPictures) {
  for (const std::string format : {".png", ".jpg", ".webp"}) {
    SCOPED_TRACE(format);
    std::vector<uint8_t> bytes = encode(format, halves(64, 64, {10, 100, 200}, {250, 40, 30}));
    bytes.resize(bytes.size() * 3 / 4);
    EXPECT_NE(decoding_error(bytes).find("picture: not a whole image"), std::string::npos);
  }
  const std::vector<std::vector<uint8_t>> no_pictures = {
      {'h', 'e', 'l', 'l', 'o'}, {0xFF, 0xD8, 0xFF}, {'B', 'M'}};
  for (const auto& bytes : no_pictures) {
    EXPECT_NE(decoding_error(bytes).find("picture: not a whole image"), std::string::npos);
  }
}

TEST(Decode, SaysThatAFileIsEmpty) {
  EXPECT_NE(decoding_error({}).find("picture: the file is empty"), std::string::npos);
}

TEST(Decode, SurvivesEveryDamagedByteOfAHeader) {
  // What is damaged either still decodes to a picture of sane size or is an Error; nothing else.
  const Quiet quiet;
  for (const std::string format : {".png", ".jpg", ".webp", ".bmp", ".tif", ".ppm", ".jp2"}) {
    const int side = format == ".jp2" ? 64 : 8;  // the least that OpenCV writes
    const std::vector<uint8_t> whole =
        encode(format, halves(side, side, {10, 100, 200}, {250, 40, 30}));
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
