#pragma once

#include <nlohmann/json.hpp>
#include <string>

namespace rep {

/// What is wrong with `value` under the part of JSON Schema (draft 7) that results/schema.json
/// uses: type, enum, const, required, properties, additionalProperties, items, minimum, maximum,
/// $ref into the schema itself. "" when nothing is.
inline std::string schema_violation(const nlohmann::json& value, const nlohmann::json& schema,
                                    const nlohmann::json& root, const std::string& path = "$") {
  using nlohmann::json;
  if (schema.is_boolean()) return schema.get<bool>() ? "" : path + ": is not allowed";
  if (schema.contains("$ref")) {
    const std::string pointer = schema.at("$ref").get<std::string>().substr(1);
    return schema_violation(value, root.at(json::json_pointer(pointer)), root, path);
  }
  const auto is_type = [&](const std::string& type) {
    if (type == "integer") return value.is_number_integer();
    if (type == "number") return value.is_number();
    if (type == "string") return value.is_string();
    if (type == "boolean") return value.is_boolean();
    if (type == "array") return value.is_array();
    if (type == "null") return value.is_null();
    return type == "object" && value.is_object();
  };
  if (schema.contains("type")) {
    const json types = schema["type"].is_array() ? schema["type"] : json::array({schema["type"]});
    bool matches = false;
    for (const auto& type : types) matches |= is_type(type);
    if (!matches) return path + ": is no " + types.dump() + " but " + value.dump().substr(0, 60);
  }
  if (schema.contains("const") && value != schema["const"]) return path + ": is another constant";
  if (schema.contains("enum")) {
    bool listed = false;
    for (const auto& choice : schema["enum"]) listed |= choice == value;
    if (!listed) return path + ": " + value.dump() + " is not in the enum";
  }
  if (value.is_number()) {
    if (schema.contains("minimum") && value.get<double>() < schema["minimum"].get<double>()) {
      return path + ": is below the minimum";
    }
    if (schema.contains("maximum") && value.get<double>() > schema["maximum"].get<double>()) {
      return path + ": is above the maximum";
    }
  }
  if (value.is_array() && schema.contains("items")) {
    for (size_t i = 0; i < value.size(); ++i) {
      const std::string wrong =
          schema_violation(value[i], schema["items"], root, path + "[" + std::to_string(i) + "]");
      if (!wrong.empty()) return wrong;
    }
  }
  if (!value.is_object()) return "";
  for (const auto& key : schema.value("required", json::array())) {
    if (!value.contains(key.get<std::string>())) return path + ": lacks " + key.dump();
  }
  const json properties = schema.value("properties", json::object());
  for (const auto& [key, child] : value.items()) {
    const bool known = properties.contains(key);
    if (!known && !schema.contains("additionalProperties")) continue;
    const std::string wrong = schema_violation(
        child, known ? properties[key] : schema["additionalProperties"], root, path + "." + key);
    if (!wrong.empty()) return wrong;
  }
  return "";
}

}  // namespace rep
