#pragma once

#include <yaml-cpp/yaml.h>

#include <cstdint>
#include <string>
#include <type_traits>
#include <utility>
#include <variant>
#include <vector>

#include "core/files.h"
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
/// another such struct (nested). What else there is to say of it follows as attributes, in any
/// order: bounds, whether it is part of a run's identity, whether it is a path, what it means.

/// Bounds of numbers (int64_t and double alike) and of words.
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

/// The field is no part of a run's identity: it names, watches or limits the run, or says on what
/// to compute, of which what bears on the numbers is known otherwise (a resume compares it).
struct NotIdentity {};
inline constexpr NotIdentity not_identity{};
/// A path, of which what lies there is part of the identity (by its digest), and where it lies is
/// not. It may begin with ~/ for the home folder.
struct PathOfInput {};
inline constexpr PathOfInput path_of_input{};
/// A path that is no input: no part of the identity either; it may begin with ~/.
struct OtherPath {};
inline constexpr OtherPath other_path{};
/// A WordOrList whose text is a file's path unless `is_word` knows it: then the file's content is
/// part of the identity (by its digest), and its path is not. It may begin with ~/.
struct FileUnless {
  bool (*is_word)(const std::string&);
};
inline FileUnless file_unless(bool (*is_word)(const std::string&)) { return {is_word}; }
/// What stands for such a path in an identity.
inline constexpr const char* kSomeFile = "a file";
/// What a field means, for lists and schemas: one sentence, the unit, and the source of a default.
struct Doc {
  const char* text;
  const char* unit = "";
  const char* source = "";
};
inline Doc doc(const char* text, const char* unit = "", const char* source = "") {
  return {text, unit, source};
}

template <class A>
inline constexpr bool is_bound_v =
    std::is_same_v<A, AtLeast> || std::is_same_v<A, Above> || std::is_same_v<A, Between> ||
    std::is_same_v<A, Below> || std::is_same_v<A, OneOf>;
template <class A>
inline constexpr bool is_path_v = std::is_same_v<A, PathOfInput> || std::is_same_v<A, OtherPath>;
template <class A>
inline constexpr bool is_outside_identity_v = std::is_same_v<A, NotIdentity> || is_path_v<A>;

/// A word or a list of integers: `class_order: natural` or `class_order: [3, 1, 2]`.
using WordOrList = std::variant<std::string, std::vector<int64_t>>;

/// A node whose YAML tag begins so was given on the command line: messages name the tag
/// ("--set train.lr") where they would name a file and a line.
inline constexpr const char* kOverrideTag = "--set ";

/// A named choice with options of its own: `method: {name: l2p, top_k: 5}`, or `method: l2p` alone.
/// The options stay YAML until whoever registered `name` reads them with read_section.
struct Section {
  std::string name;
  YAML::Node node;           // the whole map, `name` included
  std::string where;         // "l2p.yaml: method" (file, dotted key), for messages
  Json effective = nullptr;  // every option with its value, filled when the options were read
  Json identity = nullptr;   // the same, of those that are part of a run's identity
  Json defaults = nullptr;   // the same with every option at its default
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

  template <class T, class... Attributes>
  void operator()(const char* key, T& value, const Attributes&... attributes);

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

template <class T>
struct is_vector : std::false_type {};
template <class T>
struct is_vector<std::vector<T>> : std::true_type {};
/// A struct with fields of its own.
template <class T>
inline constexpr bool is_nested_v =
    std::is_class_v<T> && !std::is_same_v<T, std::string> && !is_vector<T>::value &&
    !std::is_same_v<T, Section> && !std::is_same_v<T, WordOrList>;

/// Writes every field with its value, or only those that are part of a run's identity.
class FieldWriter {
 public:
  enum class Which { kAll, kIdentity };
  explicit FieldWriter(Which which = Which::kAll) : which_(which) {}

  template <class T, class... Attributes>
  void operator()(const char* key, T& value, const Attributes&... attributes) {
    if (which_ == Which::kIdentity && (is_outside_identity_v<Attributes> || ...)) return;
    if constexpr (std::is_same_v<T, Section>) {
      const Json& options = which_ == Which::kIdentity ? value.identity : value.effective;
      json[key] = options.is_null() ? Json{{"name", value.name}} : options;
    } else if constexpr (std::is_same_v<T, WordOrList>) {
      std::visit([&](const auto& v) { json[key] = v; }, value);
      if (which_ == Which::kIdentity) (leave_out_path(json[key], attributes), ...);
    } else if constexpr (is_nested_v<T>) {
      FieldWriter nested(which_);
      value.fields(nested);
      json[key] = std::move(nested.json);
    } else {
      json[key] = value;
    }
  }
  Json json = Json::object();

 private:
  template <class Attribute>
  static void leave_out_path(Json&, const Attribute&) {}
  static void leave_out_path(Json& value, const FileUnless& c) {
    if (value.is_string() && !c.is_word(value.get<std::string>())) value = kSomeFile;
  }
  Which which_;
};

template <class T>
Json to_json(T options, FieldWriter::Which which = FieldWriter::Which::kAll) {
  FieldWriter writer(which);
  options.fields(writer);
  return std::move(writer.json);
}

/// Collects what is said of every field: [{"key": "train.epochs", "type": "integer", "default": 5,
/// "identity": true, "minimum": 1, "doc": .., "unit": .., "source": ..}], in the words of JSON
/// Schema where it has them. `identity` is true, false, or "content" of a path whose digest counts.
/// A nested struct is one of type "object", which its fields follow.
class FieldDescriber {
 public:
  explicit FieldDescriber(std::string path = "") : path_(std::move(path)) {}

  template <class T, class... Attributes>
  void operator()(const char* key, T& value, const Attributes&... attributes) {
    const std::string dotted = path_.empty() ? key : path_ + "." + key;
    if constexpr (is_nested_v<T>) {
      FieldDescriber nested(dotted);
      value.fields(nested);
      const bool outside = (is_outside_identity_v<Attributes> || ...);
      Json object{{"key", dotted}, {"type", "object"}, {"identity", !outside}};
      (describe(object, attributes), ...);
      json.push_back(std::move(object));
      for (Json& field : nested.json) {
        if (outside) field["identity"] = false;
        json.push_back(std::move(field));
      }
    } else {
      FieldWriter writer;
      writer(key, value);
      Json field{{"key", dotted},
                 {"type", type_of(value)},
                 {"default", std::move(writer.json[key])},
                 {"identity", true}};
      if constexpr (is_vector<T>::value) field["items"] = type_of(typename T::value_type());
      (describe(field, attributes), ...);
      json.push_back(std::move(field));
    }
  }
  Json json = Json::array();

 private:
  static const char* type_of(bool) { return "boolean"; }
  static const char* type_of(int64_t) { return "integer"; }
  static const char* type_of(double) { return "number"; }
  static const char* type_of(const std::string&) { return "string"; }
  static const char* type_of(const WordOrList&) { return "string or array"; }
  static const char* type_of(const Section&) { return "name or object"; }
  template <class T>
  static const char* type_of(const std::vector<T>&) {
    return "array";
  }
  /// 1 rather than 1.0.
  static Json tidy(double bound) {
    const auto whole = static_cast<int64_t>(bound);
    return static_cast<double>(whole) == bound ? Json(whole) : Json(bound);
  }
  static void describe(Json& field, AtLeast c) { field["minimum"] = tidy(c.low); }
  static void describe(Json& field, Above c) { field["exclusiveMinimum"] = tidy(c.low); }
  static void describe(Json& field, Between c) {
    field["minimum"] = tidy(c.low);
    field["maximum"] = tidy(c.high);
  }
  static void describe(Json& field, Below c) {
    field["minimum"] = tidy(c.low);
    field["exclusiveMaximum"] = tidy(c.high);
  }
  static void describe(Json& field, const OneOf& c) { field["enum"] = c.words; }
  static void describe(Json& field, NotIdentity) { field["identity"] = false; }
  static void describe(Json& field, PathOfInput) { field["identity"] = "content"; }
  static void describe(Json& field, OtherPath) { field["identity"] = false; }
  static void describe(Json&, FileUnless) {}
  static void describe(Json& field, const Doc& c) {
    field["doc"] = c.text;
    if (*c.unit) field["unit"] = c.unit;
    if (*c.source) field["source"] = c.source;
  }

  std::string path_;
};

/// What there is to say of every field of `T`, with its default (FieldDescriber).
template <class T>
Json describe_fields() {
  T defaults;
  FieldDescriber describer;
  defaults.fields(describer);
  return std::move(describer.json);
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

/// A Section's options as they take effect, for Section::effective, identity and defaults.
struct SectionOptions {
  Json effective, identity, defaults;
};
template <class T>
SectionOptions section_json(const Section& section) {
  const T options = read_section<T>(section);
  const Json name{{"name", section.name}};
  SectionOptions json{name, name, name};
  json.effective.update(to_json(options));
  json.identity.update(to_json(options, FieldWriter::Which::kIdentity));
  json.defaults.update(to_json(T(), FieldWriter::Which::kIdentity));
  return json;
}

// ---- implementation ----

template <class T, class... Attributes>
void FieldReader::operator()(const char* key, T& value, const Attributes&... attributes) {
  const YAML::Node node = find(key);
  if (!node.IsDefined()) return;
  read(node, key, value);
  [[maybe_unused]] const auto apply = [&](const auto& attribute) {
    using Attribute = std::decay_t<decltype(attribute)>;
    if constexpr (is_bound_v<Attribute>) {
      check(node, key, value, attribute);
    } else if constexpr (is_path_v<Attribute>) {
      value = expand_home(value);
    } else if constexpr (std::is_same_v<Attribute, FileUnless>) {
      auto* const text = std::get_if<std::string>(&value);
      if (text && !attribute.is_word(*text)) *text = expand_home(*text);
    }
  };
  (apply(attributes), ...);
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
