// Nothing is lost: a run that was killed, at whatever moment, ends with the result of one that was
// not.
#include <csignal>
#include <thread>

#include "tests/json_schema.h"
#include "tests/run_command.h"

namespace rep {
namespace {

const char kRep[] =
    "efficiency: {token_merging: {kind: atom, n: 4}, layer_dropping: {kind: ald, decay: 0.05}}\n";

int64_t lines_of(const std::string& path) {
  std::ifstream file(path);
  return std::count(std::istreambuf_iterator<char>(file), {}, '\n');
}

// Starts or resumes a run and sends it `signal` when its metrics.jsonl has `lines` lines; the exit
// status as a shell would say it.
int run_and_signal(const std::string& config, const std::string& output, int64_t lines,
                   int signal) {
  const pid_t child = start_run(config, output);
  int status = 0;
  while (waitpid(child, &status, WNOHANG) == 0) {
    if (lines_of(output + "/metrics.jsonl") >= lines) {
      kill(child, signal);
      waitpid(child, &status, 0);
      break;
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
  }
  return exit_status(status);
}

class Resume : public ::testing::TestWithParam<const char*> {};

TEST_P(Resume, AfterKillsGivesTheResultOfAnUninterruptedRun) {
  const std::string method = GetParam();
  const std::string folder = fresh_folder("resume_" + method);
  const std::string config = write_text(
      folder + "/c.yaml", small_experiment(method, method == "l2p" ? std::string(kRep) : ""));
  const Finished straight = rep_command("run " + config + " -q --output " + folder + "/straight");
  ASSERT_EQ(straight.exit_code, 0) << straight.output;

  // Two lines a task: in the middle of a task, at its end, and so on; a resumed run takes the last
  // steps again and is killed within them.
  int killed = 0;
  for (const int64_t lines : {1, 2, 3, 5}) {
    killed += run_and_signal(config, folder + "/killed", lines, SIGKILL) == 128 + SIGKILL;
  }
  const Finished last =
      rep_command("run " + config + " -q --resume --output " + folder + "/killed");
  ASSERT_EQ(last.exit_code, 0) << last.output;
  EXPECT_GE(killed, 3) << "runs ended before they were killed";
  EXPECT_EQ(comparable(read_json(folder + "/killed/result.json")).dump(1),
            comparable(read_json(folder + "/straight/result.json")).dump(1));
  const nlohmann::json schema = read_json(REP_SOURCE_DIR "/results/schema.json");
  EXPECT_EQ(schema_violation(read_json(folder + "/killed/result.json"), schema, schema), "");
  std::ifstream a(folder + "/killed/metrics.jsonl"), b(folder + "/straight/metrics.jsonl");
  EXPECT_EQ(std::string(std::istreambuf_iterator<char>(a), {}),
            std::string(std::istreambuf_iterator<char>(b), {}));
}

INSTANTIATE_TEST_SUITE_P(Methods, Resume,
                         ::testing::Values("l2p", "finetune", "derpp", "icarl", "pnn"));

TEST(Interrupt, SavesAndExits130) {
  const std::string folder = fresh_folder("interrupt");
  const std::string text = small_experiment("l2p");
  write_text(folder + "/short.yaml", text);
  std::string many = text;
  many.replace(many.find("epochs: 3"), 9, "epochs: 4000");
  write_text(folder + "/long.yaml", many);
  EXPECT_EQ(run_and_signal(folder + "/long.yaml", folder + "/out", 2, SIGTERM), 130);
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
  const std::string config = write_text(folder + "/c.yaml", small_experiment("l2p", kRep));
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

TEST(Run, StopsAtALossThatIsNotFiniteAndKeepsTheCheckpoint) {
  const std::string folder = fresh_folder("nan");
  const std::string config =
      write_text(folder + "/c.yaml",
                 small_experiment("finetune", "efficiency: {token_merging: {kind: none}}\n"));
  const Finished run = rep_command(
      "run " + config + " -q --set train.optimizer.lr=1e30 " +
      "--set train.clip_norm=0 --set train.checkpoint_seconds=0 --output " + folder + "/out");
  EXPECT_EQ(run.exit_code, 1);
  EXPECT_NE(run.output.find("in task 0, epoch 0, step 2"), std::string::npos) << run.output;
  const Finished inspect = rep_command("inspect " + folder + "/out/checkpoint/state.safetensors");
  EXPECT_EQ(inspect.exit_code, 0) << inspect.output;
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
