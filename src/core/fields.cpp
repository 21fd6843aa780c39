#include "core/fields.h"

#include <algorithm>
#include <cctype>
#include <cmath>
#include <sstream>

#include "core/error.h"
#include "core/numbers.h"
#include "core/suggest.h"

namespace rep {
namespace {

std::string describe(const YAML::Node& node) {
  if (node.IsScalar()) return quoted(node.Scalar());
  if (node.IsSequence()) return "a list";
  return node.IsMap() ? "a mapping" : "nothing";
}

/// "; write 'epochs: 3'..." for a text that is a known key and its value without a blank between.
std::string missing_blank(const std::string& text, const std::vector<std::string>& known) {
  const size_t colon = text.find(':');
  if (colon == std::string::npos || colon + 1 == text.size()) return "";
  const std::string key = text.substr(0, colon);
  if (!known.empty() && std::find(known.begin(), known.end(), key) == known.end()) return "";
  return "; a blank is missing after the colon: write '" + key + ": " + text.substr(colon + 1) +
         "'";
}

/// "a.yaml:3", or "--set train.lr" for what came from the command line.
std::string place(const YAML::Node& node, const std::string& file) {
  if (node.Tag().rfind(kOverrideTag, 0) == 0) return node.Tag();
  const YAML::Mark mark = node.Mark();
  return mark.is_null() ? file : file + ":" + std::to_string(mark.line + 1);
}

/// 1 and 0.5 rather than 1.000000 and 0.500000.
std::string tidy(double value) {
  std::ostringstream text;
  text << value;
  return text.str();
}

std::string lower_case(std::string text) {
  for (char& c : text) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  return text;
}

template <class T>
bool read_number(const YAML::Node& node, T& value) {
  if (!node.IsScalar()) return false;
  const auto number = parse_number<T>(node.Scalar());
  if (number) value = *number;
  return number.has_value();
}

/// {name: word}, which `word` alone stands for.
YAML::Node named(const YAML::Node& word) {
  YAML::Node map(YAML::NodeType::Map);
  map.force_insert("name", word);
  return map;
}

/// "l2p.yaml: method" -> {"l2p.yaml", "method"}. A dotted key never holds ": ".
std::pair<std::string, std::string> file_and_path(const std::string& where) {
  const size_t colon = where.rfind(": ");
  if (colon == std::string::npos) return {where, ""};
  return {where.substr(0, colon), where.substr(colon + 2)};
}

}  // namespace

FieldReader::FieldReader(YAML::Node node, std::string file, std::string path,
                         std::vector<std::string> ignored)
    : node_(std::move(node)),
      file_(std::move(file)),
      path_(std::move(path)),
      known_(std::move(ignored)) {
  // Nothing is an empty mapping: a block whose every line is commented out.
  if (!node_.IsMap() && !node_.IsNull()) {
    fail(node_, path_,
         "expected a mapping of keys to values, got " + describe(node_) +
             (node_.IsScalar() ? missing_blank(node_.Scalar(), {}) : ""));
  }
}

FieldReader::FieldReader(const Section& section)
    : FieldReader(section.node, file_and_path(section.where).first,
                  file_and_path(section.where).second, {"name"}) {}

void FieldReader::reject_unknown_keys() const {
  for (const auto& item : node_) {
    const std::string& key = item.first.Scalar();
    if (std::find(known_.begin(), known_.end(), key) != known_.end()) continue;
    std::string suggestion = missing_blank(key, known_);
    if (suggestion.empty()) suggestion = did_you_mean(key, known_);
    throw Error(place(item.first, file_) + ": unknown key " + quoted(key) +
                (suggestion.empty() ? "; known: " + join(known_) : suggestion));
  }
}

void FieldReader::read(const YAML::Node& node, const std::string& key, bool& value) const {
  const std::string word = node.IsScalar() ? lower_case(node.Scalar()) : "";
  const bool yes = word == "true" || word == "yes";
  if (!yes && word != "false" && word != "no") {
    fail(node, dotted(key), "expected true or false, got " + describe(node));
  }
  value = yes;
}

void FieldReader::read(const YAML::Node& node, const std::string& key, int64_t& value) const {
  if (!read_number(node, value)) {
    fail(node, dotted(key), "expected a whole number (64 bits), got " + describe(node));
  }
}

void FieldReader::read(const YAML::Node& node, const std::string& key, double& value) const {
  if (!read_number(node, value) || !std::isfinite(value)) {
    fail(node, dotted(key), "expected a number, got " + describe(node));
  }
}

void FieldReader::read(const YAML::Node& node, const std::string& key, std::string& value) const {
  if (!node.IsScalar()) {
    fail(node, dotted(key),
         "expected a text, got " + describe(node) +
             (node.IsNull() ? "; write \"\" for an empty one" : ""));
  }
  value = node.Scalar();
}

void FieldReader::read(const YAML::Node& node, const std::string& key, WordOrList& value) const {
  if (node.IsScalar()) {
    value = node.Scalar();
  } else if (node.IsSequence()) {
    read(node, key, value.emplace<std::vector<int64_t>>());
  } else {
    fail(node, dotted(key), "expected a word or a list of whole numbers, got " + describe(node));
  }
}

void FieldReader::read(const YAML::Node& node, const std::string& key, Section& value) const {
  const YAML::Node map = node.IsScalar() ? named(node) : node;
  const YAML::Node name = map.IsMap() ? map["name"] : YAML::Node(YAML::NodeType::Undefined);
  if (!name.IsDefined()) {
    fail(node, dotted(key),
         "expected a name, or a mapping with a 'name', got " + describe(node) +
             (map.IsMap() ? " without one" : ""));
  }
  read(name, key + ".name", value.name);
  value.node.reset(map);  // not "=", which would write through to every copy of the old node
  value.where = file_ + ": " + dotted(key);
}

void FieldReader::check(const YAML::Node& node, const std::string& key, double value,
                        AtLeast c) const {
  if (value >= c.low) return;
  fail(node, dotted(key), "must be at least " + tidy(c.low) + ", got " + describe(node));
}

void FieldReader::check(const YAML::Node& node, const std::string& key, double value,
                        Above c) const {
  if (value > c.low) return;
  fail(node, dotted(key), "must be above " + tidy(c.low) + ", got " + describe(node));
}

void FieldReader::check(const YAML::Node& node, const std::string& key, double value,
                        Between c) const {
  if (value >= c.low && value <= c.high) return;
  fail(node, dotted(key),
       "must be between " + tidy(c.low) + " and " + tidy(c.high) + ", got " + describe(node));
}

void FieldReader::check(const YAML::Node& node, const std::string& key, double value,
                        Below c) const {
  if (value >= c.low && value < c.high) return;
  fail(
      node, dotted(key),
      "must be at least " + tidy(c.low) + " and below " + tidy(c.high) + ", got " + describe(node));
}

void FieldReader::check(const YAML::Node& node, const std::string& key, const std::string& value,
                        const OneOf& c) const {
  if (std::find(c.words.begin(), c.words.end(), value) != c.words.end()) return;
  std::vector<std::string> words;  // without "", which stands for a default
  for (const std::string& word : c.words) {
    if (!word.empty()) words.push_back(word);
  }
  fail(node, dotted(key),
       "must be one of " + join(words) + ", got " + quoted(value) + did_you_mean(value, words));
}

YAML::Node FieldReader::find(const char* key) {
  known_.emplace_back(key);
  return std::as_const(node_)[key];  // the other operator[] adds the key
}

std::string FieldReader::dotted(const std::string& key) const {
  return path_.empty() ? key : path_ + "." + key;
}

void FieldReader::fail(const YAML::Node& node, const std::string& key,
                       const std::string& problem) const {
  const std::string where = place(node, file_);
  const bool says_key = key.empty() || where == kOverrideTag + key;
  throw Error(where + ": " + (says_key ? "" : key + ": ") + problem);
}

void FieldReader::require_sequence(const YAML::Node& node, const std::string& key) const {
  if (!node.IsSequence()) {
    fail(node, dotted(key), "expected a list such as [1, 2], got " + describe(node));
  }
}

}  // namespace rep
