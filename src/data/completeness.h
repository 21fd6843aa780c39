#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "data/dataset.h"

namespace rep {

/// What an opened split holds.
struct Contents {
  int64_t images = 0;
  int64_t classes = 0;         // that have an image
  int64_t bytes = 0;           // as stored, without lists and names
  int64_t missing = 0;         // images whose file is not there or empty,
  int64_t first_missing = -1;  // the first of them
};
Contents contents_of(const Dataset& dataset);

/// "", or a sentence that says what the split lacks of the published one: how many images, and the
/// class that is shortest. An incomplete data set is not an error; report it. `name`: "training",
/// "test".
std::string missing_note(const Dataset& dataset, const OfficialCounts& official,
                         const std::string& name);

/// What every command that learns looks at before its first step. Throws Error for image files that
/// are missing or empty, and for classes without a training or a test image. Returns what is worth
/// a note: what was left out when the sets were opened. `tested`: what the images of `test` are.
std::vector<std::string> check_data(const Dataset& train, const Dataset& test,
                                    const std::string& tested = "test");

/// Decodes every image, by as many threads as there are cores. Returns what is wrong with each that
/// cannot be decoded, in stored order.
std::vector<std::string> broken_images(const Dataset& dataset);

}  // namespace rep
