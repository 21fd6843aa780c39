// Every method that `rep list` names learns a small stream of drawn pictures from its defaults, and
// its result keeps the schema.
#include <cmath>

#include "tests/json_schema.h"
#include "tests/run_command.h"

namespace rep {
namespace {

constexpr char kRep[] =
    "efficiency:\n"
    "  query_backbone: {name: vit_nano, weights: random}\n"
    "  token_merging: {kind: atom, n: 4}\n"
    "  layer_dropping: {kind: ald, decay: 0.05}\n";

std::vector<std::string> methods() {
  std::vector<std::string> names;
  const nlohmann::json list = nlohmann::json::parse(rep_command("list methods --json").output);
  for (const auto& entry : list["methods"]) names.push_back(entry["name"]);
  return names;
}

TEST(Offline, EveryMethodRunsFromItsDefaults) {
  const nlohmann::json schema = read_json(REP_SOURCE_DIR "/results/schema.json");
  const std::vector<std::string> names = methods();
  EXPECT_GE(names.size(), 23U);
  for (const std::string& name : names) {
    SCOPED_TRACE(name);
    const std::string folder = fresh_folder("offline_" + name);
    const std::string config = write_text(folder + "/c.yaml", small_experiment(name));
    const std::string command = "run " + config + " -q --output " + folder + "/out";
    Finished run = rep_command(command);
    if (run.output.find("backbone.trainable") != std::string::npos) {  // it trains the backbone
      run = rep_command(command + " --set backbone.trainable=all");
    }
    ASSERT_EQ(run.exit_code, 0) << run.output;
    const nlohmann::json result = read_json(folder + "/out/result.json");
    EXPECT_EQ(schema_violation(result, schema), "");
    EXPECT_TRUE(result["complete"].get<bool>());
    EXPECT_EQ(result["config"]["method"]["name"], name);
    EXPECT_GT(result["cost"]["state_bytes"].get<int64_t>(), 0);
    EXPECT_GT(result["cost"]["total"]["flops"].get<int64_t>(), 0);
  }
}

TEST(Offline, PromptMethodsRunWithTheWholeOfRep) {
  for (const char* name :
       {"l2p", "dualprompt", "coda_prompt", "hide_prompt", "convprompt", "slca", "ranpac"}) {
    SCOPED_TRACE(name);
    const std::string folder = fresh_folder(std::string("offline_rep_") + name);
    const std::string command = "run " +
                                write_text(folder + "/c.yaml", small_experiment(name, kRep)) +
                                " -q --output " + folder + "/out";
    Finished run = rep_command(command);
    if (run.output.find("backbone.trainable") != std::string::npos) {
      run = rep_command(command + " --set backbone.trainable=all");
    }
    ASSERT_EQ(run.exit_code, 0) << run.output;
    const nlohmann::json result = read_json(folder + "/out/result.json");
    EXPECT_LT(result["cost"]["per_iteration"]["blocks_mean"].get<double>(), 6);
    EXPECT_LT(result["cost"]["per_iteration"]["tokens_mean"].get<double>(),
              std::string(name) == "l2p" ? 65 + 25 : 65);
  }
}

TEST(Offline, ScoringAmongAllClassesMovesOnlyTheClassIncrementalRows) {
  const std::string folder = fresh_folder("offline_eval_classes");
  const std::string config = write_text(folder + "/c.yaml", small_experiment("l2p"));
  const auto result = [&](const std::string& classes) {
    const std::string out = folder + "/" + classes;
    const Finished run =
        rep_command("run " + config + " -q --output " + out + " --set eval.classes=" + classes +
                    " --seed 2 --set train.optimizer.lr=1e-6");  // an unseen class wins
    EXPECT_EQ(run.exit_code, 0) << run.output;
    return read_json(out + "/result.json");
  };
  const nlohmann::json seen = result("seen"), all = result("all");
  EXPECT_EQ(seen["accuracy"]["task_incremental"], all["accuracy"]["task_incremental"]);
  const auto& a = all["accuracy"]["class_incremental"];
  const auto& s = seen["accuracy"]["class_incremental"];
  EXPECT_EQ(a[2], s[2]) << "by then all are seen";
  for (size_t t = 0; t < 2; ++t) {
    for (size_t i = 0; i <= t; ++i) EXPECT_LE(a[t][i].get<double>(), s[t][i].get<double>());
  }
  EXPECT_NE(a, s);
  EXPECT_FALSE(seen.contains("notes"));
  EXPECT_NE(all["notes"].dump().find("among all classes of the stream"), std::string::npos);
}

TEST(Offline, SaysWhereATaskOfOneClassTeachesNothing) {
  const std::string folder = fresh_folder("offline_one_class");
  const auto notes = [&](const std::string& method) {
    const std::string out = folder + "/" + method;
    const std::string config = write_text(out + ".yaml", small_experiment(method));
    const Finished run = rep_command("run " + config + " -q --output " + out +
                                     " --set stream.classes_per_task=[3,1,2] --set train.epochs=1");
    EXPECT_EQ(run.exit_code, 0) << run.output;
    return read_json(out + "/result.json").value("notes", nlohmann::json::array()).dump();
  };
  EXPECT_NE(notes("l2p").find("tasks of one class (2): the loss of l2p"), std::string::npos);
  EXPECT_EQ(notes("er"), "[]") << "its loss is over all classes";
}

// A precision changes how products are taken, not which, nor what trains (ConvPrompt's norms).
TEST(Offline, BothPrecisionsTrainTheSame) {
  for (const char* name :
       {"l2p", "dualprompt", "coda_prompt", "hide_prompt", "convprompt", "ranpac"}) {
    SCOPED_TRACE(name);
    const std::string folder = fresh_folder(std::string("offline_precisions_") + name);
    const std::string config = write_text(folder + "/c.yaml", small_experiment(name, kRep));
    const auto cost = [&](const std::string& precision) {
      const std::string out = folder + "/" + precision;
      const Finished run = rep_command("run " + config + " -q --output " + out +
                                       " --set train.iterations=2 --set precision=" + precision);
      EXPECT_EQ(run.exit_code, 0) << run.output;
      return read_json(out + "/result.json")["cost"];
    };
    const nlohmann::json fp32 = cost("fp32"), bf16 = cost("bf16");
    EXPECT_EQ(fp32["state_bytes"], bf16["state_bytes"]);
    const auto backward = [](const nlohmann::json& c) {
      return c["total"]["macs"]["train"]["backward"];
    };
    EXPECT_EQ(backward(fp32), backward(bf16));
  }
}

// Sums are cut into as many parts as there are threads, so their last bits differ, and with them
// those of what is learned: which is why a resume keeps the number. More than rounding it is not.
TEST(Offline, TwoThreadCountsLearnTheSameParametersToRounding) {
  for (const char* name : {"l2p", "dualprompt", "ncm", "ranpac"}) {
    SCOPED_TRACE(name);
    const std::string folder = fresh_folder(std::string("offline_threads_") + name);
    const std::string config = write_text(folder + "/c.yaml", small_experiment(name, kRep));
    std::map<std::string, std::vector<float>> learned[2];
    nlohmann::json results[2];
    for (const int i : {0, 1}) {
      const std::string out = folder + "/" + std::to_string(i);
      const Finished run = rep_command("run " + config + " -q --output " + out +
                                       " --set threads=" + (i == 0 ? "1" : "3"));
      ASSERT_EQ(run.exit_code, 0) << run.output;
      learned[i] = checkpointed_floats(out, "learner.method.");
      results[i] = read_json(out + "/result.json");
    }
    ASSERT_FALSE(learned[0].empty());
    for (const auto& [tensor, values] : learned[0]) {
      const std::vector<float>& others = learned[1].at(tensor);
      ASSERT_EQ(values.size(), others.size()) << tensor;
      float largest = 0, difference = 0;
      for (size_t i = 0; i < values.size(); ++i) {
        largest = std::max(largest, std::abs(values[i]));
        difference = std::max(difference, std::abs(values[i] - others[i]));
      }
      EXPECT_LE(difference, 1e-3F * largest) << tensor;
    }
    EXPECT_EQ(results[0]["accuracy"], results[1]["accuracy"]);
    EXPECT_EQ(results[0]["cost"]["total"]["flops"], results[1]["cost"]["total"]["flops"]);
  }
}

TEST(Offline, ProgressiveNetworksGrowAndNeverForgetATask) {
  const std::string folder = fresh_folder("offline_pnn_grows");
  const std::string config = write_text(folder + "/c.yaml", small_experiment("pnn"));
  const Finished run = rep_command("run " + config + " -q --output " + folder + "/out");
  ASSERT_EQ(run.exit_code, 0) << run.output;
  const nlohmann::json result = read_json(folder + "/out/result.json");
  EXPECT_EQ(result["metrics"]["task_incremental"]["forgetting"], 0.0);
  const auto total = [&](size_t task) {
    return result["tasks"][task]["parameters"]["total"].get<int64_t>();
  };
  EXPECT_GT(total(1), total(0));
  EXPECT_GT(total(2) - total(1), total(1) - total(0)) << "lateral adapters from every column";
}

}  // namespace
}  // namespace rep
