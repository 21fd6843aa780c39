#include <gtest/gtest.h>
#include <yaml-cpp/yaml.h>

#include <filesystem>
#include <fstream>
#include <memory>
#include <string>
#include <vector>

#include "core/error.h"
#include "core/hash.h"
#include "data/dataset.h"
#include "tests/golden.h"

namespace rep {
namespace {

Section section(const std::string& yaml) {
  const YAML::Node node = YAML::Load(yaml);
  return {node["name"].as<std::string>(), node, "test.yaml: dataset", {}};
}

std::string message(const std::string& yaml, Split split) {
  try {
    open_dataset(section(yaml), split, 1);
  } catch (const Error& error) {
    return error.what();
  }
  return "none";
}

/// A folder of its own for every test, emptied first.
class Cifar100Test : public ::testing::Test {
 protected:
  Cifar100Test()
      : root_(::testing::TempDir() + "/cifar100_" +
              ::testing::UnitTest::GetInstance()->current_test_info()->name()) {
    std::filesystem::remove_all(root_);
    std::filesystem::create_directories(root_);
  }
  ~Cifar100Test() override { std::filesystem::remove_all(root_); }

  /// Records whose red, green and blue planes hold r, r + 1, r + 2 for record r, but for the first
  /// pixel of each plane (200, 201, 202) and the last of the top row (100, 101, 102).
  void write_records(const std::string& name, const std::vector<int>& fine_labels) const {
    std::ofstream file(root_ + "/" + name, std::ios::binary);
    for (size_t r = 0; r < fine_labels.size(); ++r) {
      std::string record = {'\x13', static_cast<char>(fine_labels[r])};
      for (size_t c = 0; c < 3; ++c) {
        std::string plane(1024, static_cast<char>(r + c));
        plane[0] = static_cast<char>(200 + c);
        plane[31] = static_cast<char>(100 + c);
        record += plane;
      }
      file << record;
    }
  }

  std::string yaml(const std::string& more = "") const {
    return "{name: cifar100, root: '" + root_ + "'" + more + "}";
  }
  std::unique_ptr<Dataset> open(Split split, const std::string& more = "") const {
    return open_dataset(section(yaml(more)), split, 1);
  }

  std::string root_;
};

TEST_F(Cifar100Test, ReadsFineLabelsAndPlanarPixels) {
  write_records("train.bin", {99, 0, 42});
  const auto dataset = open(Split::kTrain);
  EXPECT_EQ(dataset->labels(), (std::vector<int64_t>{99, 0, 42}));
  EXPECT_EQ(dataset->num_classes(), 100);
  const Image image = dataset->image(2);
  EXPECT_EQ(image.height, 32);
  EXPECT_EQ(image.width, 32);
  EXPECT_EQ(dataset->side(), 32);
  const auto pixel = [&](size_t y, size_t x) {
    const auto first = image.pixels.begin() + static_cast<int64_t>(y * 32 + x) * 3;
    return std::vector<int>(first, first + 3);
  };
  EXPECT_EQ(pixel(0, 0), (std::vector<int>{200, 201, 202}));
  EXPECT_EQ(pixel(0, 31), (std::vector<int>{100, 101, 102}));
  EXPECT_EQ(pixel(1, 0), (std::vector<int>{2, 3, 4}));
  EXPECT_EQ(pixel(31, 31), (std::vector<int>{2, 3, 4}));
}

TEST_F(Cifar100Test, TakesTheSplitsFromTheirFiles) {
  write_records("train.bin", {1, 2, 3});
  write_records("test.bin", {7});
  EXPECT_EQ(open(Split::kTrain)->size(), 3);
  EXPECT_EQ(open(Split::kTest)->labels(), std::vector<int64_t>{7});
}

TEST_F(Cifar100Test, NamesClassesByTheirNumberWithoutTheNameFile) {
  write_records("train.bin", {0});
  EXPECT_EQ(open(Split::kTrain)->class_names()[42], "42");
}

TEST_F(Cifar100Test, RefusesANameFileThatHasNotAHundredNames) {
  write_records("train.bin", {0});
  std::ofstream(root_ + "/fine_label_names.txt") << "apple\naquarium_fish\n";
  EXPECT_NE(message(yaml(), Split::kTrain).find("holds 2 class names"), std::string::npos);
}

TEST_F(Cifar100Test, SaysAtWhichByteATornRecordBegins) {
  write_records("train.bin", {1, 2, 3});
  std::filesystem::resize_file(root_ + "/train.bin", 2 * 3074 + 10);
  const std::string error = message(yaml(), Split::kTrain);
  EXPECT_NE(error.find("train.bin"), std::string::npos) << error;
  EXPECT_NE(error.find("byte 6148"), std::string::npos) << error;
}

TEST_F(Cifar100Test, RefusesAnEmptyFile) {
  write_records("train.bin", {});
  EXPECT_NE(message(yaml(), Split::kTrain).find("byte 0 is cut short"), std::string::npos);
}

TEST_F(Cifar100Test, NamesTheRecordWithALabelBeyondNinetyNine) {
  write_records("train.bin", {1, 99, 100});
  const std::string error = message(yaml(), Split::kTrain);
  EXPECT_NE(error.find("record 2 has the fine label 100"), std::string::npos) << error;
}

TEST_F(Cifar100Test, SaysWhatTheRootMustHold) {
  const std::string error = message(yaml(), Split::kTest);
  EXPECT_NE(error.find("/test.bin: not there; set dataset.root"), std::string::npos) << error;
}

TEST_F(Cifar100Test, IsFingerprintedByItsBytes) {
  write_records("train.bin", {5});
  std::ifstream file(root_ + "/train.bin", std::ios::binary);
  const std::string bytes((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
  EXPECT_EQ(open(Split::kTrain)->fingerprint(), sha256_of_text(bytes));
}

TEST_F(Cifar100Test, LimitKeepsTheFirstImagesOfEachClass) {
  write_records("train.bin", {4, 4, 6, 4, 6, 9});
  const auto two = open(Split::kTrain, ", limit_train: 2, limit_test: 1");
  EXPECT_EQ(two->labels(), (std::vector<int64_t>{4, 4, 6, 6, 9}));
  EXPECT_EQ(two->image(3).pixels, open(Split::kTrain)->image(4).pixels);
  EXPECT_EQ(two->num_classes(), 100);
  EXPECT_EQ(two->side(), 32);
  EXPECT_EQ(open(Split::kTrain, ", limit_train: 1")->labels(), (std::vector<int64_t>{4, 6, 9}));
  EXPECT_NE(two->fingerprint(), open(Split::kTrain)->fingerprint());
}

TEST_F(Cifar100Test, EchoesItsOptionsAndRefusesUnknownOnes) {
  const DatasetKind& kind = Registry<DatasetKind>::get().at("cifar100").value;
  const Json options = kind.options(section("{name: cifar100, limit_test: 3}")).effective;
  EXPECT_EQ(options, Json({{"name", "cifar100"},
                           {"root", "datasets/cifar-100-binary"},
                           {"limit_train", 0},
                           {"limit_test", 3}}));
  EXPECT_NE(message(yaml(", limit_trian: 3"), Split::kTrain).find("limit_train"),
            std::string::npos);
}

TEST(OpenDataset, SuggestsTheNearestNameForAnUnknownOne) {
  EXPECT_NE(message("{name: cifar10}", Split::kTrain).find("did you mean 'cifar100'"),
            std::string::npos);
}

TEST(RealCifar100, HoldsTheSameNumberOfEachClassAndTheOfficialNames) {
  SKIP_WITHOUT_SHARED("data/cifar-100-binary/train.bin");
  const std::string yaml = "{name: cifar100, root: '" + golden::shared("data/cifar-100-binary'}");
  const auto train = open_dataset(section(yaml), Split::kTrain, 1);
  const auto test = open_dataset(section(yaml), Split::kTest, 1);
  std::vector<int> count(100);
  for (const int64_t label : train->labels()) ++count[static_cast<size_t>(label)];
  EXPECT_EQ(count, std::vector<int>(100, 60));
  EXPECT_EQ(test->size(), 2000);
  EXPECT_EQ(train->class_names().front(), "apple");
  EXPECT_EQ(train->class_names().back(), "worm");
  EXPECT_EQ(train->fingerprint(),
            "db4246a8128e74e4f84945a6fe7ce1cdc98aad57ee118e70ff52f15ad7c7be5c");
}

}  // namespace
}  // namespace rep
