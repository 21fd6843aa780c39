#include "core/config.h"

#include <yaml-cpp/eventhandler.h>

#include <algorithm>
#include <cctype>
#include <set>
#include <sstream>

#include "core/error.h"
#include "core/files.h"
#include "core/numbers.h"
#include "core/registry.h"
#include "core/suggest.h"
#include "core/utf8.h"

namespace rep {
namespace {

constexpr size_t kLargestFile = size_t{1} << 20;
constexpr size_t kDeepest = 50;
constexpr int64_t kAnytimeInterval = 100;  // images, i-Blurry's eval_period

/// What YAML text is called in messages: a file with line numbers, or one "--set KEY".
struct Source {
  std::string name;
  bool has_lines;
  [[noreturn]] void fail(const YAML::Mark& mark, const std::string& problem) const {
    const bool line = has_lines && !mark.is_null();
    throw Error(name + (line ? ":" + std::to_string(mark.line + 1) : "") + ": " + problem);
  }
};

/// Looks at the parser's events before any tree is built. It refuses what would make the tree
/// dangerous to walk (great depth, aliases: they may loop, multiply, or share a node that an
/// override changes) and what yaml-cpp lets pass in silence (repeated keys, a second document) or
/// makes of the escapes \_ and \N (Latin-1 bytes).
class Inspector : public YAML::EventHandler {
 public:
  explicit Inspector(const Source& source) : source_(source) {}

  void OnDocumentStart(const YAML::Mark& mark) override {
    if (documents_++ > 0) source_.fail(mark, "a second YAML document begins; only one is read");
  }
  void OnDocumentEnd() override {}
  void OnNull(const YAML::Mark& mark, YAML::anchor_t) override {
    if (!open_.empty() && open_.back().at_key) fail_key(mark);
    item();
  }
  void OnAlias(const YAML::Mark& mark, YAML::anchor_t) override {
    source_.fail(mark, "YAML aliases (*name) are not supported; write the value out");
  }
  void OnScalar(const YAML::Mark& mark, const std::string&, YAML::anchor_t,
                const std::string& value) override {
    if (!is_utf8(value)) source_.fail(mark, "a string is not valid UTF-8 after unescaping");
    if (!open_.empty() && open_.back().at_key && !open_.back().keys.insert(value).second) {
      source_.fail(mark, "key " + quoted(value) + " is given twice");
    }
    item();
  }
  void OnSequenceStart(const YAML::Mark& mark, const std::string&, YAML::anchor_t,
                       YAML::EmitterStyle::value) override {
    open(mark, false);
  }
  void OnSequenceEnd() override { close(); }
  void OnMapStart(const YAML::Mark& mark, const std::string&, YAML::anchor_t,
                  YAML::EmitterStyle::value) override {
    open(mark, true);
  }
  void OnMapEnd() override { close(); }

 private:
  struct Collection {
    YAML::Mark begin;
    bool is_map;
    bool at_key;  // a mapping whose next item is a key
    std::set<std::string> keys;
  };

  [[noreturn]] void fail_key(const YAML::Mark& mark) { source_.fail(mark, "a key must be a word"); }

  /// The innermost open collection got one item more.
  void item() {
    if (!open_.empty() && open_.back().is_map) open_.back().at_key = !open_.back().at_key;
  }

  void open(const YAML::Mark& mark, bool is_map) {
    item();
    if (open_.size() == kDeepest) {
      source_.fail(mark, "nested deeper than " + std::to_string(kDeepest) + " levels");
    }
    open_.push_back({mark, is_map, is_map, {}});
  }

  void close() {
    const YAML::Mark begin = open_.back().begin;
    open_.pop_back();
    // Not before its end: yaml-cpp takes a collection that never ends for a key.
    if (!open_.empty() && open_.back().is_map && !open_.back().at_key) fail_key(begin);
  }

  const Source& source_;
  std::vector<Collection> open_;
  int64_t documents_ = 0;
};

/// Line `index` of `text`, from 0; "" beyond its end.
std::string line_at(const std::string& text, int index) {
  std::istringstream lines(text);
  std::string line;
  for (int i = 0; i <= index; ++i) {
    if (!std::getline(lines, line)) return "";
  }
  return line;
}

/// "; ..." for the two mistakes that YAML's own words do not name: a tab that indents, and a key
/// without a blank after its colon, which joins the next line to one text.
std::string likely_cause(const std::string& text, const YAML::Mark& mark) {
  for (int line = mark.line; line >= std::max(0, mark.line - 1); --line) {
    const std::string words = line_at(text, line);
    const std::string number = std::to_string(line + 1);
    if (words.substr(0, words.find_first_not_of(" \t")).find('\t') != std::string::npos) {
      return "; line " + number + " is indented with a tab: YAML wants blanks";
    }
    const std::string key = words.substr(0, words.find('#'));
    const size_t colon = key.find(':');
    if (colon != std::string::npos && colon + 1 < key.size() &&
        !std::isspace(static_cast<unsigned char>(key[colon + 1])) &&
        key.find_first_of("\"'{[") == std::string::npos) {
      return "; line " + number + " lacks a blank after its colon: write '" +
             key.substr(0, colon + 1) + " " + key.substr(colon + 1) + "'";
    }
  }
  return "";
}

YAML::Node parse_untrusted(const std::string& text, const Source& source) {
  if (text.size() > kLargestFile) source.fail(YAML::Mark::null_mark(), "larger than 1 MiB");
  // Outside of quotes yaml-cpp takes a zero byte for the beginning of an escape.
  if (!is_utf8(text) || text.find('\0') != std::string::npos) {
    source.fail(YAML::Mark::null_mark(), "not UTF-8 text");
  }
  try {
    std::istringstream stream(text);
    YAML::Parser parser(stream);
    Inspector inspector(source);
    while (parser.HandleNextDocument(inspector)) {
    }
    return YAML::Load(text);
  } catch (const YAML::Exception& e) {
    source.fail(e.mark, "not valid YAML: " + one_line(e.msg) + likely_cause(text, e.mark));
  }
}

void tag_whole(YAML::Node node, const std::string& tag) {
  node.SetTag(tag);
  if (node.IsSequence()) {
    for (YAML::Node item : node) tag_whole(item, tag);
  } else if (node.IsMap()) {
    for (const auto& item : node) {
      tag_whole(item.first, tag);
      tag_whole(item.second, tag);
    }
  }
}

/// `train.lr=0.1`, taken apart.
struct Override {
  std::string tag;  // "--set train.lr"
  std::vector<std::string> path;
  YAML::Node value;
};

Override parse_override(const std::string& text) {
  const size_t equals = text.find('=');
  if (equals == std::string::npos) {
    throw Error(kOverrideTag + text + ": expected KEY=VALUE, e.g. --set train.lr=0.01");
  }
  Override parsed{kOverrideTag + text.substr(0, equals), {}, {}};
  std::istringstream keys(text.substr(0, equals) + ".");
  for (std::string key; std::getline(keys, key, '.');) parsed.path.push_back(key);
  for (const std::string& key : parsed.path) {
    if (key.empty()) throw Error(parsed.tag + ": expected keys with dots between, e.g. train.lr");
  }
  if (parsed.path.size() > kDeepest) throw Error(parsed.tag + ": too many keys");
  parsed.value.reset(parse_untrusted(text.substr(equals + 1), {parsed.tag, false}));
  tag_whole(parsed.value, parsed.tag);
  return parsed;
}

/// `node` with what lies at path[depth...] replaced or added. The mappings on the way are new and
/// everything beside the way is shared, so that no node is ever written to.
YAML::Node with_override(const YAML::Node& node, const Override& given, size_t depth) {
  if (depth == given.path.size()) return given.value;
  if (node.IsSequence()) {
    throw Error(given.tag + ": '" + given.path[depth - 1] + "' is a list; set the whole list");
  }
  YAML::Node map(YAML::NodeType::Map);
  map.SetTag(given.tag);
  YAML::Node key(given.path[depth]);
  key.SetTag(given.tag);
  YAML::Node old_value;
  if (node.IsScalar()) {  // `method: l2p` stands for `method: {name: l2p}`
    if (given.path[depth] != "name") map.force_insert("name", node);
  } else {
    for (const auto& item : node) {
      if (item.first.Scalar() == given.path[depth]) {
        key.reset(item.first);
        old_value.reset(item.second);
      } else {
        map.force_insert(item.first, item.second);
      }
    }
  }
  map.force_insert(key, with_override(old_value, given, depth + 1));
  return map;
}

// Of the method that `root` names, if it has any.
void read_method_defaults(const YAML::Node& root, Config& config) {
  if (!root.IsMap() || !root["method"].IsDefined()) return;
  const YAML::Node method = root["method"];
  const YAML::Node name = method.IsMap() ? method["name"] : method;
  if (!name.IsDefined() || !name.IsScalar()) return;
  const auto& entries = Registry<MethodDefaults>::get().entries();
  const auto found = entries.find(name.Scalar());
  if (found == entries.end()) return;
  FieldReader reader(YAML::Load(found->second.value.yaml), "the defaults of " + found->first, "");
  config.fields(reader);
  reader.reject_unknown_keys();
}

// Of a kind of stream that is one pass.
void read_stream_defaults(const YAML::Node& root, Config& config) {
  if (!root.IsMap() || !root["stream"].IsDefined() || !root["stream"].IsMap()) return;
  const YAML::Node kind = root["stream"]["kind"];
  if (!kind.IsDefined() || !kind.IsScalar() || kind.Scalar() != "online") return;
  config.train.epochs = 1;
  config.eval.every = kAnytimeInterval;
}

}  // namespace

Config load_config(const std::string& path, const std::vector<std::string>& overrides) {
  return parse_config(read_file(path, kLargestFile), path, overrides);
}

Config parse_config(const std::string& text, const std::string& file,
                    const std::vector<std::string>& overrides) {
  YAML::Node root = parse_untrusted(text, {file, true});
  for (const std::string& override_text : overrides) {
    const Override given = parse_override(override_text);
    // A root that is not a mapping is complained of below.
    if (root.IsMap() || root.IsNull()) root.reset(with_override(root, given, 0));
  }
  Config config;
  read_method_defaults(root, config);
  read_stream_defaults(root, config);
  FieldReader reader(root, file, "");
  config.fields(reader);
  reader.reject_unknown_keys();
  return config;
}

bool is_named_class_order(const std::string& text) {
  const std::string python = "python:";
  const bool is_python = text.rfind(python, 0) == 0;
  return text == "natural" || text == "seed" ||
         parse_number<uint32_t>(is_python ? text.substr(python.size()) : text).has_value();
}

}  // namespace rep
