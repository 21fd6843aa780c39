#include "data/augment.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "core/error.h"
#include "data/image_files.h"
#include "data/resample.h"
#include "tests/golden.h"
#include "tests/golden_images.h"

namespace rep {
namespace {

constexpr int kDraws = 20000;

Image noise(uint32_t seed, int64_t height, int64_t width) {
  Image image = Image::make(height, width);
  for (size_t i = 0; i < image.pixels.size(); ++i) {
    image.pixels[i] =
        static_cast<uint8_t>((golden::k16(seed, static_cast<uint32_t>(i)) + 32768) >> 8);
  }
  return image;
}

/// Every column is of one grey, brighter to the right.
Image ramp(int64_t size) {
  Image image = Image::make(size, size);
  for (size_t i = 0; i < image.pixels.size(); ++i) {
    const auto column = static_cast<int64_t>(i / 3) % size;
    image.pixels[i] = static_cast<uint8_t>(255 * column / (size - 1));
  }
  return image;
}

std::vector<float> apply(const Transform& transform, const Image& image, const Random& random) {
  std::vector<float> out(static_cast<size_t>(3 * transform.size() * transform.size()), -99.0f);
  transform.apply(image, random, out.data());
  return out;
}

struct Moments {
  double sum = 0, squares = 0;
  void add(double x) {
    sum += x;
    squares += x * x;
  }
  double mean() const { return sum / kDraws; }
  double deviation() const { return std::sqrt(squares / kDraws - mean() * mean()); }
};

TEST(Normalisation, HasThePublishedConstants) {
  const Normalisation imagenet = normalisation("imagenet");
  EXPECT_FLOAT_EQ(imagenet.mean[0], 0.485f);
  EXPECT_FLOAT_EQ(imagenet.std[2], 0.225f);
  EXPECT_FLOAT_EQ(normalisation("half").mean[1], 0.5f);
  EXPECT_FLOAT_EQ(normalisation("none").std[1], 1.0f);
  EXPECT_THROW(normalisation("imagnet"), Error);
}

TEST(RandomResizedCrop, IsDistributedAsTorchvisions) {
  // The figures are of 400,000 draws of torchvision's algorithm with numpy's generator; the bounds
  // are four standard errors of 20,000 draws and more.
  Random random({11});
  Moments area, log_ratio, top, left;
  for (int i = 0; i < kDraws; ++i) {
    const Region crop = random_resized_crop(375, 500, 0.08, random);
    ASSERT_GE(crop.top, 0);
    ASSERT_GE(crop.left, 0);
    ASSERT_GE(crop.height, 1);
    ASSERT_GE(crop.width, 1);
    ASSERT_LE(crop.top + crop.height, 375);
    ASSERT_LE(crop.left + crop.width, 500);
    const auto height = static_cast<double>(crop.height), width = static_cast<double>(crop.width);
    area.add(height * width / (375 * 500));
    log_ratio.add(std::log(width / height));
    top.add(static_cast<double>(crop.top));
    left.add(static_cast<double>(crop.left));
    ASSERT_GE(height * width / (375 * 500), 0.079);  // 0.08, but for the rounding of the sides
    ASSERT_LE(std::abs(std::log(width / height)), std::log(4.0 / 3) + 0.02);
  }
  EXPECT_NEAR(area.mean(), 0.4331, 0.007);
  EXPECT_NEAR(area.deviation(), 0.2163, 0.006);
  EXPECT_NEAR(log_ratio.mean(), 0.0307, 0.005);
  EXPECT_NEAR(log_ratio.deviation(), 0.1640, 0.004);
  EXPECT_NEAR(top.mean(), 52.45, 1.6);
  EXPECT_NEAR(left.mean(), 108.97, 2.7);
}

TEST(RandomResizedCrop, TakesTheMiddleWhenNoCropFits) {
  // torchvision's fallback: the side that is too long becomes 4/3 (3/4) of the other.
  Random random({12});
  const auto expect_crop = [&](int64_t height, int64_t width, const Region& expected) {
    const Region crop = random_resized_crop(height, width, 0.05, random);
    EXPECT_EQ(crop.top, expected.top);
    EXPECT_EQ(crop.left, expected.left);
    EXPECT_EQ(crop.height, expected.height);
    EXPECT_EQ(crop.width, expected.width);
  };
  expect_crop(3, 200, {0, 98, 3, 4});
  expect_crop(200, 3, {98, 0, 4, 3});
  expect_crop(1, 1000, {0, 499, 1, 1});
}

TEST(Transform, IsAFunctionOfItsRandomNumbers) {
  const Transform transform("l2p", 32, normalisation("none"), true);
  const Image image = noise(1, 40, 50);
  EXPECT_EQ(transform.view(image, Random({1})).pixels, transform.view(image, Random({1})).pixels);
  EXPECT_NE(transform.view(image, Random({1})).pixels, transform.view(image, Random({2})).pixels);
}

TEST(Transform, DrawsTheCropBeforeTheFlip) {
  // The order of draws is part of the format: with it, a seed means the same in every version.
  const Transform transform("coda", 24, normalisation("none"), true);
  const Image image = noise(2, 32, 32);
  for (uint64_t key = 0; key < 20; ++key) {
    Random random({key});
    const Region crop = random_resized_crop(32, 32, 0.08, random);
    Image expected = resize_region(image, crop, 24, 24, Filter::kBilinear);
    if (random.uniform() < 0.5) golden::flip_horizontally(expected);
    EXPECT_EQ(transform.view(image, Random({key})).pixels, expected.pixels) << key;
  }
}

TEST(Transform, FlipsHalfOfTheTrainingImages) {
  const Transform transform("l2p", 8, normalisation("none"), true);
  const Image image = ramp(32);
  int flipped = 0;
  for (uint64_t key = 0; key < 2000; ++key) {
    const Image view = transform.view(image, Random({key}));
    flipped += view.pixels[0] > view.pixels[7 * 3];
  }
  EXPECT_NEAR(flipped, 1000, 100);  // four standard deviations are 89
}

TEST(Transform, ApplyIsTheNormalisedView) {
  const Image image = noise(3, 32, 32);
  const Normalisation norm = normalisation("imagenet");
  for (const std::string preset : {"l2p", "coda", "crop", "none"}) {
    for (const bool train : {true, false}) {
      const Transform transform(preset, 16, norm, train);
      for (uint64_t key = 0; key < 8; ++key) {
        const Image view = transform.view(image, Random({key}));
        const std::vector<float> out = apply(transform, image, Random({key}));
        for (size_t i = 0; i < out.size(); ++i) {
          const size_t c = i / 256;
          const float pixel = static_cast<float>(view.pixels[i % 256 * 3 + c]);
          ASSERT_NEAR(out[i], (pixel / 255 - norm.mean[c]) / norm.std[c], 1e-6)
              << preset << " " << train << " " << key << " " << i;
        }
      }
    }
  }
}

TEST(Transform, NormalisesEveryByteAsTorchvisionDoesToTheLastBit) {
  Image bytes = Image::make(1, 1);
  for (const char* name : {"none", "imagenet", "cifar", "half"}) {
    const Normalisation norm = normalisation(name);
    // 17 alike: a vector of them and one more.
    const Transform transform("none", 17, norm, /*train=*/false);
    for (int p = 0; p < 256; ++p) {
      bytes.pixels.assign(3, static_cast<uint8_t>(p));
      const std::vector<float> out = apply(transform, bytes, Random({1}));
      for (size_t c = 0; c < 3; ++c) {
        volatile float scaled = static_cast<float>(p) / 255.0f;  // each step rounded
        volatile float centred = scaled - norm.mean[c];
        const float expected = centred / norm.std[c];
        for (size_t i = 0; i < 17 * 17; ++i) {
          ASSERT_EQ(out[c * 17 * 17 + i], expected) << name << " " << p << " " << c << " " << i;
        }
        ASSERT_EQ(transform.values()[256 * c + static_cast<size_t>(p)], expected);
      }
    }
  }
}

TEST(Transform, TestViewsAreResizedThenCroppedAndNeverRandom) {
  const Image image = noise(4, 60, 47);
  const auto view = [&](const char* preset, int64_t size) {
    const Transform transform(preset, size, normalisation("none"), false);
    EXPECT_EQ(transform.view(image, Random({1})).pixels, transform.view(image, Random({2})).pixels);
    return transform.view(image, Random({1})).pixels;
  };
  // Resize(256), 60 x 47 to int(256 * 60 / 47) = 326 x 256; round((326 - 224) / 2) = 51.
  EXPECT_EQ(view("l2p", 224),
            cut_out(resize(image, 326, 256, Filter::kBicubic), {51, 16, 224, 224}).pixels);
  // int(32 * 256 / 224) = 36; int(36 * 60 / 47) = 45; round((45 - 32) / 2) = round(6.5) = 6.
  EXPECT_EQ(view("l2p", 32),
            cut_out(resize(image, 45, 36, Filter::kBicubic), {6, 2, 32, 32}).pixels);
  // int(32 * 60 / 47) = 40.
  EXPECT_EQ(view("coda", 32),
            cut_out(resize(image, 40, 32, Filter::kBilinear), {4, 0, 32, 32}).pixels);
  EXPECT_EQ(view("none", 32), resize(image, 32, 32, Filter::kBicubic).pixels);
}

TEST(Transform, CropShiftsTheImageOverZerosByUpToAnEighth) {
  // Every pixel says where it was: red its row + 1, green its column + 1.
  constexpr int64_t kSide = 32, kMost = 4;
  Image image = Image::make(kSide, kSide);
  for (int64_t y = 0; y < kSide; ++y) {
    for (int64_t x = 0; x < kSide; ++x) {
      uint8_t* pixel = image.pixels.data() + 3 * (y * kSide + x);
      pixel[0] = static_cast<uint8_t>(y + 1);
      pixel[1] = static_cast<uint8_t>(x + 1);
    }
  }
  const Transform transform("crop", kSide, normalisation("none"), true);
  std::map<std::pair<int64_t, int64_t>, int> offsets;
  int flips = 0;
  constexpr int kViews = 8100;  // 100 of each offset
  for (uint64_t key = 0; key < kViews; ++key) {
    const Image view = transform.view(image, Random({key}));
    ASSERT_EQ(view.width, kSide);
    const auto pixel = [&](int64_t y, int64_t x) {
      return view.pixels.data() + 3 * (y * kSide + x);
    };
    // What the middle shows tells offset and flip; with them every pixel is known.
    const bool flip = pixel(16, 16)[1] < pixel(16, 15)[1];
    const auto column = [&](int64_t x) { return flip ? kSide - 1 - x : x; };
    const int64_t top = pixel(16, 16)[0] - 1 - 16, left = pixel(16, column(16))[1] - 1 - 16;
    for (int64_t y = 0; y < kSide; ++y) {
      for (int64_t x = 0; x < kSide; ++x) {
        const int64_t from_y = y + top, from_x = x + left;
        const bool inside = from_y >= 0 && from_y < kSide && from_x >= 0 && from_x < kSide;
        ASSERT_EQ(pixel(y, column(x))[0], inside ? from_y + 1 : 0) << key << " " << y << " " << x;
        ASSERT_EQ(pixel(y, column(x))[1], inside ? from_x + 1 : 0) << key << " " << y << " " << x;
      }
    }
    ASSERT_LE(std::max(std::abs(top), std::abs(left)), kMost);
    ++offsets[{top, left}];
    flips += flip;
  }
  EXPECT_EQ(offsets.size(), 81u) << "not every offset was reached";
  for (const auto& [offset, count] : offsets) {
    EXPECT_NEAR(count, 100, 50) << offset.first << " " << offset.second;  // five deviations
  }
  EXPECT_NEAR(flips, kViews / 2, 180);  // four standard deviations
}

TEST(Transform, CropTestsOnTheImageItself) {
  const Transform transform("crop", 32, normalisation("none"), false);
  const Image image = noise(5, 32, 32), larger = noise(6, 40, 60);
  EXPECT_EQ(transform.view(image, Random({1})).pixels, image.pixels);
  EXPECT_EQ(transform.view(larger, Random({1})).pixels,
            resize(larger, 32, 32, Filter::kBilinear).pixels);
}

TEST(Transform, GivesTheReferencesNetworkInputs) {
  const auto reference = golden::load("data.json");
  int compared = 0;
  for (const auto& c : reference["cases"]) {
    if (c["image"] != "noise") continue;
    std::string preset;
    if (c["op"] == "resize224_bicubic") preset = "none";
    if (c["op"] == "resize256short_bicubic_centercrop224") preset = "l2p";
    if (c["op"] == "resize224_bilinear" && c["h"] == c["w"]) preset = "coda";
    if (preset.empty()) continue;
    const Image image = noise(c["seed"], c["h"], c["w"]);
    for (const auto& [norm, key] :
         {std::pair{"none", "to_tensor_chw"}, std::pair{"imagenet", "imagenet_normalised_chw"}}) {
      SCOPED_TRACE(preset + " " + norm + " " + c["h"].dump());
      const auto& record = c[key];
      const Transform transform(preset, 224, normalisation(norm), false);
      const std::vector<float> out = apply(transform, image, Random({1}));
      double sum = 0, squares = 0;
      for (const double x : out) {
        sum += x;
        squares += x * x;
      }
      EXPECT_NEAR(sum, record["sum"].get<double>(), 2e-3);
      EXPECT_NEAR(std::sqrt(squares) / record["l2"].get<double>(), 1, 1e-7);
      for (size_t i = 0; i < record["first"].size(); ++i) {
        EXPECT_NEAR(out[i], record["first"][i].get<double>(), 1e-7) << i;
      }
      ++compared;
    }
  }
  EXPECT_EQ(compared, 10);
}

TEST(Transform, NamesThePresetsWhenOneIsUnknown) {
  try {
    Transform("lp2", 224, normalisation("none"), true);
    FAIL() << "took a preset that does not exist";
  } catch (const Error& error) {
    EXPECT_STREQ(error.what(), "unknown augmentation 'lp2'; known: l2p, coda, crop, none");
  }
}

}  // namespace
}  // namespace rep
