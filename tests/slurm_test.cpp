// A sweep handed to a real SLURM ends as a local one does, however often SLURM stops its jobs.
// scripts/test_slurm.sh starts a cluster of one node for these tests.
#include "study/slurm.h"

#include <chrono>
#include <functional>
#include <regex>
#include <thread>

#include "tests/run_command.h"

namespace rep {
namespace {

class Slurm : public ::testing::Test {
 protected:
  void SetUp() override {
    if (shell_command("sinfo --noheader").exit_code != 0) {
      GTEST_SKIP() << "no SLURM answers here; scripts/test_slurm.sh starts one";
    }
  }
};

bool contains(const std::string& text, const std::string& pattern) {
  return std::regex_search(text, std::regex(pattern));
}

bool eventually(const std::function<bool()>& condition) {
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(600);
  while (!condition()) {
    if (std::chrono::steady_clock::now() > deadline) return false;
    std::this_thread::sleep_for(std::chrono::milliseconds(300));
  }
  return true;
}

std::string text_of(const std::string& path) {
  std::ifstream file(path);
  return {std::istreambuf_iterator<char>(file), {}};
}

std::string small_config(const std::string& path, const std::string& epochs) {
  std::string text = small_experiment("l2p");
  text.replace(text.find("epochs: 3"), 9, "epochs: " + epochs);
  return write_text(path, text);
}

/// The folder of the run that was started with this, the only one.
std::string run_folder(const std::string& out, const std::string& part) {
  for (const auto& entry : std::filesystem::directory_iterator(out)) {
    if (contains(entry.path().filename(), part + "-[0-9a-f]{10}$")) return entry.path();
  }
  return out + "/none";
}

void expect_result_of_run_alone(const std::string& config, const std::string& folder,
                                const std::string& seed) {
  const std::string alone = ::testing::TempDir() + "rep_slurm_alone";
  std::filesystem::remove_all(alone);
  const Finished direct = rep_command("run " + shell_word(config) + " -q --seed " + seed +
                                      " --output " + shell_word(alone));
  ASSERT_EQ(direct.exit_code, 0) << direct.output;
  EXPECT_EQ(comparable(read_json(folder + "/result.json")).dump(1),
            comparable(read_json(alone + "/result.json")).dump(1));
}

TEST_F(Slurm, RunsEveryRunOnceAndSaysHowFarEachIs) {
  const std::string folder = fresh_folder("slurm's \"$(touch pwned)\" %A sweep");
  const std::string config = small_config(folder + "/c d.yaml", "1");
  const std::string out = folder + "/out";
  const std::string command = "sweep " + shell_word(config) +
                              " --grid method.top_k=2,11 --seeds 1,2 --engine slurm --output " +
                              shell_word(out);
  const std::string status = "sweep --status " + shell_word(out);
  EXPECT_EQ(rep_command(status).exit_code, 1);  // nothing was begun

  ASSERT_EQ(shell_command("scontrol update PartitionName=rep State=DOWN").exit_code, 0);
  const Finished submitted = rep_command(command + " --time 10 --partition rep --jobs 2");
  ASSERT_EQ(submitted.exit_code, 0) << submitted.output;
  EXPECT_TRUE(contains(submitted.output, "4 runs: 0 finished, 4 submitted")) << submitted.output;
  const Finished queued = rep_command(status);
  EXPECT_TRUE(contains(queued.output, "queued +small-method.top_k=2-s1-")) << queued.output;
  EXPECT_TRUE(contains(queued.output, "4 runs: 4 queued\n$")) << queued.output;
  const Finished again = rep_command(command);
  EXPECT_TRUE(contains(again.output, "4 runs: 0 finished, 0 submitted")) << again.output;
  const std::string asked =
      shell_command("squeue --noheader --format='%l %C %j' --name=rep-sweep").output;
  EXPECT_TRUE(contains(asked, "^10:00 1 rep-sweep\n$")) << asked;
  ASSERT_EQ(shell_command("scontrol update PartitionName=rep State=UP").exit_code, 0);

  Finished state;
  ASSERT_TRUE(eventually([&] {
    state = rep_command(status);
    return state.exit_code != 0 || !contains(state.output, "queued|running");
  })) << state.output;
  EXPECT_TRUE(contains(state.output, "4 runs: 2 failed, 2 finished\n$")) << state.output;
  EXPECT_TRUE(contains(state.output,
                       "failed +small-method.top_k=11-s2-[0-9a-f]+: method: top_k 11 is more "
                       "than pool_size 10; choose [^\n]*\n"))
      << state.output;
  EXPECT_FALSE(std::filesystem::exists(folder + "/pwned"));
  EXPECT_FALSE(std::filesystem::exists("pwned"));
  const Finished repeated = rep_command(command);  // what failed is tried again
  EXPECT_TRUE(contains(repeated.output, "4 runs: 2 finished, 2 submitted")) << repeated.output;
  ASSERT_TRUE(eventually([&] { return !contains(rep_command(status).output, "queued|running"); }));
  for (const std::string seed : {"1", "2"}) {
    const std::string path = config + seed;  // top_k by --set, as in the sweep
    std::string text = text_of(config);
    text.replace(text.find("{name: l2p}"), 11, "{name: l2p, top_k: 2}");
    expect_result_of_run_alone(write_text(path, text),
                               run_folder(out, "small-method.top_k=2-s" + seed), seed);
  }
}

TEST_F(Slurm, StoppedAndQueuedAnewARunEndsWithTheResultOfTheRunAlone) {
  const std::string folder = fresh_folder("slurm_requeue");
  const std::string config = small_config(folder + "/c.yaml", "100");
  const std::string out = folder + "/out";
  const Finished submitted =
      rep_command("sweep " + config + " --seeds 3 --engine slurm --output " + out);
  ASSERT_EQ(submitted.exit_code, 0) << submitted.output;
  const std::string run = run_folder(out, "small-s3");
  const std::string job =
      read_json(out + "/slurm/jobs.json").at("jobs").at(0).at("job").get<std::string>() + "_0";
  const std::string status = "sweep --status " + out;
  const auto stops = [&] {
    const std::string log = text_of(run + "/sweep.log");
    const std::regex stop("rep: stopped in task");
    return std::distance(std::sregex_iterator(log.begin(), log.end(), stop), {});
  };
  const auto steps = [&] {
    const std::string log = text_of(run + "/metrics.jsonl");
    return std::count(log.begin(), log.end(), '\n');
  };

  // The time is nearly up: USR1 comes to the job's shell alone.
  ASSERT_TRUE(eventually([&] { return steps() > 20; })) << rep_command(status).output;
  EXPECT_TRUE(contains(rep_command(status).output, "^running +small-s3-"));
  ASSERT_EQ(shell_command("scancel --batch --signal=USR1 " + job).exit_code, 0);
  ASSERT_TRUE(eventually([&] { return stops() == 1; })) << text_of(run + "/sweep.log");
  const auto before = steps();
  ASSERT_TRUE(eventually([&] { return contains(rep_command(status).output, "^queued +small-s3"); }))
      << rep_command(status).output;

  // Preempted: SLURM takes the node away from the job, with TERM to all its processes.
  ASSERT_TRUE(eventually([&] { return steps() > before + 20; })) << rep_command(status).output;
  ASSERT_EQ(shell_command("scontrol requeue " + job).exit_code, 0);
  ASSERT_TRUE(eventually([&] { return stops() == 2; })) << text_of(run + "/sweep.log");
  EXPECT_FALSE(std::filesystem::exists(run + "/result.json") &&
               read_json(run + "/result.json").value("complete", false))
      << "it was finished before it was stopped: the test shows nothing";

  ASSERT_TRUE(eventually([&] { return contains(rep_command(status).output, "1 finished"); }))
      << rep_command(status).output << text_of(run + "/sweep.log");
  EXPECT_EQ(stops(), 2);
  expect_result_of_run_alone(config, run, "3");
}

TEST_F(Slurm, CancelledARunIsUnfinishedAndSubmittedAgain) {
  const std::string folder = fresh_folder("slurm_cancel");
  const std::string config = small_config(folder + "/c.yaml", "4000");
  const std::string out = folder + "/out";
  const std::string command = "sweep " + config + " --engine slurm --output " + out;
  ASSERT_EQ(rep_command(command).exit_code, 0);
  const std::string run = run_folder(out, "small-s42");
  ASSERT_TRUE(
      eventually([&] { return std::filesystem::exists(run + "/checkpoint/state.safetensors"); }));
  const auto cancel = [] { return shell_command("scancel --name=rep-sweep").exit_code; };
  ASSERT_EQ(cancel(), 0);
  Finished state;
  ASSERT_TRUE(eventually([&] {
    state = rep_command("sweep --status " + out);
    return contains(state.output, "unfinished +small-s42-[0-9a-f]+: SLURM says CANCELLED\n");
  })) << state.output;
  EXPECT_TRUE(contains(text_of(run + "/sweep.log"), "rep: stopped in task")) << "it was not saved";
  const Finished again = rep_command(command);
  EXPECT_TRUE(contains(again.output, "0 finished, 1 submitted")) << again.output;
  EXPECT_EQ(cancel(), 0);
}

}  // namespace
}  // namespace rep
