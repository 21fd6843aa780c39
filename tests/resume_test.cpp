// Nothing is lost: a run that was killed, at whatever moment, ends with the result of one that was
// not.
#include <cmath>

#include "tests/json_schema.h"
#include "tests/run_command.h"

namespace rep {
namespace {

class KilledRun : public ::testing::TestWithParam<const char*> {};

TEST_P(KilledRun, AfterKillsGivesTheResultOfAnUninterruptedRun) {
  const std::string method = GetParam();
  const std::string folder = fresh_folder("resume_" + method);
  const std::string config =
      write_text(folder + "/c.yaml", small_experiment(method, method == "l2p" ? kRepBlock : ""));
  const Finished straight = rep_command("run " + config + " -q --output " + folder + "/straight");
  ASSERT_EQ(straight.exit_code, 0) << straight.output;

  // Two lines a task: in the middle of a task, at its end, and so on; a resumed run takes the last
  // steps again and is killed within them.
  int killed = 0;
  for (const int64_t lines : {1, 2, 3, 5}) {
    killed += signal_at_line(config, folder + "/killed", lines, SIGKILL) == 128 + SIGKILL;
  }
  const Finished last =
      rep_command("run " + config + " -q --resume --output " + folder + "/killed");
  ASSERT_EQ(last.exit_code, 0) << last.output;
  EXPECT_GE(killed, 3) << "runs ended before they were killed";
  EXPECT_EQ(comparable(read_json(folder + "/killed/result.json")).dump(1),
            comparable(read_json(folder + "/straight/result.json")).dump(1));
  const nlohmann::json schema = read_json(REP_SOURCE_DIR "/results/schema.json");
  EXPECT_EQ(schema_violation(read_json(folder + "/killed/result.json"), schema), "");
  std::ifstream a(folder + "/killed/metrics.jsonl"), b(folder + "/straight/metrics.jsonl");
  EXPECT_EQ(std::string(std::istreambuf_iterator<char>(a), {}),
            std::string(std::istreambuf_iterator<char>(b), {}));
}

INSTANTIATE_TEST_SUITE_P(Methods, KilledRun,
                         ::testing::Values("l2p", "finetune", "derpp", "icarl", "pnn"));

TEST(Interrupt, SavesAndExits130) {
  const std::string folder = fresh_folder("interrupt");
  const std::string text = small_experiment("l2p");
  write_text(folder + "/short.yaml", text);
  std::string many = text;
  many.replace(many.find("epochs: 3"), 9, "epochs: 4000");
  write_text(folder + "/long.yaml", many);
  EXPECT_EQ(signal_at_line(folder + "/long.yaml", folder + "/out", 2, SIGTERM), 130);
  EXPECT_TRUE(std::filesystem::exists(folder + "/out/checkpoint/state.safetensors"));
  const Finished refused = rep_command("run " + folder + "/long.yaml --output " + folder + "/out");
  EXPECT_EQ(refused.exit_code, 1);
  EXPECT_NE(refused.output.find("--resume"), std::string::npos) << refused.output;
  const Finished changed =
      rep_command("run " + folder + "/short.yaml --resume --output " + folder + "/out");
  EXPECT_EQ(changed.exit_code, 1);
  EXPECT_NE(changed.output.find("train.epochs was 4000 and is 3"), std::string::npos)
      << changed.output;
}

TEST(Run, GivesTheSameResultTwice) {
  const std::string folder = fresh_folder("twice");
  const std::string config = write_text(folder + "/c.yaml", small_experiment("l2p", kRepBlock));
  for (const char* name : {"/a", "/b"}) {
    const Finished run = rep_command("run " + config + " -q --output " + folder + name);
    ASSERT_EQ(run.exit_code, 0) << run.output;
  }
  EXPECT_EQ(comparable(read_json(folder + "/a/result.json")).dump(1),
            comparable(read_json(folder + "/b/result.json")).dump(1));
}

TEST(Run, KeepsAFinishedResultWhenStartedAnew) {
  const std::string folder = fresh_folder("anew");
  const std::string config = write_text(folder + "/c.yaml", small_experiment("no_prompt"));
  for (int i = 0; i < 2; ++i) {
    const Finished run = rep_command("run " + config + " -q --output " + folder + "/out");
    ASSERT_EQ(run.exit_code, 0) << run.output;
  }
  EXPECT_TRUE(std::filesystem::exists(folder + "/out/result.previous.json"));
}

/// A run of finetune whose parameters a weight decay makes larger with every step, until its loss
/// (1000: -9 times as large) or first its gradient (300: -2 times) is not finite. Every step is
/// saved.
struct Diverging {
  std::string config, output;
  Finished run;
};
Diverging diverge(const std::string& name, int weight_decay) {
  const std::string folder = fresh_folder(name);
  Diverging d{write_text(folder + "/c.yaml",
                         edited(small_experiment("finetune"), "checkpoint_seconds: 0",
                                "checkpoint_seconds: 0, clip_norm: 0, optimizer: {name: sgd, lr: "
                                "0.01, weight_decay: " +
                                    std::to_string(weight_decay) + "}")),
              folder + "/out",
              {}};
  d.run = rep_command("run " + d.config + " -q --output " + d.output);
  EXPECT_EQ(d.run.exit_code, 1) << d.run.output;
  EXPECT_NE(d.run.output.find("in task 1"), std::string::npos) << d.run.output;
  EXPECT_NE(d.run.output.find("--resume goes on from the last good checkpoint"), std::string::npos)
      << d.run.output;
  return d;
}

class Divergence : public ::testing::TestWithParam<int> {};
INSTANTIATE_TEST_SUITE_P(WeightDecays, Divergence, ::testing::Values(1000, 300));

TEST_P(Divergence, LeavesACheckpointWhoseNumbersAreAllFinite) {
  const Diverging d = diverge("diverge_finite", GetParam());
  const auto tensors = checkpointed_floats(d.output, "learner.method.");
  ASSERT_GT(tensors.size(), 10U);
  for (const auto& [name, values] : tensors) {
    for (const float value : values) ASSERT_TRUE(std::isfinite(value)) << name;
  }
  EXPECT_FALSE(std::filesystem::exists(d.output + "/checkpoint/good.safetensors"));
}

TEST_P(Divergence, GoesOnWithALowerRateAsTheMessageAdvisesAndSaysSoInTheResult) {
  const Diverging d = diverge("diverge_cured", GetParam());
  ASSERT_FALSE(checkpointed_tensors(d.output).empty()) << "no good checkpoint to go on from";
  const Finished other = rep_command("run " + d.config + " -q --resume --output " + d.output +
                                     " --set train.epochs=4");
  EXPECT_EQ(other.exit_code, 1) << "only what the message advises may change";
  const std::string cure = " --set train.optimizer.lr=1e-5 --set train.clip_norm=1";
  const Finished cured =
      rep_command("run " + d.config + " -q --resume --output " + d.output + cure);
  ASSERT_EQ(cured.exit_code, 0) << cured.output;
  const nlohmann::json result = read_json(d.output + "/result.json");
  const nlohmann::json schema = read_json(REP_SOURCE_DIR "/results/schema.json");
  EXPECT_EQ(schema_violation(result, schema), "");
  EXPECT_EQ(result["config"]["train"]["optimizer"]["lr"], 1e-5);
  ASSERT_EQ(result["identity"]["changes"].size(), 2U);
  EXPECT_EQ(result["identity"]["changes"][0]["key"], "train.optimizer.lr");
  EXPECT_EQ(result["identity"]["changes"][0]["was"], 0.01);
  EXPECT_NE(result["notes"].dump().find("train.optimizer.lr was 0.01 and is 1e-05 from task 1"),
            std::string::npos)
      << result["notes"];
}

// The first cure may be too weak: what was known to be good before it stays.
TEST(DivergedRun, KeepsItsGoodCheckpointWhenItDivergesAgain) {
  const Diverging d = diverge("diverge_twice", 1000);
  const auto good = checkpointed_tensors(d.output);
  ASSERT_FALSE(good.empty());
  const std::string resume = "run " + d.config + " -q --resume --output " + d.output +
                             " --set train.clip_norm=1 --set train.optimizer.lr=";
  const Finished again = rep_command(resume + "1e38");  // one step, to parameters that are infinite
  EXPECT_EQ(again.exit_code, 1) << again.output;
  ASSERT_TRUE(std::filesystem::exists(d.output + "/checkpoint/state.safetensors"));
  EXPECT_EQ(checkpointed_tensors(d.output), good);
  const Finished cured = rep_command(resume + "1e-5");
  ASSERT_EQ(cured.exit_code, 0) << cured.output;
  const nlohmann::json changes = read_json(d.output + "/result.json")["identity"]["changes"];
  ASSERT_EQ(changes.size(), 2U) << changes;
  EXPECT_EQ(changes[0]["was"], 0.01);
  EXPECT_EQ(changes[0]["is"], 1e-5);
  EXPECT_GT(changes[0]["iteration"], 0) << "it began again";
}

// Adam's second moment of a gradient of 1e22 is infinite, and every later step 0: the parameter
// stays where it is, the loss is finite. Between checkpoints, and at the end of a task.
TEST(DivergedRun, IsOneWhoseOptimiserHasAMomentThatIsNotFinite) {
  for (const char* seconds : {"0", "60"}) {
    const std::string folder = fresh_folder("diverge_moment");
    const std::string config = write_text(
        folder + "/c.yaml", edited(small_experiment("finetune"), "checkpoint_seconds: 0",
                                   "checkpoint_seconds: " + std::string(seconds) +
                                       ", clip_norm: 0, optimizer: {weight_decay: 1.0e+22}"));
    const Finished run = rep_command("run " + config + " -q --output " + folder + "/out");
    EXPECT_EQ(run.exit_code, 1) << seconds;
    EXPECT_NE(run.output.find("the optimiser's moments are not finite in task 1"),
              std::string::npos)
        << run.output;
  }
}

// A run that did not diverge may not change its rate on the way.
TEST(DivergedRun, IsTheOnlyReasonToChangeTheRate) {
  const std::string folder = fresh_folder("diverge_not");
  const std::string config = write_text(folder + "/c.yaml", small_experiment("finetune"));
  ASSERT_EQ(signal_at_line(config, folder + "/out", 1, SIGKILL), 128 + SIGKILL);
  const Finished changed = rep_command("run " + config + " -q --resume --output " + folder +
                                       "/out --set train.optimizer.lr=0.1");
  EXPECT_EQ(changed.exit_code, 1);
  EXPECT_NE(changed.output.find("train.optimizer.lr was 0.001875 and is 0.1"), std::string::npos)
      << changed.output;
}

// One step to parameters that are finite, and too large to compute with.
TEST(DivergedRun, IsAnErrorAndNotAnAccuracyWhenPredictionsAreNaN) {
  const std::string folder = fresh_folder("diverge_test");
  const std::string config = write_text(folder + "/c.yaml", small_experiment("finetune"));
  const std::string command = "run " + config + " -q --set train.iterations=1 --output " + folder +
                              "/out --set train.clip_norm=0 --set train.optimizer.lr=";
  const Finished run = rep_command(command + "1e30");
  EXPECT_EQ(run.exit_code, 1);
  EXPECT_NE(run.output.find("test images of task 1/3 are not numbers"), std::string::npos)
      << run.output;
  EXPECT_FALSE(std::filesystem::exists(folder + "/out/result.json"));
  const Finished cured = rep_command(command + "0.001 --resume");
  EXPECT_EQ(cured.exit_code, 0) << cured.output;
}

TEST(Lock, ASecondProcessInTheFolderIsToldAtOnce) {
  const std::string folder = fresh_folder("locked");
  const std::string config =
      write_text(folder + "/c.yaml", edited(small_experiment("l2p"), "epochs: 3", "epochs: 4000"));
  Finished second;
  const auto started = [&] {
    if (lines_of(folder + "/out/metrics.jsonl") < 1) return false;
    // Its data is not there: it is told of the folder before that is seen.
    second = rep_command("run " + config + " -q --resume --output " + folder +
                         "/out --set 'dataset={name: cifar100, root: nowhere}'");
    return true;
  };
  EXPECT_EQ(run_and_signal(config, folder + "/out", SIGTERM, started), 130);
  EXPECT_EQ(second.exit_code, 1);
  EXPECT_NE(second.output.find(folder + "/out: another process is at work there"),
            std::string::npos)
      << second.output;
}

/// Two small splits of cifar100 in `folder`: an image a class, whose pixels follow from `value`.
std::string put_cifar(const std::string& folder, int value) {
  std::filesystem::create_directories(folder);
  for (const char* name : {"/train.bin", "/test.bin"}) {
    std::string records;
    for (int label = 0; label < 100; ++label) {
      std::string record(3074, static_cast<char>(value + label));
      record[0] = 0;
      record[1] = static_cast<char>(label);
      records += record;
    }
    write_text(folder + name, records);
  }
  return folder;
}

std::string on_cifar(const std::string& root, const std::string& more = "") {
  return edited(edited(small_experiment("l2p", more),
                       "dataset: {name: synthetic, classes: 6, "
                       "train_per_class: 16, test_per_class: 4}",
                       "dataset: {name: cifar100, root: " + root + "}"),
                "tasks: 3", "tasks: 2");
}

TEST(Resume, ElsewhereAndWithOtherWorkersGoesOn) {
  const std::string folder = fresh_folder("resume_moved");
  put_cifar(folder + "/a", 3);
  const std::string first = write_text(folder + "/a.yaml", on_cifar(folder + "/a"));
  const std::string moved = write_text(folder + "/b.yaml", on_cifar(folder + "/b"));
  ASSERT_EQ(rep_command("run " + first + " -q --output " + folder + "/straight").exit_code, 0);
  ASSERT_EQ(signal_at_line(first, folder + "/out", 1, SIGKILL), 128 + SIGKILL);
  std::filesystem::rename(folder + "/a", folder + "/b");
  const Finished resumed = rep_command("run " + moved + " -q --resume --output " + folder +
                                       "/out --set train.workers=3");
  ASSERT_EQ(resumed.exit_code, 0) << resumed.output;
  nlohmann::json a = read_json(folder + "/out/result.json"),
                 b = read_json(folder + "/straight/result.json");
  EXPECT_EQ(a["accuracy"], b["accuracy"]);
  EXPECT_EQ(a["identity"], b["identity"]);
  EXPECT_EQ(checkpointed_tensors(folder + "/out"), checkpointed_tensors(folder + "/straight"));
}

TEST(Resume, RefusesOtherData) {
  const std::string folder = fresh_folder("resume_data");
  const std::string config =
      write_text(folder + "/c.yaml", on_cifar(put_cifar(folder + "/data", 3)));
  ASSERT_EQ(signal_at_line(config, folder + "/out", 1, SIGKILL), 128 + SIGKILL);
  put_cifar(folder + "/data", 4);
  const Finished resumed =
      rep_command("run " + config + " -q --resume --output " + folder + "/out");
  EXPECT_EQ(resumed.exit_code, 1);
  EXPECT_NE(resumed.output.find("was made from other data"), std::string::npos) << resumed.output;
}

TEST(Resume, RefusesAClassOfAnotherName) {
  const std::string folder = fresh_folder("resume_names");
  put_cifar(folder + "/data", 3);
  const auto write_names = [&](const std::string& first) {
    std::string names = first + "\n";
    for (int label = 1; label < 100; ++label) names += "class" + std::to_string(label) + "\n";
    write_text(folder + "/data/fine_label_names.txt", names);
  };
  write_names("apple");
  const std::string config = write_text(folder + "/c.yaml", on_cifar(folder + "/data"));
  ASSERT_EQ(signal_at_line(config, folder + "/out", 1, SIGKILL), 128 + SIGKILL);
  write_names("pear");
  const Finished resumed =
      rep_command("run " + config + " -q --resume --output " + folder + "/out");
  EXPECT_EQ(resumed.exit_code, 1);
  EXPECT_NE(resumed.output.find("was made from other data (a class has another name)"),
            std::string::npos)
      << resumed.output;
}

TEST(Resume, KeepsTheNumberOfThreads) {
  const std::string folder = fresh_folder("resume_threads");
  const std::string config = write_text(folder + "/c.yaml", small_experiment("finetune"));
  ASSERT_EQ(rep_command("run " + config + " -q --output " + folder + "/straight").exit_code, 0);
  ASSERT_EQ(signal_at_line(config, folder + "/out", 1, SIGKILL), 128 + SIGKILL);
  const std::string resume = "run " + config + " -q --resume --output " + folder + "/out ";
  const Finished other = rep_command(resume + "--set threads=2");
  EXPECT_EQ(other.exit_code, 1);
  EXPECT_NE(other.output.find("was made with 1 threads"), std::string::npos) << other.output;
  const Finished any = rep_command(resume + "--set threads=0");
  EXPECT_EQ(any.exit_code, 0) << any.output;
  EXPECT_EQ(checkpointed_tensors(folder + "/out"), checkpointed_tensors(folder + "/straight"));
}

/// Puts a text of the same length into the checkpoint's values.
void edit_checkpoint(const std::string& output, const std::string& old, const std::string& text) {
  const std::string path = output + "/checkpoint/state.safetensors";
  const std::string bytes = read_text(path);
  ASSERT_EQ(old.size(), text.size());
  ASSERT_NE(bytes.find(old), std::string::npos) << old;
  write_text(path, edited(bytes, old, text));
}

TEST(Resume, RefusesAnotherKindOfDevice) {
  const std::string folder = fresh_folder("resume_device");
  const std::string config = write_text(folder + "/c.yaml", small_experiment("finetune"));
  ASSERT_EQ(signal_at_line(config, folder + "/out", 1, SIGKILL), 128 + SIGKILL);
  const std::string resume = "run " + config + " -q --resume --output " + folder + "/out ";
  const std::string made_on = R"(\"device\":\")";
  edit_checkpoint(folder + "/out", made_on + "CPU", made_on + "GPU");
  const Finished other = rep_command(resume);
  EXPECT_EQ(other.exit_code, 1);
  EXPECT_NE(other.output.find("was made on a GPU, and this is a CPU"), std::string::npos)
      << other.output;
  edit_checkpoint(folder + "/out", made_on + "GPU", made_on + "CPU");
  const Finished same = rep_command(resume + "--device cpu");
  EXPECT_EQ(same.exit_code, 0) << same.output;
}

TEST(Resume, RemovesWhatKillsLeftHalfWritten) {
  const std::string folder = fresh_folder("resume_leftovers");
  const std::string config = write_text(folder + "/c.yaml", small_experiment("no_prompt"));
  std::filesystem::create_directories(folder + "/out/checkpoint");
  write_text(folder + "/out/checkpoint/state.safetensors.123-4.tmp", "half");
  write_text(folder + "/out/result.json.123-5.tmp", "half");
  ASSERT_EQ(rep_command("run " + config + " -q --resume --output " + folder + "/out").exit_code, 0);
  for (const auto& entry : std::filesystem::recursive_directory_iterator(folder + "/out")) {
    EXPECT_NE(entry.path().extension(), ".tmp") << entry.path();
  }
}

TEST(Resume, FindsAClassOrderWhereverItLies) {
  const std::string folder = fresh_folder("resume_order");
  put_cifar(folder + "/data", 3);
  std::string numbers;
  for (int i = 99; i >= 0; --i) numbers += std::to_string(i) + "\n";
  write_text(folder + "/order.txt", numbers);
  const auto config = [&](const std::string& order) {
    return write_text(folder + "/c.yaml", edited(on_cifar(folder + "/data"), "tasks: 2",
                                                 "tasks: 2, class_order: " + order));
  };
  ASSERT_EQ(signal_at_line(config(folder + "/order.txt"), folder + "/out", 1, SIGKILL),
            128 + SIGKILL);
  std::filesystem::create_directories(folder + "/own");
  std::filesystem::rename(folder + "/order.txt", folder + "/own/moved.txt");
  const std::string resume = "HOME=" + folder + "/own " REP_EXECUTABLE " run " +
                             config("~/moved.txt") + " -q --resume --output " + folder + "/out";
  const Finished moved = shell_command(resume);
  EXPECT_EQ(moved.exit_code, 0) << moved.output;
  const nlohmann::json identity = read_json(folder + "/out/result.json")["identity"];
  EXPECT_EQ(identity["inputs"]["class_order"].get<std::string>().size(), 64U);
}

TEST(Resume, RefusesAnotherClassOrderAtTheSamePath) {
  const std::string folder = fresh_folder("resume_other_order");
  const std::string order = write_text(folder + "/order.txt", "0 1 2 3 4 5");
  const std::string config =
      write_text(folder + "/c.yaml",
                 edited(small_experiment("l2p"), "tasks: 3", "tasks: 3, class_order: " + order));
  ASSERT_EQ(signal_at_line(config, folder + "/out", 1, SIGKILL), 128 + SIGKILL);
  write_text(order, "5 4 3 2 1 0");
  const Finished resumed =
      rep_command("run " + config + " -q --resume --output " + folder + "/out");
  EXPECT_EQ(resumed.exit_code, 1);
  EXPECT_NE(resumed.output.find("was made with other class_order"), std::string::npos)
      << resumed.output;
}

// A full disk, played by a limit on the size of files: the first checkpoint fits, a later file does
// not.
TEST(Run, StopsWithASentenceWhenNothingMoreCanBeWritten) {
  const std::string folder = fresh_folder("full");
  const std::string config = write_text(folder + "/c.yaml", small_experiment("finetune"));
  const Finished run = shell_command("ulimit -f 8; " REP_EXECUTABLE " run " + config +
                                     " -q --output " + folder + "/out");
  EXPECT_EQ(run.exit_code, 1) << run.output;
  EXPECT_NE(run.output.find("state.safetensors"), std::string::npos) << run.output;
  // After the warning that the weights are random.
  const std::string last = run.output.substr(run.output.find("rep: "));
  EXPECT_EQ(std::count(last.begin(), last.end(), '\n'), 1) << run.output;
  for (const auto& entry : std::filesystem::directory_iterator(folder + "/out/checkpoint")) {
    ADD_FAILURE() << "left behind: " << entry.path();
  }
}

}  // namespace
}  // namespace rep
