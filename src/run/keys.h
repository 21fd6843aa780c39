#pragma once

#include <string>

#include "core/json.h"

namespace rep {

/// Every key of a configuration, as the fields themselves describe it (FieldDescriber), by its
/// dotted name: {"experiment": [fields], "datasets": {"cifar100": [fields]}, "methods": {"l2p":
/// [fields]}}. Options of data sets and methods begin with "dataset." and "method.".
Json configuration_keys();

/// The same a line a key, for a terminal: `train.epochs: 5`, its meaning, its values.
std::string keys_as_text(const Json& keys);
/// docs/configuration.md.
std::string keys_as_markdown(const Json& keys);

/// JSON Schema (draft 7) of a configuration, for editors: configs/rep.schema.json. Stricter than
/// the program where YAML has several ways to say one thing (`yes` for `true`), and otherwise as
/// strict as single keys allow: what only several keys together make wrong is for `rep check`.
Json configuration_schema();

}  // namespace rep
