#include "core/config.h"

#include <gtest/gtest.h>

#include "core/error.h"
#include "core/files.h"
#include "core/identity.h"
#include "core/random.h"
#include "core/registry.h"
#include "core/suggest.h"

namespace rep {
namespace {

/// What the Error says, or "(no error)".
template <class Action>
std::string error_of(Action&& action) {
  try {
    action();
  } catch (const Error& e) {
    return e.what();
  }
  return "(no error)";
}

std::string parse_error(const std::string& text, const std::vector<std::string>& overrides = {}) {
  return error_of([&] { parse_config(text, "a.yaml", overrides); });
}

struct PoolOptions {
  int64_t top_k = 5;
  bool shared = false;
  std::vector<double> weights;
  template <class Visitor>
  void fields(Visitor&& visit) {
    visit("top_k", top_k, at_least(1));
    visit("shared", shared);
    visit("weights", weights);
  }
};

constexpr const char* kWhole = R"(name: "cifar100: rep"   # a comment
seed: 7
precision: bf16
dataset: {name: cifar100, root: 'datasets/x', limit_train: 5}
stream:
  tasks: 5
  class_order: [2, 0, 1]
  classes_per_task: [1, 1, 1]
backbone: {name: vit_tiny_patch16_224, weights: random, normalise: half}
method:
  name: l2p
  top_k: 3
efficiency:
  query_backbone: {name: vit_nano, weights: random}
  token_merging: {kind: atom, n: 4, size_weighted: no}
  layer_dropping:
    kind: ald
    min_keep: 0.25
train:
  epochs: 2
  optimizer: {name: sgd, lr: 1e-2, momentum: .9}
  clip_norm: 0
eval:
  batch_size: 8
)";

TEST(Config, EmptyTextGivesTheDefaults) {
  const Config config = parse_config("", "a.yaml");
  EXPECT_EQ(config.seed, 42);
  EXPECT_EQ(config.method.name, "l2p");
  EXPECT_EQ(config.train.optimizer.lr, 0.001875);
  EXPECT_EQ(std::get<std::string>(config.stream.class_order), "natural");
}

TEST(Config, ReadsEveryKindOfField) {
  const Config config = parse_config(kWhole, "a.yaml");
  EXPECT_EQ(config.name, "cifar100: rep");
  EXPECT_EQ(config.seed, 7);
  EXPECT_EQ(config.dataset.name, "cifar100");
  EXPECT_EQ(config.stream.classes_per_task, (std::vector<int64_t>{1, 1, 1}));
  EXPECT_EQ(std::get<1>(config.stream.class_order), (std::vector<int64_t>{2, 0, 1}));
  EXPECT_FALSE(config.efficiency.token_merging.size_weighted);
  EXPECT_EQ(config.efficiency.layer_dropping.min_keep, 0.25);
  EXPECT_EQ(config.train.optimizer.lr, 0.01);
  EXPECT_EQ(config.train.optimizer.momentum, 0.9);
  EXPECT_EQ(config.train.optimizer.beta2, 0.999) << "what is not given keeps its default";
  EXPECT_EQ(read_section<PoolOptions>(config.method).top_k, 3);
}

TEST(Config, BlockWithoutKeysIsTheDefaults) {
  EXPECT_EQ(parse_config("train:\n  # epochs: 3\n", "a.yaml").train.epochs, 5);
}

TEST(Config, WrittenOutAndReadAgainIsTheSame) {
  const Json echoed = to_json(parse_config(kWhole, "a.yaml"));
  EXPECT_EQ(echoed["stream"]["class_order"].dump(), "[2,0,1]");
  EXPECT_EQ(echoed["method"].dump(), R"({"name":"l2p"})") << "options appear once they were read";
  const Json again = to_json(parse_config(echoed.dump(), "echo.json"));  // JSON is YAML
  EXPECT_EQ(echoed.dump(), again.dump());
}

TEST(Config, MessagesAreOneLineWhateverTheFileHolds) {  // found by fuzzing
  EXPECT_EQ(parse_error("\"a\\nb\": 1\n").rfind("a.yaml:1: unknown key 'a?b'", 0), 0U);
  EXPECT_NE(parse_error("seed: \"1\\n2\"\n").find("got '1?2'"), std::string::npos);
  EXPECT_EQ(parse_error("name: \"\\\r\"\n"),
            "a.yaml:1: not valid YAML: unknown escape character: ?");
}

TEST(Config, TextsAreUtf8WhateverTheirEscapes) {  // found by fuzzing: yaml-cpp's are Latin-1
  EXPECT_EQ(parse_error("seed: 1\nname: \"a\\_b\"\n"),
            "a.yaml:2: a string is not valid UTF-8 after unescaping");
  EXPECT_EQ(parse_error("backbone: {name: \"a\\Nb\"}\n"),
            "a.yaml:1: a string is not valid UTF-8 after unescaping");
  EXPECT_EQ(parse_error(std::string("name: a\0_b\n", 11)), "a.yaml: not UTF-8 text");
  EXPECT_EQ(parse_config("name: \"a\\xe9\\u20ac\"\n", "a.yaml").name, "a\u00e9\u20ac");
}

TEST(Config, UnknownKeyNamesLineAndTheLikelyWord) {
  EXPECT_EQ(parse_error("train:\n  epoch: 3\n"),
            "a.yaml:2: unknown key 'epoch' (did you mean 'epochs'?)");
  EXPECT_EQ(parse_error("seed: 1\ntrian: {epochs: 1}\n"),
            "a.yaml:2: unknown key 'trian' (did you mean 'train'?)");
  EXPECT_EQ(parse_error("eval: {zebra: 1}"),
            "a.yaml:1: unknown key 'zebra'; known: batch_size, classes, every, every_tasks, "
            "offline_result, predictions");
}

TEST(Config, WrongTypeNamesLineKeyAndValue) {
  EXPECT_EQ(parse_error("train:\n  optimizer:\n    lr: abc\n"),
            "a.yaml:3: train.optimizer.lr: expected a number, got 'abc'");
  EXPECT_EQ(parse_error("train: 5"),
            "a.yaml:1: train: expected a mapping of keys to values, got '5'");
  EXPECT_EQ(parse_error("- a\n- b\n"),
            "a.yaml:1: expected a mapping of keys to values, got a list");
  EXPECT_EQ(parse_error("name: [a]"), "a.yaml:1: name: expected a text, got a list");
  EXPECT_EQ(parse_error("name:"),
            "a.yaml:1: name: expected a text, got nothing; write \"\" for an empty one");
  EXPECT_EQ(parse_error("stream:\n  classes_per_task: 3"),
            "a.yaml:2: stream.classes_per_task: expected a list such as [1, 2], got '3'");
  EXPECT_EQ(parse_error("stream: {classes_per_task: [3, x]}"),
            "a.yaml:1: stream.classes_per_task: expected a whole number (64 bits), got 'x'");
  EXPECT_EQ(
      parse_error("stream: {class_order: {a: b}}"),
      "a.yaml:1: stream.class_order: expected a word or a list of whole numbers, got a mapping");
}

TEST(Config, WholeNumbersAreStrict) {
  for (const char* bad :
       {"3.5", "1e3", "0x10", "9223372036854775808", "5 ", "+5", "5epochs", "''"}) {
    const std::string text = bad == std::string("5 ") ? "'5 '" : bad;
    EXPECT_NE(parse_error("seed: " + text), "(no error)") << text;
  }
  EXPECT_EQ(parse_config("seed: 9223372036854775807", "a.yaml").seed, INT64_MAX);
}

TEST(Config, NumbersAreFiniteAndDecimal) {
  for (const char* bad : {".nan", "nan", ".inf", "inf", "-inf", "1e999", "0x1p3", "1,5", "1.5x"}) {
    EXPECT_NE(parse_error("train: {clip_norm: \"" + std::string(bad) + "\"}"), "(no error)") << bad;
  }
  EXPECT_EQ(parse_config("train: {clip_norm: 5e-1}", "a.yaml").train.clip_norm, 0.5);
}

TEST(Config, TruthIsTrueFalseYesOrNo) {
  EXPECT_TRUE(parse_config("train: {drop_last: Yes}", "a.yaml").train.drop_last);
  EXPECT_FALSE(parse_config("train: {drop_last: false}", "a.yaml").train.drop_last);
  EXPECT_EQ(parse_error("train: {drop_last: 1}"),
            "a.yaml:1: train.drop_last: expected true or false, got '1'");
}

TEST(Config, RangesAndChoicesAreChecked) {
  EXPECT_EQ(parse_error("train: {epochs: 0}"),
            "a.yaml:1: train.epochs: must be at least 1, got '0'");
  EXPECT_EQ(parse_error("train: {optimizer: {lr: 0}}"),
            "a.yaml:1: train.optimizer.lr: must be above 0, got '0'");
  EXPECT_EQ(parse_error("train: {optimizer: {beta2: 1}}"),
            "a.yaml:1: train.optimizer.beta2: must be at least 0 and below 1, got '1'");
  EXPECT_EQ(parse_error("efficiency: {layer_dropping: {min_keep: 1.5}}"),
            "a.yaml:1: efficiency.layer_dropping.min_keep: must be between 0 and 1, got '1.5'");
  EXPECT_EQ(parse_error("train: {schedule: cosin}"),
            "a.yaml:1: train.schedule: must be one of constant, cosine, coda, coda_no_lag, got "
            "'cosin' (did you mean 'cosine'?)");
}

TEST(Config, SectionIsAWordOrAMappingWithAName) {
  const Config word = parse_config("method: er", "a.yaml");
  EXPECT_EQ(word.method.name, "er");
  EXPECT_EQ(word.method.node["name"].Scalar(), "er");
  EXPECT_EQ(section_json<PoolOptions>(word.method).effective.dump(),
            R"({"name":"er","top_k":5,"shared":false,"weights":[]})");
  EXPECT_EQ(
      parse_error("method: {top_k: 3}"),
      "a.yaml:1: method: expected a name, or a mapping with a 'name', got a mapping without one");
  EXPECT_EQ(parse_error("method: [l2p]"),
            "a.yaml:1: method: expected a name, or a mapping with a 'name', got a list");
}

TEST(Config, OptionsOfASectionAreBlamedByFileAndLine) {
  const auto read = [](const char* text, std::vector<std::string> overrides = {}) {
    return error_of(
        [&] { read_section<PoolOptions>(parse_config(text, "dir: x/a.yaml", overrides).method); });
  };
  EXPECT_EQ(read("method:\n  name: l2p\n  top_k: 0\n"),
            "dir: x/a.yaml:3: method.top_k: must be at least 1, got '0'");
  EXPECT_EQ(read("method:\n  name: l2p\n  topk: 1\n"),
            "dir: x/a.yaml:3: unknown key 'topk' (did you mean 'top_k'?)");
  EXPECT_EQ(read("method: {name: l2p, weights: [1, b]}"),
            "dir: x/a.yaml:1: method.weights: expected a number, got 'b'");
  EXPECT_EQ(read("method: l2p", {"method.top_k=x"}),
            "--set method.top_k: expected a whole number (64 bits), got 'x'");
}

const Registered<MethodDefaults> kAbbreviation{
    "abbreviation", "", {"train: {epochs: 7, optimizer: {lr: 0.5}}"}};

TEST(Config, AMethodsNameMayStandForDefaultsWhichTheFileOverrides) {
  const auto read = [](const std::string& text, const std::vector<std::string>& overrides = {}) {
    return parse_config(text, "a.yaml", overrides).train;
  };
  EXPECT_EQ(read("method: abbreviation\n").epochs, 7);
  EXPECT_EQ(read("method: {name: abbreviation}\n").optimizer.lr, 0.5);
  EXPECT_EQ(read("train: {epochs: 3}\nmethod: abbreviation\n").epochs, 3);
  EXPECT_EQ(read("train: {epochs: 3}\nmethod: abbreviation\n").optimizer.lr, 0.5);
  EXPECT_EQ(read("method: l2p\n", {"method.name=abbreviation"}).epochs, 7);
  const TrainConfig fresh;
  EXPECT_EQ(read("method: abbreviation\n", {"method.name=l2p"}).epochs, fresh.epochs);
  EXPECT_EQ(read("method: abbreviation\n", {"train.epochs=2"}).epochs, 2);
}

TEST(Config, OverridesReplaceAndAddInOrder) {
  const Config config = parse_config(
      "seed: 1\nmethod: l2p\ntrain:\n  epochs: 2\n  batch_size: 3\n", "a.yaml",
      {"seed=2", "seed=3", "train.epochs=9", "train.optimizer.lr=0.5", "method.top_k=2",
       "stream={tasks: 4, class_order: [1, 0]}", "name=a=b", "backbone.weights=\"\""});
  EXPECT_EQ(config.seed, 3);
  EXPECT_EQ(config.train.epochs, 9);
  EXPECT_EQ(config.train.batch_size, 3) << "neighbours stay";
  EXPECT_EQ(config.train.optimizer.lr, 0.5);
  EXPECT_EQ(config.method.name, "l2p");
  EXPECT_EQ(read_section<PoolOptions>(config.method).top_k, 2);
  EXPECT_EQ(config.stream.tasks, 4);
  EXPECT_EQ(config.name, "a=b");
  EXPECT_EQ(parse_config("method: l2p", "a.yaml", {"method=er"}).method.name, "er");
  EXPECT_EQ(parse_config("method: l2p", "a.yaml", {"method.name=er"}).method.name, "er");
}

TEST(Config, OverridesAreBlamedByTheirKey) {
  EXPECT_EQ(parse_error("", {"train.optimizer.lr=abc"}),
            "--set train.optimizer.lr: expected a number, got 'abc'");
  EXPECT_EQ(parse_error("", {"train={epochs: 0}"}),
            "--set train: train.epochs: must be at least 1, got '0'");
  EXPECT_EQ(parse_error("", {"train.epoch=1"}),
            "--set train.epoch: unknown key 'epoch' (did you mean 'epochs'?)");
  EXPECT_EQ(parse_error("", {"trian.epochs=1"}),
            "--set trian.epochs: unknown key 'trian' (did you mean 'train'?)");
  EXPECT_EQ(parse_error("seed: 1", {"seed.x=1"}),
            "--set seed.x: seed: expected a whole number (64 bits), got a mapping");
  EXPECT_EQ(parse_error("stream: {class_order: [1]}", {"stream.class_order.0=1"}),
            "--set stream.class_order.0: 'class_order' is a list; set the whole list");
  EXPECT_EQ(parse_error("", {"seed"}), "--set seed: expected KEY=VALUE, e.g. --set train.lr=0.01");
  EXPECT_EQ(parse_error("", {"train..lr=1"}),
            "--set train..lr: expected keys with dots between, e.g. train.lr");
  EXPECT_EQ(parse_error("", {"=1"}), "--set : expected keys with dots between, e.g. train.lr");
  EXPECT_EQ(parse_error("", {"train={a"}).rfind("--set train: not valid YAML: ", 0), 0u);
  EXPECT_EQ(parse_error("[1]", {"seed=1"}),
            "a.yaml:1: expected a mapping of keys to values, got a list");
  EXPECT_EQ(parse_error("seed: x", {"train.epochs=1"}),
            "a.yaml:1: seed: expected a whole number (64 bits), got 'x'")
      << "what the file says is still blamed on the file";
}

TEST(Config, ReadingOneConfigLeavesACopyOfAnotherAlone) {
  const Config first = parse_config("method: {name: l2p, top_k: 2}", "a.yaml");
  const Config copy = first;
  const Config second = parse_config("method: {name: er, top_k: 9}", "a.yaml", {"method.top_k=8"});
  EXPECT_EQ(read_section<PoolOptions>(copy.method).top_k, 2);
  EXPECT_EQ(read_section<PoolOptions>(second.method).top_k, 8);
}

TEST(Config, RepeatedKeyIsAnError) {
  EXPECT_EQ(parse_error("seed: 1\nname: x\nseed: 2\n"), "a.yaml:3: key 'seed' is given twice");
  EXPECT_EQ(parse_error("train:\n  epochs: 1\n  'epochs': 2\n"),
            "a.yaml:3: key 'epochs' is given twice");
  EXPECT_EQ(parse_error("method:\n  name: l2p\n  a: {b: [{c: 1, c: 2}]}\n"),
            "a.yaml:3: key 'c' is given twice")
      << "also where nobody reads";
}

TEST(Config, BrokenYamlNamesTheLine) {
  EXPECT_EQ(parse_error("seed: 1\ntrain: {epochs: 1\n").rfind("a.yaml:", 0), 0u);
  EXPECT_NE(parse_error("seed: 1\ntrain: {epochs: 1\n").find("not valid YAML: "),
            std::string::npos);
  EXPECT_EQ(parse_error("a: 1\n---\nb: 2\n"),
            "a.yaml:2: a second YAML document begins; only one is read");
  EXPECT_EQ(parse_error("[a, b]: 1\n"), "a.yaml:1: a key must be a word");
  EXPECT_EQ(parse_error("name: \"\xff\"\n"), "a.yaml: not UTF-8 text");
}

TEST(Config, AliasesAreRefusedSoNoneCanLoopOrMultiply) {
  EXPECT_EQ(parse_error("a: &x [1]\nb: *x\n"),
            "a.yaml:2: YAML aliases (*name) are not supported; write the value out");
  EXPECT_NE(parse_error("method: &x {name: *x}\n").find("aliases"), std::string::npos);
  EXPECT_NE(parse_error("&x a: *x\n").find("aliases"), std::string::npos);
}

TEST(Config, DeepNestingIsRefused) {
  const auto nested = [](size_t depth) {
    return "method: {name: a, b: " + std::string(depth, '[') + std::string(depth, ']') + "}";
  };
  EXPECT_EQ(parse_error(nested(48)), "(no error)");
  EXPECT_EQ(parse_error(nested(49)), "a.yaml:1: nested deeper than 50 levels");
  EXPECT_EQ(parse_error(std::string(100000, '[')), "a.yaml:1: nested deeper than 50 levels");
  EXPECT_EQ(parse_error(std::string(100000, '{')), "a.yaml:1: nested deeper than 50 levels");
  std::string dashes;
  for (int i = 0; i < 1000; ++i) dashes += "- ";
  EXPECT_EQ(parse_error(dashes), "a.yaml:1: nested deeper than 50 levels");
  std::string key = "a";
  for (int i = 0; i < 60000; ++i) key += ".a";
  EXPECT_NE(parse_error("", {key + "=1"}).find(": too many keys"), std::string::npos);
}

TEST(Config, HugeTextIsRefused) {
  EXPECT_EQ(parse_error(std::string((1 << 20) + 1, '#')), "a.yaml: larger than 1 MiB");
  const std::string path = ::testing::TempDir() + "config_test_huge.yaml";
  write_file_atomically(path, std::string((1 << 20) + 1, '#'));
  EXPECT_NE(error_of([&] { load_config(path); }).find("is larger than"), std::string::npos);
  EXPECT_EQ(parse_error("name: " + std::string(1 << 19, 'x')), "(no error)");
  const std::string message = parse_error(std::string(1 << 19, 'x') + ": 1");
  EXPECT_LT(message.size(), 500u) << "a message quotes only the beginning";
}

TEST(Config, FileThatCannotBeReadIsNamed) {
  EXPECT_EQ(error_of([] { load_config("no/such.yaml"); }),
            "cannot read '" + absolute_path("no/such.yaml") + "': No such file or directory");
}

/// One small change of the kind that fuzzers make: a byte, a cut, a repeat, a token of YAML.
std::string mutated(std::string text, Random& random) {
  static const std::vector<const char*> kTokens = {
      "{",    "}",      "[",  "]",    ": ",  "- ",  "? ", "&a ",  "*a", "!!int ",
      "!",    "|\n",    ">-", "\n",   "---", "...", "\"", "'",    "#",  "\t",
      "  ",   "%YAML ", "~",  "null", "<<",  "1e9", "-1", "\\x0", "@",  "\xef\xbb\xbf",
      "\xff", "`",      ",",  "="};
  const int64_t changes = 1 + static_cast<int64_t>(random.below(3));
  for (int64_t i = 0; i < changes; ++i) {
    const size_t at = random.below(text.size() + 1);
    const size_t length = random.below(30);
    switch (random.below(5)) {
      case 0:
        text.insert(at, kTokens[random.below(kTokens.size())]);
        break;
      case 1:
        text.erase(at, length);
        break;
      case 2:
        text.insert(random.below(text.size() + 1), text.substr(at, length));
        break;
      case 3:
        text.insert(at, 1, static_cast<char>(random.below(256)));
        break;
      default:
        if (at < text.size()) text[at] = static_cast<char>(random.below(128));
        break;
    }
  }
  return text;
}

TEST(Config, MutatedTextIsReadOrRefusedButNothingElse) {
  int64_t read = 0, refused = 0;
  for (uint64_t i = 0; i < 4000; ++i) {
    Random random({2406, 4772, i});
    const std::string text = mutated(kWhole, random);
    const std::string set = mutated("train.optimizer={name: sgd, lr: 0.1}", random);
    const std::vector<std::string> overrides(i % 3 == 0 ? 1 : 0, set);
    try {
      const Config config = parse_config(text, "a.yaml", overrides);
      to_json(config).dump();
      ++read;
    } catch (const Error& e) {
      EXPECT_GT(std::string(e.what()).size(), 5u);
      ++refused;
    }  // any other exception fails the test
  }
  EXPECT_GT(read, 100);
  EXPECT_GT(refused, 100);
}

TEST(Suggestion, IsGivenWhenAtMostAThirdOfTheLettersDiffer) {
  const std::vector<std::string> words = {"epochs", "batch_size", "lr"};
  EXPECT_EQ(did_you_mean("epoch", words), " (did you mean 'epochs'?)");
  EXPECT_EQ(did_you_mean("batchsize", words), " (did you mean 'batch_size'?)");
  EXPECT_EQ(did_you_mean("epohcs", words), " (did you mean 'epochs'?)") << "a swap";
  EXPECT_EQ(did_you_mean("epoxxs", words), " (did you mean 'epochs'?)") << "2 of 6";
  EXPECT_EQ(did_you_mean("epxxxs", words), "") << "3 of 6";
  EXPECT_EQ(did_you_mean("l", words), "");
  EXPECT_EQ(did_you_mean("", words), "");
  EXPECT_EQ(did_you_mean("x", {}), "");
  EXPECT_EQ(quoted(std::string(61, 'x')), "'" + std::string(60, 'x') + "...'");
  EXPECT_EQ(join({"a", "b", "c"}), "a, b, c");
  EXPECT_EQ(join({}), "");
}

TEST(Config, NamesATabAndAMissingBlank) {
  EXPECT_NE(parse_error("train:\n\tepochs: 3\n").find("line 2 is indented with a tab"),
            std::string::npos)
      << parse_error("train:\n\tepochs: 3\n");
  for (const char* text :
       {"threads:1\nname: x\n", "name: x\nthreads:1\nseed: 2\n", "threads:1\n"}) {
    EXPECT_NE(parse_error(text).find("write 'threads: 1'"), std::string::npos) << parse_error(text);
  }
  EXPECT_NE(parse_error("train:\n  epochs:3\n").find("write 'epochs: 3'"), std::string::npos);
  EXPECT_NE(parse_error("train: {epochs:3}\n").find("write 'epochs: 3'"), std::string::npos)
      << parse_error("train: {epochs:3}\n");
  EXPECT_EQ(parse_error("name: \"a:b\"\n"), "(no error)");
  EXPECT_EQ(parse_error("backbone: {weights: 'pretrain:x.yaml'}\n"), "(no error)");
}

TEST(Config, PutsTheHomeFolderInThePlaceOfItsSign) {
  const std::string home = std::getenv("HOME") ? std::getenv("HOME") : "";
  if (home.empty()) GTEST_SKIP() << "HOME is not set";
  const Config config = parse_config(
      "backbone: {weights: ~/w.pth}\neval: {offline_result: '~/r.json'}\nname: ~/n\n"
      "efficiency: {query_backbone: {name: x, weights: 'pretrain:~/p.yaml'}}\n",
      "a.yaml");
  EXPECT_EQ(config.backbone.weights, home + "/w.pth");
  EXPECT_EQ(config.eval.offline_result, home + "/r.json");
  EXPECT_EQ(config.efficiency.query_backbone.weights, "pretrain:" + home + "/p.yaml");
  EXPECT_EQ(config.name, "~/n") << "is not a path";
  EXPECT_EQ(
      std::get<std::string>(parse_config("stream: {class_order: ~/o}", "a").stream.class_order),
      home + "/o");
  EXPECT_EQ(expand_home("a~/b"), "a~/b");
}

Json identity_of(const std::string& text) { return identity(parse_config(text, "a.yaml")); }

TEST(RunIdentity, LeavesOutWhatNoNumberDependsOn) {
  const Json plain = identity_of("");
  for (const char* same :
       {"name: other", "device: cpu", "threads: 3", "memory_limit: 2GiB", "train: {workers: 5}",
        "train: {checkpoint_seconds: 1}", "eval: {offline_result: x.json}",
        "eval: {predictions: logits}", "backbone: {weights: elsewhere.pth}", "train: {epochs: 5}",
        "seed: 42"}) {
    EXPECT_EQ(identity_of(same), plain) << same;
  }
  for (const char* other : {"seed: 1", "precision: bf16", "train: {epochs: 4}",
                            "stream: {tasks: 5}", "efficiency: {token_merging: {n: 2}}",
                            "backbone: {normalise: half}", "eval: {batch_size: 3}"}) {
    EXPECT_NE(identity_of(other), plain) << other;
  }
  EXPECT_NE(identity(Config(), {{"weights", "a"}}), identity(Config(), {{"weights", "b"}}));
}

TEST(RunIdentity, OfARunFromBeforeAKeyCameIsThatOfItsDefault) {
  const Config config = parse_config("", "a.yaml");
  const Json plain = identity(config), defaults = identity_of_defaults(config);
  Json earlier = plain;
  for (const char* key : {"kind", "validation", "domain_order", "blurry"}) {
    EXPECT_EQ(earlier["stream"].erase(key), 1U) << key;
  }
  for (const char* key : {"every", "every_tasks"}) {
    EXPECT_EQ(earlier["eval"].erase(key), 1U) << key;
  }
  EXPECT_EQ(first_difference(as_of_this_build(earlier, config), plain), "");
  for (const char* same :
       {"stream: {kind: class_incremental, validation: 0, domain_order: natural}",
        "stream: {blurry: {disjoint: 0.5, blur: 0.1, varied: false}}", "stream: {blurry: {}}",
        "eval: {every: 0, every_tasks: 1}"}) {
    EXPECT_EQ(identity_of(same), plain) << same;
  }
  for (const char* other :
       {"stream: {kind: online}", "stream: {validation: 0.1}", "stream: {domain_order: seed}",
        "stream: {blurry: {disjoint: 0.4}}", "eval: {every: 100}", "eval: {every_tasks: 2}"}) {
    EXPECT_NE(identity_of(other), plain) << other;
  }
  EXPECT_EQ(
      without_defaults(identity_of("stream: {blurry: {blur: 0.2}}"), defaults)["stream"].dump(),
      R"({"blurry":{"blur":0.2}})");
}

struct IdentityOptions {
  int64_t top_k = 5;
  std::string root, cache;
  template <class Visitor>
  void fields(Visitor&& visit) {
    visit("top_k", top_k, at_least(1), doc("prompts an image takes", "prompts", "L2P, table 5"));
    visit("root", root, path_of_input);
    visit("cache", cache, not_identity, doc("where decoded images are kept"));
  }
};

TEST(RunIdentity, TakesTheOptionsOfASectionAsTheyTakeEffect) {
  const auto of = [](const std::string& text) {
    return to_text(section_json<IdentityOptions>(parse_config(text, "a.yaml").method).identity);
  };
  EXPECT_EQ(of("method: er"), R"({"name":"er","top_k":5})");
  EXPECT_EQ(of("method: {cache: x, root: y, top_k: 5, name: er}"), of("method: er"));
  EXPECT_NE(of("method: {name: er, top_k: 4}"), of("method: er"));
}

TEST(RunIdentity, HasAClassOrdersPlaceForNothing) {
  const auto order = [](const std::string& value) {
    return identity_of("stream: {class_order: " + value + "}")["stream"]["class_order"];
  };
  EXPECT_EQ(order("here/order.txt"), order("/elsewhere/order.txt"));
  EXPECT_NE(order("here/order.txt"), order("natural"));
  for (const char* word : {"natural", "seed", "1993", "\"python:10\""}) {
    EXPECT_EQ(order(word), YAML::Load(word).as<std::string>());
  }
  EXPECT_EQ(to_text(order("[2, 0, 1]")), "[2,0,1]");
}

/// An identity in which every default is left out, as a key is made of it.
std::string kept(const std::string& text) {
  const Config config = parse_config(text, "a.yaml");
  return to_text(without_defaults(identity(config), identity_of_defaults(config)));
}

// So that an option that is added later, and is off, is in no key.
TEST(RunIdentity, LeavesDefaultsOutOfKeys) {
  EXPECT_EQ(kept(""), R"({"dataset":{"name":"synthetic"},"method":{"name":"l2p"},"inputs":{}})");
  EXPECT_EQ(kept("train: {epochs: 5, optimizer: {lr: 0.01}}\nmethod: er\nseed: 3"),
            R"({"seed":3,"dataset":{"name":"synthetic"},"method":{"name":"er"},)"
            R"("train":{"optimizer":{"lr":0.01}},"inputs":{}})");
}

// What a method's name stands for besides is not at its default, which is that of the structs.
TEST(RunIdentity, KeepsWhatAMethodsNameChangesInKeys) {
  const Registered<MethodDefaults> kDefaults{
      "a_method_with_cps", "this test", {"efficiency: {token_merging: {kind: cps}}"}};
  EXPECT_EQ(kept("method: a_method_with_cps"),
            R"({"dataset":{"name":"synthetic"},"method":{"name":"a_method_with_cps"},)"
            R"("efficiency":{"token_merging":{"kind":"cps"}},"inputs":{}})");
  EXPECT_EQ(
      kept("method: a_method_with_cps\nefficiency: {token_merging: {kind: none}}"),
      R"({"dataset":{"name":"synthetic"},"method":{"name":"a_method_with_cps"},"inputs":{}})");
}

// What another build wrote: it had no top_k and no batch size of tests, its root was part of the
// identity, and it wrote a class order's path.
TEST(RunIdentity, OfAnotherBuildIsFilledUp) {
  Config config = parse_config("method: er", "a.yaml");
  const SectionOptions options = section_json<IdentityOptions>(config.method);
  config.method.effective = options.effective;
  config.method.identity = options.identity;
  config.method.defaults = options.defaults;
  const Json today = identity(config, {{"weights", "w"}});
  Json was = today;
  was["method"].erase("top_k");
  was["method"]["root"] = "somewhere";
  was["eval"].erase("batch_size");
  was["stream"]["class_order"] = "orders/one.txt";
  Json expected = today;
  expected["stream"]["class_order"] = kSomeFile;
  EXPECT_EQ(first_difference(as_of_this_build(was, config), expected), "");
  EXPECT_EQ(first_difference(expected, as_of_this_build(was, config)), "");
  was["method"]["name"] = "der";  // of which nothing is known
  EXPECT_EQ(to_text(as_of_this_build(was, config)["method"]),
            R"({"name":"der","root":"somewhere"})");
}

TEST(RunIdentity, NamesTheFirstDifferenceWhateverTheOrder) {
  const Json one{{"a", {{"x", 1}, {"y", 2}}}, {"b", 1}};
  EXPECT_EQ(first_difference(one, {{"b", 1}, {"a", {{"y", 2}, {"x", 1}}}}), "");
  EXPECT_EQ(first_difference(one, {{"a", {{"y", 2}, {"x", 1}}}, {"b", 2}}), "b was 1 and is 2");
}

TEST(RunIdentity, NamesTheFirstDifference) {
  const Json one = identity_of("");
  EXPECT_EQ(first_difference(one, one), "");
  EXPECT_EQ(first_difference(one, identity_of("train: {optimizer: {lr: 1}}")),
            "train.optimizer.lr was 0.001875 and is 1.0");
  Json more = one;
  more["inputs"]["weights"] = "x";
  EXPECT_EQ(first_difference(one, more), "inputs.weights is new");
  EXPECT_EQ(first_difference(more, one), "inputs.weights is gone");
}

TEST(Fields, DescribeThemselves) {
  const Json fields = describe_fields<IdentityOptions>();
  EXPECT_EQ(to_text(fields[0]),
            R"({"key":"top_k","type":"integer","default":5,"identity":true,"minimum":1,)"
            R"("doc":"prompts an image takes","unit":"prompts","source":"L2P, table 5"})");
  EXPECT_EQ(fields[1]["identity"], "content");
  EXPECT_EQ(fields[2]["identity"], false);
  EXPECT_EQ(fields[2]["doc"], "where decoded images are kept");
  int64_t schedules = 0;
  for (const Json& field : describe_fields<Config>()) {
    if (field["key"] == "train.schedule") {
      ++schedules;
      EXPECT_EQ(field["enum"][0], "constant");
    }
  }
  EXPECT_EQ(schedules, 1);
}

TEST(ConfigBudgets, AreReadAndChecked) {
  const Config config = parse_config(
      "memory_limit: 2GiB\ntrain: {macs: 2.5e12, seconds: 90, iterations: 7}\n", "a.yaml");
  EXPECT_EQ(config.memory_limit, "2GiB");
  EXPECT_EQ(config.train.macs, 2.5e12);
  EXPECT_EQ(config.train.seconds, 90);
  EXPECT_EQ(config.train.iterations, 7);
  EXPECT_EQ(parse_error("train: {macs: -1}"),
            "a.yaml:1: train.macs: must be between 0 and 9.0072e+15, got '-1'");
  EXPECT_EQ(parse_error("train: {seconds: -1}"),
            "a.yaml:1: train.seconds: must be at least 0, got '-1'");
}

}  // namespace
}  // namespace rep
