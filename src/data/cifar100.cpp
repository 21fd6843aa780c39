#include <filesystem>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include "core/error.h"
#include "core/files.h"
#include "core/hash.h"
#include "data/dataset.h"

// CIFAR-100 (Krizhevsky 2009) in its official binary layout: train.bin and test.bin are records of
// a coarse label, a fine label (the one used) and 32 x 32 pixels as a red, a green and a blue
// plane. Files of fewer records than the official ones are fine.

namespace rep {
namespace {

constexpr int64_t kSide = 32, kPlane = kSide * kSide, kRecord = 2 + 3 * kPlane, kClasses = 100;

struct Cifar100Options : DatasetOptions {
  Cifar100Options() { root = "datasets/cifar-100-binary"; }
  template <class Visitor>
  void fields(Visitor&& visit) {
    common_fields(visit);
  }
};

/// The fine labels' names; their numbers where the file is missing.
std::vector<std::string> read_class_names(const std::string& path) {
  std::vector<std::string> names;
  if (!std::filesystem::exists(path)) {
    for (int64_t i = 0; i < kClasses; ++i) names.push_back(std::to_string(i));
    return names;
  }
  std::istringstream words(read_file(path, 1 << 20));
  for (std::string word; words >> word;) names.push_back(word);
  if (static_cast<int64_t>(names.size()) != kClasses) {
    throw Error(absolute_path(path) + ": holds " + std::to_string(names.size()) +
                " class names instead of 100; take the file of the official archive or remove it");
  }
  return names;
}

std::string records_path(const std::string& root, Split split) {
  const std::string path = root + (split == Split::kTrain ? "/train.bin" : "/test.bin");
  if (!std::filesystem::exists(path)) {
    throw Error(absolute_path(path) +
                ": not there; set dataset.root to the folder of CIFAR-100's binary version " +
                "(train.bin, test.bin, fine_label_names.txt)");
  }
  return path;
}

class Cifar100 : public Dataset {
 public:
  Cifar100(const std::string& root, Split split)
      : file_(records_path(root, split)),
        class_names_(read_class_names(root + "/fine_label_names.txt")) {
    const auto bytes = static_cast<int64_t>(file_.size());
    if (bytes == 0 || bytes % kRecord != 0) {
      throw Error(absolute_path(file_.path()) + ": the record at byte " +
                  std::to_string(bytes - bytes % kRecord) + " is cut short (" +
                  std::to_string(bytes % kRecord) + " bytes of 3074); fetch the file again");
    }
    labels_.reserve(static_cast<size_t>(bytes / kRecord));
    for (int64_t i = 0; i < bytes / kRecord; ++i) {
      const int64_t label = file_.data()[i * kRecord + 1];
      if (label >= kClasses) {
        throw Error(absolute_path(file_.path()) + ": record " + std::to_string(i) +
                    " has the fine label " + std::to_string(label) +
                    ", beyond 99; this is not a CIFAR-100 file");
      }
      labels_.push_back(label);
    }
  }

  const std::vector<int64_t>& labels() const override { return labels_; }
  const std::vector<std::string>& class_names() const override { return class_names_; }

  int64_t side() const override { return kSide; }
  int64_t stored_bytes(int64_t) const override { return kRecord; }
  Image image(int64_t index) const override {
    Image image = Image::make(kSide, kSide);
    const uint8_t* const planes = file_.data() + index * kRecord + 2;
    for (int64_t i = 0; i < kPlane; ++i) {
      for (int64_t c = 0; c < 3; ++c) {
        image.pixels[static_cast<size_t>(i * 3 + c)] = planes[c * kPlane + i];
      }
    }
    return image;
  }

  std::string fingerprint() const override {
    Sha256 hash;
    hash.update(file_.data(), file_.size());
    return hash.hex();
  }

 private:
  MappedFile file_;
  std::vector<std::string> class_names_;
  std::vector<int64_t> labels_;
};

StandIn stand_in(const Section& section) {
  const auto options = read_section<Cifar100Options>(section);
  YAML::Node node(YAML::NodeType::Map);
  node["name"] = "synthetic";
  node["classes"] = kClasses;
  node["train_per_class"] = 500;
  node["test_per_class"] = 100;
  node["image_size"] = kSide;
  node["limit_train"] = options.limit_train;
  node["limit_test"] = options.limit_test;
  return {Section{"synthetic", node, section.where, {}},
          "dataset: CIFAR-100 is not there; 100 classes of 500 and 100 synthetic images stand in"};
}

const Registered<DatasetKind> kCifar100{
    "cifar100",
    "Krizhevsky, Learning Multiple Layers of Features from Tiny Images, 2009",
    {[](const Section& section, Split split, int64_t) -> std::unique_ptr<Dataset> {
       return std::make_unique<Cifar100>(read_section<Cifar100Options>(section).root, split);
     },
     [](const Section& section) { return section_json<Cifar100Options>(section); },
     describe_fields<Cifar100Options>,
     [](const Section&, Split split) {
       return split == Split::kTrain ? OfficialCounts{50000, 500} : OfficialCounts{10000, 100};
     },
     stand_in}};

}  // namespace
}  // namespace rep
