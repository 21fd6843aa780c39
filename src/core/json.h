#pragma once

#include <nlohmann/json.hpp>

namespace rep {

/// Keys keep the order in which they were written, so that results read in the documented order.
using Json = nlohmann::ordered_json;

}  // namespace rep
