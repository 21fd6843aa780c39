// What a run keeps of its test images says the same as its result.
#include <cmath>

#include "formats/safetensors.h"
#include "tensor/torch.h"
#include "tests/image_sets.h"
#include "tests/json_schema.h"

namespace rep {
namespace {

using Row = std::map<std::string, std::string>;

/// A file of eval.predictions: top5 whose cells have no commas.
std::vector<Row> read_csv(const std::string& path) {
  std::ifstream file(path);
  const auto cells = [](const std::string& line) {
    std::vector<std::string> parts(1);
    for (const char c : line) {
      if (c == ',') {
        parts.emplace_back();
      } else {
        parts.back() += c;
      }
    }
    return parts;
  };
  std::string line;
  std::getline(file, line);
  const auto names = cells(line);
  std::vector<Row> rows;
  while (std::getline(file, line)) {
    const auto values = cells(line);
    EXPECT_EQ(values.size(), names.size()) << line;
    for (size_t i = 0; i < std::min(names.size(), values.size()); ++i) {
      if (i == 0) rows.emplace_back();
      rows.back()[names[i]] = values[i];
    }
  }
  return rows;
}

/// A row of the accuracy matrix from (task, is correct) of its images.
std::vector<double> accuracies(const std::vector<std::pair<int64_t, bool>>& images) {
  std::map<int64_t, std::pair<int64_t, int64_t>> counts;  // correct, of
  for (const auto& [task, correct] : images) {
    counts[task].first += correct;
    ++counts[task].second;
  }
  std::vector<double> row;
  for (const auto& [task, count] : counts) {
    row.push_back(100.0 * static_cast<double>(count.first) / static_cast<double>(count.second));
  }
  return row;
}

std::vector<double> accuracies(const std::vector<Row>& rows) {
  std::vector<std::pair<int64_t, bool>> images;
  for (const Row& row : rows) {
    images.emplace_back(std::stoll(row.at("task")), row.at("label") == row.at("label1"));
  }
  return accuracies(images);
}

std::vector<double> matrix_row(const nlohmann::json& result, size_t task) {
  const auto& cells = result["accuracy"]["class_incremental"][task];
  std::vector<double> row;
  for (size_t i = 0; i <= task; ++i) row.push_back(cells[i].get<double>());
  return row;
}

std::string file_of(const std::string& folder, int task, const std::string& suffix = "csv") {
  return folder + "/predictions/task-0" + std::to_string(task) + "." + suffix;
}

void expect_same_confusion(const std::vector<Row>& rows, const nlohmann::json& result) {
  std::map<std::string, nlohmann::json> predicted;
  for (const Row& row : rows) {
    auto& counts = predicted.emplace(row.at("label"), nlohmann::json::object()).first->second;
    const std::string to = row.at("label1");
    counts[to] = counts.value(to, 0) + 1;
  }
  const auto& classes = result["confusion"]["classes"];
  ASSERT_EQ(classes.size(), predicted.size());
  for (size_t i = 0; i < classes.size(); ++i) {
    EXPECT_EQ(classes[i]["predicted"], predicted.at(std::to_string(i))) << i;
  }
}

class PredictionsOf : public ::testing::TestWithParam<const char*> {};

TEST_P(PredictionsOf, GiveTheMatrixBitForBitAlsoAfterAKill) {
  const std::string method = GetParam(), folder = fresh_folder("predictions_" + method);
  const std::string config = write_text(folder + "/c.yaml", small_experiment(method));
  const Finished run =
      rep_command("run " + config + " -q --save-predictions --output " + folder + "/out");
  ASSERT_EQ(run.exit_code, 0) << run.output;
  const auto result = read_json(folder + "/out/result.json");
  const auto schema = read_json(REP_SOURCE_DIR "/results/schema.json");
  EXPECT_EQ(schema_violation(result, schema), "");
  std::vector<Row> rows;
  for (int task = 0; task < 3; ++task) {
    rows = read_csv(file_of(folder + "/out", task));
    ASSERT_EQ(rows.size(), 8U * static_cast<size_t>(task + 1));
    EXPECT_EQ(accuracies(rows), matrix_row(result, static_cast<size_t>(task)));
    for (const Row& row : rows) {
      EXPECT_EQ(row.at("path"), "") << "synthetic images are no files";
      EXPECT_EQ(row.at("label5").empty(), task < 2) << "two, four and six classes were seen";
      double last = INFINITY;
      for (const char* score : {"score1", "score2"}) {
        EXPECT_LE(std::stod(row.at(score)), last);
        last = std::stod(row.at(score));
      }
    }
  }
  expect_same_confusion(rows, result);
  EXPECT_EQ(result["confusion"]["after_task"], 2);
  int64_t correct = 0, images = 0;
  for (const auto& line : result["confusion"]["classes"]) {
    correct += line["correct"].get<int64_t>();
    images += line["images"].get<int64_t>();
    EXPECT_EQ(line["images"], 4);
  }
  EXPECT_EQ(result["metrics"]["average_accuracy_micro"].get<double>(),
            100.0 * static_cast<double>(correct) / static_cast<double>(images));

  if (method == std::string("ncm")) return;  // has no steps to be killed in
  const std::vector<std::string> more{"--set", "eval.predictions=top5"};
  for (const int64_t lines : {2, 4}) {
    signal_at_line(config, folder + "/killed", lines, SIGKILL, more);
  }
  ASSERT_EQ(rep_command("run " + config + " -q --save-predictions --resume --output " + folder +
                        "/killed")
                .exit_code,
            0);
  for (int task = 0; task < 3; ++task) {
    EXPECT_EQ(read_text(file_of(folder + "/killed", task)),
              read_text(file_of(folder + "/out", task)));
  }
  EXPECT_EQ(read_json(folder + "/killed/result.json")["confusion"], result["confusion"]);
}

INSTANTIATE_TEST_SUITE_P(Methods, PredictionsOf, ::testing::Values("l2p", "ncm", "finetune"));

TEST(Predictions, OfAllLogitsGiveTheMatrixToo) {
  const std::string folder = fresh_folder("predictions_logits");
  const std::string config = write_text(folder + "/c.yaml", small_experiment("l2p"));
  const Finished run = rep_command("run " + config + " -q --set eval.predictions=logits --output " +
                                   folder + "/out");
  ASSERT_EQ(run.exit_code, 0) << run.output;
  const auto result = read_json(folder + "/out/result.json");
  for (int task = 0; task < 3; ++task) {
    const Safetensors file = read_safetensors(file_of(folder + "/out", task, "safetensors"));
    std::map<std::string, torch::Tensor> tensors(file.tensors.begin(), file.tensors.end());
    const int64_t candidates = std::stoll(file.metadata.at("candidates"));
    EXPECT_EQ(candidates, 2 * (task + 1));
    ASSERT_EQ(tensors.at("logits").sizes(), (std::vector<int64_t>{8 * (task + 1), 6}));
    const torch::Tensor hits =
        tensors.at("logits").narrow(1, 0, candidates).argmax(1).eq(tensors.at("label"));
    std::vector<std::pair<int64_t, bool>> images;
    for (int64_t i = 0; i < hits.size(0); ++i) {
      images.emplace_back(tensors.at("task")[i].item<int64_t>(), hits[i].item<bool>());
    }
    EXPECT_EQ(accuracies(images), matrix_row(result, static_cast<size_t>(task)));
    EXPECT_EQ(nlohmann::json::parse(file.metadata.at("class_names")).size(), 6U);
  }
}

// Each image is in the writer's file once, whatever process tested it.
TEST(Predictions, OfTwoProcessesAreThoseOfOne) {
  const std::string folder = fresh_folder("predictions_world");
  // Of the 9 test images of a task one process has 4 and the other 5.
  const std::string config =
      write_text(folder + "/c.yaml",
                 edited(edited(small_experiment("l2p"), "test_per_class: 4", "test_per_class: 3"),
                        "tasks: 3", "tasks: 2"));
  const std::string run = "run " + config + " -q --save-predictions --output " + folder;
  const Finished one = rep_command(run + "/one");
  ASSERT_EQ(one.exit_code, 0) << one.output;
  const Finished two = run_together(2, run + "/two");
  ASSERT_EQ(two.exit_code, 0) << two.output;
  const auto result = read_json(folder + "/two/result.json");
  for (int task = 0; task < 2; ++task) {
    const auto alone = read_csv(file_of(folder + "/one", task));
    const auto together = read_csv(file_of(folder + "/two", task));
    EXPECT_EQ(accuracies(together), matrix_row(result, static_cast<size_t>(task)));
    ASSERT_EQ(together.size(), alone.size());
    for (size_t i = 0; i < alone.size(); ++i) {
      for (const char* column : {"task", "index", "label", "class", "label1"}) {
        EXPECT_EQ(together[i].at(column), alone[i].at(column)) << column;
      }
      EXPECT_NEAR(std::stod(together[i].at("score1")), std::stod(alone[i].at("score1")), 1e-3);
    }
  }
}

TEST(Predictions, NameFilesAndClassesAndVanishWhenTheFolderIsUsedAgain) {
  const std::string folder = fresh_folder("predictions_files");
  for (const char* name : {"ant", "bee"}) {
    for (int i = 0; i < 4; ++i) {
      const std::string file = std::string(name) + "/" + std::to_string(i) + ".png";
      const auto seed = static_cast<uint8_t>(i + (name[0] == 'a' ? 0 : 9));
      put(folder + "/data/train/" + file, picture(32, 32, seed));
      put(folder + "/data/test/" + file, picture(32, 32, seed));
    }
  }
  const std::string config =
      write_text(folder + "/c.yaml",
                 edited(edited(small_experiment("ncm"), "tasks: 3", "tasks: 2"),
                        "{name: synthetic, classes: 6, train_per_class: 16, test_per_class: 4}",
                        "{name: image_folder, root: " + folder + "/data}"));
  const std::string run = "run " + config + " -q --output " + folder + "/out";
  const Finished kept = rep_command(run + " --save-predictions");
  ASSERT_EQ(kept.exit_code, 0) << kept.output;
  const auto rows = read_csv(file_of(folder + "/out", 1));
  ASSERT_EQ(rows.size(), 8U);
  std::vector<std::string> paths;
  for (const Row& row : rows) {
    paths.push_back(row.at("path"));
    const std::string name = row.at("class");
    EXPECT_NE(row.at("path").find(name + "/"), std::string::npos) << row.at("path");
  }
  std::sort(paths.begin(), paths.end());
  EXPECT_EQ(std::unique(paths.begin(), paths.end()), paths.end()) << "an image twice";
  ASSERT_EQ(rep_command(run).exit_code, 0);
  EXPECT_FALSE(std::filesystem::exists(folder + "/out/predictions"));
}

}  // namespace
}  // namespace rep
