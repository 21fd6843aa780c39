// What the program says of a configuration's keys: complete, current, and of one mind with what it
// accepts.
#include "run/keys.h"

#include <yaml-cpp/yaml.h>

#include <regex>
#include <set>

#include "core/error.h"
#include "run/setup.h"
#include "tests/json_schema.h"
#include "tests/run_command.h"

namespace rep {
namespace {

/// Every field of the experiment, of the data sets and of the methods, each with where it is of.
std::vector<std::pair<std::string, Json>> all_fields() {
  const Json keys = configuration_keys();
  std::vector<std::pair<std::string, Json>> all;
  for (const Json& field : keys["experiment"]) all.emplace_back("experiment", field);
  for (const char* kind : {"datasets", "methods"}) {
    for (const auto& [name, fields] : keys[kind].items()) {
      for (const Json& field : fields) all.emplace_back(name, field);
    }
  }
  return all;
}

const Json& field_of(const Json& fields, const std::string& key) {
  for (const Json& field : fields) {
    if (field["key"] == key) return field;
  }
  ADD_FAILURE() << "no key " << key;
  return fields[0];
}

void collect_keys(const Json& effective, const std::string& path,
                  const std::set<std::string>& described, std::set<std::string>& keys) {
  for (const auto& [key, value] : effective.items()) {
    const std::string dotted = path + "." + key;
    if (value.is_object() && described.count(dotted) == 0) {
      collect_keys(value, dotted, described, keys);
    } else if (key != "name" || path.find('.') != std::string::npos) {
      keys.insert(dotted);
    }
  }
}

TEST(Keys, EachSaysWhatItMeans) {
  EXPECT_GT(all_fields().size(), 200U);
  for (const auto& [of, field] : all_fields()) {
    const std::string key = of + ": " + field["key"].get<std::string>();
    ASSERT_TRUE(field.contains("doc")) << key << " has no doc(...) where it is visited";
    const std::string text = field["doc"];
    EXPECT_TRUE(text.size() > 8 && text.size() < 400 && text.back() == '.') << key << ": " << text;
    EXPECT_EQ(text.find('\n'), std::string::npos) << key;
  }
}

TEST(Keys, AreThoseThatDataSetsAndMethodsRead) {
  const Json keys = configuration_keys();
  const std::string folder = fresh_folder("keys_read");
  for (const std::string kind : {"dataset", "method"}) {
    for (const auto& [name, fields] : keys[kind + "s"].items()) {
      // The one data set that has no defaults is made of two others.
      const bool of_others = name == "continued";
      const Config config = read_experiment(write_text(
          folder + "/c.yaml", kind + ": {name: " + name +
                                  (of_others ? ", before: synthetic, added: synthetic" : "") +
                                  "}\n"));
      std::set<std::string> read, described;
      for (const Json& field : fields) {
        if (field["type"] != "object") described.insert(field["key"].get<std::string>());
      }
      const Section& section = kind == "method" ? config.method : config.dataset;
      collect_keys(section.effective, kind, described, read);
      EXPECT_EQ(described, read) << name;
    }
  }
}

TEST(Keys, HaveTheirTypeDefaultBoundsAndSource) {
  const Json keys = configuration_keys();
  const Json& top_k = field_of(keys["methods"]["l2p"], "method.top_k");
  EXPECT_EQ(top_k["type"], "integer");
  EXPECT_EQ(top_k["default"], 5);
  EXPECT_EQ(top_k["minimum"], 1);
  EXPECT_EQ(top_k["unit"], "prompts");
  const Json& ratio = field_of(keys["experiment"], "efficiency.token_merging.ratio");
  EXPECT_EQ(ratio["maximum"], 0.99);
  EXPECT_EQ(ratio["source"], "arXiv 2604.07399");
  const Json& merging = field_of(keys["experiment"], "efficiency.token_merging");
  EXPECT_EQ(merging["type"], "object");
  EXPECT_EQ(field_of(keys["methods"]["icarl"], "method.policy")["enum"], Json::array({"herding"}))
      << "a shared option has each method's own words";
  EXPECT_EQ(field_of(keys["methods"]["sd_lora"], "method.targets")["items"], "string");
}

TEST(Keys, AreALineEachOnATerminal) {
  const Finished list = rep_command("list keys");
  ASSERT_EQ(list.exit_code, 0) << list.output;
  EXPECT_TRUE(std::regex_search(
      list.output, std::regex("\n  train\\.epochs +\\[5\\] .*integer, at least 1 \\(epochs\\)")));
  EXPECT_NE(list.output.find("\nmethod l2p\n  method.pool_size"), std::string::npos);
  EXPECT_EQ(nlohmann::ordered_json::parse(rep_command("list keys --json").output),
            configuration_keys());
  EXPECT_EQ(rep_command("list methods --markdown").exit_code, 1);
}

TEST(Keys, AreExplainedByACurrentPage) {
  EXPECT_TRUE(read_text(REP_SOURCE_DIR "/docs/configuration.md") ==
              rep_command("list keys --markdown").output)
      << "run: build/release/rep list keys --markdown > docs/configuration.md";
}

/// A plain scalar as YAML 1.2's core schema reads it, which editors follow.
nlohmann::json scalar_as_json(const YAML::Node& node) {
  const std::string& text = node.Scalar();
  if (node.Tag() == "!") return text;  // in quotes
  if (text == "true" || text == "True" || text == "TRUE") return true;
  if (text == "false" || text == "False" || text == "FALSE") return false;
  static const std::regex kInteger("[-+]?[0-9]+"),
      kNumber("[-+]?(\\.[0-9]+|[0-9]+(\\.[0-9]*)?)([eE][-+]?[0-9]+)?");
  if (std::regex_match(text, kInteger) && text.size() < 19) return std::stoll(text);
  if (std::regex_match(text, kNumber)) return std::stod(text);
  return text;
}

nlohmann::json yaml_as_json(const YAML::Node& node) {
  if (node.IsNull()) return nullptr;
  if (node.IsScalar()) return scalar_as_json(node);
  if (node.IsSequence()) {
    auto list = nlohmann::json::array();
    for (const auto& item : node) list.push_back(yaml_as_json(item));
    return list;
  }
  auto map = nlohmann::json::object();
  for (const auto& item : node) map[item.first.Scalar()] = yaml_as_json(item.second);
  return map;
}

/// configs/rep.schema.json.
const nlohmann::json& schema() {
  static const nlohmann::json schema = read_json(REP_SOURCE_DIR "/configs/rep.schema.json");
  return schema;
}

std::string violation(const std::string& yaml) {
  return schema_violation(yaml_as_json(YAML::Load(yaml)), schema());
}

std::vector<std::string> shipped_configurations() {
  std::vector<std::string> paths;
  for (const auto& entry :
       std::filesystem::recursive_directory_iterator(REP_SOURCE_DIR "/configs")) {
    if (entry.path().extension() == ".yaml") paths.push_back(entry.path().string());
  }
  return paths;
}

TEST(Schema, IsCurrent) {
  EXPECT_TRUE(read_text(REP_SOURCE_DIR "/configs/rep.schema.json") == rep_command("schema").output)
      << "run: build/release/rep schema > configs/rep.schema.json";
}

TEST(Schema, AcceptsEveryShippedConfiguration) {
  EXPECT_GT(shipped_configurations().size(), 100U);
  for (const std::string& path : shipped_configurations()) {
    EXPECT_EQ(violation(read_text(path)), "") << path;
  }
}

TEST(Schema, IsNamedByEveryShippedConfiguration) {
  namespace fs = std::filesystem;
  const std::string line = "# yaml-language-server: $schema=";
  for (const std::string& path : shipped_configurations()) {
    const std::string text = read_text(path);
    ASSERT_EQ(text.rfind(line, 0), 0U) << path << " does not begin with " << line;
    const std::string name = text.substr(line.size(), text.find('\n') - line.size());
    EXPECT_TRUE(fs::equivalent(fs::path(path).parent_path() / name,
                               REP_SOURCE_DIR "/configs/rep.schema.json"))
        << path << ": " << name;
  }
}

TEST(Schema, AcceptsWhatTheProgramWritesOut) {
  const std::string folder = fresh_folder("schema_echo");
  const Json keys = configuration_keys();
  for (const auto& [method, fields] : keys["methods"].items()) {
    const Config config =
        read_experiment(write_text(folder + "/c.yaml", "method: " + method + "\n"));
    EXPECT_EQ(schema_violation(nlohmann::json::parse(to_text(to_json(config))), schema()), "")
        << method;
  }
}

/// Whether the program takes it, as far as a configuration alone can say.
bool program_accepts(const std::string& yaml) {
  try {
    read_experiment(write_text(fresh_folder("schema_of_one_mind") + "/c.yaml", yaml));
    return true;
  } catch (const Error&) {
    return false;
  }
}

TEST(Schema, IsOfOneMindWithTheProgram) {
  for (const char* good :
       {"{}", "train:\n", "method: er", "method: {name: er, buffer_size: 7}", "seed: 7",
        "name: 2026", "backbone: {trainable: 2}", "stream: {class_order: 1993}",
        "stream: {class_order: [1, 0]}", "stream: {class_order: seed}",
        "train: {optimizer: {lr: 1e-2, momentum: .9}}", "train: {macs: 2.5e12}",
        "efficiency: {layer_dropping: {kind: ald, threshold: 16}}",
        "efficiency: {query_backbone: {name: \"\"}}",
        "dataset: {name: image_folder, root: x, decoded_cache: {folder: y}}",
        "method: {name: os_prompt, qr: {weight: 0.1}}",
        "method: {name: sd_lora, targets: [q, fc1]}"}) {
    EXPECT_TRUE(program_accepts(good)) << good;
    EXPECT_EQ(violation(good), "") << good;
  }
  for (const char* bad : {"epoch: 3",
                          "train: {epoch: 3}",
                          "train: {epochs: many}",
                          "train: {epochs: 0}",
                          "train: {epochs: 1.5}",
                          "train: {optimizer: {lr: 0}}",
                          "train: {optimizer: {beta2: 1}}",
                          "train: {schedule: cosin}",
                          "train: {drop_last: 1}",
                          "train: 5",
                          "[a, b]",
                          "name: [a]",
                          "efficiency: {layer_dropping: {min_keep: 1.5}}",
                          "stream: {classes_per_task: 3}",
                          "stream: {classes_per_task: [3, x]}",
                          "stream: {class_order: {a: b}}",
                          "method: l2pp",
                          "method: {name: l2pp}",
                          "method: {top_k: 3}",
                          "method: [l2p]",
                          "method: {name: l2p, pool: 3}",
                          "method: {name: l2p, top_k: 0}",
                          "method: {name: er, top_k: 3}",
                          "method: {name: os_prompt, qr: {wait: 1}}",
                          "dataset: {name: cifar100, classes: 3}",
                          "dataset: imagenet",
                          "backbone: {name: vit_nan}",
                          "method: {name: sd_lora, targets: q}"}) {
    EXPECT_FALSE(program_accepts(bad)) << bad;
    EXPECT_NE(violation(bad), "") << bad;
  }
}

}  // namespace
}  // namespace rep
