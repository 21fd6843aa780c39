// rep learn: a finished run that learns a folder of new classes ends where one run over all of them
// would have ended.
#include <cmath>
#include <cstring>
#include <set>

#include "tests/json_schema.h"
#include "tests/run_command.h"
#include "tests/synthetic_files.h"

namespace rep {
namespace {

using nlohmann::json;
namespace fs = std::filesystem;

// FOLDER/{train,test}/CLASS/NUMBER.png of the classes [first, last) of some synthetic images.
void write_split_images(const std::string& folder, int64_t first, int64_t last,
                        const std::string& size = "train_per_class: 8, test_per_class: 5") {
  const std::string yaml = "{name: synthetic, classes: 10, difficulty: 0.3, " + size + "}";
  write_images(*open(yaml, Split::kTrain), folder + "/train", first, last);
  write_images(*open(yaml, Split::kTest), folder + "/test", first, last);
}

std::string experiment(const std::string& root, const std::string& stream,
                       const std::string& method, const std::string& more = "") {
  return "name: learn\nthreads: 1\n"
         "dataset: {name: image_folder, root: " +
         root + "}\nstream: {" + stream +
         "}\nbackbone: {name: vit_nano, weights: random, normalise: half, trainable: " +
         std::string(method == "finetune" || method == "slca" ? "all" : "none") +
         "}\n"
         "method: {name: " +
         method + (has_component_pool(method) ? ", pool_size: " + std::to_string(kSmallPool) : "") +
         "}\ntrain: {epochs: 2, batch_size: 8, optimizer: {lr: " +
         (method == "generative_replay" ? "0.001" : "0.01") + "}" + more + "}\n";
}

Finished run_to(const std::string& output, const std::string& yaml) {
  const std::string config = write_text(output + ".yaml", yaml);
  return rep_command("run " + config + " -q --output " + output);
}

std::map<std::string, std::string> learned(const std::string& run) {
  std::map<std::string, std::string> tensors;
  for (auto& [name, bytes] : checkpointed_tensors(run)) {
    if (name.rfind("learner.method", 0) == 0) tensors[name] = std::move(bytes);
  }
  EXPECT_FALSE(tensors.empty()) << run;
  return tensors;
}

void expect_same_learner(const std::string& a, const std::string& b, const std::string& name) {
  const auto one = learned(a), other = learned(b);
  for (const auto& [tensor, bytes] : one) {
    EXPECT_TRUE(other.count(tensor) > 0 && other.at(tensor) == bytes) << name << ": " << tensor;
  }
  EXPECT_EQ(one.size(), other.size()) << name;
}

// What is the same whether a task came in the first configuration or by rep learn: bit for bit.
void expect_same_run(const std::string& a, const std::string& b, const std::string& name) {
  const json one = read_json(a + "/result.json"), other = read_json(b + "/result.json");
  for (const char* part : {"accuracy", "metrics", "tasks"}) {
    EXPECT_EQ(one.at(part).dump(), other.at(part).dump()) << name;
  }
  EXPECT_EQ(read_text(a + "/metrics.jsonl"), read_text(b + "/metrics.jsonl")) << name;
  expect_same_learner(a, b, name);
}

void expect_valid(const std::string& run) {
  const json schema = read_json(REP_SOURCE_DIR "/results/schema.json");
  EXPECT_EQ(schema_violation(read_json(run + "/result.json"), schema), "");
}

class FiveAndFive : public ::testing::TestWithParam<const char*> {};

TEST_P(FiveAndFive, GiveTheMatrixOfOneConfiguration) {
  const std::string method = GetParam(), folder = fresh_folder("learn_five_" + method);
  write_split_images(folder + "/all", 0, 10);
  write_split_images(folder + "/five", 0, 5);
  write_split_images(folder + "/more", 5, 10);
  const Finished whole = run_to(folder + "/whole", experiment(folder + "/all", "tasks: 2", method));
  ASSERT_EQ(whole.exit_code, 0) << whole.output;
  const Finished first =
      run_to(folder + "/first",
             experiment(folder + "/five", "tasks: 1, room_for: {classes: 10, tasks: 2}", method));
  ASSERT_EQ(first.exit_code, 0) << first.output;
  const Finished then =
      rep_command("learn " + folder + "/first " + folder + "/more -q --output " + folder + "/then");
  ASSERT_EQ(then.exit_code, 0) << then.output;
  expect_same_run(folder + "/whole", folder + "/then", method);
  expect_valid(folder + "/then");
  const json result = read_json(folder + "/then/result.json");
  EXPECT_EQ(result.at("continues").at("tasks"), 1);
  EXPECT_EQ(result.at("tasks").at(1).at("classes"), json({5, 6, 7, 8, 9}));
}

INSTANTIATE_TEST_SUITE_P(Methods, FiveAndFive,
                         ::testing::Values("l2p", "dualprompt", "ncm", "ranpac", "er"));

TEST(EveryMethod, WithRoomLearnsATaskMoreAsInOneConfiguration) {
  const std::string folder = fresh_folder("learn_every");
  write_split_images(folder + "/all", 0, 6, "train_per_class: 6, test_per_class: 4");
  write_split_images(folder + "/four", 0, 4, "train_per_class: 6, test_per_class: 4");
  write_split_images(folder + "/two", 4, 6, "train_per_class: 6, test_per_class: 4");
  const json listed = json::parse(rep_command("list methods --json").output);
  int64_t equal = 0;
  for (const json& method : listed.at("methods")) {
    const std::string name = method.at("name"), here = folder + "/" + name;
    // Stored images that join a task's own take their views by a place behind all training images.
    const std::string fixed = ", augment: none";
    const Finished first = run_to(
        here + "-first",
        experiment(folder + "/four", "tasks: 2, room_for: {classes: 6, tasks: 3}", name, fixed));
    ASSERT_EQ(first.exit_code, 0) << first.output;
    const Finished then =
        rep_command("learn " + here + "-first " + folder + "/two -q --output " + here + "-then");
    if (then.exit_code != 0) {  // joint
      EXPECT_EQ(then.exit_code, 1) << then.output;
      EXPECT_NE(then.output.find("images of all tasks at once"), std::string::npos) << then.output;
      continue;
    }
    const Finished whole =
        run_to(here + "-whole", experiment(folder + "/all", "tasks: 3", name, fixed));
    ASSERT_EQ(whole.exit_code, 0) << whole.output;
    expect_same_run(here + "-whole", here + "-then", name);
    ++equal;
  }
  EXPECT_EQ(equal + 1, static_cast<int64_t>(listed.at("methods").size()));
}

TEST(EveryMethod, WithoutRoomGrowsOrRefusesBeforeItTrains) {
  const std::string folder = fresh_folder("learn_no_room");
  write_split_images(folder + "/four", 0, 4, "train_per_class: 6, test_per_class: 4");
  write_split_images(folder + "/two", 4, 6, "train_per_class: 6, test_per_class: 4");
  std::set<std::string> grown;
  for (const std::string name :
       {"l2p", "dualprompt", "ncm", "ranpac", "er", "coda_prompt", "derpp", "inflora", "fecam"}) {
    const std::string here = folder + "/" + name;
    const Finished first = run_to(here, experiment(folder + "/four", "tasks: 2", name));
    ASSERT_EQ(first.exit_code, 0) << first.output;
    const Finished then =
        rep_command("learn " + here + " " + folder + "/two -q --output " + here + "-then");
    if (then.exit_code == 0) {
      grown.insert(name);
      const json result = read_json(here + "-then/result.json");
      EXPECT_EQ(result.at("accuracy").at("class_incremental").size(), 3u) << name;
      continue;
    }
    EXPECT_EQ(then.exit_code, 1) << then.output;
    EXPECT_NE(then.output.find("for 4 classes in 2 tasks and cannot grow"), std::string::npos)
        << then.output;
    EXPECT_NE(then.output.find("stream.room_for"), std::string::npos) << then.output;
    EXPECT_FALSE(fs::exists(here + "-then/metrics.jsonl")) << name;
  }
  EXPECT_EQ(grown, (std::set<std::string>{"l2p", "dualprompt", "ncm", "ranpac", "er"}));
  // The old rows lead, unchanged where the new task has no part in them.
  const auto head = [&](const std::string& run) {
    return checkpointed_floats(run, "learner.method").at("learner.method.head.weight");
  };
  const auto before = head(folder + "/l2p"), after = head(folder + "/l2p-then");
  ASSERT_EQ(after.size() * 4, before.size() * 6);
  EXPECT_TRUE(std::equal(before.begin(), before.end(), after.begin()));
}

TEST(Learn, WithoutRoomEqualsOneConfigurationWhereNothingIsDrawn) {
  const std::string folder = fresh_folder("learn_ncm");
  write_split_images(folder + "/all", 0, 6);
  write_split_images(folder + "/four", 0, 4);
  write_split_images(folder + "/two", 4, 6);
  ASSERT_EQ(run_to(folder + "/whole", experiment(folder + "/all", "tasks: 3", "ncm")).exit_code, 0);
  ASSERT_EQ(run_to(folder + "/first", experiment(folder + "/four", "tasks: 2", "ncm")).exit_code,
            0);
  const Finished then =
      rep_command("learn " + folder + "/first " + folder + "/two -q --output " + folder + "/then");
  ASSERT_EQ(then.exit_code, 0) << then.output;
  expect_same_run(folder + "/whole", folder + "/then", "ncm");
}

// Classes 0 to 5 in three folders of two, and a run of the first with room for all.
struct TwoByTwo {
  explicit TwoByTwo(const std::string& name, const std::string& more = "")
      : folder(fresh_folder(name)) {
    write_split_images(folder + "/a", 0, 2);
    write_split_images(folder + "/b", 2, 4);
    write_split_images(folder + "/c", 4, 6);
    const Finished run = run_to(
        folder + "/run",
        experiment(folder + "/a", "tasks: 1, room_for: {classes: 6, tasks: 3}", "l2p", more));
    EXPECT_EQ(run.exit_code, 0) << run.output;
  }
  Finished learn(const std::string& run, const std::string& images, const std::string& output,
                 const std::string& more = "") const {
    return rep_command("learn " + folder + "/" + run + " " + folder + "/" + images +
                       " -q --output " + folder + "/" + output + " " + more);
  }
  std::string folder;
};

TEST(Learn, GoesOnAgainAndLeavesTheRunsBeforeAsTheyWere) {
  const TwoByTwo two("learn_chain");
  write_split_images(two.folder + "/all", 0, 6);
  const Finished whole =
      run_to(two.folder + "/whole", experiment(two.folder + "/all", "tasks: 3", "l2p"));
  ASSERT_EQ(whole.exit_code, 0) << whole.output;
  const auto files = [&] {
    std::map<std::string, std::string> contents;
    for (const auto& entry : fs::recursive_directory_iterator(two.folder + "/run")) {
      if (entry.is_regular_file()) contents[entry.path()] = read_text(entry.path());
    }
    return contents;
  };
  const auto before = files();
  const Finished second = two.learn("run", "b", "second");
  ASSERT_EQ(second.exit_code, 0) << second.output;
  const Finished third = two.learn("second", "c", "third");
  ASSERT_EQ(third.exit_code, 0) << third.output;
  EXPECT_EQ(files(), before);
  expect_same_run(two.folder + "/whole", two.folder + "/third", "chain");
  expect_valid(two.folder + "/third");

  const Finished seen = rep_command("predict " + two.folder + "/third " + two.folder +
                                    "/all/test --top 6 2>/dev/null");
  EXPECT_EQ(seen.exit_code, 0) << seen.output;
  EXPECT_EQ(std::count(seen.output.begin(), seen.output.end(), '\n'), 30) << seen.output;
  EXPECT_EQ(rep_command("inspect " + two.folder + "/third").exit_code, 0);
  const Finished report = rep_command("report " + two.folder + "/third");
  EXPECT_EQ(report.exit_code, 0) << report.output;
}

TEST(Learn, AfterAKillGoesOnToTheSameResult) {
  const TwoByTwo two("learn_killed", ", checkpoint_seconds: 0");
  const std::string more = "--set train.epochs=60";
  const Finished straight = two.learn("run", "b", "straight", more);
  ASSERT_EQ(straight.exit_code, 0) << straight.output;
  const std::string killed = two.folder + "/killed";
  const std::string command = "exec " REP_EXECUTABLE " learn " + two.folder + "/run " + two.folder +
                              "/b -q --output " + killed + " " + more;
  const pid_t child = fork();
  if (child == 0) {
    execl("/bin/sh", "sh", "-c", command.c_str(), nullptr);
    _exit(127);
  }
  const int64_t lines = lines_of(two.folder + "/run/metrics.jsonl");
  int status = 0;
  while (waitpid(child, &status, WNOHANG) == 0) {
    if (lines_of(killed + "/metrics.jsonl") >= lines + 2) {
      kill(child, SIGKILL);
      waitpid(child, &status, 0);
      break;
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  ASSERT_EQ(exit_status(status), 128 + SIGKILL) << "it ended before it was killed";
  const Finished refused = two.learn("run", "b", "killed", more);
  EXPECT_EQ(refused.exit_code, 1);
  EXPECT_NE(refused.output.find("--resume"), std::string::npos) << refused.output;
  const Finished last = two.learn("run", "b", "killed", more + " --resume");
  ASSERT_EQ(last.exit_code, 0) << last.output;
  EXPECT_EQ(comparable(read_json(killed + "/result.json")).dump(1),
            comparable(read_json(two.folder + "/straight/result.json")).dump(1));
  expect_same_run(two.folder + "/straight", killed, "killed");
}

TEST(Learn, WithoutTheOldPicturesLearnsTheSameAndTestsTheNewTaskAlone) {
  const TwoByTwo two("learn_gone");
  ASSERT_EQ(two.learn("run", "b", "there").exit_code, 0);
  fs::rename(two.folder + "/a", two.folder + "/elsewhere");
  const Finished gone = two.learn("run", "b", "gone");
  ASSERT_EQ(gone.exit_code, 0) << gone.output;
  expect_same_learner(two.folder + "/there", two.folder + "/gone", "gone");
  const json there = read_json(two.folder + "/there/result.json");
  const json result = read_json(two.folder + "/gone/result.json");
  const json& row = result.at("accuracy").at("class_incremental").at(1);
  const json& full = there.at("accuracy").at("class_incremental").at(1);
  EXPECT_TRUE(row.at(0).is_null());
  EXPECT_TRUE(full.at(0).is_number());
  EXPECT_EQ(row.at(1), full.at(1));
  EXPECT_EQ(result.at("accuracy").at("class_incremental").at(0),
            there.at("accuracy").at("class_incremental").at(0));
  EXPECT_EQ(result.at("metrics").at("average_accuracy"), row.at(1));
  EXPECT_TRUE(result.at("metrics").at("forgetting").is_null());
  EXPECT_NE(result.at("notes").dump().find("not there"), std::string::npos) << result.at("notes");
  expect_valid(two.folder + "/gone");

  // They are found again by their new path; other pictures at the old one are told apart.
  const Finished moved =
      two.learn("run", "b", "moved", "--set dataset.before.root=" + two.folder + "/elsewhere");
  ASSERT_EQ(moved.exit_code, 0) << moved.output;
  expect_same_run(two.folder + "/there", two.folder + "/moved", "moved");
  fs::copy(two.folder + "/elsewhere", two.folder + "/a", fs::copy_options::recursive);
  for (const auto& entry : fs::recursive_directory_iterator(two.folder + "/a/test")) {
    if (entry.is_regular_file()) write_png(entry.path(), picture(32, 32, 5));
  }
  ASSERT_EQ(two.learn("run", "b", "other").exit_code, 0);
  const json other = read_json(two.folder + "/other/result.json");
  EXPECT_TRUE(other.at("accuracy").at("class_incremental").at(1).at(0).is_null());
  EXPECT_NE(other.at("notes").dump().find("not those"), std::string::npos) << other.at("notes");
}

// The old images' features are of the new view, too: a run that never saw the old one agrees.
TEST(Learn, WithAnotherViewTestsTheOldImagesInIt) {
  const std::string folder = fresh_folder("learn_view");
  write_split_images(folder + "/a", 0, 4);
  write_split_images(folder + "/b", 4, 6);
  const auto learned_in = [&](const std::string& view, const std::string& name) {
    const Finished first = run_to(
        folder + "/" + name, experiment(folder + "/a", "tasks: 2", "ncm", ", augment: " + view));
    EXPECT_EQ(first.exit_code, 0) << first.output;
    const Finished then =
        rep_command("learn " + folder + "/" + name + " " + folder + "/b -q --output " + folder +
                    "/" + name + "_then --set train.augment=none");
    EXPECT_EQ(then.exit_code, 0) << then.output;
    return folder + "/" + name + "_then";
  };
  for (const char* view : {"l2p", "none"}) {
    const std::string run = learned_in(view, view);
    const json result = read_json(run + "/result.json");
    std::vector<double> right(3);
    std::istringstream said(rep_command("predict " + run + " " + folder + "/a/test " + folder +
                                        "/b/test --top 1 --json 2>/dev/null")
                                .output);
    for (std::string text; std::getline(said, text);) {
      const json line = json::parse(text);
      const fs::path path = line.at("path").get<std::string>();
      const std::string own = path.parent_path().filename();
      for (size_t t = 0; t < 3; ++t) {
        const std::vector<std::string> names = result.at("tasks").at(t).at("class_names");
        if (std::find(names.begin(), names.end(), own) == names.end()) continue;
        right[t] += line.at("top").at(0).at("class") == own;
      }
    }
    for (size_t t = 0; t < 3; ++t) {
      EXPECT_EQ(result.at("accuracy").at("class_incremental").at(2).at(t).get<double>(),
                100 * right[t] / result.at("tasks").at(t).at("test_images").get<double>())
          << view << t;
    }
  }
}

TEST(Learn, TakesAFifthForTestingWhereTheFolderIsNotSplit) {
  const TwoByTwo two("learn_fifth");
  fs::rename(two.folder + "/b/train", two.folder + "/plain");
  const Finished run = two.learn("run", "plain", "then");
  ASSERT_EQ(run.exit_code, 0) << run.output;
  const json result = read_json(two.folder + "/then/result.json");
  EXPECT_EQ(result.at("tasks").at(1).at("train_images"), 14);  // of 8 a class, one is a fifth
  EXPECT_EQ(result.at("tasks").at(1).at("test_images"), 2);
  const Finished half = two.learn("run", "plain", "half", "--set dataset.test_share=0.5");
  ASSERT_EQ(half.exit_code, 0) << half.output;
  EXPECT_EQ(read_json(two.folder + "/half/result.json").at("tasks").at(1).at("test_images"), 8);
}

TEST(Learn, RefusesInASentenceWhatCannotBe) {
  const TwoByTwo two("learn_refused");
  const auto says = [&](const Finished& refused, const std::string& sentence) {
    EXPECT_EQ(refused.exit_code, 1) << refused.output;
    EXPECT_NE(refused.output.find(sentence), std::string::npos) << refused.output;
    EXPECT_EQ(std::count(refused.output.begin(), refused.output.end(), '\n'), 1) << refused.output;
  };
  says(two.learn("run", "a", "x"), "has learned a class '00 ");
  says(two.learn("run", "nowhere", "x"), "nowhere: not a folder");
  says(two.learn("run", "b", "run"), "stays as it is");
  says(two.learn("b", "c", "x"), "no result.json");
  says(two.learn("run", "b", "x", "--set method.top_k=3"), "method.top_k was 5 and is 3");
  says(two.learn("run", "b", "x", "--set seed=1"), "seed was 42 and is 1");
  says(two.learn("run", "b", "x", "--set stream.tasks=3"), "the stream goes on as it is");
  says(two.learn("run", "b", "x", "--set dataset.name=cifar100"), "dataset.name");
}

// The commands of docs/learn.md, as they stand there, on drawn pictures.
TEST(Cookbook, CommandsWork) {
  const std::string folder = fresh_folder("learn_cookbook");
  const std::string yaml =
      "{name: synthetic, classes: 6, train_per_class: 10, test_per_class: 2, difficulty: 0.3}";
  write_images(*open(yaml, Split::kTrain), folder + "/photos", 0, 3);
  write_images(*open(yaml, Split::kTrain), folder + "/more-photos", 3, 6);
  write_images(*open(yaml, Split::kTest), folder + "/new", 0, 6);
  fs::create_directories(folder + "/configs");
  // Pre-training takes minutes.
  write_text(folder + "/configs/photos.yaml",
             edited(read_text(REP_SOURCE_DIR "/configs/photos.yaml"),
                    "pretrain:configs/quickstart-pretrain.yaml", "random"));
  std::istringstream page(read_text(REP_SOURCE_DIR "/docs/learn.md"));
  int64_t commands = 0;
  std::string command;
  for (std::string line; std::getline(page, line);) {
    if (command.empty() && line.rfind("    rep ", 0) != 0) continue;
    command += line;
    if (command.back() == '\\') {
      command.pop_back();
      continue;
    }
    const std::string words = command.substr(command.find("rep ") + 4);
    command.clear();
    if (words.find("FILE") != std::string::npos) continue;  // stands for the reader's own
    const Finished run = shell_command("cd " + folder + " && " REP_EXECUTABLE " " + words);
    EXPECT_EQ(run.exit_code, 0) << words << "\n" << run.output;
    ++commands;
  }
  EXPECT_GE(commands, 5);
  const json result = read_json(folder + "/results/photos-2/result.json");
  EXPECT_EQ(result.at("tasks").size(), 2u);
}

}  // namespace
}  // namespace rep
