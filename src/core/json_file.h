#pragma once

#include <string>

#include "core/json.h"

namespace rep {

/// The JSON in `text`, which came from `path`; null where it is none. Throws Error when it is
/// nested more than 32 deep: what reads or prints it recurses.
Json parse_json(const std::string& text, const std::string& path);

/// What a JSON file (a result, a list of runs) holds; as parse_json() has it. Throws Error when
/// it cannot be read or has over 64 MiB, too.
Json read_json_file(const std::string& path);

}  // namespace rep
