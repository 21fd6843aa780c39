#pragma once

#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "data/dataset.h"

namespace rep {

/// The classes of a data set whose images are not there: what a finished run can be opened with.
class NoImages final : public Dataset {
 public:
  explicit NoImages(std::vector<std::string> class_names) : names_(std::move(class_names)) {}
  const std::vector<int64_t>& labels() const override { return labels_; }
  const std::vector<std::string>& class_names() const override { return names_; }
  Image image(int64_t) const override { throw std::logic_error("a data set without images"); }
  std::string fingerprint() const override { return ""; }

 private:
  std::vector<std::string> names_;
  std::vector<int64_t> labels_;
};

}  // namespace rep
