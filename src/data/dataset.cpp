#include "data/dataset.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "core/error.h"
#include "core/hash.h"
#include "core/random.h"
#include "core/utf8.h"

namespace rep {
namespace {

/// Some images of a data set, in stored order.
class ChosenImages : public Dataset {
 public:
  /// `choice` describes them.
  ChosenImages(std::shared_ptr<const Dataset> whole, std::vector<int64_t> indices,
               std::string choice)
      : whole_(std::move(whole)), indices_(std::move(indices)), choice_(std::move(choice)) {
    for (const int64_t i : indices_) labels_.push_back(whole_->labels()[static_cast<size_t>(i)]);
  }

  const std::vector<int64_t>& labels() const override { return labels_; }
  const std::vector<std::string>& class_names() const override { return whole_->class_names(); }
  std::vector<bool> sequence_starts() const override {
    const std::vector<bool> whole = whole_->sequence_starts();
    std::vector<bool> starts;
    size_t next = 0;  // after the image before: a video may have lost the frame that begins it
    for (size_t i = 0; !whole.empty() && i < indices_.size(); ++i) {
      bool begins = false;
      for (; next <= static_cast<size_t>(indices_[i]); ++next) begins = begins || whole[next];
      starts.push_back(begins);
    }
    return starts;
  }
  std::vector<int64_t> domains() const override {
    const std::vector<int64_t> whole = whole_->domains();
    std::vector<int64_t> domains;
    for (size_t i = 0; !whole.empty() && i < indices_.size(); ++i) {
      domains.push_back(whole[static_cast<size_t>(indices_[i])]);
    }
    return domains;
  }
  std::vector<std::string> domain_names() const override { return whole_->domain_names(); }
  int64_t side() const override { return whole_->side(); }
  std::string path(int64_t index) const override {
    return whole_->path(indices_.at(static_cast<size_t>(index)));
  }
  int64_t first_available() const override {
    return std::lower_bound(indices_.begin(), indices_.end(), whole_->first_available()) -
           indices_.begin();
  }
  int64_t stored_bytes(int64_t index) const override {
    return whole_->stored_bytes(indices_.at(static_cast<size_t>(index)));
  }
  Image image(int64_t index) const override {
    return whole_->image(indices_.at(static_cast<size_t>(index)));
  }
  void part(int64_t index, const Wanted& wanted, ImagePart& out) const override {
    whole_->part(indices_.at(static_cast<size_t>(index)), wanted, out);
  }
  std::string fingerprint() const override { return whole_->fingerprint_of(indices_, choice_); }
  std::string fingerprint_of(const std::vector<int64_t>& images,
                             const std::string& choice) const override {
    std::vector<int64_t> of_whole;
    for (const int64_t i : images) of_whole.push_back(indices_.at(static_cast<size_t>(i)));
    return whole_->fingerprint_of(of_whole, choice_ + " " + choice);
  }
  std::vector<std::string> notes() const override { return whole_->notes(); }

 private:
  std::shared_ptr<const Dataset> whole_;
  std::vector<int64_t> indices_, labels_;
  std::string choice_;
};

/// The images of each class in each domain, in stored order: those of class c in domain d are
/// number d times the classes, plus c. Without domains there is one.
std::vector<std::vector<size_t>> groups_of(const Dataset& data) {
  const std::vector<int64_t> domains = data.domains();
  const auto classes = static_cast<size_t>(data.num_classes());
  std::vector<std::vector<size_t>> groups(classes *
                                          std::max<size_t>(1, data.domain_names().size()));
  for (size_t i = 0; i < data.labels().size(); ++i) {
    const size_t domain = domains.empty() ? 0 : static_cast<size_t>(domains[i]);
    groups[domain * classes + static_cast<size_t>(data.labels()[i])].push_back(i);
  }
  return groups;
}

/// The first images of every class, in every domain.
std::unique_ptr<Dataset> first_of_each_class(std::unique_ptr<Dataset> whole, int64_t limit) {
  std::vector<int64_t> kept;
  for (const std::vector<size_t>& group : groups_of(*whole)) {
    const size_t count = std::min(group.size(), static_cast<size_t>(limit));
    kept.insert(kept.end(), group.begin(), group.begin() + static_cast<std::ptrdiff_t>(count));
  }
  std::sort(kept.begin(), kept.end());
  return std::make_unique<ChosenImages>(std::move(whole), std::move(kept),
                                        "limit " + std::to_string(limit));
}

/// By image: whether it is of the share of its class (in its domain) that is kept for validation.
std::vector<bool> draw_validation(const Dataset& train, double share, int64_t seed) {
  std::vector<std::vector<size_t>> groups = groups_of(train);
  const auto classes = static_cast<size_t>(train.num_classes());
  std::vector<bool> kept(train.labels().size());
  for (size_t group = 0; group < groups.size(); ++group) {
    std::vector<size_t>& images = groups[group];
    if (images.empty()) continue;
    if (images.size() == 1) {
      const std::string domain =
          train.domain_names().empty()
              ? ""
              : " in the domain '" + train.domain_names()[group / classes] + "'";
      throw Error("stream.validation: class '" + train.class_names()[group % classes] +
                  "' has one training image" + domain +
                  ", which cannot be for training and for validation; add images, or set "
                  "validation to 0");
    }
    Random({static_cast<uint64_t>(seed), static_cast<uint64_t>(RandomUse::kValidation), group})
        .shuffle(images);
    const auto count = std::clamp<int64_t>(std::llround(share * static_cast<double>(images.size())),
                                           1, static_cast<int64_t>(images.size()) - 1);
    for (int64_t k = 0; k < count; ++k) kept[images[static_cast<size_t>(k)]] = true;
  }
  return kept;
}

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
  return first_of_each_class(std::move(dataset), limit);
}

Splits open_splits(const Config& config) {
  auto train = open_dataset(config.dataset, Split::kTrain, config.seed);
  const double share = config.stream.validation;
  if (share == 0) {
    return {std::move(train), open_dataset(config.dataset, Split::kTest, config.seed)};
  }
  const std::vector<bool> kept = draw_validation(*train, share, config.seed);
  const std::shared_ptr<const Dataset> whole = std::move(train);
  const auto part = [&](bool validation) {
    std::vector<int64_t> indices;
    for (size_t i = 0; i < kept.size(); ++i) {
      if (kept[i] == validation) indices.push_back(static_cast<int64_t>(i));
    }
    return std::make_unique<ChosenImages>(
        whole, std::move(indices),
        std::string(validation ? "validation " : "all but validation ") + Json(share).dump() +
            " seed " + std::to_string(config.seed));
  };
  return {part(false), part(true)};
}

}  // namespace rep
