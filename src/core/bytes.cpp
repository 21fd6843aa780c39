#include "core/bytes.h"

#include <array>
#include <charconv>
#include <cmath>
#include <cstdio>
#include <utility>

#include "core/error.h"

namespace rep {

int64_t parse_bytes(const std::string& text, const std::string& where) {
  static constexpr std::array<std::pair<const char*, double>, 11> kUnits{{{"", 1},
                                                                          {"B", 1},
                                                                          {"kB", 1e3},
                                                                          {"KB", 1e3},
                                                                          {"MB", 1e6},
                                                                          {"GB", 1e9},
                                                                          {"TB", 1e12},
                                                                          {"KiB", 0x1p10},
                                                                          {"MiB", 0x1p20},
                                                                          {"GiB", 0x1p30},
                                                                          {"TiB", 0x1p40}}};
  if (text.empty()) return 0;
  double number = 0;
  const auto [rest, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  std::string unit(rest, text.data() + text.size());
  unit.erase(0, unit.find_first_not_of(' ') == std::string::npos ? unit.size()
                                                                 : unit.find_first_not_of(' '));
  for (const auto& [name, factor] : kUnits) {
    const double bytes = number * factor;
    if (error == std::errc() && unit == name && bytes >= 1 && bytes < 0x1p62) {
      return std::llround(bytes);
    }
  }
  throw Error(where + ": '" + text + "' is not a size in bytes; write for example 2GiB or 512MiB");
}

std::string show_bytes(int64_t bytes) {
  static constexpr std::array<const char*, 5> kPrefixes{"", "Ki", "Mi", "Gi", "Ti"};
  auto value = static_cast<double>(bytes);
  size_t prefix = 0;
  while (value >= 1000 && prefix + 1 < kPrefixes.size()) {
    value /= 1024;
    ++prefix;
  }
  char text[32];
  std::snprintf(text, sizeof text, "%.3g %sB", value, kPrefixes[prefix]);
  return text;
}

}  // namespace rep
