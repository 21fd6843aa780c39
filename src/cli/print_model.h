#pragma once

#include <string>

#include "core/json.h"

namespace rep {

/// Whether this is what rep export writes as model.json (run/export.h).
bool is_model(const Json& json);

/// In a form for people. Throws Error, naming `path`, when something is missing.
void print_model(const Json& model, const std::string& path);

}  // namespace rep
