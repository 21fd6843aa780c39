#pragma once

#include <yaml-cpp/yaml.h>

#include <cstdint>
#include <functional>
#include <string>
#include <type_traits>
#include <utility>
#include <variant>
#include <vector>

#include "core/json.h"

namespace rep {

/// How an options struct is read from YAML and echoed into a result, from ONE list of its fields:
///
///   struct EvalConfig {
///     int64_t batch_size = 64;
///     template <class Visitor> void fields(Visitor&& visit) {
///       visit("batch_size", batch_size, at_least(1));
///     }
///   };
///
/// A field is bool, int64_t, double, std::string, a std::vector of those, WordOrList, Section, or
/// another such struct (nested). Every third argument is an optional check.
template <class T>
using Check = std::function<std::string(const T&)>;  // "" or what is wrong: "must be at least 1"

/// Checks for numbers (int64_t and double alike) and for words.
struct AtLeast {
  double low;
};
struct Above {
  double low;
};
struct Between {
  double low, high;
};  // both ends included
struct Below {
  double low, high;
};  // the high end left out
struct OneOf {
  std::vector<std::string> words;
};
inline AtLeast at_least(double low) { return {low}; }
inline Above above(double low) { return {low}; }
inline Between between(double low, double high) { return {low, high}; }
inline Below from_to_below(double low, double high) { return {low, high}; }
inline OneOf one_of(std::vector<std::string> words) { return {std::move(words)}; }
struct Unchecked {};

/// A word or a list of integers: `class_order: natural` or `class_order: [3, 1, 2]`.
using WordOrList = std::variant<std::string, std::vector<int64_t>>;

/// A node whose YAML tag begins so was given on the command line: messages name the tag
/// ("--set train.lr") where they would name a file and a line.
inline constexpr const char* kOverrideTag = "--set ";

/// A named choice with options of its own: `method: {name: l2p, top_k: 5}`, or `method: l2p` alone.
/// The options stay YAML until whoever registered `name` reads them with read_section.
struct Section {
  std::string name;
  YAML::Node node;    // the whole map, `name` included
  std::string where;  // "l2p.yaml: method" (file, dotted key), for messages
  Json effective;     // every option with its value, filled when the options were read
};

/// A mapping being read: hands out children by key and, at the end, complains of keys never asked
/// for.
class FieldReader {
 public:
  /// `path` is the dotted name of this mapping ("train.optimizer", "" at the top); `file` names the
  /// source in messages. `ignored` keys belong to somebody else ("name" of a Section).
  FieldReader(YAML::Node node, std::string file, std::string path,
              std::vector<std::string> ignored = {});
  /// The options of a Section.
  explicit FieldReader(const Section& section);

  template <class T, class C = Unchecked>
  void operator()(const char* key, T& value, const C& check = {});

  /// Throws Error "a.yaml:2: unknown key 'epoch' (did you mean 'epochs'?)".
  void reject_unknown_keys() const;

 private:
  // The scalar readers, in fields.cpp; each throws Error with file, line, key and what was
  // expected.
  void read(const YAML::Node& node, const std::string& key, bool& value) const;
  void read(const YAML::Node& node, const std::string& key, int64_t& value) const;
  void read(const YAML::Node& node, const std::string& key, double& value) const;
  void read(const YAML::Node& node, const std::string& key, std::string& value) const;
  void read(const YAML::Node& node, const std::string& key, WordOrList& value) const;
  void read(const YAML::Node& node, const std::string& key, Section& value) const;
  template <class T>
  void read(const YAML::Node& node, const std::string& key, std::vector<T>& value) const;
  template <class T>
  auto read(const YAML::Node& node, const std::string& key, T& value) const
      -> std::void_t<decltype(value.fields(std::declval<FieldReader&>()))>;

  void check(const YAML::Node& node, const std::string& key, double value, AtLeast c) const;
  void check(const YAML::Node& node, const std::string& key, double value, Above c) const;
  void check(const YAML::Node& node, const std::string& key, double value, Between c) const;
  void check(const YAML::Node& node, const std::string& key, double value, Below c) const;
  void check(const YAML::Node& node, const std::string& key, const std::string& value,
             const OneOf& c) const;
  template <class T>
  void check(const YAML::Node&, const std::string&, const T&, Unchecked) const {}

  YAML::Node find(const char* key);  // undefined when it is not there
  std::string dotted(const std::string& key) const;
  /// Throws Error("FILE:LINE: KEY: PROBLEM").
  [[noreturn]] void fail(const YAML::Node& node, const std::string& key,
                         const std::string& problem) const;
  void require_sequence(const YAML::Node& node, const std::string& key) const;

  YAML::Node node_;
  std::string file_, path_;
  std::vector<std::string> known_;
};

/// Writes every field with its value.
class FieldWriter {
 public:
  template <class T, class C = Unchecked>
  void operator()(const char* key, T& value, const C& = {}) {
    if constexpr (std::is_same_v<T, Section>) {
      json[key] = value.effective.is_null() ? Json{{"name", value.name}} : value.effective;
    } else if constexpr (std::is_same_v<T, WordOrList>) {
      std::visit([&](const auto& v) { json[key] = v; }, value);
    } else if constexpr (std::is_class_v<T> && !std::is_same_v<T, std::string> &&
                         !is_vector<T>::value) {
      FieldWriter nested;
      value.fields(nested);
      json[key] = std::move(nested.json);
    } else {
      json[key] = value;
    }
  }
  Json json = Json::object();

 private:
  template <class T>
  struct is_vector : std::false_type {};
  template <class T>
  struct is_vector<std::vector<T>> : std::true_type {};
};

template <class T>
Json to_json(T options) {
  FieldWriter writer;
  options.fields(writer);
  return std::move(writer.json);
}

/// Reads a Section's own options over their defaults; throws Error as FieldReader does.
template <class T>
T read_section(const Section& section) {
  T options;
  FieldReader reader(section);
  options.fields(reader);
  reader.reject_unknown_keys();
  return options;
}

/// The whole of a Section as it takes effect, for Section::effective.
template <class T>
Json section_json(const Section& section) {
  Json json{{"name", section.name}};
  json.update(to_json(read_section<T>(section)));
  return json;
}

// ---- implementation ----

template <class T, class C>
void FieldReader::operator()(const char* key, T& value, const C& c) {
  const YAML::Node node = find(key);
  if (!node.IsDefined()) return;
  read(node, key, value);
  check(node, key, value, c);
}

template <class T>
void FieldReader::read(const YAML::Node& node, const std::string& key,
                       std::vector<T>& value) const {
  require_sequence(node, key);
  value.clear();
  for (const auto& item : node) read(item, key, value.emplace_back());
}

template <class T>
auto FieldReader::read(const YAML::Node& node, const std::string& key, T& value) const
    -> std::void_t<decltype(value.fields(std::declval<FieldReader&>()))> {
  FieldReader nested(node, file_, dotted(key));
  value.fields(nested);
  nested.reject_unknown_keys();
}

}  // namespace rep
