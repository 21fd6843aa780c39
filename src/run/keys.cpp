#include "run/keys.h"

#include <algorithm>
#include <sstream>
#include <vector>

#include "core/config.h"
#include "core/registry.h"
#include "core/suggest.h"
#include "data/dataset.h"
#include "methods/method.h"

namespace rep {

namespace {

constexpr char kPageHead[] =
    "# Which keys has a configuration?\n\n"
    "`rep list keys --markdown` writes this page from the program; the same, a line a key, is "
    "`rep list keys`.\n\n"
    "An experiment is a YAML file, or any part of one: every key has a default. A key such as\n"
    "`train.optimizer.lr` is `train: {optimizer: {lr: 0.01}}` in the file and `--set "
    "train.optimizer.lr=0.01` on the command\nline. Unknown keys are errors. Checks that need "
    "several keys, data or weights: `rep check CONFIG.yaml`.\n\n"
    "Editors that know YAML schemas (yaml-language-server) complete and check a file that begins "
    "with\n`# yaml-language-server: $schema=rep.schema.json`, beside which `rep schema > "
    "rep.schema.json` has written the schema;\nthose in `configs/` do.\n";

/// The options of every choice of a kind, their keys as they stand in a whole configuration.
template <class Kind>
Json options_of(const std::string& section) {
  Json all = Json::object();
  for (const auto& [name, entry] : Registry<Kind>::get().entries()) {
    Json& fields = all[name] = entry.value.describe();
    for (Json& field : fields) {
      field["key"] = section + "." + field["key"].template get<std::string>();
    }
  }
  return all;
}

std::string part_of(const Json& field, const char* what) { return field.value(what, ""); }

bool is_group(const Json& field) { return field["type"] == "object"; }

std::string bounds(const Json& field) {
  const auto bound = [&](const char* name) { return field[name].dump(); };
  const bool at_least = field.contains("minimum");
  if (at_least && field.contains("maximum")) return bound("minimum") + " to " + bound("maximum");
  if (at_least && field.contains("exclusiveMaximum")) {
    return "from " + bound("minimum") + " to below " + bound("exclusiveMaximum");
  }
  if (at_least) return "at least " + bound("minimum");
  return field.contains("exclusiveMinimum") ? "above " + bound("exclusiveMinimum") : "";
}

/// "integer, at least 1 (epochs)"; `quote` goes around words that may be written.
std::string allowed_values(const Json& field, const std::string& quote) {
  const std::string unit = part_of(field, "unit");
  std::vector<std::string> words;
  if (field.contains("enum")) {
    for (const Json& word : field["enum"]) words.push_back(quote + word.get<std::string>() + quote);
    return rep::join(words);
  }
  const std::string type = field["type"];
  std::string text = type;
  if (type == "boolean") text = quote + "true" + quote + ", " + quote + "false" + quote;
  if (type == "string") text = "text";
  if (type == "string or array") text = "text or list of integers";
  if (type == "name or object") text = "name, or mapping with a `name`";
  if (type == "array") {
    const std::string items = field["items"];
    text = "list of " + (items == "string" ? std::string("words") : items + "s");
  }
  const std::string bound = bounds(field);
  if (!bound.empty()) text += ", " + bound;
  return unit.empty() ? text : text + " (" + unit + ")";
}

/// The default as YAML.
std::string default_of(const Json& field) {
  const Json& value = field["default"].is_object() ? field["default"]["name"] : field["default"];
  if (!value.is_string()) return to_text(value);
  const std::string word = value;
  return word.empty() ? "\"\"" : word;
}

std::string meaning_of(const Json& field) {
  const std::string source = part_of(field, "source");
  return part_of(field, "doc") + (source.empty() ? "" : " Source: " + source + ".");
}

void print_group(std::ostream& out, const std::string& title, const Json& fields) {
  out << title << "\n";
  size_t width = 0;
  for (const Json& field : fields) width = std::max(width, part_of(field, "key").size());
  for (const Json& field : fields) {
    const std::string key = part_of(field, "key");
    out << "  " << key << std::string(width - key.size(), ' ') << "  ";
    if (!is_group(field)) out << "[" << default_of(field) << "] ";
    out << meaning_of(field);
    if (!is_group(field)) out << " Values: " << allowed_values(field, "") << ".";
    out << "\n";
  }
  if (fields.empty()) out << "  no options\n";
}

std::string in_a_cell(std::string text) {
  for (size_t at = 0; (at = text.find('|', at)) != std::string::npos; at += 2) {
    text.insert(at, "\\");
  }
  return text;
}

class KeyTable {
 public:
  explicit KeyTable(std::ostream& out) : out_(out) {}
  void row(const Json& field) {
    if (!begun_) out_ << "\n| key | default | values | meaning |\n|---|---|---|---|\n";
    begun_ = true;
    out_ << "| `" << part_of(field, "key") << "` | `" << in_a_cell(default_of(field)) << "` | "
         << in_a_cell(allowed_values(field, "`")) << " | " << in_a_cell(meaning_of(field))
         << " |\n";
  }
  void end() { begun_ = false; }

 private:
  std::ostream& out_;
  bool begun_ = false;
};

void write_fields(std::ostream& out, const Json& fields) {
  KeyTable table(out);
  for (const Json& field : fields) {
    const std::string key = part_of(field, "key");
    if (!is_group(field)) {
      table.row(field);
      continue;
    }
    table.end();
    const auto depth = static_cast<size_t>(std::count(key.begin(), key.end(), '.'));
    out << "\n" << std::string(2 + depth, '#') << " " << key << "\n";
    if (field.contains("doc")) out << "\n" << meaning_of(field) << "\n";
  }
}

/// Fields of the top first: behind a heading they would seem to belong to it.
Json top_first(const Json& fields) {
  Json sorted = Json::array();
  for (const bool top : {true, false}) {
    for (const Json& field : fields) {
      const bool is_top = !is_group(field) && part_of(field, "key").find('.') == std::string::npos;
      if (is_top == top) sorted.push_back(field);
    }
  }
  return sorted;
}

template <class Kind>
void write_options(std::ostream& out, const std::string& title, const Json& all) {
  out << "\n## " << title << "\n";
  for (const auto& [name, fields] : all.items()) {
    out << "\n### " << name << "\n\n" << Registry<Kind>::get().at(name).citation << ".";
    out << (fields.empty() ? " No options.\n" : "\n");
    KeyTable table(out);
    for (const Json& field : fields) {
      if (!is_group(field)) table.row(field);
    }
  }
}

}  // namespace

Json configuration_keys() {
  return {{"experiment", describe_fields<Config>()},
          {"datasets", options_of<DatasetKind>("dataset")},
          {"methods", options_of<MethodKind>("method")}};
}

std::string keys_as_text(const Json& keys) {
  std::ostringstream out;
  print_group(out, "experiment", keys["experiment"]);
  for (const auto& [name, fields] : keys["datasets"].items()) {
    print_group(out, "dataset " + name, fields);
  }
  for (const auto& [name, fields] : keys["methods"].items()) {
    print_group(out, "method " + name, fields);
  }
  return out.str();
}

std::string keys_as_markdown(const Json& keys) {
  std::ostringstream out;
  out << kPageHead;
  write_fields(out, top_first(keys["experiment"]));
  write_options<DatasetKind>(out, "Options of data sets", keys["datasets"]);
  write_options<MethodKind>(out, "Options of methods", keys["methods"]);
  return out.str();
}

}  // namespace rep
