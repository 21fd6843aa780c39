#pragma once

#include <cstdint>
#include <string>

#include "core/json.h"

namespace rep {

/// "1.25 G", "17.6 M": three significant digits with a decimal prefix.
std::string human(double value);

/// 5717416 -> "5,717,416"
std::string grouped(int64_t count);

/// JSON on one line for the terminal, text without its quotes: control characters and anything but
/// ASCII escaped, as files that others made may hold anything.
std::string plain(const Json& json);

}  // namespace rep
