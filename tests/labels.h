#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "data/dataset.h"

namespace rep {

/// Only labels: `per_class` images of each class, a class after the other in turn.
class Labels : public Dataset {
 public:
  Labels(int64_t classes, int64_t per_class) {
    for (int64_t i = 0; i < classes * per_class; ++i) labels_.push_back(i % classes);
    for (int64_t c = 0; c < classes; ++c) names_.push_back("class " + std::to_string(c));
  }
  const std::vector<int64_t>& labels() const override { return labels_; }
  const std::vector<std::string>& class_names() const override { return names_; }
  Image image(int64_t) const override { return Image::make(1, 1); }
  std::string fingerprint() const override { return "labels"; }

 private:
  std::vector<int64_t> labels_;
  std::vector<std::string> names_;
};

}  // namespace rep
