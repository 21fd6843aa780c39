#pragma once

#include <nlohmann/json.hpp>
#include <string>

namespace rep {

/// Keys keep the order in which they were written, so that results read in the documented order.
using Json = nlohmann::ordered_json;

/// As text, whatever bytes its strings hold: what is not UTF-8 (a file's name may be anything)
/// becomes U+FFFD. On one line, or with `indent` blanks a level.
inline std::string to_text(const Json& json, int indent = -1) {
  return json.dump(indent, ' ', /*ensure_ascii=*/false, Json::error_handler_t::replace);
}

}  // namespace rep
