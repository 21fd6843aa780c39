// A run that is killed again and again, at moments that nobody chose, ends with the result of one
// that was not. Over all registered methods in turn; scripts/test_kills.sh does it a few hundred
// times.
#include <chrono>
#include <csignal>
#include <cstdlib>
#include <random>
#include <set>
#include <thread>

#include "tests/run_command.h"

namespace rep {
namespace {

using Clock = std::chrono::steady_clock;

int64_t number_from(const char* variable, int64_t otherwise) {
  const char* text = std::getenv(variable);
  return text ? std::stoll(text) : otherwise;
}

std::vector<std::string> registered_methods() {
  const nlohmann::json listed = nlohmann::json::parse(rep_command("list methods --json").output);
  std::vector<std::string> names;
  for (const auto& method : listed.at("methods")) {
    names.push_back(method.at("name"));
  }
  return names;
}

// REP on every method whose steps it makes cheaper, so that its state is resumed too.
std::string experiment_of(const std::string& method) {
  static const std::set<std::string> kCheaper{
      "l2p",       "dualprompt", "coda_prompt", "hide_prompt", "convprompt", "apt",
      "os_prompt", "cps_prompt", "inflora",     "sd_lora",     "slca",       "ranpac"};
  return small_experiment(method, kCheaper.count(method) > 0 ? kRepBlock : "");
}

// Starts or resumes a run and kills it after `seconds`; false when it had ended before.
bool run_and_kill(const std::string& config, const std::string& output, double seconds) {
  const pid_t child = start_run(config, output);
  std::this_thread::sleep_for(std::chrono::duration<double>(seconds));
  kill(child, SIGKILL);
  int status = 0;
  waitpid(child, &status, 0);
  return exit_status(status) == 128 + SIGKILL;
}

// Kills the run in `output` as soon as it has written another checkpoint; false when it ends first.
bool kill_at_next_checkpoint(const std::string& config, const std::string& output) {
  const std::string checkpoint = output + "/checkpoint/state.safetensors";
  // A checkpoint takes the place of the one before as another file.
  const auto written = [&] {
    std::error_code none_yet;
    return std::filesystem::last_write_time(checkpoint, none_yet);
  };
  const auto before = written();
  const pid_t child = start_run(config, output);
  int status = 0;
  while (written() == before) {
    if (waitpid(child, &status, WNOHANG) == child) return false;
    std::this_thread::sleep_for(std::chrono::microseconds(100));
  }
  kill(child, SIGKILL);
  waitpid(child, &status, 0);
  return exit_status(status) == 128 + SIGKILL;
}

// Joint training has no steps before its last task: what a checkpoint takes is its tasks' peak.
TEST(Kills, AfterACheckpointChangeNoResult) {
  const std::string folder = fresh_folder("kills_at_checkpoints");
  const std::string config = write_text(folder + "/c.yaml", experiment_of("joint"));
  const std::string killed = folder + "/killed";
  const Finished straight = rep_command("run " + config + " -q --output " + folder + "/straight");
  ASSERT_EQ(straight.exit_code, 0) << straight.output;
  for (int i = 0; i < 5; ++i) {  // two checkpoints a task, then one a step
    ASSERT_TRUE(kill_at_next_checkpoint(config, killed)) << "kill " << i;
  }
  const Finished last = rep_command("run " + config + " -q --resume --output " + killed);
  ASSERT_EQ(last.exit_code, 0) << last.output;
  EXPECT_EQ(comparable(read_json(killed + "/result.json")).dump(1),
            comparable(read_json(folder + "/straight/result.json")).dump(1));
}

TEST(Kills, AtRandomMomentsChangeNoResult) {
  const int64_t wanted = number_from("REP_KILLS", 9);
  const auto seed = static_cast<uint64_t>(
      number_from("REP_KILLS_SEED", static_cast<int64_t>(std::random_device{}())));
  std::mt19937_64 random(seed);
  std::vector<std::string> methods = registered_methods();
  ASSERT_FALSE(methods.empty());
  std::shuffle(methods.begin(), methods.end(), random);
  const auto in_all = static_cast<int64_t>(methods.size());
  const int64_t each = std::max<int64_t>(3, (wanted + in_all - 1) / in_all);

  int64_t kills = 0, runs = 0;
  for (const std::string& method : methods) {
    if (kills >= wanted) break;
    SCOPED_TRACE(method + ", REP_KILLS_SEED=" + std::to_string(seed));
    const std::string folder = fresh_folder("kills_" + method);
    const std::string config = write_text(folder + "/c.yaml", experiment_of(method));
    const auto start = Clock::now();
    const Finished straight = rep_command("run " + config + " -q --output " + folder + "/straight");
    const double seconds = std::chrono::duration<double>(Clock::now() - start).count();
    ASSERT_EQ(straight.exit_code, 0) << straight.output;
    const std::string expected = comparable(read_json(folder + "/straight/result.json")).dump(1);

    // A run that ends before it is killed is compared, and another one begins.
    const auto finish = [&](const std::string& output) {
      const Finished last = rep_command("run " + config + " -q --resume --output " + output);
      ASSERT_EQ(last.exit_code, 0) << last.output;
      EXPECT_EQ(comparable(read_json(output + "/result.json")).dump(1), expected);
      ++runs;
    };
    std::string output = folder + "/killed0";
    for (int64_t killed = 0, attempt = 1; killed < each && attempt <= 4 * each; ++attempt) {
      const double after = std::uniform_real_distribution<>(0, seconds)(random);
      if (run_and_kill(config, output, after)) {
        ++killed, ++kills;
        continue;
      }
      finish(output);
      output = folder + "/killed" + std::to_string(attempt);
    }
    finish(output);
    if (!HasFailure()) std::filesystem::remove_all(folder);
  }
  EXPECT_GE(kills, wanted) << "runs ended before they were killed";
  std::cout << kills << " kills in " << runs << " runs, seed " << seed << "\n";
}

}  // namespace
}  // namespace rep
