#pragma once

#include <string>
#include <vector>

#include "core/config.h"

namespace rep {

/// load_config, then the options of `dataset` and `method` read by whoever registered them, and the
/// checks that need more than one field. A configuration that passes fails later only for its data.
/// Throws Error.
Config read_experiment(const std::string& path, const std::vector<std::string>& overrides = {});
/// A configuration of that data set and method with every option at its default; of those that this
/// build does not know, the name alone.
Config defaults_of(const std::string& dataset, const std::string& method);
/// The second half alone, for a Config that was not read from a file.
void resolve_sections(Config& config);

}  // namespace rep
