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
  // Every step is saved. Killed in the middle of a task and as soon as the next line is there.
  int killed = 0;
  for (const int64_t line : {1, 2, 3}) {
    killed += signal_at_line(config, folder + "/stopped", line, SIGKILL,
                             {"--set", set.substr(6)}) == 128 + SIGKILL;
  }
  EXPECT_GE(killed, 2) << "the run ended before it was killed";
  const json resumed = run(config, folder + "/stopped", set + " --resume");
  EXPECT_EQ(comparable(resumed).dump(1), comparable(straight).dump(1));
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

// What a batch of 64 images holds beside a process that has loaded LibTorch.
std::string large_batches() {
  std::string text = edited(small_experiment("l2p"), "train_per_class: 16", "train_per_class: 64");
  return edited(text, "epochs: 3, batch_size: 8", "epochs: 2, batch_size: 64");
}

int64_t resident(const json& result) {
  return result.at("cost").at("total").at("peak_rss_bytes").get<int64_t>();
}

class MemoryLimit : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    config = write_text(fresh_folder("memory") + "/c.yaml", large_batches());
    const Finished planned =
        shell_command(REP_EXECUTABLE " plan " + config + " --json 2>/dev/null");
    ASSERT_EQ(planned.exit_code, 0) << planned.output;
    plan = json::parse(planned.output);
  }
  // Between what it takes as configured and at the least; 0 is the least.
  static std::string limit(double share) {
    const auto most = plan.at("resident_bytes").get<double>();
    const auto least = plan.at("ladder").back().at("resident_bytes").get<double>();
    return std::to_string(static_cast<int64_t>(least + share * (most - least)));
  }
  static std::string config;
  static json plan;
};
std::string MemoryLimit::config;
json MemoryLimit::plan;

TEST_F(MemoryLimit, MakesTheRunFitItselfAndSaysHow) {
  ASSERT_GT(plan.at("ladder").size(), 3U) << plan.dump(1);
  const std::string folder = fresh_folder("memory_fit");
  const json free = run(config, folder + "/free");
  EXPECT_FALSE(free.contains("memory"));
  const std::string cap = limit(0.3);
  const Finished finished =
      rep_command("run " + config + " --output " + folder + "/out --memory-limit " + cap);
  ASSERT_EQ(finished.exit_code, 0) << finished.output;
  EXPECT_NE(finished.output.find("micro-batches of "), std::string::npos) << finished.output;
  const json fitted = read_json(folder + "/out/result.json");
  const json schema = read_json(REP_SOURCE_DIR "/results/schema.json");
  EXPECT_EQ(schema_violation(fitted, schema), "");
  EXPECT_GT(resident(free), std::stoll(cap));
  EXPECT_LE(resident(fitted), std::stoll(cap));
  const json& used = fitted.at("memory").at("used");
  ASSERT_EQ(used.size(), 1U) << used;
  EXPECT_LT(used[0].at("micro_batch_size"), 64);
  EXPECT_GT(used[0].at("step_time"), 1.0);
  EXPECT_EQ(fitted.at("memory").at("limit_bytes"), std::stoll(cap));
  // The same run, to rounding.
  EXPECT_EQ(fitted.at("identity"), free.at("identity"));
  EXPECT_EQ(fitted.at("cost").at("total").at("macs").at("train").at("backward"),
            free.at("cost").at("total").at("macs").at("train").at("backward"));
  const auto accuracy = [](const json& result) {
    return result.at("metrics").at("average_accuracy").get<double>();
  };
  EXPECT_NEAR(accuracy(fitted), accuracy(free), 5);
  // It says what was asked for, so that the finished run is known again.
  for (const char* section : {"train", "eval", "backbone"}) {
    EXPECT_EQ(fitted.at("config").at(section), free.at("config").at(section)) << section;
  }
  const Finished exported = rep_command("export " + folder + "/out --output " + folder + "/model");
  EXPECT_EQ(exported.exit_code, 0) << exported.output;
}

TEST_F(MemoryLimit, ChangesNothingWhereTheRunFitsAsItIs) {
  const std::string folder = fresh_folder("memory_roomy");
  json free = comparable(run(config, folder + "/free"));
  json roomy = comparable(run(config, folder + "/roomy", "--memory-limit 100GiB"));
  roomy.erase("memory");
  for (json* result : {&free, &roomy}) result->at("config").erase("memory_limit");
  EXPECT_EQ(roomy.dump(1), free.dump(1));
}

TEST_F(MemoryLimit, RefusesInASentenceWhatFitsInNoWay) {
  const std::string folder = fresh_folder("memory_none");
  const Finished stopped =
      rep_command("run " + config + " -q --output " + folder + "/out --memory-limit 20MiB");
  EXPECT_EQ(stopped.exit_code, 1);
  const std::string last = stopped.output.substr(stopped.output.find("rep: "));
  EXPECT_EQ(std::count(last.begin(), last.end(), '\n'), 1) << stopped.output;
  EXPECT_EQ(last.rfind("rep: memory_limit: 20MiB: the run takes ", 0), 0U) << last;
  EXPECT_NE(last.find("micro-batches of 1"), std::string::npos) << last;
  EXPECT_NE(last.find("bf16"), std::string::npos) << last;
}

TEST_F(MemoryLimit, MayBeAnotherWhenTheRunGoesOn) {
  const std::string folder = fresh_folder("memory_resume");
  const int code =
      signal_at_line(config, folder + "/out", 1, SIGKILL, {"--memory-limit", limit(0.3)});
  ASSERT_EQ(code, 128 + SIGKILL) << "the run ended before it was killed";
  const json resumed = run(config, folder + "/out", "--resume --memory-limit " + limit(0.8));
  const json& used = resumed.at("memory").at("used");
  ASSERT_EQ(used.size(), 2U) << used;
  EXPECT_LT(used[0].at("resident_bytes"), used[1].at("resident_bytes"));
  // Where the limit stays, so do the settings, and the result comes out as without a stop.
  const std::string same = "--memory-limit " + limit(0.3);
  const json straight = run(config, folder + "/straight", same);
  ASSERT_EQ(signal_at_line(config, folder + "/same", 1, SIGKILL, {"--memory-limit", limit(0.3)}),
            128 + SIGKILL);
  const json gone_on = run(config, folder + "/same", "--resume " + same);
  EXPECT_EQ(gone_on.at("accuracy"), straight.at("accuracy"));
  EXPECT_EQ(gone_on.at("memory").at("used").size(), 1U);
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
