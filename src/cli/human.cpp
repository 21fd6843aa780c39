#include "cli/human.h"

#include <array>
#include <cmath>
#include <cstdio>

namespace rep {

std::string human(double value) {
  static constexpr std::array<const char*, 6> kPrefixes{"", "k", "M", "G", "T", "P"};
  size_t prefix = 0;
  while (std::abs(value) >= 999.5 && prefix + 1 < kPrefixes.size()) {
    value /= 1000;
    ++prefix;
  }
  char text[32];
  std::snprintf(text, sizeof text, "%.3g %s", value, kPrefixes[prefix]);
  return text;
}

}  // namespace rep
