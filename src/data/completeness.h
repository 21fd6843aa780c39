#pragma once

#include <cstdint>
#include <string>

#include "data/dataset.h"

namespace rep {

/// What an opened split holds.
struct Contents {
  int64_t images = 0;
  int64_t classes = 0;      // that have an image
  int64_t bytes = 0;        // as stored, without lists and names
  int64_t lost = 0;         // images whose file is not there,
  int64_t first_lost = -1;  // the first of them
};
Contents contents_of(const Dataset& dataset);

/// "", or a sentence that says what the split lacks of the published one: how many images, and the
/// class that is shortest. A part of a data set is as good as any other to learn from, so this is
/// for a note. `name`: "training", "test".
std::string lacking(const Dataset& dataset, const OfficialCounts& official,
                    const std::string& name);

}  // namespace rep
