// rep sweep --select validation: the choice is made before a test image is opened.
#include <regex>

#include "tests/json_schema.h"
#include "tests/run_command.h"

namespace rep {
namespace {

/// CIFAR-100's files with `per_class` images of each of its 100 classes.
void write_cifar(const std::string& path, int per_class) {
  std::string records;
  for (int i = 0; i < per_class; ++i) {
    for (int label = 0; label < 100; ++label) {
      records += std::string{'\0', static_cast<char>(label)};
      for (int p = 0; p < 3072; ++p) {
        records += static_cast<char>(label * 2 + (p * (i + 3)) % 40);
      }
    }
  }
  write_text(path, records);
}

std::string small_cifar(const std::string& root) {
  return "name: small\n"
         "dataset: {name: cifar100, root: '" +
         root +
         "'}\n"
         "stream: {tasks: 2}\n"
         "backbone: {name: vit_nano, weights: random}\n"
         "method: {name: linear_probe}\n"
         "train: {epochs: 1, batch_size: 32, augment: none}\n"
         "threads: 1\n";
}

TEST(Selection, OpensNoTestImageBeforeTheChoiceAndTestsThatOnce) {
  const std::string folder = fresh_folder("selection");
  write_cifar(folder + "/train.bin", 5);
  const std::string config = write_text(folder + "/c.yaml", small_cifar(folder));
  const std::string out = folder + "/out";
  const std::string command = "sweep " + config +
                              " --grid train.optimizer.lr=0.000001,0.05 --seeds 1,2 --jobs 1 "
                              "--select validation --output " +
                              out;
  // There are no test images at all: everything up to the test itself works.
  const Finished untested = rep_command(command);
  EXPECT_EQ(untested.exit_code, 1) << untested.output;
  EXPECT_NE(untested.output.find("4 done, 0 skipped, 0 failed"), std::string::npos)
      << untested.output;
  EXPECT_NE(untested.output.find("test.bin"), std::string::npos) << untested.output;
  const nlohmann::json before = read_json(out + "/selection.json");
  EXPECT_TRUE(before.at("tested").empty());

  write_cifar(folder + "/test.bin", 2);
  const Finished tested = rep_command(command);
  ASSERT_EQ(tested.exit_code, 0) << tested.output;
  EXPECT_NE(tested.output.find("0 done, 4 skipped, 0 failed"), std::string::npos) << tested.output;
  EXPECT_NE(tested.output.find("2 done, 0 skipped, 0 failed"), std::string::npos) << tested.output;

  const nlohmann::json selection = read_json(out + "/selection.json");
  const nlohmann::json schema = read_json(REP_SOURCE_DIR "/results/schema.json");
  EXPECT_EQ(selection.at("settings"), before.at("settings")) << "the test changed the choice";
  ASSERT_EQ(selection["settings"].size(), 2U);
  double best = -1;
  size_t chosen = 0;
  for (size_t i = 0; i < 2; ++i) {
    const nlohmann::json& setting = selection["settings"][i];
    double sum = 0;
    for (const std::string directory : setting.at("runs")) {
      const nlohmann::json result = read_json(out + "/" + directory + "/result.json");
      EXPECT_EQ(schema_violation(result, schema), "");
      EXPECT_EQ(result.at("evaluated_on"), "validation");
      EXPECT_NE(result.at("notes").dump().find("kept out of training"), std::string::npos);
      EXPECT_EQ(result["config"]["stream"]["validation"], 0.2);
      EXPECT_EQ(result["inputs"]["dataset"]["train_images"], 400);
      EXPECT_EQ(result["inputs"]["dataset"]["test_images"], 100);
      sum += result["metrics"]["average_accuracy"].get<double>();
    }
    EXPECT_DOUBLE_EQ(setting.at("validation_accuracy").get<double>(), sum / 2);
    if (sum / 2 > best) {
      best = sum / 2;
      chosen = i;
    }
  }
  EXPECT_EQ(selection["settings"][chosen].at("chosen"), true);
  EXPECT_EQ(selection["settings"][1 - chosen].at("chosen"), false);
  ASSERT_EQ(selection["tested"].size(), 2U) << "one a seed";
  for (const nlohmann::json& run : selection["tested"]) {
    const nlohmann::json result =
        read_json(out + "/" + run.at("directory").get<std::string>() + "/result.json");
    EXPECT_EQ(result.at("evaluated_on"), "test");
    EXPECT_EQ(result["config"]["stream"]["validation"], 0);
    EXPECT_EQ(result["inputs"]["dataset"]["train_images"], 500) << "all of them";
    EXPECT_EQ(result["config"]["train"]["optimizer"]["lr"], chosen == 0 ? 0.000001 : 0.05);
    EXPECT_EQ(run.at("average_accuracy"), result["metrics"]["average_accuracy"]);
  }
  const std::string page = read_text(out + "/selection.md");
  EXPECT_NE(page.find("| chosen | " + config), std::string::npos) << page;
  EXPECT_NE(page.find("Then trained on all training images and tested once"), std::string::npos);

  // Another choice in the same folder does not hide that test images were looked at before.
  const std::string other = chosen == 0 ? "0.05" : "0.000001";
  const Finished later = rep_command("sweep " + config + " --grid train.optimizer.lr=" + other +
                                     " --seeds 1,2 --select validation --output " + out);
  ASSERT_EQ(later.exit_code, 0) << later.output;
  std::map<std::string, double> first, before_later;
  for (const auto& run : selection["tested"]) first[run["directory"]] = run["average_accuracy"];
  const nlohmann::json again = read_json(out + "/selection.json");
  for (const auto& run : again.at("tested_before")) {
    before_later[run["directory"]] = run["average_accuracy"];
  }
  EXPECT_EQ(before_later, first);
  const std::string second = read_text(out + "/selection.md");
  EXPECT_NE(second.find("not the first look at the test images"), std::string::npos) << second;

  // A report keeps the two kinds apart, also where a row is asked to hold both.
  const nlohmann::json report = nlohmann::json::parse(
      rep_command("report " + out + " --format json --group-by method.name").output);
  ASSERT_EQ(report.at("rows").size(), 2U) << report.dump(1);
  EXPECT_EQ(report["rows"][0]["settings"]["evaluated_on"], "test");
  EXPECT_EQ(report["rows"][1]["settings"]["evaluated_on"], "validation");
}

TEST(Selection, ChoosesNothingWhereARunFailed) {
  const std::string folder = fresh_folder("selection_failed");
  const std::string config =
      write_text(folder + "/c.yaml", edited(small_experiment("l2p"), "epochs: 3", "epochs: 1"));
  const Finished failed =
      rep_command("sweep " + config + " --grid method.top_k=2,11 --limit-train 8 --jobs 1 " +
                  "--select validation --output " + folder + "/out");
  EXPECT_EQ(failed.exit_code, 1);
  EXPECT_NE(failed.output.find("1 of 2 runs failed"), std::string::npos) << failed.output;
  EXPECT_FALSE(std::filesystem::exists(folder + "/out/selection.json"));
}

TEST(Selection, ListsItsRunsInADryRunAndRefusesWhatCannotBeCompared) {
  const std::string folder = fresh_folder("selection_dry");
  const std::string config = write_text(folder + "/c.yaml", small_experiment("l2p"));
  const std::string command = "sweep " + config + " --select validation --output " + folder + "/o ";
  const Finished dry = rep_command(command + "--grid method.top_k=2,3 --dry-run");
  EXPECT_EQ(dry.exit_code, 0) << dry.output;
  const std::regex run("new +rep run [^\n]*--set method.top_k=[23] --set stream.validation=0.2 ");
  EXPECT_EQ(std::distance(std::sregex_iterator(dry.output.begin(), dry.output.end(), run), {}), 2)
      << dry.output;
  EXPECT_NE(dry.output.find("then the best setting of each configuration"), std::string::npos);
  const Finished own = rep_command(command + "--set stream.validation=0.5 --dry-run");
  EXPECT_EQ(own.output.find("validation=0.2"), std::string::npos) << own.output;

  const Finished shares = rep_command(command + "--grid stream.validation=0.1,0.2");
  EXPECT_EQ(shares.exit_code, 1);
  EXPECT_NE(shares.output.find("--grid stream.validation: accuracies on different"),
            std::string::npos);
  const Finished slurm = rep_command(command + "--engine slurm");
  EXPECT_EQ(slurm.exit_code, 1);
  EXPECT_NE(slurm.output.find("--select: waits for the runs"), std::string::npos);
  EXPECT_EQ(rep_command("sweep " + config + " --select test").exit_code, 2);
}

}  // namespace
}  // namespace rep
