#pragma once

#include <string>

#include "core/json.h"

namespace rep {

/// What a JSON file (a result, a list of runs) holds; null where that is not JSON. Throws Error
/// when it cannot be read, has over 64 MiB or is nested more than 32 deep.
Json read_json_file(const std::string& path);

}  // namespace rep
