#pragma once

#include <string>

namespace rep {

/// "1.25 G", "17.6 M": three significant digits with a decimal prefix.
std::string human(double value);

}  // namespace rep
