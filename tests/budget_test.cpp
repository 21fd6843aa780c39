// What a task may cost is an input: multiply-accumulates, seconds, bytes.

#include "core/bytes.h"
#include "core/error.h"
#include "tests/json_schema.h"
#include "tests/run_command.h"

namespace rep {
namespace {

using nlohmann::json;

/// The result of a run, or null with a failure.
json run(const std::string& config, const std::string& folder, const std::string& flags = "") {
  const Finished finished = rep_command("run " + config + " -q --output " + folder + " " + flags);
  EXPECT_EQ(finished.exit_code, 0) << finished.output;
  if (finished.exit_code != 0) return nullptr;
  json result = read_json(folder + "/result.json");
  const json schema = read_json(REP_SOURCE_DIR "/results/schema.json");
  EXPECT_EQ(schema_violation(result, schema), "");
  return result;
}

int64_t train_macs(const json& result, size_t task) {
  const json& macs = result.at("cost").at("per_task").at(task).at("macs").at("train");
  return macs.at("select").get<int64_t>() + macs.at("forward").get<int64_t>() +
         macs.at("backward").get<int64_t>();
}

// L2P's begin and end of a task multiply nothing: all training MACs are the steps'.
TEST(MacsBudget, EndsATaskAtTheFirstStepThatUsesItUp) {
  const std::string folder = fresh_folder("macs");
  const std::string config = write_text(folder + "/c.yaml", small_experiment("l2p", kRepBlock));
  const json whole = run(config, folder + "/whole");
  ASSERT_EQ(whole.at("tasks").at(0).at("iterations"), 12);
  const auto budget = static_cast<int64_t>(0.55 * static_cast<double>(train_macs(whole, 0)));
  const json ended = run(config, folder + "/ended", "--set train.macs=" + std::to_string(budget));
  EXPECT_FALSE(ended.contains("notes"));
  for (size_t task = 0; task < 3; ++task) {
    const auto steps = ended.at("tasks").at(task).at("iterations").get<int64_t>();
    EXPECT_GT(steps, 2) << "task " << task;
    EXPECT_LT(steps, 12) << "task " << task;
    EXPECT_GE(train_macs(ended, task), budget) << "task " << task;
  }
  // One step less does not use it up.
  const auto first = ended.at("tasks").at(0).at("iterations").get<int64_t>();
  const json less =
      run(config, folder + "/less", "--set train.iterations=" + std::to_string(first - 1));
  EXPECT_LT(train_macs(less, 0), budget);
}

TEST(MacsBudget, SurvivesInterruptsExactly) {
  const std::string folder = fresh_folder("macs_resume");
  const std::string config = write_text(folder + "/c.yaml", small_experiment("l2p", kRepBlock));
  const json whole = run(config, folder + "/whole");
  const std::string set = "--set train.macs=" + std::to_string(train_macs(whole, 0) / 2);
  const json straight = run(config, folder + "/straight", set);
  // Every step is saved. A run that may take a little more memory at each try stops in the middle.
  const auto peak = straight.at("cost").at("total").at("peak_tensor_bytes").get<int64_t>();
  int stops = 0;
  for (const double share : {0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95}) {
    const auto limit = static_cast<int64_t>(share * static_cast<double>(peak));
    stops += rep_command("run " + config + " -q --resume --output " + folder + "/stopped " + set +
                         " --set memory_limit=" + std::to_string(limit))
                 .exit_code == 1;
  }
  EXPECT_EQ(stops, 7);
  // And killed, in the middle of a task and as soon as the next line is there.
  int killed = 0;
  const int64_t lines = lines_of(folder + "/stopped/metrics.jsonl");
  for (const int64_t more : {1, 2, 3}) {
    killed += signal_at_line(config, folder + "/stopped", lines + more, SIGKILL,
                             {"--set", set.substr(6)}) == 128 + SIGKILL;
  }
  EXPECT_GE(killed, 2) << "the run ended before it was killed";
  const json resumed = run(config, folder + "/stopped", set + " --resume");
  json a = comparable(resumed), b = comparable(straight);
  for (json* result : {&a, &b}) result->at("config").erase("memory_limit");
  EXPECT_EQ(a.dump(1), b.dump(1));
}

// Each task has 32 images.
TEST(DropLast, TakesLessThanOneBatchAsOne) {
  const std::string folder = fresh_folder("drop_last");
  const std::string config = write_text(folder + "/c.yaml", small_experiment("l2p"));
  const std::string flags = "--set train.drop_last=true --set train.batch_size=";
  EXPECT_EQ(run(config, folder + "/less", flags + "64").at("tasks").at(0).at("iterations"), 3);
  EXPECT_EQ(run(config, folder + "/more", flags + "20").at("tasks").at(0).at("iterations"), 3);
  EXPECT_EQ(run(config, folder + "/even", flags + "16").at("tasks").at(0).at("iterations"), 6);
}

TEST(SecondsBudget, EndsATaskByTheClockAndSaysSo) {
  const std::string folder = fresh_folder("seconds");
  const std::string config = write_text(folder + "/c.yaml", small_experiment("l2p"));
  const json result =
      run(config, folder + "/out", "--set train.seconds=0.4 --set train.epochs=100000");
  for (size_t task = 0; task < 3; ++task) {
    const double seconds =
        result.at("cost").at("per_task").at(task).at("seconds").at("forward").get<double>() +
        result.at("cost").at("per_task").at(task).at("seconds").at("backward").get<double>();
    EXPECT_GT(seconds, 0.1);
    EXPECT_LT(seconds, 4);
    EXPECT_GT(result.at("tasks").at(task).at("iterations").get<int64_t>(), 0);
  }
  ASSERT_TRUE(result.contains("notes"));
  EXPECT_NE(result.at("notes").dump().find("train.seconds"), std::string::npos);
}

TEST(MemoryLimit, IsTheLastByteThatIsAllowed) {
  const std::string folder = fresh_folder("memory");
  const std::string config = write_text(folder + "/c.yaml", small_experiment("finetune"));
  const json free = run(config, folder + "/free");
  const auto peak = free.at("cost").at("total").at("peak_tensor_bytes").get<int64_t>();
  run(config, folder + "/enough", "--set memory_limit=" + std::to_string(peak));

  const Finished stopped = rep_command("run " + config + " -q --output " + folder + "/out" +
                                       " --set memory_limit=" + std::to_string(peak - 1));
  EXPECT_EQ(stopped.exit_code, 1);
  const std::string last = stopped.output.substr(stopped.output.find("rep: "));
  EXPECT_EQ(std::count(last.begin(), last.end(), '\n'), 1) << stopped.output;
  EXPECT_NE(last.find("memory_limit"), std::string::npos) << last;
  EXPECT_NE(last.find("batch_size"), std::string::npos) << last;

  // The checkpoint is good: with room enough the run ends as one that never stopped.
  json resumed = comparable(run(config, folder + "/out", "--resume"));
  json whole = comparable(free);
  for (json* result : {&resumed, &whole}) result->at("config").erase("memory_limit");
  EXPECT_EQ(resumed.dump(1), whole.dump(1));
}

TEST(Bytes, AreReadWithTheirUnits) {
  EXPECT_EQ(parse_bytes("", "x"), 0);
  EXPECT_EQ(parse_bytes("1000", "x"), 1000);
  EXPECT_EQ(parse_bytes("2GiB", "x"), 2147483648);
  EXPECT_EQ(parse_bytes("1.5 GB", "x"), 1500000000);
  EXPECT_EQ(parse_bytes("512MiB", "x"), 536870912);
  for (const char* bad : {"2Gi", "GiB", "-1", "0", "1e30", "2 GiB x", "nan", "1e-3"}) {
    EXPECT_THROW(parse_bytes(bad, "x"), Error) << bad;
  }
  EXPECT_EQ(show_bytes(1536), "1.5 KiB");
  EXPECT_EQ(show_bytes(2147483648), "2 GiB");
}

}  // namespace
}  // namespace rep
