// Data that people really have: whatever is wrong with it, `rep check` finds it, and `rep run` says
// the same before it trains.
#include <gtest/gtest.h>

#include <csignal>
#include <filesystem>
#include <fstream>
#include <functional>
#include <string>
#include <utility>

#include "tests/image_sets.h"

namespace rep {
namespace {

namespace fs = std::filesystem;

/// Four classes in two splits, `train` and 2 images each.
std::string pictures(const std::string& name, int train = 4) {
  const std::string root = fresh_folder("faults_" + name);
  uint8_t seed = 0;
  for (const char* c : {"ant", "bee", "cat", "dog"}) {
    for (int i = 0; i < train; ++i) {
      put(root + "/train/" + c + "/" + std::to_string(i) + ".png", picture(40, 40, ++seed));
    }
    for (int i = 0; i < 2; ++i) {
      put(root + "/test/" + c + "/" + std::to_string(i) + ".png", picture(40, 40, ++seed));
    }
  }
  return root;
}

/// A configuration of two tasks on that folder; `more`: lines of YAML.
std::string experiment(const std::string& root, const std::string& dataset = "",
                       const std::string& more =
                           "backbone: {name: vit_nano, weights: random}\n"
                           "method: {name: linear_probe}\n",
                       int tasks = 2) {
  return write_text(root + "/case.yaml",
                    "name: case\nthreads: 1\ndataset: {name: image_folder, root: " + root +
                        dataset + "}\nstream: {tasks: " + std::to_string(tasks) + "}\n" + more +
                        "train: {epochs: 1, batch_size: 4, augment: none}\n");
}

/// The same, of enough steps to be stopped between them, each of which is saved.
std::string experiment_in_steps(const std::string& root, const std::string& dataset = "") {
  const std::string path = experiment(root, dataset);
  return write_text(path,
                    edited(read_text(path), "epochs: 1", "epochs: 200, checkpoint_seconds: 0"));
}

/// The last line that begins with "rep: ", without that.
std::string sentence(const Finished& finished) {
  const size_t at = finished.output.rfind("rep: ");
  if (at == std::string::npos) return "none in: " + finished.output;
  return finished.output.substr(at + 5, finished.output.find('\n', at) - at - 5);
}

/// What `rep check` says of a configuration that is not good; `rep run` must say it, too, and have
/// trained nothing.
std::string fault(const std::string& config) {
  const Finished check = rep_command("check " + config);
  EXPECT_EQ(check.exit_code, 1) << check.output;
  const std::string output = fs::path(config).parent_path().string() + "/out";
  const Finished run = rep_command("run " + config + " --output " + output);
  EXPECT_EQ(run.exit_code, 1) << run.output;
  EXPECT_EQ(sentence(run), sentence(check));
  EXPECT_FALSE(fs::exists(output + "/result.json"));
  EXPECT_FALSE(fs::exists(output + "/metrics.jsonl"));
  return sentence(check);
}

void expect_in(const std::string& text, const std::string& part) {
  EXPECT_NE(text.find(part), std::string::npos) << "'" << part << "' is not in: " << text;
}

TEST(DataFaults, AClassWithoutTrainingImagesIsNamedBeforeTraining) {
  const std::string root = pictures("empty");
  for (int i = 0; i < 4; ++i) fs::remove(root + "/train/cat/" + std::to_string(i) + ".png");
  const std::string config = experiment(root), said = fault(config);
  expect_in(said, "no training images of 1 of 4 classes ('cat')");
  for (const char* command : {"plan ", "bench "}) {
    const Finished refused = rep_command(command + config);
    EXPECT_EQ(refused.exit_code, 1) << refused.output;
    EXPECT_EQ(sentence(refused), said);
  }
}

TEST(DataFaults, AClassWithoutTestImagesIsNamedBeforeTraining) {
  const std::string root = pictures("untested");
  for (int i = 0; i < 2; ++i) fs::remove(root + "/test/bee/" + std::to_string(i) + ".png");
  expect_in(fault(experiment(root)), "no test images of 1 of 4 classes ('bee')");
}

TEST(DataFaults, AnEmptyListIsRefusedBeforeTraining) {
  const std::string root = pictures("empty_list"), list = write_text(root + "/list.txt", "");
  expect_in(fault(experiment(root, ", train_list: " + list)),
            "no training images of 4 of 4 classes ('ant', 'bee', 'cat', 'dog')");
}

TEST(DataFaults, SmallClassesHaveATestImageAndNoTaskCountsAsNothing) {
  const std::string root = fresh_folder("faults_small");
  for (int i = 0; i < 20; ++i) {
    for (const char* c : {"ant", "bee", "cat", "dog"}) {
      if (i >= 4 && c[0] < 'c') continue;
      put(root + "/" + c + "/" + std::to_string(i) + ".png",
          picture(9, 9, static_cast<uint8_t>(i)));
    }
  }
  const std::string config = experiment(root, ", test_share: 0.2");
  const std::string output = fresh_folder("faults_small_out");
  const Finished run = rep_command("run " + config + " -q --output " + output);
  ASSERT_EQ(run.exit_code, 0) << run.output;
  for (const auto& task : read_json(output + "/result.json")["tasks"]) {
    EXPECT_GT(task["test_images"], 0);
  }
}

TEST(DataFaults, EmptyAndMissingFilesAreFoundBeforeTraining) {
  const std::string root = pictures("zero");
  write_text(root + "/test/dog/zero.png", "");
  const std::string said = fault(experiment(root));
  expect_in(said, "1 of 9 test images are missing or empty");
  expect_in(said, "test/dog/zero.png: the file is empty");
}

TEST(DataFaults, DeadLinksAreFoundBeforeTraining) {
  const std::string root = pictures("dead");
  fs::create_symlink("nowhere.png", root + "/train/dog/dead.png");
  expect_in(fault(experiment(root)), "train/dog/dead.png: a link to 'nowhere.png'");
}

TEST(DataFaults, NamesThatNoResultCanHoldAreRefusedBeforeTraining) {
  const std::string root = pictures("latin1");
  for (const char* split : {"/train/", "/test/"}) {
    fs::rename(root + split + "cat", root + split + "caf\xE9");
  }
  expect_in(fault(experiment(root)), "the class 'caf\\xE9' is not named in UTF-8");
}

TEST(DataFaults, ClassesThatDoNotDivideAreNamed) {
  const std::string root = pictures("divide");
  for (const char* split : {"/train/", "/test/"}) put(root + split + "@home/0.png");
  expect_in(fault(experiment(root)), "5 classes ('@home', 'ant', 'bee', 'cat', 'dog') do not");
}

/// A configuration whose ResNet ends in maps of one pixel where `image_size` is 32.
std::string with_batch_norm(const std::string& root, const std::string& image_size,
                            const std::string& train, const std::string& method = "finetune") {
  return write_text(
      root + "/case.yaml",
      "name: case\nthreads: 1\ndataset: {name: image_folder, root: " + root +
          "}\nstream: {tasks: 2}\nbackbone: {name: resnet18, weights: random, trainable: all, "
          "stem: imagenet, width: 8, image_size: " +
          image_size + "}\nmethod: {name: " + method + "}\neval: {batch_size: 1}\n" +
          "train: {epochs: 1, augment: none, " + train + "}\n");
}

TEST(DataFaults, ALastBatchOfOneImageIsRefusedWhereBatchNormCannotLearnFromIt) {
  const std::string root = pictures("last_of_one");  // tasks of eight images
  expect_in(fault(with_batch_norm(root, "32", "batch_size: 7")),
            "train.batch_size: the 8 images of task 1 leave a batch of 1 image");
  for (const auto& [image_size, train] : {std::pair{"32", "batch_size: 7, drop_last: true"},
                                          {"32", "batch_size: 7, iterations: 1"},
                                          {"64", "batch_size: 7"},
                                          {"32", "batch_size: 6"}}) {
    const std::string output = fresh_folder("faults_last_of_one_out");
    const Finished run =
        rep_command("run " + with_batch_norm(root, image_size, train) + " -q --output " + output);
    EXPECT_EQ(run.exit_code, 0) << run.output;
  }
}

// What a method keeps of earlier tasks is in its batches, too.
TEST(DataFaults, ALastBatchOfOneImageIsFoundAmongExemplars) {
  const std::string root = pictures("last_of_exemplars");  // tasks of eight images, four a class
  // Nine images are room for four a class after one task: 8 + 8 images in the second.
  expect_in(fault(with_batch_norm(root, "32", "batch_size: 5", "icarl, buffer_size: 9")),
            "train.batch_size: the 16 images of task 2 leave a batch of 1 image");
  expect_in(fault(with_batch_norm(root, "32", "batch_size: 4", "gdumb, buffer_size: 9")),
            "train.batch_size: the 9 images of task 2 leave a batch of 1 image");
  const std::string output = fresh_folder("faults_last_of_exemplars_out");
  const Finished run =
      rep_command("run " + with_batch_norm(root, "32", "batch_size: 7", "gdumb, buffer_size: 4") +
                  " -q --output " + output);
  EXPECT_EQ(run.exit_code, 0) << run.output;
}

TEST(DataFaults, PlanSplitsNoBatchThatBatchNormLearnsFrom) {
  const std::string root = pictures("ladder");
  const Finished done =
      rep_command("plan --json --memory-limit 1 " + with_batch_norm(root, "32", "batch_size: 8"));
  EXPECT_EQ(done.exit_code, 0) << done.output;
  const auto plan = nlohmann::json::parse(done.output.substr(done.output.find('{')));
  EXPECT_FALSE(plan.at("fits").get<bool>());
  ASSERT_GT(plan.at("ladder").size(), 0u);
  for (const auto& rung : plan.at("ladder")) EXPECT_EQ(rung.at("micro_batch_size"), 0) << rung;
}

/// `root`'s experiment, stopped in its middle; resumed, it must refuse.
void expect_other_data(const std::string& root, const std::string& config,
                       const std::function<void()>& change) {
  const std::string output = root + "/out";
  ASSERT_EQ(signal_at_line(config, output, 1, SIGKILL), 128 + SIGKILL);
  change();
  const Finished resumed = rep_command("run " + config + " -q --resume --output " + output);
  EXPECT_EQ(resumed.exit_code, 1);
  expect_in(resumed.output, "was made from other data");
}

TEST(DataFaults, ResumeRefusesPicturesThatCameOrWent) {
  for (const bool came : {true, false}) {
    const std::string root = pictures("resumed");
    expect_other_data(root, experiment_in_steps(root), [&] {
      if (came) {
        put(root + "/train/bee/9.png");
      } else {
        fs::remove(root + "/train/bee/3.png");
      }
    });
  }
}

TEST(DataFaults, ResumeRefusesAnEditedListAndARenamedClass) {
  const std::string root = pictures("resumed_list");
  std::string lines;
  for (int label = 0; label < 4; ++label) {
    for (int i = 0; i < 3; ++i) {
      const char* const names[] = {"ant", "bee", "cat", "dog"};
      lines += std::string("train/") + names[label] + "/" + std::to_string(i) + ".png " +
               std::to_string(label) + "\n";
    }
  }
  const std::string list = write_text(root + "/list.txt", lines);
  expect_other_data(root, experiment_in_steps(root, ", train_list: " + list),
                    [&] { write_text(list, edited(lines, "ant/2.png", "ant/3.png")); });
  const std::string renamed = pictures("resumed_class");
  expect_other_data(renamed, experiment_in_steps(renamed), [&] {
    for (const char* split : {"/train/", "/test/"}) {
      fs::rename(renamed + split + "cat", renamed + split + "cow");
    }
  });
}

TEST(DataFaults, CheckDecodesAndListsAllThatIsBroken) {
  const std::string root = pictures("broken");
  write_text(root + "/train/dog/page.png", "<html>404</html>");
  std::string half;
  {
    std::ifstream file(root + "/train/dog/0.png", std::ios::binary);
    half.assign(std::istreambuf_iterator<char>(file), {});
  }
  std::ofstream(root + "/test/ant/half.png", std::ios::binary) << half.substr(0, half.size() / 2);
  const std::string config = experiment(root);
  EXPECT_EQ(rep_command("check " + config).exit_code, 0) << "only the bytes' sizes are looked at";
  write_text(root + "/train/cat/zero.png", "");
  const Finished check = rep_command("check " + config + " --decode");
  EXPECT_EQ(check.exit_code, 1);
  for (const char* path : {"train/dog/page.png", "test/ant/half.png", "train/cat/zero.png"}) {
    expect_in(check.output, path);
  }
  expect_in(check.output, "3 of 27 images cannot be decoded");
  for (const char* path : {"train/dog/page.png", "test/ant/half.png", "train/cat/zero.png"}) {
    fs::remove(root + "/" + path);
  }
  const Finished good = rep_command("check " + config + " --decode");
  EXPECT_EQ(good.exit_code, 0) << good.output;
}

TEST(DataFaults, WhatIsLeftOutIsNamedByCheckRunAndResult) {
  const std::string root = pictures("left_out");
  put(root + "/train/.git/0.png");
  write_text(root + "/train/ant/notes.txt", "");
  const std::string config = experiment(root);
  const std::string note = root +
                           ": not read: .txt files: 1 (train/ant/notes.txt); hidden files "
                           "and folders: 1 (train/.git)";
  expect_in(rep_command("check " + config).output, "note: " + note);
  const Finished run = rep_command("run " + config + " --output " + root + "/out");
  ASSERT_EQ(run.exit_code, 0) << run.output;
  expect_in(run.output, "note: " + note);
  expect_in(read_json(root + "/out/result.json")["notes"].dump(), note);
}

TEST(DataFaults, ImagesThatAreLearnedAndTestedAreNoted) {
  const std::string root = pictures("overlap");
  std::string train, test;
  int label = 0;
  for (const char* c : {"ant", "bee", "cat", "dog"}) {
    const std::string number = " " + std::to_string(label++) + "\n";
    for (const char* image : {"/0.png", "/1.png"}) train += "train/" + (c + (image + number));
    test += (label == 1 ? "train/" : "test/") + (c + ("/1.png" + number));
  }
  const std::string config =
      experiment(root, ", train_list: " + write_text(root + "/train.txt", train) +
                           ", test_list: " + write_text(root + "/test.txt", test));
  expect_in(rep_command("check " + config).output,
            "note: 1 of 4 test images are training images, too");
}

TEST(DataFaults, TasksOfOneClassAreNotedByCheckRunAndResult) {
  const std::string root = pictures("single");
  const std::string method =
      "backbone: {name: vit_nano, weights: random}\nmethod: {name: no_prompt}\n";
  const std::string config = experiment(root, "", method, /*tasks=*/4);
  const std::string note = "tasks of one class (1, 2, 3, 4): the loss of no_prompt is among";
  expect_in(rep_command("check " + config).output, note);
  const Finished run = rep_command("run " + config + " --output " + root + "/out");
  ASSERT_EQ(run.exit_code, 0) << run.output;
  expect_in(run.output, note);
  expect_in(read_json(root + "/out/result.json")["notes"].dump(), note);
}

TEST(DataFaults, ChangedPicturesHaveAnotherFingerprintInTheResult) {
  const std::string root = pictures("changed"), config = experiment(root);
  const auto fingerprint = [&](const std::string& output) {
    EXPECT_EQ(rep_command("run " + config + " -q --output " + root + output).exit_code, 0);
    return read_json(root + output + "/result.json")["inputs"]["dataset"]["fingerprint"].dump();
  };
  const std::string before = fingerprint("/before");
  EXPECT_EQ(fingerprint("/again"), before);
  put(root + "/train/bee/1.png", picture(40, 40, 200));
  EXPECT_NE(fingerprint("/after"), before);
}

}  // namespace
}  // namespace rep
