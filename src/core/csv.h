#pragma once

#include <string>

namespace rep {

/// A cell of a CSV file (RFC 4180): in quotes where it has to be.
inline std::string csv_cell(const std::string& cell) {
  if (cell.find_first_of(",\"\n\r") == std::string::npos) return cell;
  std::string out = "\"";
  for (const char c : cell) out += c == '"' ? std::string("\"\"") : std::string(1, c);
  return out + "\"";
}

}  // namespace rep
