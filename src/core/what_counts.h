#pragma once

#include "core/config.h"
#include "core/json.h"

namespace rep {

/// The configuration without what may change between a run and its resume, because no number
/// depends on it. Two runs of which this is the same are one.
Json what_counts(const Config& config);

}  // namespace rep
