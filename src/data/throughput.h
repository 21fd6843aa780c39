#pragma once

#include <cstdint>

#include "data/augment.h"
#include "data/dataset.h"

namespace rep {

/// What making network inputs of a data set's images costs: milliseconds of one thread's processor
/// time an image (so other processes do not count, nor does waiting for a disk), of the quickest
/// pass over the images and of the median pass.
struct Throughput {
  int64_t images = 0;  // a pass
  double best_ms = 0, median_ms = 0;
  double stored_ms =
      0;  // of the quickest pass: getting what the view needs, decoded where it is a file
};

/// Times `passes` passes, after one that only warms up, over at most `images` images spread evenly
/// over the set: Transform::fetch(), then apply(), as a worker of the loader calls them. Throws
/// Error for an empty set and what fetch() throws.
Throughput time_view(const Dataset& dataset, const Transform& transform, int64_t images,
                     int64_t passes, uint64_t seed);

}  // namespace rep
