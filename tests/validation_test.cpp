// A share of the training images that is tested on in place of the test images.
#include <cmath>
#include <map>
#include <set>

#include "core/config.h"
#include "core/identity.h"
#include "core/registry.h"
#include "data/completeness.h"
#include "tests/image_sets.h"

namespace rep {
namespace {

/// A small instance of a data set, every image different from every other, and what holds its test
/// images alone.
struct Drawn {
  std::string yaml;
  std::vector<std::string> test_files;
};

/// Classes a and b with 8 images in train and 4 in `test`, below root.
Drawn draw_tree(const std::string& kind, const std::string& test, const std::string& more) {
  const std::string root = fresh_folder("validation_" + kind);
  uint8_t seed = 0;
  for (const char* name : {"a", "b"}) {
    for (int i = 0; i < 8; ++i) {
      put(root + "/train/" + name + "/" + std::to_string(i) + ".png", picture(5, 5, ++seed));
    }
    for (int i = 0; i < 4; ++i) {
      put(root + "/" + test + "/" + name + "/" + std::to_string(i) + ".png", picture(5, 5, ++seed));
    }
  }
  return {"{name: " + kind + ", root: '" + root + "'" + more + "}", {root + "/" + test}};
}

std::string cifar_records(int64_t count, int first_byte) {
  std::string records;
  for (int64_t i = 0; i < count; ++i) {
    records += std::string{'\0', static_cast<char>(i % 2)};
    records += std::string(3072, static_cast<char>(first_byte + static_cast<int>(i)));
  }
  return records;
}

Drawn draw_cifar100() {
  const std::string root = fresh_folder("validation_cifar100");
  write_text(root + "/train.bin", cifar_records(16, 0));
  write_text(root + "/test.bin", cifar_records(8, 100));
  return {"{name: cifar100, root: '" + root + "'}", {root + "/test.bin"}};
}

/// Two videos of four frames of each of two classes.
Drawn draw_stream51() {
  const std::string root = fresh_folder("validation_stream51");
  Json train = Json::array(), test = Json::array();
  const Json size{5, 5, 3}, box{5, 0, 5, 0};
  for (int i = 0; i < 16; ++i) {
    const std::string path = "train/" + std::to_string(i) + ".png";
    put(root + "/" + path, picture(5, 5, static_cast<uint8_t>(i)));
    train.push_back({i / 8, i / 4, 0, i % 4, size, box, path});
  }
  for (int i = 0; i < 4; ++i) {
    const std::string path = "test/" + std::to_string(i) + ".png";
    put(root + "/" + path, picture(5, 5, static_cast<uint8_t>(100 + i)));
    test.push_back({i / 2, size, box, path});
  }
  write_text(root + "/Stream-51_meta_train.json", train.dump());
  write_text(root + "/Stream-51_meta_test.json", test.dump());
  return {"{name: stream51, root: '" + root + "'}",
          {root + "/test", root + "/Stream-51_meta_test.json"}};
}

/// Two domains of classes a and b, with 4 images each in train and 2 in test.
Drawn draw_domains() {
  const std::string root = fresh_folder("validation_domain_folder");
  uint8_t seed = 0;
  for (const char* path : {"/x/a/", "/x/b/", "/y/a/", "/y/b/"}) {
    for (int i = 0; i < 4; ++i) {
      put(root + "/train" + path + std::to_string(i) + ".png", picture(5, 5, ++seed));
      if (i < 2) put(root + "/test" + path + std::to_string(i) + ".png", picture(5, 5, ++seed));
    }
  }
  return {"{name: domain_folder, root: '" + root + "'}", {root + "/test"}};
}

/// A class of synthetic images that a run learned, and another that it goes on with.
Drawn make_continued() {
  const auto of_class = [](int class_id) {
    return "{name: synthetic, classes: 1, first_class: " + std::to_string(class_id) +
           ", train_per_class: 8, test_per_class: 4, image_size: 16}";
  };
  const auto train = open(of_class(0), Split::kTrain), test = open(of_class(0), Split::kTest);
  return {"{name: continued, before: " + of_class(0) + ", added: " + of_class(1) +
              ", class_names: ['" + train->class_names()[0] +
              "'], fingerprint: " + train->fingerprint() + "-" + test->fingerprint() +
              ", train_images: [8], test_images: [4]}",
          {}};
}

/// Of every data set that there is; a new one wants its entry here.
std::map<std::string, Drawn> every_kind() {
  return {{"synthetic",
           {"{name: synthetic, classes: 2, train_per_class: 8, test_per_class: 4, image_size: 16}",
            {}}},
          {"cifar100", draw_cifar100()},
          {"continued", make_continued()},
          {"stream51", draw_stream51()},
          {"domain_folder", draw_domains()},
          {"image_folder", draw_tree("image_folder", "test", "")},
          {"imagenet_subset", draw_tree("imagenet_subset", "val", ", definition: present")}};
}

Config config_of(const std::string& yaml, double validation, int64_t seed = 42) {
  Config config;
  config.dataset = section(yaml);
  config.stream.validation = validation;
  config.seed = seed;
  return config;
}

using Pixels = std::multiset<std::vector<uint8_t>>;
Pixels pixels_of(const Dataset& data) {
  Pixels all;
  for (int64_t i = 0; i < data.size(); ++i) all.insert(data.image(i).pixels);
  return all;
}

std::vector<int64_t> images_by_class(const Dataset& data) {
  std::vector<int64_t> images(static_cast<size_t>(data.num_classes()));
  for (const int64_t label : data.labels()) ++images[static_cast<size_t>(label)];
  return images;
}

TEST(Validation, HoldsNoTestImageOfAnyDataSet) {
  std::map<std::string, Drawn> drawn = every_kind();
  for (const auto& [name, kind] : Registry<DatasetKind>::get().entries()) {
    SCOPED_TRACE(name);
    ASSERT_EQ(drawn.count(name), 1U) << "draw an instance of it";
    const auto train = open(drawn[name].yaml, Split::kTrain);
    const Pixels test = pixels_of(*open(drawn[name].yaml, Split::kTest));
    ASSERT_EQ(train->size(), 16);
    const Splits splits = open_splits(config_of(drawn[name].yaml, 0.25));
    EXPECT_EQ(splits.test->size(), 4) << "a quarter of 8, of two classes";
    EXPECT_EQ(splits.train->size(), 12);
    Pixels both = pixels_of(*splits.train);
    for (const auto& image : pixels_of(*splits.test)) {
      EXPECT_EQ(test.count(image), 0U) << "a test image";
      EXPECT_EQ(both.count(image), 0U) << "in both halves";
    }
    both.merge(pixels_of(*splits.test));
    EXPECT_EQ(both, pixels_of(*train)) << "an image is lost, or is not one of training";
    EXPECT_EQ(images_by_class(*splits.test)[0], 2);
    EXPECT_EQ(images_by_class(*splits.test)[1], 2);
  }
}

TEST(Validation, DoesNotOpenTheTestImages) {
  for (const auto& [name, drawn] : every_kind()) {
    SCOPED_TRACE(name);
    for (const std::string& file : drawn.test_files) std::filesystem::remove_all(file);
    const Splits splits = open_splits(config_of(drawn.yaml, 0.25));
    EXPECT_FALSE(splits.test->fingerprint().empty());
    EXPECT_EQ(pixels_of(*splits.test).size(), 4U);
  }
}

TEST(Validation, IsAFunctionOfTheSeed) {
  const std::string yaml = "{name: synthetic, classes: 3, train_per_class: 20, image_size: 16}";
  const auto share = [&](int64_t seed) { return open_splits(config_of(yaml, 0.2, seed)); };
  EXPECT_EQ(share(1).test->fingerprint(), share(1).test->fingerprint());
  EXPECT_EQ(pixels_of(*share(1).test), pixels_of(*share(1).test));
  EXPECT_NE(share(1).test->fingerprint(), share(2).test->fingerprint());
  EXPECT_NE(pixels_of(*share(1).test), pixels_of(*share(2).test));
  EXPECT_NE(share(1).test->fingerprint(), share(1).train->fingerprint());
}

TEST(Validation, TakesTheNearestNumberOfEachClassAndLeavesBothSidesOne) {
  const std::string root = fresh_folder("validation_sizes");
  const std::pair<const char*, int> classes[] = {{"a", 2}, {"b", 3}, {"c", 7}, {"d", 20}};
  for (const auto& [name, images] : classes) {
    for (int i = 0; i < images; ++i) {
      put(root + "/train/" + name + "/" + std::to_string(i) + ".png");
    }
    put(root + "/test/" + name + "/0.png");
  }
  const std::string yaml = "{name: image_folder, root: '" + root + "'}";
  const auto counts = [&](double share) {
    return images_by_class(*open_splits(config_of(yaml, share)).test);
  };
  // 0.4, 0.6, 1.4 and 4 images, then 1.8, 2.7, 6.3 and 18.
  EXPECT_EQ(counts(0.2), (std::vector<int64_t>{1, 1, 1, 4}));
  EXPECT_EQ(counts(0.9), (std::vector<int64_t>{1, 2, 6, 18}));
}

TEST(Validation, RefusesAClassOfOneTrainingImage) {
  const std::string root = fresh_folder("validation_single");
  for (const char* path : {"/train/ant/0", "/train/ant/1", "/train/bee/0", "/test/ant/0"}) {
    put(root + path + ".png");
  }
  try {
    open_splits(config_of("{name: image_folder, root: '" + root + "'}", 0.2));
    ADD_FAILURE() << "was accepted";
  } catch (const Error& error) {
    EXPECT_EQ(std::string(error.what()),
              "stream.validation: class 'bee' has one training image, which cannot be for training "
              "and for validation; add images, or set validation to 0");
  }
}

TEST(Validation, TakesItsShareOfTheImagesThatALimitKeeps) {
  const std::string yaml =
      "{name: synthetic, classes: 2, train_per_class: 50, image_size: 16, limit_train: 10}";
  const Splits splits = open_splits(config_of(yaml, 0.3));
  EXPECT_EQ(images_by_class(*splits.test), (std::vector<int64_t>{3, 3}));
  EXPECT_EQ(images_by_class(*splits.train), (std::vector<int64_t>{7, 7}));
}

TEST(Validation, LeavesAVideoItsBeginningThoughTheFirstFrameIsGone) {
  const Drawn drawn = draw_stream51();
  const auto whole = open(drawn.yaml, Split::kTrain);
  for (int64_t seed = 0; seed < 8; ++seed) {
    const Splits splits = open_splits(config_of(drawn.yaml, 0.5, seed));
    const Pixels kept = pixels_of(*splits.train);
    const std::vector<bool> starts = splits.train->sequence_starts();
    std::vector<bool> expected;  // the first of each video's frames that is left
    for (int64_t i = 0, video = -1; i < whole->size(); ++i) {
      if (kept.count(whole->image(i).pixels) == 0) continue;
      expected.push_back(i / 4 != video);
      video = i / 4;
    }
    EXPECT_EQ(starts, expected) << seed;
  }
}

TEST(Validation, IsPartOfARunsIdentity) {
  const Json without = identity(parse_config("name: x", "test"));
  const Json none = identity(parse_config("stream: {validation: 0}", "test"));
  const Json some = identity(parse_config("stream: {validation: 0.2}", "test"));
  EXPECT_EQ(first_difference(without, none), "");
  EXPECT_EQ(first_difference(without, some), "stream.validation was 0.0 and is 0.2");
  EXPECT_THROW(parse_config("stream: {validation: 0.95}", "test"), Error);
  EXPECT_THROW(parse_config("stream: {validation: -0.1}", "test"), Error);
}

}  // namespace
}  // namespace rep
