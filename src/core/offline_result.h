#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace rep {

/// offline_accuracies (core/metrics.h) of the result.json at `path`, a complete run of tasks of
/// these classes whose accuracies are of those images (tested_images() in run/session.h). Throws
/// Error when it is not there, no such result, or of other tasks or images.
std::vector<double> read_offline_result(const std::string& path,
                                        const std::vector<std::vector<int64_t>>& classes,
                                        const std::string& tested);

}  // namespace rep
