#include "data/completeness.h"

#include <algorithm>
#include <vector>

namespace rep {
namespace {

std::vector<int64_t> images_by_class(const Dataset& dataset) {
  std::vector<int64_t> images(static_cast<size_t>(dataset.num_classes()));
  for (const int64_t label : dataset.labels()) ++images[static_cast<size_t>(label)];
  return images;
}

}  // namespace

Contents contents_of(const Dataset& dataset) {
  Contents contents;
  contents.images = dataset.size();
  for (const int64_t images : images_by_class(dataset)) contents.classes += images > 0;
  for (int64_t i = 0; i < dataset.size(); ++i) {
    const int64_t bytes = dataset.stored_bytes(i);
    contents.bytes += std::max<int64_t>(bytes, 0);
    if (bytes < 0 && contents.lost++ == 0) contents.first_lost = i;
  }
  return contents;
}

std::string lacking(const Dataset& dataset, const OfficialCounts& official,
                    const std::string& name) {
  const std::string set = "the " + name + " set ";
  if (official.images > 0 && dataset.size() > official.images) {
    return set + "has " + std::to_string(dataset.size()) + " images, more than the published " +
           std::to_string(official.images);
  }
  const std::vector<int64_t> by_class = images_by_class(dataset);
  std::string text;
  if (dataset.size() < official.images) {
    text = std::to_string(official.images - dataset.size()) + " of " +
           std::to_string(official.images) + " images";
  }
  const auto shortest = std::min_element(by_class.begin(), by_class.end());
  if (shortest != by_class.end() && *shortest < official.per_class) {
    const auto classes = std::count_if(by_class.begin(), by_class.end(),
                                       [&](int64_t n) { return n < official.per_class; });
    text += (text.empty() ? "" : ": ") + std::string("images of ") + std::to_string(classes) +
            (classes == 1 ? " class, '" : " classes, most of '") +
            dataset.class_names()[static_cast<size_t>(shortest - by_class.begin())] +
            "', which has " + std::to_string(*shortest) + " of " +
            std::to_string(official.per_class);
  }
  return text.empty() ? "" : set + "is a part of the published one; it lacks " + text;
}

}  // namespace rep
