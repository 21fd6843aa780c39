// The schema of a configuration, put together from what its fields say of themselves.
#include <sstream>

#include "nn/backbone.h"
#include "run/keys.h"

namespace rep {

namespace {

Json backbone_names() {
  Json names = Json::array();
  for (const auto& [family, entry] : Registry<BackboneFamily>::get().entries()) {
    for (const auto& [name, citation] : entry.value.members()) names.push_back(name);
  }
  return names;
}

/// Text may be written without quotes, also where YAML then sees a number.
Json text_type() { return {"string", "number"}; }

/// A block may be there with all its keys commented out.
Json block() {
  return {{"type", {"object", "null"}},
          {"additionalProperties", false},
          {"properties", Json::object()}};
}

Json schema_of_type(const Json& field) {
  const std::string type = field["type"];
  if (type == "object") return block();
  if (field.contains("enum")) return {{"enum", field["enum"]}};
  if (type == "string") return {{"type", text_type()}};
  if (type == "array") {
    const Json items = field["items"] == "string" ? text_type() : Json(field["items"]);
    return {{"type", "array"}, {"items", {{"type", items}}}};
  }
  if (type == "string or array") {
    return {{"type", {"string", "integer", "array"}}, {"items", {{"type", "integer"}}}};
  }
  if (type == "name or object")
    return {{"type", {"string", "object"}}};  // a data set of a data set
  return {{"type", type}};
}

Json schema_of_field(const Json& field) {
  std::string description = field.value("doc", "");
  if (field.contains("unit")) description += " In " + field["unit"].get<std::string>() + ".";
  if (field.contains("source")) description += " Source: " + field["source"].get<std::string>();
  Json schema{{"description", description}};
  schema.update(schema_of_type(field));
  for (const char* bound : {"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"}) {
    if (field.contains(bound)) schema[bound] = field[bound];
  }
  if (field.contains("default")) schema["default"] = field["default"];
  return schema;
}

/// Puts a field to its place below `root`; the blocks on the way are there.
void insert(Json& root, const std::string& dotted, Json schema) {
  Json* at = &root;
  std::istringstream keys(dotted);
  std::string key, next;
  std::getline(keys, key, '.');
  while (std::getline(keys, next, '.')) {
    at = &(*at)["properties"][key];
    key = next;
  }
  (*at)["properties"][key] = std::move(schema);
}

/// `l2p`, or a mapping whose further keys are those of its name; `all` holds the options by name.
Json schema_of_section(const Json& field, const std::string& kind, const Json& all,
                       Json& definitions) {
  Json names = Json::array(), cases = Json::array();
  for (const auto& [name, fields] : all.items()) {
    Json options = block();
    options["properties"]["name"] = true;
    for (const Json& option : fields) {
      const std::string key = option["key"].get<std::string>().substr(kind.size() + 1);
      insert(options, key, schema_of_field(option));
    }
    const std::string definition = kind + "-" + name;
    names.push_back(name);
    cases.push_back(
        {{"if",
          {{"required", Json::array({"name"})}, {"properties", {{"name", {{"const", name}}}}}}},
         {"then", {{"$ref", "#/definitions/" + definition}}}});
    definitions[definition] = std::move(options);
  }
  return {{"description", field["doc"]},
          {"default", field["default"]["name"]},
          {"anyOf",
           {{{"enum", names}},
            {{"type", "object"},
             {"required", Json::array({"name"})},
             {"properties", {{"name", {{"enum", names}}}}},
             {"allOf", std::move(cases)}}}}};
}

}  // namespace

Json configuration_schema() {
  const Json keys = configuration_keys();
  Json schema{{"$schema", "http://json-schema.org/draft-07/schema#"},
              {"title", "A configuration of rep"}};
  schema.update(block());
  Json definitions = Json::object();
  for (const Json& field : keys["experiment"]) {
    const std::string key = field["key"];
    const bool is_section = field["type"] == "name or object";
    insert(schema, key,
           is_section ? schema_of_section(field, key, keys[key + "s"], definitions)
                      : schema_of_field(field));
  }
  Json names = backbone_names();
  schema["properties"]["backbone"]["properties"]["name"]["enum"] = names;
  names.push_back("");  // the backbone itself
  schema["properties"]["efficiency"]["properties"]["query_backbone"]["properties"]["name"]["enum"] =
      names;
  schema["definitions"] = std::move(definitions);
  return schema;
}

}  // namespace rep
