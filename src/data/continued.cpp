// Data set `continued`: what a finished run learned from, and behind it a folder of new classes.
// `rep learn` writes its options; a run that goes on a second time has one within the other.
//
// The images of before keep their places, whether they are still there or not: what is keyed by an
// image's index (its augmentation) is then the same as in one run over all. They are only needed
// to test what was learned from them. Of images that are gone, or are not those that were learned,
// only the number is known: their labels go round the classes.
#include <algorithm>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "core/affix.h"
#include "core/error.h"
#include "core/hash.h"
#include "data/dataset.h"

namespace rep {
namespace {

constexpr double kMaxImagesBefore = 1e8;  // of which labels are kept

struct ContinuedOptions {
  Section before, added;
  std::vector<std::string> class_names;
  std::string fingerprint;
  std::vector<int64_t> train_images, test_images;

  template <class Visitor>
  void fields(Visitor&& visit) {
    visit("before", before,
          doc("The finished run's data set and its options; rep learn writes all of these."));
    visit("added", added, doc("The data set of new classes and its options."));
    visit("class_names", class_names, doc("Names of the classes of before."));
    visit("fingerprint", fingerprint, doc("Fingerprints of the splits of before, as TRAIN-TEST."));
    visit("train_images", train_images,
          doc("Training images of each class of before; their sum alone is sure.", "images"));
    visit("test_images", test_images, doc("Test images of each class of before.", "images"));
  }
};

// A name alone, of which the defaults are wanted, has no data sets within.
ContinuedOptions read_continued(const Section& section) {
  auto options = read_section<ContinuedOptions>(section);
  for (Section* inner : {&options.before, &options.added}) {
    if (inner->name.empty()) continue;
    const DatasetKind& kind = Registry<DatasetKind>::get().at(inner->name).value;
    SectionOptions resolved = kind.options(*inner);
    inner->effective = std::move(resolved.effective);
    inner->identity = std::move(resolved.identity);
  }
  return options;
}

ContinuedOptions read_whole(const Section& section) {
  ContinuedOptions options = read_continued(section);
  if (options.before.name.empty() || options.added.name.empty()) {
    throw Error(section.where +
                ": continued takes up another run's data set (before) and a new one (added); rep "
                "learn writes such a configuration");
  }
  for (const auto* counts : {&options.train_images, &options.test_images}) {
    if (counts->size() == options.class_names.size() &&
        std::all_of(counts->begin(), counts->end(), [](int64_t n) { return n >= 0; })) {
      continue;
    }
    throw Error(section.where +
                ": train_images and test_images count the images of each of class_names");
  }
  for (const auto* counts : {&options.train_images, &options.test_images}) {
    double images = 0;
    for (const int64_t n : *counts) images += static_cast<double>(n);
    if (images > kMaxImagesBefore) {
      throw Error(section.where +
                  ": train_images or test_images are more than a data set can have");
    }
  }
  return options;
}

class Continued final : public Dataset {
 public:
  Continued(const ContinuedOptions& options, Split split, int64_t seed)
      : fingerprint_(options.fingerprint),
        names_(options.class_names),
        added_(open_dataset(options.added, split, seed)) {
    open_before(options, split, seed);
    const std::vector<int64_t>& counts =
        split == Split::kTrain ? options.train_images : options.test_images;
    if (before_) {
      labels_ = before_->labels();
    } else {
      for (size_t label = 0; label < counts.size(); ++label) {
        labels_.insert(labels_.end(), static_cast<size_t>(counts[label]),
                       static_cast<int64_t>(label));
      }
    }
    size_before_ = static_cast<int64_t>(labels_.size());
    const auto classes_before = static_cast<int64_t>(names_.size());
    for (const int64_t label : added_->labels()) labels_.push_back(classes_before + label);
    for (const std::string& name : added_->class_names()) names_.push_back(name);
  }

  const std::vector<int64_t>& labels() const override { return labels_; }
  const std::vector<std::string>& class_names() const override { return names_; }
  std::vector<bool> sequence_starts() const override {
    if (!before_) return {};
    std::vector<bool> starts = before_->sequence_starts();
    const std::vector<bool> more = added_->sequence_starts();
    if (starts.empty() || more.empty()) return {};
    starts.insert(starts.end(), more.begin(), more.end());
    return starts;
  }
  int64_t side() const override {
    return before_ && before_->side() == added_->side() ? added_->side() : 0;
  }
  int64_t first_available() const override {
    return before_ ? before_->first_available() : size_before_;
  }
  std::string path(int64_t index) const override {
    if (index >= size_before_) return added_->path(index - size_before_);
    return before_ ? before_->path(index) : "";
  }
  int64_t stored_bytes(int64_t index) const override {
    if (index >= size_before_) return added_->stored_bytes(index - size_before_);
    return before_ ? before_->stored_bytes(index) : 0;
  }
  Image image(int64_t index) const override {
    if (index >= size_before_) return added_->image(index - size_before_);
    return of_before(index).image(index);
  }
  void part(int64_t index, const Wanted& wanted, ImagePart& out) const override {
    if (index >= size_before_) return added_->part(index - size_before_, wanted, out);
    of_before(index).part(index, wanted, out);
  }
  /// Of the data that the run had, whether it is still there or not.
  std::string fingerprint() const override {
    return sha256_of_text(fingerprint_ + " continued " + added_->fingerprint());
  }
  std::vector<std::string> notes() const override {
    std::vector<std::string> notes = before_ ? before_->notes() : std::vector<std::string>{};
    if (!absence_.empty()) notes.push_back(absence_);
    for (std::string& note : added_->notes()) notes.push_back(std::move(note));
    return notes;
  }

 private:
  // before_ stays empty where that split is not the one that was learned, or tested.
  void open_before(const ContinuedOptions& options, Split split, int64_t seed) {
    const std::string what = split == Split::kTest ? "test" : "training";
    try {
      std::unique_ptr<Dataset> found = open_dataset(options.before, split, seed);
      const std::string own = found->fingerprint();
      const bool same = split == Split::kTrain ? fingerprint_.rfind(own + "-", 0) == 0
                                               : ends_with(fingerprint_, "-" + own);
      if (same && found->class_names() == options.class_names) {
        before_ = std::move(found);
        return;
      }
      absence_ = "the " + what + " images at hand are not those of the tasks learned before";
    } catch (const Error& error) {
      absence_ = "the " + what + " images of the tasks learned before are not there (" +
                 std::string(error.what()) + ")";
    }
    // Nobody looks at training images again.
    absence_ = split == Split::kTest ? absence_ + ": what they would test is null" : "";
  }
  const Dataset& of_before(int64_t index) const {
    if (before_) return *before_;
    throw Error("image " + std::to_string(index) +
                " of the tasks learned before is not there any more");
  }

  std::string fingerprint_;
  std::vector<std::string> names_;
  std::vector<int64_t> labels_;
  int64_t size_before_ = 0;
  std::unique_ptr<Dataset> before_, added_;
  std::string absence_;  // why before_ is empty
};

const Registered<DatasetKind> kContinued{
    "continued",
    "a finished run's data set and a folder of new classes, as rep learn joins them",
    {[](const Section& section, Split split, int64_t seed) -> std::unique_ptr<Dataset> {
       return std::make_unique<Continued>(read_whole(section), split, seed);
     },
     [](const Section& section) {
       const ContinuedOptions options = read_continued(section);
       const Json name{{"name", section.name}};
       SectionOptions json{name, name, name};
       json.effective.update(to_json(options));
       json.identity.update(to_json(options, FieldWriter::Which::kIdentity));
       json.defaults.update(to_json(ContinuedOptions(), FieldWriter::Which::kIdentity));
       return json;
     },
     describe_fields<ContinuedOptions>}};

}  // namespace
}  // namespace rep
