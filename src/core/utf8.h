#pragma once

#include <cstdio>
#include <string>

#include "core/json.h"

namespace rep {

/// Whether a result can echo the text: JSON is UTF-8.
inline bool is_utf8(const std::string& text) {
  try {
    Json(text).dump();
    return true;
  } catch (const Json::exception&) {
    return false;
  }
}

/// For messages and results: the text as it is, or with its bytes above 127 as \xE9 where it is not
/// UTF-8 (a file named on another system).
inline std::string printable(const std::string& text) {
  if (is_utf8(text)) return text;
  std::string escaped;
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    char hex[8];
    std::snprintf(hex, sizeof hex, "\\x%02X", byte);
    escaped += byte < 128 ? std::string(1, c) : hex;
  }
  return escaped;
}

}  // namespace rep
