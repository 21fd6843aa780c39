#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "core/config.h"
#include "core/registry.h"
#include "data/image.h"

namespace rep {

enum class Split { kTrain, kTest };

/// Labelled images in a fixed order. image() may be called from several threads at once.
class Dataset {
 public:
  virtual ~Dataset() = default;
  int64_t size() const { return static_cast<int64_t>(labels().size()); }
  int64_t num_classes() const { return static_cast<int64_t>(class_names().size()); }
  virtual const std::vector<int64_t>& labels() const = 0;  // [size], in 0..num_classes-1
  virtual const std::vector<std::string>& class_names() const = 0;
  /// Of frames of videos: whether each image begins one, which then goes on to the next beginning.
  /// [size], or empty where images are not frames.
  virtual std::vector<bool> sequence_starts() const { return {}; }
  /// Of images of several domains (styles, seasons, cameras): each one's, in the order of
  /// domain_names(). [size], or empty where there is but one.
  virtual std::vector<int64_t> domains() const { return {}; }
  virtual std::vector<std::string> domain_names() const { return {}; }
  /// Height and width of every image, where all are squares of one size that is known before any is
  /// read; 0 elsewhere.
  virtual int64_t side() const { return 0; }
  /// The image's file below the data set's root; "" where an image is not a file of its own.
  virtual std::string path(int64_t) const { return ""; }
  /// What the image takes on disk: 0 when it is computed, -1 when its file is missing or empty.
  virtual int64_t stored_bytes(int64_t) const { return 0; }
  /// Images before this one were learned from once and are not there any more: they have a place,
  /// a label and no pixels (data/continued.cpp).
  virtual int64_t first_available() const { return 0; }
  /// Throws Error naming the file when the image cannot be had.
  virtual Image image(int64_t index) const = 0;
  /// Into `out` at least the wanted part of image(index), where that is quicker no more. Throws
  /// what image() and `wanted` throw.
  virtual void part(int64_t index, const Wanted& wanted, ImagePart& out) const;
  /// A hash of what the set contains (images, labels, names; a generator's parameters): "same data"
  /// between runs.
  virtual std::string fingerprint() const = 0;
  /// The same of a choice of its images, which `choice` describes.
  virtual std::string fingerprint_of(const std::vector<int64_t>& images,
                                     const std::string& choice) const;
  /// Sentences about what was found and left out when the set was opened.
  virtual std::vector<std::string> notes() const { return {}; }
};

/// What a complete split is published to hold; 0: not known.
struct OfficialCounts {
  int64_t images = 0;
  int64_t per_class = 0;  // of every class at least
};

/// Images that can be had at once, for `rep plan` where a data set's are not there.
struct StandIn {
  Section section;
  std::string note;  // a sentence that says what stands in for what
};

struct DatasetKind {
  static constexpr const char* kKind = "dataset";
  /// Reads the options and opens the split; `seed` is the run's. Throws Error.
  std::unique_ptr<Dataset> (*open)(const Section& section, Split split, int64_t seed);
  /// The effective options, defaults filled in; throws Error on unknown keys.
  SectionOptions (*options)(const Section& section);
  /// The options (describe_fields).
  Json (*describe)();
  /// Of the split that these options choose, where it was published; null: of none.
  OfficialCounts (*official)(const Section& section, Split split) = nullptr;
  /// What costs the same to learn; null: nothing that is known without the images.
  StandIn (*stand_in)(const Section& section) = nullptr;
  /// What a result says of weights of that file on this data set, "" for nothing.
  std::string (*weights_note)(const std::string& weights) = nullptr;
};

/// Looks section.name up, opens the split and applies `limit_train` / `limit_test`: the first N
/// images of each class in stored order. Throws Error, also for a class whose name is not UTF-8,
/// which no result could hold.
std::unique_ptr<Dataset> open_dataset(const Section& section, Split split, int64_t seed);

/// What a run trains on and what it tests on.
struct Splits {
  std::unique_ptr<Dataset> train, test;
};

/// Both splits. With a share in stream.validation the test split is not opened: `test` is then that
/// share of each class's training images, to the nearest whole number but at least one, drawn by
/// the seed, and `train` is the rest, at least one image a class. Throws Error, also for a class of
/// one training image.
Splits open_splits(const Config& config);

/// Every data set's options hold these; its struct derives from it and its fields() begins with
/// common_fields(visit).
struct DatasetOptions {
  std::string root;
  int64_t limit_train = 0, limit_test = 0;
  template <class Visitor>
  void common_fields(Visitor&& visit) {
    visit("root", root, path_of_input, doc("Folder of the data set."));
    visit("limit_train", limit_train, at_least(0),
          doc("First training images kept of each class (in each domain); 0: all.", "images"));
    visit("limit_test", limit_test, at_least(0),
          doc("First test images kept of each class (in each domain); 0: all.", "images"));
  }
};

}  // namespace rep
