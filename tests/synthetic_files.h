#pragma once

#include <cstdio>
#include <filesystem>
#include <string>
#include <vector>

#include "data/dataset.h"
#include "tests/image_sets.h"

namespace rep {

/// Writes the split's images as FOLDER/CLASS/NUMBER.png, of the classes [first, last). The classes'
/// names sort as they are numbered: "00 solid red disc".
inline void write_images(const Dataset& images, const std::string& folder, int64_t first,
                         int64_t last) {
  std::vector<int64_t> written(static_cast<size_t>(images.num_classes()));
  for (int64_t i = 0; i < images.size(); ++i) {
    const int64_t label = images.labels()[static_cast<size_t>(i)];
    if (label < first || label >= last) continue;
    char number[16], file[16];
    std::snprintf(number, sizeof number, "%02d ", static_cast<int>(label));
    std::snprintf(file, sizeof file, "/%04d.png",
                  static_cast<int>(written[static_cast<size_t>(label)]++));
    put(folder + "/" + number + images.class_names()[static_cast<size_t>(label)] + file,
        images.image(i));
  }
}

}  // namespace rep
