// rep report: what is averaged, what is not, and how it is written.
#include "study/report.h"

#include <cmath>
#include <map>
#include <regex>

#include "core/error.h"
#include "core/identity.h"
#include "core/json.h"
#include "study/class_results.h"
#include "tests/run_command.h"

namespace rep {
namespace {

// A result as rep run writes it, as far as a report looks at it.
struct Written {
  std::string method = "l2p";
  int64_t seed = 1;
  double accuracy = 50;
  bool complete = true;
  double lr = 0.001;
  bool merging = false;
  std::string fingerprint = "data";
  std::string evaluated_on = "test";
};

std::string put(const std::string& folder, const Written& w) {
  const Json config{{"name", "exp-" + w.method},
                    {"seed", w.seed},
                    {"threads", w.seed},
                    {"dataset", {{"name", "cifar100"}, {"root", "x"}}},
                    {"stream", {{"tasks", 10}}},
                    {"method", {{"name", w.method}, {"pool_size", w.method == "l2p" ? 10 : 20}}},
                    {"efficiency",
                     {{"token_merging", {{"kind", w.merging ? "atom" : "none"}}},
                      {"layer_dropping", {{"kind", "none"}}}}},
                    {"train", {{"optimizer", {{"lr", w.lr}}}}}};
  Json result{
      {"complete", w.complete},
      {"name", "exp-" + w.method},
      {"config", config},
      {"inputs", {{"dataset", {{"fingerprint", w.fingerprint}}}, {"weights", Json::object()}}},
      {"metrics",
       {{"average_accuracy", w.accuracy},
        {"average_incremental_accuracy", nullptr},
        {"forgetting", 100 - w.accuracy},
        {"task_incremental", {{"average_accuracy", 90}}}}},
      {"cost",
       {{"total",
         {{"macs",
           {{"train", {{"select", 1e9}, {"forward", 2e9}, {"backward", 3e9}}}, {"eval", 4e9}}},
          {"peak_tensor_bytes", 5000000},
          {"seconds", {{"train", 6}}}}},
        {"state_bytes", 7000}}}};
  if (w.evaluated_on != "test") result["evaluated_on"] = w.evaluated_on;
  std::filesystem::create_directories(folder);
  return write_text(folder + "/result.json", result.dump());
}

ReportOptions options(const std::string& path, const std::string& format = "json") {
  ReportOptions options;
  options.paths = {path};
  options.format = format;
  return options;
}

Json report(const ReportOptions& options) { return Json::parse(make_report(options)); }

bool has_note(const Json& report, const std::string& part) {
  for (const auto& note : report["notes"]) {
    if (note.get<std::string>().find(part) != std::string::npos) return true;
  }
  return false;
}

TEST(Report, NeverMixesValidationImagesWithTestImages) {
  const std::string root = fresh_folder("report_validation");
  put(root + "/a", {"l2p", 1, 50});
  put(root + "/b", {"l2p", 2, 90, true, 0.001, false, "data", "validation"});
  put(root + "/c", {"er", 1, 40});
  for (const bool grouped : {false, true}) {
    ReportOptions asked = options(root);
    if (grouped) asked.group_by = {"method.name"};
    const Json json = report(asked);
    ASSERT_EQ(json["rows"].size(), 3U) << json.dump(1);
    for (const Json& row : json["rows"]) EXPECT_EQ(row["n"], 1);
    EXPECT_EQ(json["rows"][2]["settings"]["evaluated_on"], "validation");
  }
  // The best of a column is the best of the tests.
  const std::string table = make_report(options(root, "table"));
  EXPECT_NE(table.find("*50.00*"), std::string::npos) << table;
  EXPECT_EQ(table.find("*90.00*"), std::string::npos) << table;

  const std::string alone = fresh_folder("report_validation_alone");
  put(alone + "/b", {"l2p", 2, 90, true, 0.001, false, "data", "validation"});
  EXPECT_TRUE(has_note(report(options(alone)), "accuracies are of validation images"));
}

TEST(Report, AveragesOverSeedsWithTheSampleDeviation) {
  const std::string root = fresh_folder("report_seeds");
  put(root + "/a", {"l2p", 1, 50});
  put(root + "/b", {"l2p", 2, 56});
  put(root + "/deep/er/c", {"l2p", 3, 53});
  const Json json = report(options(root));
  ASSERT_EQ(json["rows"].size(), 1U);
  const Json& row = json["rows"][0];
  EXPECT_EQ(row["n"], 3);
  EXPECT_DOUBLE_EQ(row["metrics"]["average_accuracy"]["mean"], 53);
  EXPECT_DOUBLE_EQ(row["metrics"]["average_accuracy"]["sd"], 3);  // sqrt((9 + 9 + 0) / 2)
  EXPECT_DOUBLE_EQ(row["metrics"]["train_macs"]["mean"], 6e9);
  EXPECT_TRUE(row["metrics"]["average_incremental_accuracy"].is_null());
  EXPECT_TRUE(has_note(json, "held equal: dataset.name cifar100, stream.tasks 10"));
  EXPECT_FALSE(has_note(json, "seed"));
}

TEST(Report, NeverAveragesOverProtocolsUnlessAsked) {
  const std::string root = fresh_folder("report_protocols");
  put(root + "/a", {"l2p", 1, 50});
  put(root + "/b", {"l2p", 1, 60, true, 0.01});
  put(root + "/c", {"l2p", 2, 70, true, 0.01, false, "other data"});
  Json json = report(options(root));
  EXPECT_EQ(json["rows"].size(), 3U);
  ReportOptions pooled = options(root);
  pooled.group_by = {"method.name"};
  json = report(pooled);
  ASSERT_EQ(json["rows"].size(), 1U);
  EXPECT_DOUBLE_EQ(json["rows"][0]["metrics"]["average_accuracy"]["mean"], 60);
  EXPECT_TRUE(has_note(json,
                       "averaged over different values of: inputs.dataset, "
                       "train.optimizer.lr"))
      << json["notes"];
  EXPECT_TRUE(has_note(json, "seed 1 counts 2 times"));
}

/// `result` with a matrix of three tasks whose means are the accuracy less 20, 10 and 0.
void give_matrix(const std::string& path, double accuracy) {
  Json result = read_json(path);
  const double a = accuracy;
  result["accuracy"]["class_incremental"] = {
      {a - 20, nullptr, nullptr}, {a - 14, a - 6, nullptr}, {a - 24, a + 9, a + 15}};
  write_text(path, result.dump());
}

/// The same result with an identity of its own, as rep run writes it.
void give_identity(const std::string& path, const Json& identity,
                   const Json& config = Json::object()) {
  Json result = read_json(path);
  result["identity"] = identity;
  result["config"].update(config);
  write_text(path, result.dump());
}

TEST(Report, MakesARowOfEveryIdentity) {
  const std::string root = fresh_folder("report_identity");
  const auto identity = [](int64_t seed, const char* weights) {
    return Json{{"seed", seed}, {"method", {{"name", "l2p"}}}, {"inputs", {{"weights", weights}}}};
  };
  give_identity(put(root + "/a", {"l2p", 1, 50}), identity(1, "aaaaaaaaaaaaaaaa"),
                {{"memory_limit", "1GiB"}, {"dataset", {{"name", "x"}, {"root", "here"}}}});
  give_identity(put(root + "/b", {"l2p", 2, 52}), identity(2, "aaaaaaaaaaaaaaaa"),
                {{"eval", {{"offline_result", "s2.json"}}}, {"train", {{"workers", 4}}}});
  Json json = report(options(root));
  ASSERT_EQ(json["rows"].size(), 1U) << json["notes"];
  EXPECT_EQ(json["rows"][0]["n"], 2);
  give_identity(put(root + "/c", {"l2p", 3, 54}), identity(3, "bbbbbbbbbbbbbbbb"));
  json = report(options(root));
  ASSERT_EQ(json["rows"].size(), 2U);
  EXPECT_EQ(json["rows"][1]["settings"]["inputs.weights"], "bbbbbbbbbb");
  Json changed = identity(4, "aaaaaaaaaaaaaaaa");
  changed["changes"] = Json::array({{{"key", "train.clip_norm"}}});
  give_identity(put(root + "/d", {"l2p", 4, 90}), changed);
  EXPECT_EQ(report(options(root))["rows"].size(), 3U) << "went on otherwise after it diverged";
}

// Results of several builds: options that only some know, and paths that some wrote down.
TEST(Report, CountsAnOptionThatAResultDoesNotKnowAsItsDefault) {
  const std::string root = fresh_folder("report_builds");
  ReportOptions with = options(root);
  with.defaults = [](const std::string& dataset, const std::string& method) {
    Config config;
    config.dataset = Section{dataset, {}, ""};
    config.method = Section{method, {}, ""};
    config.method.effective = {{"name", method}, {"top_k", 5}, {"list", ""}};
    config.method.identity = config.method.defaults = {{"name", method}, {"top_k", 5}};
    return config;
  };
  const Json old{{"seed", 1}, {"method", {{"name", "l2p"}, {"list", "here/list.txt"}}}};
  give_identity(put(root + "/a", {"l2p", 1, 50}), old);
  Json today{
      {"seed", 2}, {"method", {{"name", "l2p"}, {"top_k", 5}}}, {"stream", {{"order_seed", 10}}}};
  give_identity(put(root + "/b", {"l2p", 2, 52}), today);
  EXPECT_EQ(report(with)["rows"].size(), 1U) << report(with)["notes"];
  today["method"]["top_k"] = 4;
  give_identity(put(root + "/b", {"l2p", 2, 52}), today);
  EXPECT_EQ(report(with)["rows"].size(), 2U);
}

TEST(Report, SaysWhereARowsRunsWereMadeDifferently) {
  const std::string root = fresh_folder("report_machines");
  for (const int64_t seed : {1, 2}) {
    const std::string path = put(root + "/" + std::to_string(seed), {"l2p", seed, 50});
    Json result = read_json(path);
    result["device"] = {{"name", "one"}, {"threads", seed}};
    result["libtorch"] = "2.1";
    write_text(path, result.dump());
  }
  const Json json = report(options(root));
  EXPECT_EQ(json["rows"].size(), 1U);
  EXPECT_TRUE(has_note(json, "averaged over different values of: device.threads")) << json["notes"];
  EXPECT_FALSE(has_note(json, "libtorch"));
}

TEST(Report, GivesAMethodAndItsRepOneColour) {
  const std::string root = fresh_folder("report_styles");
  put(root + "/a", {"l2p", 1, 50});
  put(root + "/b", {"l2p", 1, 51, true, 0.001, true});
  put(root + "/c", {"er", 1, 52});
  const Json json = report(options(root));
  ASSERT_EQ(json["rows"].size(), 3U);
  std::map<std::string, Json> styles;
  for (const Json& row : json["rows"]) {
    styles[row["settings"]["method.name"].get<std::string>() +
           row["settings"]["efficiency.token_merging.kind"].get<std::string>()] = row["style"];
  }
  const Json &plain = styles.at("l2pnone"), &rep = styles.at("l2patom"), &er = styles.at("ernone");
  EXPECT_EQ(plain["colour"], rep["colour"]);
  EXPECT_EQ(plain["marker"], rep["marker"]);
  EXPECT_NE(plain["colour"], er["colour"]);
  EXPECT_TRUE(plain["dashes"].empty());
  EXPECT_FALSE(rep["dashes"].empty());
  EXPECT_FALSE(plain["hollow"].get<bool>());
  EXPECT_TRUE(rep["hollow"].get<bool>());
  const std::string page = make_report(options(root, "html"));
  EXPECT_NE(page.find("stroke=\"" + plain["colour"].get<std::string>() + "\""), std::string::npos);
}

size_t count_of(const std::string& text, const std::string& part) {
  size_t count = 0;
  for (size_t at = text.find(part); at != std::string::npos; at = text.find(part, at + 1)) ++count;
  return count;
}

// By what the runs are but for REP: a name in common is not enough.
TEST(Report, PairsARowWithTheSameSettingsWithoutRep) {
  const std::string root = fresh_folder("report_bases");
  put(root + "/a", {"l2p", 1, 50});
  put(root + "/b", {"l2p", 1, 51, true, 0.001, true});
  put(root + "/c", {"l2p", 1, 52, true, 0.01, true});
  put(root + "/d", {"er", 1, 53});
  const Json json = report(options(root));
  ASSERT_EQ(json["rows"].size(), 4U);
  std::map<std::string, size_t> place;
  for (size_t i = 0; i < 4; ++i) place[json["rows"][i]["label"].get<std::string>()] = i;
  const auto base_of = [&](const std::string& label) {
    return place.count(label) ? json["rows"][place.at(label)]["base"] : Json("no row " + label);
  };
  const std::string base = "l2p, lr 0.001 (n = 1)";
  EXPECT_EQ(base_of("l2p, lr 0.001 + REP (n = 1)"), place.at(base)) << json["rows"];
  EXPECT_EQ(base_of("l2p, lr 0.01 + REP (n = 1)"), nullptr);
  EXPECT_EQ(base_of(base), nullptr);
  EXPECT_EQ(base_of("er, lr 0.001 (n = 1)"), nullptr);
  // An arrow from 50 % to 51 % in each of the pictures of MACs, peak and carried bytes.
  EXPECT_EQ(count_of(make_report(options(root, "html")), "class=\"arrow\""), 3U);
}

TEST(Report, HasTheCurvesOfEveryRow) {
  const std::string root = fresh_folder("report_curves");
  give_matrix(put(root + "/a", {"l2p", 1, 60}), 60);
  give_matrix(put(root + "/b", {"l2p", 2, 64}), 64);
  const Json curve = report(options(root))["rows"][0]["curves"]["average_accuracy"];
  EXPECT_EQ(curve["x"], Json({1.0, 2.0, 3.0}));
  EXPECT_EQ(curve["mean"], Json({42.0, 52.0, 62.0}));
  EXPECT_NEAR(curve["sd"][0].get<double>(), std::sqrt(8.0), 1e-9);
}

// Of several keys that tell two rows apart as well, the one that says what was done.
TEST(Report, LabelsRowsByTheKindOfEfficiencyBeforeItsOptions) {
  const std::string root = fresh_folder("report_kinds");
  for (const bool rep : {false, true}) {
    const std::string path = put(root + (rep ? "/b" : "/a"), {"l2p", 1, 50, true, 0.001, rep});
    Json result = read_json(path);
    result["config"]["efficiency"]["layer_dropping"]["decay"] = rep ? 0.004 : 0.001;
    write_text(path, result.dump());
  }
  const Json settings = report(options(root))["rows"][1]["settings"];
  EXPECT_EQ(settings, Json({{"efficiency.token_merging.kind", "atom"}}));
}

TEST(Report, LabelsRowsByTheFewestKeysAndSaysWhatElseDiffers) {
  const std::string root = fresh_folder("report_labels");
  put(root + "/a", {"l2p", 1, 50, true, 0.001});
  put(root + "/b", {"l2p", 1, 51, true, 0.001, true});
  put(root + "/c", {"dualprompt", 1, 52, true, 0.003});
  const Json json = report(options(root));
  ASSERT_EQ(json["rows"].size(), 3U);
  const Json& settings = json["rows"][2]["settings"];
  EXPECT_EQ(settings.size(), 2U) << settings;
  EXPECT_EQ(settings["method.name"], "l2p");
  EXPECT_EQ(settings["efficiency.token_merging.kind"], "atom");
  EXPECT_TRUE(has_note(json, "differs between rows, too: train.optimizer.lr"));
}

TEST(Report, ListsUnfinishedRunsWithoutCountingThem) {
  const std::string root = fresh_folder("report_unfinished");
  put(root + "/a", {"l2p", 1, 50});
  const std::string path = put(root + "/b", {"l2p", 2, 99, false});
  const Json json = report(options(root));
  EXPECT_EQ(json["rows"][0]["n"], 1);
  EXPECT_TRUE(has_note(json, "unfinished, not counted: " + path));
}

TEST(Report, MarksTheBestOfEachColumnInEveryFormat) {
  const std::string root = fresh_folder("report_formats");
  put(root + "/a", {"l2p", 1, 50});
  put(root + "/b", {"l2p", 2, 52});
  put(root + "/c", {"coda_prompt", 1, 60});
  ReportOptions with = options(root, "markdown");
  with.metrics = {"average_accuracy", "forgetting"};
  const std::string markdown = make_report(with);
  EXPECT_NE(markdown.find("| method | n | average accuracy | forgetting |\n|---|---:|---:|---:|\n"
                          "| coda_prompt | 1 | **60.00** | **40.00** |\n"
                          "| l2p | 2 | 51.00 ± 1.41 | 49.00 ± 1.41 |\n"),
            std::string::npos)
      << markdown;
  with.format = "latex";
  const std::string latex = make_report(with);
  EXPECT_NE(latex.find("coda\\_prompt & 1 & \\textbf{60.00} & \\textbf{40.00} \\\\\n"
                       "l2p & 2 & 51.00 $\\pm$ 1.41 & 49.00 $\\pm$ 1.41 \\\\\n\\bottomrule"),
            std::string::npos)
      << latex;
  with.format = "csv";
  EXPECT_EQ(make_report(with),
            "method.name,name,n,average_accuracy_mean,average_accuracy_sd,forgetting_mean,"
            "forgetting_sd\n"
            "coda_prompt,exp-coda_prompt,1,60.000000,,40.000000,\n"
            "l2p,exp-l2p,2,51.000000,1.414214,49.000000,1.414214\n");
  with.format = "table";
  const std::string table = make_report(with);
  EXPECT_NE(table.find("method       n  average accuracy    forgetting\n"
                       "coda_prompt  1           *60.00*       *40.00*\n"
                       "l2p          2      51.00 ± 1.41  49.00 ± 1.41\n"),
            std::string::npos)
      << table;
}

TEST(Report, PutsPublishedFiguresBesideOurs) {
  const std::string root = fresh_folder("report_published");
  put(root + "/a", {"l2p", 1, 80});
  put(root + "/b", {"l2p", 1, 79, true, 0.001, true});
  const std::string file = write_text(
      root + "/published.yaml",
      "numbers:\n"
      "- {method: l2p, dataset: cifar100, tasks: 10, backbone: B, average_accuracy: 83.5,"
      " source: paper, confirmed: true}\n"
      "- {method: l2p, dataset: cifar100, tasks: 10, rep: true, average_accuracy: 82,"
      " source: rep, confirmed: false}\n"
      "- {method: l2p, dataset: cifar100, tasks: 20, average_accuracy: 70, source: other}\n");
  ReportOptions with = options(root);
  with.published = file;
  const Json json = report(with);
  EXPECT_TRUE(has_note(json, "none: 83.50, ours -3.50 (B; paper)")) << json["notes"];
  EXPECT_TRUE(has_note(json, "atom: 82.00, ours -3.00 (; rep; not confirmed)")) << json["notes"];
  EXPECT_FALSE(has_note(json, "70.00"));
  with.published = REP_SOURCE_DIR "/results/published.yaml";
  EXPECT_TRUE(has_note(report(with), "arXiv 2112.08654"));
}

/// A page's elements: every one is closed, in order, with quoted attributes, known entities and no
/// character that XML forbids. "" when it is well-formed, or what is wrong.
std::string xml_fault(const std::string& page) {
  static const std::regex kTag(
      "<(/?)([A-Za-z][A-Za-z0-9]*)((?:\\s+[A-Za-z][A-Za-z0-9:-]*=\"[^\"<&]*\")*)\\s*(/?)>");
  static const std::regex kEntity("&(amp|lt|gt|quot|#39);");
  const std::string start = "<!DOCTYPE html>\n";
  if (page.compare(0, start.size(), start) != 0) return "no document type";
  std::vector<std::string> open;
  for (size_t at = start.size(); at < page.size();) {
    const auto here = page.cbegin() + static_cast<std::ptrdiff_t>(at);
    const auto first = std::regex_constants::match_continuous;
    std::smatch found;
    if (page[at] == '<') {
      if (!std::regex_search(here, page.cend(), found, kTag, first)) return page.substr(at, 80);
      if (found[1].length() > 0) {
        if (open.empty() || open.back() != found[2]) return "closes no element: " + found.str();
        open.pop_back();
      } else if (found[4].length() == 0) {
        open.push_back(found[2]);
      }
      at += static_cast<size_t>(found.length());
    } else if (page[at] == '&') {
      if (!std::regex_search(here, page.cend(), found, kEntity, first)) return page.substr(at, 9);
      at += static_cast<size_t>(found.length());
    } else {
      const auto c = static_cast<unsigned char>(page[at++]);
      if (c < 0x20 && c != '\n' && c != '\t') return "a control character";
      if (open.empty() && c != '\n') return "text outside of the document";
    }
  }
  return open.empty() ? "" : open.back() + " is not closed";
}

TEST(Report, MakesAPageOfTheTableAndPictures) {
  const std::string root = fresh_folder("report_page");
  give_matrix(put(root + "/a", {"l2p", 1, 60}), 60);
  give_matrix(put(root + "/b", {"l2p", 2, 64}), 64);
  give_matrix(put(root + "/c", {"er", 1, 70}), 70);
  ReportOptions with = options(root, "html");
  with.metrics = {"average_accuracy", "train_macs"};
  const std::string page = make_report(with);
  EXPECT_EQ(xml_fault(page), "");
  EXPECT_NE(page.find("l2p</span></td><td>2</td><td>62.00 ± 2.83</td>"), std::string::npos) << page;
  EXPECT_NE(page.find("<td><b>70.00</b></td>"), std::string::npos);
  // Accuracy, forgetting, MACs, peak and carried bytes; no joules were measured.
  EXPECT_EQ(count_of(page, "<figure>"), 5U);
  EXPECT_EQ(count_of(page, "class=\"band\""), 1U) << "l2p's accuracy has a deviation of 2.83";
  EXPECT_EQ(count_of(page, "energy"), 0U);
  for (const char* other : {"<script", "href", "src=", "url(", "@import"}) {
    EXPECT_EQ(count_of(page, other), 0U) << other;
  }
}

/// The y of the points of a picture's lines, in pixels.
std::vector<std::vector<double>> heights(const std::string& page, const std::string& title) {
  std::string picture = page.substr(page.find("<title>" + title));
  picture.resize(picture.find("</svg>"));
  std::vector<std::vector<double>> all;
  const std::regex line("<polyline points=\"([^\"]*)\""), point("[0-9.]+,([0-9.]+) ");
  const std::sregex_iterator end;
  for (std::sregex_iterator l(picture.begin(), picture.end(), line); l != end; ++l) {
    const std::string points = (*l)[1];
    all.emplace_back();
    for (std::sregex_iterator p(points.begin(), points.end(), point); p != end; ++p) {
      all.back().push_back(std::stod((*p)[1]));
    }
  }
  return all;
}

TEST(Report, DrawsTheCurvesToScale) {
  const std::string root = fresh_folder("report_scale");
  give_matrix(put(root + "/a", {"l2p", 1, 60}), 60);
  give_matrix(put(root + "/b", {"l2p", 2, 64}), 64);
  give_matrix(put(root + "/c", {"er", 1, 70}), 70);
  const std::string page = make_report(options(root, "html"));
  // Means by hand: er 50, 60, 70; l2p, over its two seeds, 42, 52, 62. A point upwards is less y.
  const auto accuracy = heights(page, "Accuracy over tasks");
  ASSERT_EQ(accuracy.size(), 2U);
  ASSERT_EQ(accuracy[0].size(), 3U);
  const double ten = accuracy[0][0] - accuracy[0][1];
  EXPECT_GT(ten, 20);
  EXPECT_NEAR(accuracy[0][1] - accuracy[0][2], ten, 0.02);
  EXPECT_NEAR(accuracy[1][0] - accuracy[0][0], 0.8 * ten, 0.02);
  EXPECT_NEAR(accuracy[1][1] - accuracy[0][2], 1.8 * ten, 0.02);
  // Forgetting: 0 after the first two tasks, and (a-14 - (a-24), 0) / 2 = 5 after the third.
  const auto forgetting = heights(page, "Forgetting over tasks");
  ASSERT_EQ(forgetting.size(), 2U);
  EXPECT_EQ(forgetting[0][0], forgetting[0][1]);
  EXPECT_GT(forgetting[0][1] - forgetting[0][2], 100);
  EXPECT_EQ(forgetting[0], forgetting[1]);
}

TEST(Report, DrawsTokensAndBlocksOfAStep) {
  const std::string root = fresh_folder("report_blocks");
  const std::vector<std::vector<double>> tokens{{100, 80}, {100, 60}}, runs{{1, 0.5}, {1, 0.75}};
  for (size_t seed = 0; seed < 2; ++seed) {
    const std::string path =
        put(root + "/" + std::to_string(seed), {"l2p", static_cast<int64_t>(seed), 60});
    Json result = read_json(path);
    result["cost"]["per_iteration"]["efficiency"] = {{"tokens_per_block_mean", tokens[seed]},
                                                     {"block_run_fraction", runs[seed]}};
    write_text(path, result.dump());
  }
  put(root + "/none", {"er", 1, 60});
  const std::string page = make_report(options(root, "html"));
  // A fall from 100 to the mean of 80 and 60, of 1 to that of .5 and .75: er has no line.
  for (const char* title : {"Tokens in each block", "How often each block runs"}) {
    const auto lines = heights(page, title);
    ASSERT_EQ(lines.size(), 1U) << title;
    ASSERT_EQ(lines[0].size(), 2U) << title;
    EXPECT_GT(lines[0][1] - lines[0][0], 20) << title;
  }
  EXPECT_EQ(xml_fault(page), "");
}

TEST(Report, APageIsWellFormedWhateverTheResultsSay) {
  const std::string root = fresh_folder("report_page_hostile");
  const std::string evil = "</td><script>alert('x')</script>&\x02\x1b \xEF\xBF\xBE\"";
  put(root + "/a\xff<b>", {evil, 1, 50, false});  // its path is in a note
  for (const char* method : {"1", "2", "3", "4", "5", "6", "7", "8", "9"}) {
    give_matrix(put(root + "/" + method, {evil + method, 1, 1e300}), 1e300);
  }
  Json odd = read_json(put(root + "/odd", {"odd", 1, 40}));
  odd["cost"]["total"]["peak_tensor_bytes"] = 1e-320;
  odd["cost"]["state_bytes"] = 1e307;
  odd["accuracy"]["class_incremental"] = {{50}, "no row", {1, 2, 3}};
  write_text(root + "/odd/result.json", odd.dump());
  const std::string page = make_report(options(root, "html"));
  EXPECT_EQ(xml_fault(page), "");
  EXPECT_EQ(count_of(page, "<script"), 0U);
  EXPECT_GT(count_of(page, "&lt;script&gt;"), 0U);
  EXPECT_EQ(count_of(page, "nan"), 0U);
  EXPECT_EQ(count_of(page, "inf\""), 0U);
  const std::string none = make_report(options(put(root + "/only", {"er", 1, 50, false}), "html"));
  EXPECT_EQ(xml_fault(none), "");
  EXPECT_EQ(count_of(none, "No run is finished."), 1U);
}

/// ant 3 of 4, one taken for bee; bee 4 of 4; cat, of the second task, 1 of 2, one taken for ant;
/// dog has no images.
Json four_classes() {
  const auto line = [](const char* name, Json task, int images, int correct, Json predicted) {
    return Json{{"class", 7},       {"name", name},       {"task", std::move(task)},
                {"images", images}, {"correct", correct}, {"predicted", std::move(predicted)}};
  };
  return {
      {"after_task", 1},
      {"classes",
       {line("ant", 0, 4, 3, {{"0", 3}, {"1", 1}}), line("bee", 0, 4, 4, {{"1", 4}}),
        line("<cat>", 1, 2, 1, {{"0", 1}, {"2", 1}}), line("dog", nullptr, 0, 0, Json::object())}}};
}

TEST(ClassResults, AreCountedByPairAndByTask) {
  const auto classes = class_results_of({{"confusion", four_classes()}});
  ASSERT_EQ(classes.size(), 4U);
  EXPECT_EQ(classes[0].accuracy(), 75);
  EXPECT_EQ(classes[3].task, -1);
  const auto pairs = most_confused(classes, 20);
  ASSERT_EQ(pairs.size(), 2U);
  EXPECT_EQ(pairs[0].from, 0U);
  EXPECT_EQ(pairs[0].to, 1U);
  EXPECT_EQ(pairs[1].from, 2U);
  EXPECT_EQ(most_confused(classes, 1).size(), 1U);
  EXPECT_EQ(by_class(classes).shares[0], (std::vector<double>{0.75, 0.25, 0, 0}));
  const ShareMatrix tasks = by_task(classes, 10);
  ASSERT_EQ(tasks.names, (std::vector<std::string>{"not tested", "task 1", "task 2"}));
  EXPECT_EQ(tasks.images[1], (std::vector<int64_t>{0, 8, 0}));
  EXPECT_EQ(tasks.shares[2], (std::vector<double>{0, 0.5, 0.5}));
  EXPECT_TRUE(by_task(classes, 2).names.empty());
}

TEST(ClassResults, AreNoneWhereAResultIsNotSound) {
  for (const char* key : {"name", "images", "correct", "predicted"}) {
    for (const Json& bad : {Json(nullptr), Json(-1), Json(1e30), Json("x"), Json::array()}) {
      if (bad.is_string() && key == std::string("name")) continue;
      Json confusion = four_classes();
      confusion["classes"][1][key] = bad;
      EXPECT_TRUE(class_results_of({{"confusion", confusion}}).empty()) << key << " " << bad;
    }
  }
  for (const char* position : {"-1", "x", "", "99999999999999999999999"}) {
    Json confusion = four_classes();
    confusion["classes"][0]["predicted"] = {{position, 1}};
    EXPECT_TRUE(class_results_of({{"confusion", confusion}}).empty()) << position;
  }
  EXPECT_TRUE(class_results_of({{"confusion", {1, 2}}}).empty());
  EXPECT_TRUE(class_results_of(Json::object()).empty());
  Json later = four_classes();  // eval.classes: all, before the last task
  later["classes"][0]["predicted"] = {{"0", 3}, {"9", 1}};
  EXPECT_EQ(class_results_of({{"confusion", later}})[0].taken_for.size(), 1U);
}

TEST(Report, ShowsWhatClassesWereTakenForByName) {
  const std::string root = fresh_folder("report_classes");
  const std::string path = put(root + "/a", {"l2p", 1, 60});
  Json result = read_json(path);
  result["confusion"] = four_classes();
  write_text(path, result.dump());
  put(root + "/b", {"er", 1, 50});
  std::string page = make_report(options(root, "html"));
  EXPECT_EQ(xml_fault(page), "");
  EXPECT_EQ(count_of(page, "<details open"), 1U);
  EXPECT_NE(page.find("l2p, seed 1: 8 of 10 test images correct, 4 classes"), std::string::npos);
  EXPECT_NE(page.find("<title>ant taken for bee: 1 images, 25.0 %</title>"), std::string::npos);
  EXPECT_NE(page.find("&lt;cat&gt;</td><td class=\"label\">ant</td><td>1</td><td>50.0</td>"),
            std::string::npos);
  EXPECT_NE(page.find("<span class=\"value\">75.0</span>"), std::string::npos);
  EXPECT_EQ(count_of(page, "Confusion of classes"), 1U);

  // A hundred classes in ten tasks: a square of tasks, and the twenty worst pairs.
  Json& classes = result["confusion"]["classes"] = Json::array();
  for (int i = 0; i < 100; ++i) {
    classes.push_back(
        {{"class", i},
         {"name", "class " + std::to_string(i)},
         {"task", i / 10},
         {"images", 100},
         {"correct", 60},
         {"predicted", {{std::to_string(i), 60}, {std::to_string((i + 1) % 100), 40}}}});
  }
  write_text(path, result.dump());
  page = make_report(options(root, "html"));
  EXPECT_EQ(xml_fault(page), "");
  EXPECT_EQ(count_of(page, "Confusion of tasks"), 1U);
  EXPECT_NE(page.find("<title>task 1 taken for task 2: 40 images, 4.0 %</title>"),
            std::string::npos);
  EXPECT_EQ(count_of(page, "<td>40</td><td>40.0</td>"), 20U);
  EXPECT_EQ(count_of(page, "<li><span class=\"name\">"), 100U);
}

TEST(Report, RefusesWhatIsNoResultAndUnknownNames) {
  const std::string root = fresh_folder("report_bad");
  EXPECT_THROW(make_report(options(root)), Error);
  EXPECT_THROW(make_report(options(root + "/nowhere")), Error);
  for (const std::string& bad : {std::string("{}"), std::string("[1"), std::string("\xff\xfe"),
                                 std::string(100000, '['), std::string("")}) {
    write_text(root + "/result.json", bad);
    EXPECT_THROW(make_report(options(root)), Error) << bad.substr(0, 10);
  }
  put(root, {});
  ReportOptions with = options(root);
  with.metrics = {"average_acuracy"};
  try {
    make_report(with);
    ADD_FAILURE() << "no error";
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("did you mean 'average_accuracy'"), std::string::npos);
  }
  with = options(root);
  with.group_by = {"method.nam"};
  EXPECT_THROW(make_report(with), Error);
}

}  // namespace
}  // namespace rep
