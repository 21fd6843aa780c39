#pragma once

#include <string>
#include <vector>

#include "data/stream.h"

namespace rep {

/// offline_accuracies (core/metrics.h) of the result.json at `path`, a complete run on the same
/// tasks. Throws Error when it is not there, no such result, or of other tasks.
std::vector<double> read_offline_result(const std::string& path, const Stream& stream);

}  // namespace rep
