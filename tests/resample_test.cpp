#include "data/resample.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <string>
#include <utility>
#include <vector>

#include "data/image_files.h"
#include "tests/golden_images.h"

namespace rep {
namespace {

Image resize_and_center_crop(const Image& image, int64_t shorter_side, int64_t size,
                             Filter filter) {
  Image out = Image::make(size, size);
  resize(image, 0, 0, resizing_to_center(image.height, image.width, shorter_side, size, filter),
         out);
  return out;
}

Image golden_operation(const std::string& name, Image image) {
  if (name == "resize224_bilinear") return resize(image, 224, 224, Filter::kBilinear);
  if (name == "resize224_bicubic") return resize(image, 224, 224, Filter::kBicubic);
  if (name == "resize256short_bicubic_centercrop224") {
    return resize_and_center_crop(image, 256, 224, Filter::kBicubic);
  }
  if (name == "resize256short_bilinear_centercrop224") {
    return resize_and_center_crop(image, 256, 224, Filter::kBilinear);
  }
  if (name == "resized_crop_top5_left7_h20_w18_to224_bilinear") {
    return resize_region(image, {5, 7, 20, 18}, 224, 224, Filter::kBilinear);
  }
  EXPECT_EQ(name, "hflip");
  golden::flip_horizontally(image);
  return image;
}

/// A picture of one row of grey pixels.
Image grey_row(const std::vector<uint8_t>& values) {
  Image image = Image::make(1, static_cast<int64_t>(values.size()));
  for (size_t i = 0; i < image.pixels.size(); ++i) image.pixels[i] = values[i / 3];
  return image;
}

std::vector<int> pixel(const Image& image, int64_t y, int64_t x) {
  const auto first = image.pixels.begin() + (y * image.width + x) * 3;
  return {first, first + 3};
}

TEST(Resize, EqualsPillowToTheLastBit) {
  const auto reference = golden::load("data.json");
  ASSERT_EQ(reference["cases"].size(), 24u);
  for (const auto& c : reference["cases"]) {
    SCOPED_TRACE(c["image"].get<std::string>() + " " + c["h"].dump() + " " + c["op"].dump());
    const Image image =
        golden_operation(c["op"], golden::image(c["image"], c["seed"], c["h"], c["w"]));
    ASSERT_EQ(image.width, c["size_wh"][0].get<int64_t>());
    ASSERT_EQ(image.height, c["size_wh"][1].get<int64_t>());
    int64_t sum = 0, squares = 0;
    for (const int64_t p : image.pixels) {
      sum += p;
      squares += p * p;
    }
    EXPECT_EQ(sum, c["sum"].get<int64_t>());
    EXPECT_EQ(squares, c["sum_sq"].get<int64_t>());
    const auto middle = image.pixels.begin() + image.height / 2 * image.width * 3;
    EXPECT_EQ(std::vector<int>(image.pixels.begin(), image.pixels.begin() + 16),
              c["first16"].get<std::vector<int>>());
    EXPECT_EQ(std::vector<int>(middle, middle + 16), c["row_mid_first16"].get<std::vector<int>>());
  }
}

TEST(Resize, LeavesAPictureOfThatSizeAsItIs) {
  const Image image = golden::image("noise", 7, 9, 13);
  EXPECT_EQ(resize(image, 9, 13, Filter::kBicubic).pixels, image.pixels);
  EXPECT_EQ(resize(image, 9, 13, Filter::kBilinear).pixels, image.pixels);
}

TEST(Resize, AveragesWhatItShrinks) {
  // A triangle of half-width 2 around x = 2 weighs four pixels at distances 1.5 .5 .5 1.5 by
  // .25 .75 .75 .25 over 2, of which the outer image edge cuts none.
  const Image image = resize(grey_row({0, 80, 160, 240}), 1, 1, Filter::kBilinear);
  EXPECT_EQ(pixel(image, 0, 0), (std::vector<int>{120, 120, 120}));
}

TEST(Resize, ReadsNothingOutsideTheRegion) {
  Image image = Image::make(8, 8);
  std::fill(image.pixels.begin(), image.pixels.end(), uint8_t{255});
  for (int64_t y = 2; y < 6; ++y) {
    for (int64_t x = 3; x < 5; ++x) std::fill_n(image.pixels.begin() + (y * 8 + x) * 3, 3, 9);
  }
  const Image out = resize_region(image, {2, 3, 4, 2}, 16, 16, Filter::kBicubic);
  EXPECT_EQ(out.pixels, std::vector<uint8_t>(16 * 16 * 3, 9));
}

// Pillow's arithmetic once more, a pixel at a time and in the plainest order: weights in double
// precision, rounded to 22 bits after the binary point, sums rounded to a byte after each pass.
uint8_t weighted(const std::vector<int>& values, int64_t out, int64_t out_size, Filter filter) {
  const auto in_size = static_cast<double>(values.size());
  const double scale = in_size / static_cast<double>(out_size), wide = std::max(scale, 1.0);
  const double radius = (filter == Filter::kBilinear ? 1 : 2) * wide;
  const double center = (static_cast<double>(out) + 0.5) * scale;
  const auto first = static_cast<size_t>(std::max(center - radius + 0.5, 0.0));
  const auto last = static_cast<size_t>(std::min(center + radius + 0.5, in_size));
  std::vector<double> weights;
  double total = 0;
  for (size_t i = first; i < last; ++i) {
    const double x = std::abs((static_cast<double>(i) - center + 0.5) * (1 / wide));
    const double bilinear = x < 1 ? 1 - x : 0;
    const double bicubic = x < 1   ? ((-0.5 + 2) * x - (-0.5 + 3)) * x * x + 1
                           : x < 2 ? (((x - 5) * x + 8) * x - 4) * -0.5
                                   : 0;
    weights.push_back(filter == Filter::kBilinear ? bilinear : bicubic);
    total += weights.back();
  }
  int64_t sum = int64_t{1} << 21;
  for (size_t i = first; i < last; ++i) {
    sum += values[i] * std::llround(weights[i - first] / total * (1 << 22));
  }
  return static_cast<uint8_t>(std::clamp<int64_t>(sum >> 22, 0, 255));
}

Image resized_plainly(const Image& image, int64_t height, int64_t width, Filter filter) {
  const auto byte = [](auto& picture, int64_t y, int64_t x, int64_t c) -> auto& {
    return picture.pixels[static_cast<size_t>((y * picture.width + x) * 3 + c)];
  };
  Image across = Image::make(image.height, width), out = Image::make(height, width);
  std::vector<int> line;
  for (int64_t c = 0; c < 3; ++c) {
    for (int64_t y = 0; y < image.height; ++y) {
      line.clear();
      for (int64_t x = 0; x < image.width; ++x) line.push_back(byte(image, y, x, c));
      for (int64_t x = 0; x < width; ++x) byte(across, y, x, c) = weighted(line, x, width, filter);
    }
    for (int64_t x = 0; x < width; ++x) {
      line.clear();
      for (int64_t y = 0; y < image.height; ++y) line.push_back(byte(across, y, x, c));
      for (int64_t y = 0; y < height; ++y) byte(out, y, x, c) = weighted(line, y, height, filter);
    }
  }
  return out;
}

// Sides around the sizes at which the fast loops change their way: 16 bytes, 32 rows, 256 pixels,
// 7 weights; extreme ratios; regions at every edge.
TEST(Resize, EqualsThePlainArithmeticForEverySizeAndRegion) {
  const std::vector<std::vector<int64_t>> cases = {
      {1, 1, 5, 7},     {1, 1, 1, 1},       {2, 5, 33, 17},    {15, 6, 8, 5},
      {16, 16, 31, 33}, {31, 5, 32, 100},   {32, 32, 224, 9},  {33, 300, 20, 41},
      {40, 700, 3, 21}, {65, 257, 64, 224}, {700, 40, 12, 96}, {3, 2000, 4, 1},
      {2000, 3, 1, 4},  {100, 513, 50, 256}};
  for (const auto& c : cases) {
    SCOPED_TRACE(::testing::PrintToString(c));
    const Region region{2, 3, c[0], c[1]};
    for (const int64_t margin : {0, 4}) {  // 0: the region ends where the picture's memory ends
      const Image image = golden::image("noise", 5, c[0] + 2 + margin, c[1] + 3 + margin);
      for (const Filter filter : {Filter::kBilinear, Filter::kBicubic}) {
        EXPECT_EQ(resize_region(image, region, c[2], c[3], filter).pixels,
                  resized_plainly(cut_out(image, region), c[2], c[3], filter).pixels);
      }
    }
  }
}

TEST(ResizeAndCenterCrop, ShowsTheMiddleOfTheWholeResize) {
  // torchvision: the longer side becomes int(48 * 101 / 75) = int(64.64), the crop begins at
  // round((48 - 33) / 2) = round(7.5) = 8 and round((64 - 33) / 2) = round(15.5) = 16.
  const Image landscape = golden::image("noise", 6, 75, 101);
  const Image portrait = golden::image("noise", 7, 101, 75);
  for (const Filter filter : {Filter::kBilinear, Filter::kBicubic}) {
    EXPECT_EQ(resize_and_center_crop(landscape, 48, 33, filter).pixels,
              cut_out(resized_plainly(landscape, 48, 64, filter), {8, 16, 33, 33}).pixels);
    EXPECT_EQ(resize_and_center_crop(portrait, 48, 33, filter).pixels,
              cut_out(resized_plainly(portrait, 64, 48, filter), {16, 8, 33, 33}).pixels);
  }
}

TEST(ResizeAndCenterCrop, RoundsHalvesToTheEvenOffset) {
  // (5 - 2) / 2 = 1.5 -> 2 and (7 - 2) / 2 = 2.5 -> 2, as Python's round().
  Image image = Image::make(5, 7);
  for (int64_t y = 0; y < 5; ++y) {
    for (int64_t x = 0; x < 7; ++x) {
      image.pixels[static_cast<size_t>((y * 7 + x) * 3)] = static_cast<uint8_t>(10 * y + x);
    }
  }
  const Image crop = resize_and_center_crop(image, 5, 2, Filter::kBilinear);
  EXPECT_EQ(pixel(crop, 0, 0)[0], 22);
  EXPECT_EQ(pixel(crop, 1, 1)[0], 33);
}

TEST(ResizeAndCenterCrop, TakesAPictureOfAnyElongation) {
  // Resized whole, either would fill three gigabytes.
  Image image = Image::make(1, 4000000);
  std::fill(image.pixels.begin(), image.pixels.end(), uint8_t{7});
  const std::vector<uint8_t> expected(224 * 224 * 3, 7);
  EXPECT_EQ(resize_and_center_crop(image, 256, 224, Filter::kBicubic).pixels, expected);
  std::swap(image.height, image.width);
  EXPECT_EQ(resize_and_center_crop(image, 256, 224, Filter::kBicubic).pixels, expected);
}

}  // namespace
}  // namespace rep
