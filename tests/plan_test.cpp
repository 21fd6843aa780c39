// rep plan against what rep run then measures.

#include <algorithm>
#include <cmath>

#include "tests/run_command.h"

namespace rep {
namespace {

using nlohmann::json;

const char kRep[] =
    "efficiency: {token_merging: {kind: atom, n: 4}, layer_dropping: {kind: ald, decay: 0.05}}\n";

json planned(const std::string& config, const std::string& flags = "") {
  // Warnings go to stderr; only stdout is JSON.
  const Finished plan =
      shell_command(REP_EXECUTABLE " plan " + config + " --json " + flags + " 2>/dev/null");
  EXPECT_EQ(plan.exit_code, 0) << plan.output;
  return plan.exit_code == 0 ? json::parse(plan.output) : json(nullptr);
}

json measured(const std::string& config, const std::string& folder, const std::string& set = "") {
  const Finished run = rep_command("run " + config + " -q --output " + folder + " " + set);
  EXPECT_EQ(run.exit_code, 0) << run.output;
  return run.exit_code == 0 ? read_json(folder + "/result.json") : json(nullptr);
}

double train_macs(const json& result) {
  const json& macs = result.at("cost").at("total").at("macs").at("train");
  return macs.at("select").get<double>() + macs.at("forward").get<double>() +
         macs.at("backward").get<double>();
}

int64_t peak_of(const json& result) {
  return result.at("cost").at("total").at("peak_tensor_bytes").get<int64_t>();
}

struct Case {
  const char* name;
  const char* method;
  bool rep;
  double macs_tolerance;  // of all training
};

class Plan : public ::testing::TestWithParam<Case> {};

TEST_P(Plan, ForeseesWhatTheRunMeasures) {
  const Case& c = GetParam();
  const std::string folder = fresh_folder(std::string("plan_") + c.name);
  const std::string config =
      write_text(folder + "/c.yaml", small_experiment(c.method, c.rep ? kRep : ""));
  const json plan = planned(config);
  const json run = measured(config, folder + "/out");
  ASSERT_TRUE(plan.is_object() && run.is_object());
  int64_t steps = 0;
  for (const json& task : run.at("tasks")) steps += task.at("iterations").get<int64_t>();
  EXPECT_EQ(plan.at("steps"), steps);
  const json& cost = run.at("cost");
  EXPECT_EQ(plan.at("parameters"), cost.at("parameters"));
  const auto near = [](double is, double wanted, double tolerance, const char* what) {
    EXPECT_NEAR(is, wanted, tolerance * wanted) << what << ", off by " << is / wanted - 1;
  };
  near(plan.at("peak_tensor_bytes"), static_cast<double>(peak_of(run)), 0.1, "peak");
  near(plan.at("state_bytes"), cost.at("state_bytes"), 0.1, "state");
  near(plan.at("macs").at("train"), train_macs(run), c.macs_tolerance, "training");
  near(plan.at("macs").at("eval"), cost.at("total").at("macs").at("eval"), 0.05, "testing");
  near(plan.at("macs_total"),
       plan.at("macs").at("train").get<double>() + plan.at("macs").at("eval").get<double>(), 1e-9,
       "the sum");
  if (steps > 0) {
    EXPECT_LE(plan.at("macs_per_step").get<double>() * static_cast<double>(steps),
              plan.at("macs").at("train").get<double>() * (1 + 1e-9));
  }
  EXPECT_GT(plan.at("seconds_estimated").get<double>(), 0);
  EXPECT_TRUE(plan.at("fits").is_null()) << "no limit was given";
}

INSTANTIATE_TEST_SUITE_P(
    Methods, Plan,
    ::testing::Values(Case{"l2p", "l2p", false, 0.01}, Case{"rep_l2p", "l2p", true, 0.05},
                      Case{"dualprompt", "dualprompt", false, 0.01},
                      Case{"coda_prompt", "coda_prompt", false, 0.02},
                      Case{"finetune", "finetune", false, 0.01}, Case{"er", "er", false, 0.05},
                      Case{"ewc", "ewc", false, 0.05}, Case{"lwf", "lwf", false, 0.05},
                      Case{"apt", "apt", false, 0.01}, Case{"os_prompt", "os_prompt", false, 0.01},
                      Case{"rep_os_prompt", "os_prompt", true, 0.05},
                      Case{"cps_prompt", "cps_prompt", false, 0.02},
                      Case{"fecam", "fecam", false, 0.02}, Case{"ncm", "ncm", false, 0.02},
                      Case{"pnn", "pnn", false, 0.05}, Case{"joint", "joint", false, 0.05},
                      Case{"inflora", "inflora", true, 0.05},
                      Case{"sd_lora", "sd_lora", false, 0.05}, Case{"aper", "aper", false, 0.05},
                      Case{"ease", "ease", false, 0.05}),
    [](const auto& test) { return std::string(test.param.name); });

// A rung's tensors are what a run with its settings holds.
class PlanLadder : public ::testing::TestWithParam<std::string> {};

TEST_P(PlanLadder, ForeseesWhatEachOfItsRungsHolds) {
  const std::string folder = fresh_folder("plan_ladder_" + GetParam());
  std::string text =
      edited(small_experiment(GetParam()), "train_per_class: 16", "train_per_class: 64");
  text = edited(text, "epochs: 3, batch_size: 8", "epochs: 1, batch_size: 32");
  const std::string config = write_text(folder + "/c.yaml", text);
  const json plan = planned(config);
  ASSERT_TRUE(plan.is_object());
  const json& ladder = plan.at("ladder");
  EXPECT_EQ(ladder.front().at("step_time"), 1.0);
  for (size_t i = 0; i < ladder.size(); ++i) {
    const json& rung = ladder[i];
    if (i > 0) {
      EXPECT_LT(rung.at("resident_bytes"), ladder[i - 1].at("resident_bytes")) << rung;
      EXPECT_GE(rung.at("step_time"), ladder[i - 1].at("step_time")) << rung;
    }
    EXPECT_TRUE(rung.at("fits").is_null()) << "no limit was given";
    if (i != 0 && i != 1 && i != ladder.size() / 2 && i + 1 != ladder.size()) continue;
    std::string set;
    for (const auto& [key, name] : {std::pair{"train.micro_batch_size", "micro_batch_size"},
                                    {"eval.batch_size", "eval_batch_size"},
                                    {"backbone.recompute", "recompute"},
                                    {"backbone.recompute_blocks", "recompute_blocks"},
                                    {"train.workers", "workers"}}) {
      set += " --set " + std::string(key) + "=" + rung.at(name).dump();
    }
    const json run = measured(config, folder + "/" + std::to_string(i), set);
    ASSERT_TRUE(run.is_object());
    EXPECT_NEAR(rung.at("peak_tensor_bytes").get<double>(), static_cast<double>(peak_of(run)),
                0.15 * static_cast<double>(peak_of(run)))
        << rung;
  }
}

INSTANTIATE_TEST_SUITE_P(Methods, PlanLadder,
                         ::testing::Values("l2p", "dualprompt", "finetune", "er"));

TEST(PlanLimit, JudgesBothSides) {
  const std::string folder = fresh_folder("plan_limit");
  const std::string config = write_text(folder + "/c.yaml", small_experiment("l2p"));
  const json roomy = planned(config, "--memory-limit 100GiB");
  EXPECT_EQ(roomy.at("fits"), true);
  EXPECT_EQ(roomy.at("ladder").front().at("fits"), true);
  EXPECT_TRUE(roomy.at("notes").empty()) << roomy.at("notes");
  const json tight = planned(config, "--memory-limit 20MiB");
  EXPECT_EQ(tight.at("memory_limit"), 20 << 20);
  EXPECT_EQ(tight.at("fits"), false);
  ASSERT_EQ(tight.at("notes").size(), 1U);
  EXPECT_NE(tight.at("notes")[0].get<std::string>().find("at the least"), std::string::npos);
  // The limit of the configuration is the same limit.
  EXPECT_EQ(planned(config, "--set memory_limit=20MiB").at("fits"), false);
}

// Of a model that whole batches of would be rehearsed for long, one image is.
TEST(PlanFewImages, CostsWhatWholeBatchesDo) {
  const std::string folder = fresh_folder("plan_few");
  std::string text = edited(small_experiment("l2p"), "vit_nano, weights: random",
                            "vit_small_patch16_224, image_size: 64, weights: random");
  text = edited(text, "train_per_class: 16", "train_per_class: 6");
  text = edited(text, "test_per_class: 4", "test_per_class: 2");
  text = edited(text, "epochs: 3, batch_size: 8", "epochs: 1, batch_size: 4");
  const std::string config = write_text(folder + "/c.yaml", text);
  const json whole = planned(config), few = planned(config, "--steps 900");
  ASSERT_TRUE(whole.is_object() && few.is_object());
  EXPECT_TRUE(whole.at("notes").empty());
  ASSERT_EQ(few.at("notes").size(), 1U);
  EXPECT_NE(few.at("notes")[0].get<std::string>().find("an image or two"), std::string::npos);
  EXPECT_EQ(few.at("steps"), whole.at("steps"));
  const auto near = [&](const json& is, const json& wanted, double tolerance) {
    EXPECT_NEAR(is.get<double>(), wanted.get<double>(), tolerance * wanted.get<double>());
  };
  near(few.at("macs").at("train"), whole.at("macs").at("train"), 0.01);
  near(few.at("macs").at("eval"), whole.at("macs").at("eval"), 0.02);
  near(few.at("peak_tensor_bytes"), whole.at("peak_tensor_bytes"), 0.15);
}

TEST(PlanFiles, WritesNothingAndNeedsNeitherWeightsNorImages) {
  const std::string folder = fresh_folder("plan_nothing");
  std::string text = small_experiment("l2p");
  text.replace(text.find("weights: random"), 15, "weights: none/here.safetensors");
  const size_t begin = text.find("dataset:"), end = text.find('\n', begin);
  text.replace(begin, end - begin,
               "dataset: {name: cifar100, root: nowhere, limit_train: 8, limit_test: 2}");
  text.replace(text.find("tasks: 3"), 8, "tasks: 4");
  write_text(folder + "/c.yaml", text);
  const Finished plan =
      shell_command("cd " + folder + " && " REP_EXECUTABLE " plan c.yaml --json 2>/dev/null");
  ASSERT_EQ(plan.exit_code, 0) << plan.output;
  const json result = json::parse(plan.output);
  EXPECT_EQ(result.at("notes").size(), 2U) << result.at("notes");
  // 4 tasks of 25 classes of 8 images, batches of 8, 3 epochs.
  EXPECT_EQ(result.at("steps"), 4 * 25 * 3);
  int64_t files = 0;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(folder)) {
    EXPECT_EQ(entry.path().filename(), "c.yaml");
    ++files;
  }
  EXPECT_EQ(files, 1);
  const Finished bad = rep_command("plan " + folder + "/c.yaml --memory-limit 2Gi");
  EXPECT_EQ(bad.exit_code, 1);
  EXPECT_NE(bad.output.find("memory_limit: '2Gi'"), std::string::npos) << bad.output;
}

}  // namespace
}  // namespace rep
