#pragma once

#include <cstdint>

#include "data/augment.h"
#include "data/dataset.h"

namespace rep {

/// A contact sheet.
struct Preview {
  static constexpr int64_t kSide = 112;  // of a picture on the sheet, pixels
  static constexpr int64_t kImages = 4;  // a class at most, from left to right
  static constexpr int64_t kClasses = 60, kColumns = 4;
  static constexpr int64_t kTitle = 20;  // height of a class's name, above its images
  static constexpr int64_t kGap = 8;     // between classes, and around them

  Image sheet;
  int64_t classes_left_out = 0;
};

/// The first images of each class, row by row with the class names, as the network sees them:
/// `view` before the normalisation, scaled to one side for all. Throws Error when an image cannot
/// be had.
Preview preview(const Dataset& dataset, const Transform& view);

}  // namespace rep
