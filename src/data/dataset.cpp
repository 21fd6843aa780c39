#include "data/dataset.h"

#include <utility>

#include "core/error.h"
#include "core/hash.h"
#include "core/utf8.h"

namespace rep {
namespace {

/// The first images of every class, in stored order.
class FirstOfEachClass : public Dataset {
 public:
  FirstOfEachClass(std::unique_ptr<Dataset> whole, int64_t limit)
      : whole_(std::move(whole)), limit_(limit) {
    std::vector<int64_t> kept(static_cast<size_t>(whole_->num_classes()));
    const auto& labels = whole_->labels();
    for (size_t i = 0; i < labels.size(); ++i) {
      if (++kept[static_cast<size_t>(labels[i])] > limit) continue;
      labels_.push_back(labels[i]);
      indices_.push_back(static_cast<int64_t>(i));
    }
  }

  const std::vector<int64_t>& labels() const override { return labels_; }
  const std::vector<std::string>& class_names() const override { return whole_->class_names(); }
  std::vector<bool> sequence_starts() const override {
    const std::vector<bool> whole = whole_->sequence_starts();
    std::vector<bool> starts;
    for (size_t i = 0; !whole.empty() && i < indices_.size(); ++i) {
      starts.push_back(whole[static_cast<size_t>(indices_[i])]);
    }
    return starts;
  }
  int64_t side() const override { return whole_->side(); }
  int64_t stored_bytes(int64_t index) const override {
    return whole_->stored_bytes(indices_.at(static_cast<size_t>(index)));
  }
  Image image(int64_t index) const override {
    return whole_->image(indices_.at(static_cast<size_t>(index)));
  }
  void part(int64_t index, const Wanted& wanted, ImagePart& out) const override {
    whole_->part(indices_.at(static_cast<size_t>(index)), wanted, out);
  }
  std::string fingerprint() const override {
    return whole_->fingerprint_of(indices_, "limit " + std::to_string(limit_));
  }
  std::vector<std::string> notes() const override { return whole_->notes(); }

 private:
  std::unique_ptr<Dataset> whole_;
  int64_t limit_;
  std::vector<int64_t> labels_, indices_;
};

}  // namespace

void Dataset::part(int64_t index, const Wanted& wanted, ImagePart& out) const {
  out = {image(index), 0, 0};
  wanted(out.pixels.height, out.pixels.width);
}

std::string Dataset::fingerprint_of(const std::vector<int64_t>&, const std::string& choice) const {
  return sha256_of_text(fingerprint() + " " + choice);
}

std::unique_ptr<Dataset> open_dataset(const Section& section, Split split, int64_t seed) {
  const DatasetKind& kind = Registry<DatasetKind>::get().at(section.name).value;
  const Json options = kind.options(section).effective;
  const char* const key = split == Split::kTrain ? "limit_train" : "limit_test";
  const auto limit = options.value(key, int64_t{0});
  auto dataset = kind.open(section, split, seed);
  for (const std::string& name : dataset->class_names()) {
    if (is_utf8(name)) continue;
    throw Error("dataset: the class '" + printable(name) +
                "' is not named in UTF-8, so that no result can hold its name; rename it (convmv "
                "-f latin1 -t utf8 does that for whole folders)");
  }
  if (limit == 0) return dataset;
  return std::make_unique<FirstOfEachClass>(std::move(dataset), limit);
}

}  // namespace rep
