#include "data/preview.h"

#include <gtest/gtest.h>

#include <array>
#include <set>

#include "core/error.h"
#include "data/completeness.h"

namespace rep {
namespace {

/// Class c has `counts[c]` images of one colour: {c, image's number in its class, 200}.
class Colours : public Dataset {
 public:
  explicit Colours(std::vector<int64_t> counts, int64_t side = 10) : side_(side) {
    for (size_t c = 0; c < counts.size(); ++c) {
      names_.push_back("class " + std::to_string(c));
      for (int64_t i = 0; i < counts[c]; ++i) {
        labels_.push_back(static_cast<int64_t>(c));
        numbers_.push_back(i);
      }
    }
  }
  const std::vector<int64_t>& labels() const override { return labels_; }
  const std::vector<std::string>& class_names() const override { return names_; }
  int64_t stored_bytes(int64_t index) const override { return index == lost ? -1 : 100 + index; }
  Image image(int64_t index) const override {
    if (broken.count(index) > 0) throw Error("image " + std::to_string(index));
    Image image = Image::make(side_, side_);
    for (size_t i = 0; i < image.pixels.size(); i += 3) {
      const auto at = static_cast<size_t>(index);
      image.pixels[i] = static_cast<uint8_t>(labels_[at]);
      image.pixels[i + 1] = static_cast<uint8_t>(numbers_[at]);
      image.pixels[i + 2] = 200;
    }
    return image;
  }
  std::string fingerprint() const override { return "colours"; }
  std::vector<std::string> notes() const override { return {"beside the colours: a painting"}; }
  int64_t lost = -1;
  std::set<int64_t> broken;

 private:
  int64_t side_;
  std::vector<int64_t> labels_, numbers_;
  std::vector<std::string> names_;
};

Transform view(int64_t size) {
  return Transform("none", size, normalisation("imagenet"), /*train=*/false);
}

using Pixel = std::array<int, 3>;

Pixel pixel(const Image& image, int64_t x, int64_t y) {
  const uint8_t* const p = image.pixels.data() + (y * image.width + x) * 3;
  return {p[0], p[1], p[2]};
}

TEST(Preview, ShowsTheFirstImagesOfEveryClassUnnormalised) {
  for (const int64_t size : {16, 300}) {  // enlarged and shrunk
    const Preview sheet = preview(Colours({6, 2, 0, 1, 3}), view(size));
    EXPECT_EQ(sheet.classes_left_out, 0);
    // Four columns of 4 x 112 pixels with gaps of 8; two rows of 20 + 112.
    ASSERT_EQ(sheet.sheet.width, 8 + 4 * (448 + 8));
    ASSERT_EQ(sheet.sheet.height, 8 + 2 * (132 + 8));
    const auto shown = [&](int64_t label, int64_t image) {
      return pixel(sheet.sheet, 8 + label % 4 * 456 + image * 112 + 56,
                   8 + label / 4 * 140 + 20 + 56);
    };
    const Pixel white{255, 255, 255};
    EXPECT_EQ(shown(0, 0), (Pixel{0, 0, 200}));
    EXPECT_EQ(shown(0, 3), (Pixel{0, 3, 200}));
    EXPECT_EQ(shown(1, 1), (Pixel{1, 1, 200}));
    EXPECT_EQ(shown(1, 2), white) << "class 1 has two images";
    EXPECT_EQ(shown(2, 0), white);
    EXPECT_EQ(shown(3, 0), (Pixel{3, 0, 200}));
    EXPECT_EQ(shown(4, 2), (Pixel{4, 2, 200}));
  }
}

TEST(Preview, WritesEveryClassesNameAboveItsImages) {
  const Image sheet = preview(Colours({1, 1}), view(16)).sheet;
  for (const int64_t left : {8, 8 + 456}) {
    int64_t dark = 0;
    for (int64_t y = 8; y < 28; ++y) {
      for (int64_t x = left; x < left + 448; ++x) dark += pixel(sheet, x, y)[0] < 128;
    }
    EXPECT_GT(dark, 50);
  }
}

TEST(Preview, SaysHowManyClassesAreLeftOut) {
  const Preview sheet = preview(Colours(std::vector<int64_t>(63, 1)), view(16));
  EXPECT_EQ(sheet.classes_left_out, 3);
  EXPECT_EQ(sheet.sheet.height, 8 + 15 * 140);
}

TEST(Completeness, CountsImagesClassesAndBytes) {
  Colours data({2, 0, 1});
  Contents contents = contents_of(data);
  EXPECT_EQ(contents.images, 3);
  EXPECT_EQ(contents.classes, 2);
  EXPECT_EQ(contents.bytes, 100 + 101 + 102);
  EXPECT_EQ(contents.missing, 0);
  data.lost = 1;
  contents = contents_of(data);
  EXPECT_EQ(contents.bytes, 100 + 102);
  EXPECT_EQ(contents.missing, 1);
  EXPECT_EQ(contents.first_missing, 1);
}

TEST(Completeness, SaysWhatIsLackingOfThePublishedSet) {
  const Colours data({5, 3, 4});
  EXPECT_EQ(missing_note(data, {}, "test"), "") << "nothing is known";
  EXPECT_EQ(missing_note(data, {12, 3}, "test"), "");
  EXPECT_EQ(missing_note(data, {15, 5}, "test"),
            "the test set is a part of the published one; it lacks 3 of 15 images: images of 2 "
            "classes, most of 'class 1', which has 3 of 5");
  EXPECT_EQ(missing_note(data, {0, 4}, "training"),
            "the training set is a part of the published one; it lacks images of 1 class, 'class "
            "1', which has 3 of 4");
  EXPECT_EQ(missing_note(data, {11, 0}, "test"),
            "the test set has 12 images, more than the published 11");
}

std::string fault(const Dataset& train, const Dataset& test) {
  try {
    check_data(train, test);
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

TEST(CheckData, RefusesClassesWithoutImages) {
  const Colours whole({2, 3, 1, 1});
  EXPECT_EQ(fault(whole, whole), "");
  EXPECT_EQ(fault(Colours({2, 0, 1, 0}), whole),
            "dataset: no training images of 2 of 4 classes ('class 1', 'class 3'); every class "
            "needs at least one, or must go from both splits");
  EXPECT_EQ(fault(whole, Colours({2, 3, 0, 1})),
            "dataset: no test images of 1 of 4 classes ('class 2'); every class needs at least "
            "one, or must go from both splits");
  EXPECT_NE(fault(Colours({0, 0, 0, 0}), whole).find("no training images of 4 of 4"),
            std::string::npos);
}

TEST(CheckData, RefusesMissingFilesBeforeItLooksAtClasses) {
  const Colours whole({2, 3});
  Colours data({2, 0});
  data.lost = 1;
  EXPECT_NE(fault(data, whole).find("dataset: 1 of 2 training images are missing or empty"),
            std::string::npos);
}

TEST(CheckData, ReturnsWhatWasLeftOutOnce) {
  const Colours data({2, 3});
  EXPECT_EQ(check_data(data, data), (std::vector<std::string>{"beside the colours: a painting"}));
}

TEST(BrokenImages, AreAllFoundInOrder) {
  Colours data({5, 5, 5});
  EXPECT_TRUE(broken_images(data).empty());
  data.broken = {2, 7, 14};
  EXPECT_EQ(broken_images(data), (std::vector<std::string>{"image 2", "image 7", "image 14"}));
}

}  // namespace
}  // namespace rep
