#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <limits>
#include <memory>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "core/error.h"
#include "core/hash.h"
#include "data/dataset.h"

namespace rep {
namespace {

Section section(const std::string& options) {
  return {"synthetic", YAML::Load("{name: synthetic, " + options + "}"), "test.yaml: dataset", {}};
}

std::unique_ptr<Dataset> open(const std::string& options, Split split = Split::kTrain,
                              int64_t seed = 1) {
  return open_dataset(section(options), split, seed);
}

// Mean absolute difference, of 255.
double difference(const Image& a, const Image& b) {
  EXPECT_EQ(a.pixels.size(), b.pixels.size());
  double sum = 0;
  for (size_t i = 0; i < a.pixels.size(); ++i) sum += std::abs(a.pixels[i] - b.pixels[i]);
  return sum / static_cast<double>(a.pixels.size());
}

// The mean of `per_class` pictures of every class, pixel by pixel.
std::vector<std::vector<double>> class_means(const Dataset& data) {
  std::vector<std::vector<double>> means(static_cast<size_t>(data.num_classes()));
  const double share = static_cast<double>(data.num_classes()) / static_cast<double>(data.size());
  for (int64_t i = 0; i < data.size(); ++i) {
    const Image image = data.image(i);
    auto& mean = means[static_cast<size_t>(data.labels()[static_cast<size_t>(i)])];
    mean.resize(image.pixels.size());
    for (size_t p = 0; p < mean.size(); ++p) mean[p] += share * image.pixels[p];
  }
  return means;
}

size_t nearest(const std::vector<std::vector<double>>& means, const Image& image) {
  size_t best = 0;
  double best_distance = std::numeric_limits<double>::max();
  for (size_t c = 0; c < means.size(); ++c) {
    double distance = 0;
    for (size_t p = 0; p < image.pixels.size(); ++p) {
      const double d = image.pixels[p] - means[c][p];
      distance += d * d;
    }
    if (distance < best_distance) {
      best_distance = distance;
      best = c;
    }
  }
  return best;
}

double nearest_mean_accuracy(const std::string& options) {
  const auto means = class_means(*open(options, Split::kTrain));
  const auto test = open(options, Split::kTest);
  int64_t right = 0;
  for (int64_t i = 0; i < test->size(); ++i)
    right += static_cast<int64_t>(nearest(means, test->image(i))) ==
             test->labels()[static_cast<size_t>(i)];
  return static_cast<double>(right) / static_cast<double>(test->size());
}

TEST(Synthetic, HoldsAsManyImagesAsAskedFor) {
  const std::string options = "classes: 3, train_per_class: 4, test_per_class: 2, image_size: 40";
  const auto train = open(options), test = open(options, Split::kTest);
  EXPECT_EQ(train->labels(), (std::vector<int64_t>{0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2}));
  EXPECT_EQ(test->labels(), (std::vector<int64_t>{0, 0, 1, 1, 2, 2}));
  const Image image = train->image(11);
  EXPECT_EQ(image.height, 40);
  EXPECT_EQ(image.width, 40);
  EXPECT_EQ(train->side(), 40);
  EXPECT_EQ(image.pixels.size(), 40u * 40 * 3);
}

TEST(Synthetic, NamesEveryClassApart) {
  // 12 shapes x 8 textures x 8 colours, of which the first 160 are 8 x 5 x 4.
  const auto data = open("classes: 768, train_per_class: 1");
  const std::set<std::string> names(data->class_names().begin(), data->class_names().end());
  EXPECT_EQ(names.size(), 768u);
  const auto first = open("classes: 160, train_per_class: 1");
  for (const char* name : {"striped red star", "plain blue flower", "ringed gold disc"}) {
    const auto& few = first->class_names();
    EXPECT_EQ(std::count(few.begin(), few.end(), name), 1) << name;
  }
  EXPECT_EQ(names.count("waved violet arrow"), 1u);
}

TEST(Synthetic, DrawsEveryClassApart) {
  // A class's prototype differs from every other's by more than three levels of 255 a pixel; noise
  // at the default difficulty has a deviation of at most seven.
  const auto data = open("classes: 768, train_per_class: 1, difficulty: 0");
  std::vector<Image> prototypes;
  for (int64_t c = 0; c < data->size(); ++c) prototypes.push_back(data->image(c));
  for (size_t a = 0; a < prototypes.size(); ++a) {
    for (size_t b = 0; b < a; ++b) {
      ASSERT_GT(difference(prototypes[a], prototypes[b]), 2.5)
          << data->class_names()[a] << ", " << data->class_names()[b];
    }
  }
}

// The first four are of the program as it was before each draw became a statement of its own, built
// by g++ for x86-64; every compiler and processor gives them now.
TEST(Synthetic, HasTheSameBitsEverywhere) {
  const auto digest = [](const std::string& options, int64_t index) {
    const Image image = open(options)->image(index);
    Sha256 hash;
    hash.update(image.pixels.data(), image.pixels.size());
    return hash.hex();
  };
  const std::string first = "classes: 160, train_per_class: 3";
  EXPECT_EQ(digest(first, 5), "8da9304fabf56e94268b82fead9e2ec2fb54cc4893d32fcbd861f5a151d104f9");
  EXPECT_EQ(digest(first, 242), "62974443c23c5406e74092095643ad0b58cfbbaaf14fe12e06091c9f04ea7764");
  EXPECT_EQ(digest(first, 479), "587933b8f7044752b94dc7817a99d0215399a0f23de092ecdc69ea0fdae9af0b");
  EXPECT_EQ(digest("classes: 160, train_per_class: 2, difficulty: 1, image_size: 64", 242),
            "53ab4ea49e1d108b73e59815939695268baae892cce037d93385ab18c7c7d10b");
  const std::string later = "first_class: 160, classes: 608, train_per_class: 1";
  EXPECT_EQ(digest(later, 0), "985dcf2929b858912d5643427eb8ae2e1f6da48a5ba0dec6bbc4b0842d5ee7a2");
  EXPECT_EQ(digest(later, 401), "cf624bbdf43dca5c909cd5299f5fafb6e0965551e8fbeb4f89288e5436e0a203");
  EXPECT_EQ(digest(later, 607), "3fdf294191ba99538e02cde8674c3be0d5f4a406eeb29ba38598b209b3611368");
}

TEST(Synthetic, DrawsOnlyFromDataSeedSplitClassAndIndex) {
  const std::string options = "classes: 6, train_per_class: 5";
  const auto one = open(options, Split::kTrain, 1), other = open(options, Split::kTrain, 2);
  const auto reseeded = open(options + ", data_seed: 8");
  for (int64_t i = 0; i < one->size(); ++i) {
    EXPECT_EQ(one->image(i).pixels, other->image(i).pixels) << "the run's seed matters";
    EXPECT_NE(one->image(i).pixels, reseeded->image(i).pixels) << "the data's seed does not";
  }
}

TEST(Synthetic, AClassLooksTheSameInEverySlice) {
  const auto table = open("classes: 12, train_per_class: 3");
  const auto slice = open("classes: 4, first_class: 8, train_per_class: 2");
  for (int64_t c = 0; c < 4; ++c) {
    EXPECT_EQ(slice->class_names()[static_cast<size_t>(c)],
              table->class_names()[static_cast<size_t>(8 + c)]);
    for (int64_t i = 0; i < 2; ++i)
      EXPECT_EQ(slice->image(2 * c + i).pixels, table->image(3 * (8 + c) + i).pixels);
  }
}

TEST(Synthetic, IsTheSameFromSeveralThreadsAtOnce) {
  const auto data = open("classes: 8, train_per_class: 8");
  std::vector<Image> alone, together(static_cast<size_t>(data->size()));
  for (int64_t i = 0; i < data->size(); ++i) alone.push_back(data->image(i));
  std::vector<std::thread> threads;
  for (int64_t t = 0; t < 4; ++t)
    threads.emplace_back([&, t] {
      for (int64_t i = t; i < data->size(); i += 4)
        together[static_cast<size_t>(i)] = data->image(i);
    });
  for (std::thread& thread : threads) thread.join();
  for (size_t i = 0; i < alone.size(); ++i) EXPECT_EQ(alone[i].pixels, together[i].pixels);
}

TEST(Synthetic, TrainAndTestShareNoPicture) {
  const std::string options = "classes: 4, train_per_class: 20, test_per_class: 20";
  const auto train = open(options), test = open(options, Split::kTest);
  std::set<std::vector<uint8_t>> seen;
  for (int64_t i = 0; i < train->size(); ++i) seen.insert(train->image(i).pixels);
  EXPECT_EQ(seen.size(), 80u) << "pictures repeat within a split";
  for (int64_t i = 0; i < test->size(); ++i) EXPECT_EQ(seen.count(test->image(i).pixels), 0u) << i;
}

TEST(Synthetic, WithoutDifficultyAClassIsOnePicture) {
  const auto data = open("classes: 20, train_per_class: 2, difficulty: 0");
  std::set<std::vector<uint8_t>> classes;
  for (int64_t c = 0; c < 20; ++c) {
    EXPECT_EQ(data->image(2 * c).pixels, data->image(2 * c + 1).pixels);
    classes.insert(data->image(2 * c).pixels);
  }
  EXPECT_EQ(classes.size(), 20u);
}

TEST(Synthetic, DifficultySpreadsAClass) {
  double last = 0;
  for (const char* difficulty : {"0.1", "0.4", "1"}) {
    const auto data =
        open("classes: 10, train_per_class: 6, difficulty: " + std::string(difficulty));
    double spread = 0;
    for (int64_t c = 0; c < 10; ++c)
      for (int64_t i = 1; i < 6; ++i)
        spread += difference(data->image(6 * c), data->image(6 * c + i)) / 50;
    EXPECT_GT(spread, 1.3 * last) << difficulty;
    last = spread;
  }
}

TEST(Synthetic, RawPixelsTellClassesApartOnlyInPart) {
  const std::string options = "classes: 20, train_per_class: 30, test_per_class: 10, difficulty: ";
  const double chance = 1.0 / 20;
  EXPECT_EQ(nearest_mean_accuracy(options + "0"), 1);
  const double easy = nearest_mean_accuracy(options + "0.3");
  const double hard = nearest_mean_accuracy(options + "1");
  EXPECT_GT(easy, 5 * chance);
  EXPECT_LT(easy, 1);
  EXPECT_GT(hard, 1.5 * chance);
  EXPECT_LT(hard, easy);
}

TEST(Synthetic, FingerprintTellsContentsApart) {
  const std::string options = "classes: 4, train_per_class: 3, test_per_class: 3";
  const std::string print = open(options)->fingerprint();
  EXPECT_EQ(open(options, Split::kTrain, 99)->fingerprint(), print);
  EXPECT_NE(open(options, Split::kTest)->fingerprint(), print);
  EXPECT_NE(open(options + ", difficulty: 0.75")->fingerprint(), print);
  EXPECT_NE(open(options + ", first_class: 4")->fingerprint(), print);
  EXPECT_NE(open(options + ", data_seed: 8")->fingerprint(), print);
}

TEST(Synthetic, RefusesWhatItCannotDraw) {
  EXPECT_THROW(open("classes: 769"), Error);
  EXPECT_THROW(open("classes: 20, first_class: 749"), Error);
  EXPECT_THROW(open("first_class: 9223372036854775807"), Error);
  EXPECT_THROW(open("difficulty: 1.5"), Error);
  EXPECT_THROW(open("image_size: 1000000"), Error);
  EXPECT_THROW(open("train_per_class: 0"), Error);
  EXPECT_THROW(open("colour: mauve"), Error);
  EXPECT_EQ(open("classes: 20, first_class: 748, train_per_class: 1")->num_classes(), 20);
}

}  // namespace
}  // namespace rep
