#pragma once

#include <cstdint>

#include "core/config.h"
#include "data/dataset.h"
#include "data/stream.h"

// The streams whose tasks share classes: parts of cut_into_tasks (data/stream.h).
namespace rep {

/// Each domain of the data set is one task, with all classes, in stream.domain_order: natural (by
/// name), seed, or a list of their numbers. Throws Error for a data set of one domain, and for a
/// domain without training or test images.
Stream cut_by_domain(const Dataset& train, const Dataset& test, const StreamConfig& config,
                     int64_t seed);

/// stream.kind blurry, by data/blurry_cut.h. Task t has the labels of all classes that any task up
/// to it shows, in the order of the first task that does; its test images are those of the classes
/// that it is the first to show.
Stream cut_blurred(const Dataset& train, const Dataset& test, const StreamConfig& config,
                   int64_t seed);

}  // namespace rep
