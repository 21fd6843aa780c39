#include "core/identity.h"

#include <string>

namespace rep {

Json identity(const Config& config, const Json& inputs) {
  Json json = to_json(config, FieldWriter::Which::kIdentity);
  json["inputs"] = inputs;
  return json;
}

Json identity_of_defaults(const Config& config) {
  Config defaults;
  defaults.dataset = {config.dataset.name, {}, "", nullptr, config.dataset.defaults, nullptr};
  defaults.method = {config.method.name, {}, "", nullptr, config.method.defaults, nullptr};
  Json json = to_json(defaults, FieldWriter::Which::kIdentity);
  for (const char* section : {"dataset", "method"}) json[section].erase("name");
  return json;
}

Json without_defaults(const Json& identity, const Json& defaults) {
  Json others = Json::object();
  for (const auto& [key, value] : identity.items()) {
    const Json usual = defaults.value(key, Json());
    if (value.is_object() && usual.is_object()) {
      if (Json inner = without_defaults(value, usual); !inner.empty()) others[key] = inner;
    } else if (value != usual) {
      others[key] = value;
    }
  }
  return others;
}

namespace {

// Leaves out what `fields` has and `identity` has not.
void keep_identity(Json& json, const Json& fields, const Json& identity) {
  for (const auto& [key, field] : fields.items()) {
    if (!json.contains(key)) continue;
    if (!identity.contains(key)) {
      json.erase(key);
    } else if (json[key].is_object() && field.is_object()) {
      keep_identity(json[key], field, identity[key]);
    }
  }
}

}  // namespace

Json as_of_this_build(const Json& identity, const Config& config) {
  Json filled = identity_of_defaults(config);
  Json fields = to_json(config), known = to_json(config, FieldWriter::Which::kIdentity);
  for (const char* section : {"dataset", "method"}) {
    const Json::json_pointer name(std::string("/") + section + "/name");
    if (identity.contains(name) && identity[name] == known[name]) continue;
    for (Json* json : {&filled, &fields, &known}) json->erase(section);
  }
  filled.merge_patch(identity);
  keep_identity(filled, fields, known);
  const Json::json_pointer order("/stream/class_order");
  if (filled.contains(order) && filled[order].is_string() && filled[order] != kSomeFile &&
      !is_named_class_order(filled[order].get<std::string>())) {
    filled[order] = kSomeFile;  // a path, as was written before
  }
  return filled;
}

std::string first_difference(const Json& was, const Json& is, const std::string& path) {
  for (const auto& [key, value] : was.items()) {
    const std::string full = path.empty() ? key : path + "." + key;
    if (!is.contains(key)) return full + " is gone";
    if (value == is[key]) continue;
    if (value.is_object() && is[key].is_object()) {
      const std::string inner = first_difference(value, is[key], full);
      if (!inner.empty()) return inner;
      continue;  // the same in another order
    }
    return full + " was " + to_text(value) + " and is " + to_text(is[key]);
  }
  for (const auto& [key, value] : is.items()) {
    if (!was.contains(key)) return (path.empty() ? key : path + "." + key) + " is new";
  }
  return "";
}

}  // namespace rep
