// Two processes that share a batch learn what one process learns from all of it.
#include "tensor/world.h"

#include <cmath>
#include <cstdlib>
#include <functional>

#include "core/error.h"
#include "kernels/lanes.h"
#include "tensor/torch.h"
#include "tests/json_schema.h"
#include "tests/run_command.h"

namespace rep {
namespace {

/// Sets variables of the environment, and takes them back.
class Environment {
 public:
  explicit Environment(std::vector<std::pair<std::string, std::string>> variables)
      : variables_(std::move(variables)) {
    for (const auto& [name, value] : variables_) setenv(name.c_str(), value.c_str(), 1);
  }
  ~Environment() {
    for (const auto& [name, value] : variables_) unsetenv(name.c_str());
  }

 private:
  std::vector<std::pair<std::string, std::string>> variables_;
};

using Place = std::pair<int64_t, int64_t>;

TEST(World, IsAloneUnlessStartedBesideOthers) {
  EXPECT_EQ(World::place_from_environment(), Place(0, 1));
  // What a batch script sees that starts one process in an allocation of four.
  const Environment batch({{"SLURM_PROCID", "0"}, {"SLURM_NTASKS", "4"}});
  EXPECT_EQ(World::place_from_environment(), Place(0, 1));
}

TEST(World, TakesItsPlaceFromTorchrunSrunAndMpirun) {
  {
    const Environment torchrun({{"RANK", "2"}, {"WORLD_SIZE", "3"}, {"LOCAL_WORLD_SIZE", "3"}});
    EXPECT_EQ(World::place_from_environment(), Place(2, 3));
    EXPECT_EQ(World::processes_on_this_machine(), 3);
  }
  {
    const Environment srun({{"SLURM_PROCID", "1"}, {"SLURM_STEP_NUM_TASKS", "4"}});
    EXPECT_EQ(World::place_from_environment(), Place(1, 4));
  }
  {
    const Environment mpirun({{"OMPI_COMM_WORLD_RANK", "0"}, {"OMPI_COMM_WORLD_SIZE", "2"}});
    EXPECT_EQ(World::place_from_environment(), Place(0, 2));
  }
  const Environment mpich({{"PMI_RANK", "1"}, {"PMI_SIZE", "2"}});
  EXPECT_EQ(World::place_from_environment(), Place(1, 2));
}

TEST(World, RefusesAPlaceThatIsNone) {
  for (const auto& [rank, size] :
       {std::pair{"2", "2"}, {"-1", "2"}, {"x", "2"}, {"0", "0"}, {"0", "99999999999999999999"}}) {
    const Environment torchrun({{"RANK", rank}, {"WORLD_SIZE", size}});
    EXPECT_THROW(World::place_from_environment(), Error) << rank << " of " << size;
  }
}

std::vector<double> losses(const std::string& folder) {
  std::vector<double> values;
  std::ifstream file(folder + "/metrics.jsonl");
  for (std::string line; std::getline(file, line);) {
    values.push_back(nlohmann::json::parse(line).at("loss").get<double>());
  }
  return values;
}

class TwoProcesses : public ::testing::TestWithParam<std::string> {};

TEST_P(TwoProcesses, LearnWhatOneLearns) {
  const std::string folder = fresh_folder("world_" + GetParam());
  // 9 images a step: parts of 4 and 5; the last step of an epoch has 5.
  std::string text = small_experiment(GetParam());
  text.replace(text.find("batch_size: 8"), 13, "batch_size: 9");
  // Dropout's draws are of a whole batch.
  if (GetParam() == "aper" || GetParam() == "ease") {
    text.replace(text.find("{name: " + GetParam()), 7 + GetParam().size(),
                 "{name: " + GetParam() + ", adapter_dropout: 0");
  }
  if (GetParam() == "gdumb") text = edited(text, "{name: gdumb", "{name: gdumb, cutmix: 0");
  if (GetParam() == "l2p") {
    text += "efficiency: {token_merging: {kind: atom, n: 2}, layer_dropping: {kind: ald}}\n";
  }
  const std::string config = write_text(folder + "/c.yaml", text);
  const Finished one = rep_command("run " + config + " -q --output " + folder + "/one");
  ASSERT_EQ(one.exit_code, 0) << one.output;
  const Finished two = run_together(2, "run " + config + " -q --output " + folder + "/two");
  ASSERT_EQ(two.exit_code, 0) << two.output;

  const auto alone = read_json(folder + "/one/result.json");
  const auto together = read_json(folder + "/two/result.json");
  EXPECT_EQ(together["device"]["processes"], 2);
  const auto schema = read_json(REP_SOURCE_DIR "/results/schema.json");
  EXPECT_EQ(schema_violation(together, schema), "");
  EXPECT_EQ(together["accuracy"], alone["accuracy"]);
  const auto expected = losses(folder + "/one"), actual = losses(folder + "/two");
  ASSERT_EQ(actual.size(), expected.size());
  ASSERT_EQ(actual.empty(), GetParam() == "fecam" || GetParam() == "slda");  // they take no steps
  for (size_t i = 0; i < actual.size(); ++i) EXPECT_NEAR(actual[i], expected[i], 2e-4) << i;
}

INSTANTIATE_TEST_SUITE_P(Methods, TwoProcesses,
                         ::testing::Values("l2p", "dualprompt", "coda_prompt", "finetune", "ewc",
                                           "si", "lwf", "icarl", "gdumb", "slda", "fecam",
                                           "inflora", "sd_lora", "aper", "ease", "apt", "os_prompt",
                                           "cps_prompt"));

/// Whether two processes take what `compare` is given by each of them.
bool two_agree(const std::function<void(const World& world)>& compare) {
  static int port = 24000 + static_cast<int>(::getpid()) % 8000;
  const std::string where = std::to_string(++port);
  std::vector<pid_t> children;
  for (const char* rank : {"0", "1"}) {
    children.push_back(fork());
    if (children.back() != 0) continue;
    const Environment torchrun({{"RANK", rank}, {"WORLD_SIZE", "2"}, {"MASTER_PORT", where}});
    int code = 3;
    try {
      const World world = World::join();
      code = 2;
      compare(world);
      code = 0;
    } catch (const Error& error) {
      if (code == 2 && std::string(error.what()).rfind("the values differ", 0) == 0) code = 1;
    }
    _exit(code);
  }
  std::vector<int> codes;
  for (const pid_t child : children) {
    int status = 0;
    waitpid(child, &status, 0);
    codes.push_back(exit_status(status));
  }
  EXPECT_EQ(codes[0], codes[1]) << "only one of them stops";
  EXPECT_LE(codes[0], 1);
  return codes[0] == 0;
}

// Sums of bits are the same, the values are not.
TEST(World, SeesValuesThatDifferInTheirOrderAlone) {
  const torch::Tensor values = torch::tensor({1.0F, 2.0F});
  EXPECT_TRUE(two_agree([&](const World& world) { world.expect_equal({values}, "the values"); }));
  EXPECT_FALSE(two_agree([&](const World& world) {
    world.expect_equal({world.rank() == 0 ? values : values.flip(0)}, "the values");
  }));
}

TEST(World, TakesRoundingForCloseAndAnotherSignOrSizeNot) {
  const torch::Tensor rows = torch::arange(1, 13, torch::kFloat).view({3, 4});
  const auto close = [&](const torch::Tensor& other) {
    return two_agree([&](const World& world) {
      world.expect_close({torch::zeros({2}), world.rank() == 0 ? rows : other}, "the values");
    });
  };
  EXPECT_TRUE(close(rows * (1 + 1e-5)));
  torch::Tensor flipped = rows.clone();
  flipped[0].neg_();
  EXPECT_FALSE(close(flipped));
  EXPECT_FALSE(close(rows.narrow(0, 0, 2)));
  EXPECT_FALSE(close(rows * std::nan("")));
}

TEST(World, RefusesAMethodWhoseLossIsNoMeanOverImages) {
  const std::string folder = fresh_folder("world_er");
  const std::string config = write_text(folder + "/c.yaml", small_experiment("er"));
  const Finished er = run_together(2, "run " + config + " -q --output " + folder + "/out");
  EXPECT_EQ(er.exit_code, 1);
  EXPECT_NE(er.output.find("method: er, "), std::string::npos) << er.output;
}

TEST(World, RefusesCutMixWhichMixesTheWholeBatch) {
  const std::string folder = fresh_folder("world_gdumb");
  const std::string config = write_text(folder + "/c.yaml", small_experiment("gdumb"));
  const Finished gdumb = run_together(2, "run " + config + " -q --output " + folder + "/out");
  EXPECT_EQ(gdumb.exit_code, 1);
  EXPECT_NE(gdumb.output.find("method: gdumb, "), std::string::npos) << gdumb.output;
}

TEST(World, RefusesDropoutWhoseDrawsAreOfTheWholeBatch) {
  const std::string folder = fresh_folder("world_ease");
  const std::string config = write_text(folder + "/c.yaml", small_experiment("ease"));
  const Finished ease = run_together(2, "run " + config + " -q --output " + folder + "/out");
  EXPECT_EQ(ease.exit_code, 1);
  EXPECT_NE(ease.output.find("method: ease, "), std::string::npos) << ease.output;
}

// Pre-training before the run is one process's own, and the others wait for it.
TEST(World, StopsTogetherWhileOneOfThemPreTrains) {
  const std::string folder = fresh_folder("world_pretrain");
  write_text(folder + "/p.yaml",
             "dataset: {name: synthetic, classes: 4, train_per_class: 40, test_per_class: 2}\n"
             "backbone: {name: vit_nano}\n"
             "train: {epochs: 300, batch_size: 8, augment: none}\nthreads: 1\n");
  write_text(folder + "/c.yaml",
             edited(small_experiment("l2p"), "weights: random", "weights: pretrain:p.yaml"));
  static int port = 15000 + static_cast<int>(::getpid()) % 3000;
  const std::string where =
      "WORLD_SIZE=2 MASTER_PORT=" + std::to_string(port) + " " REP_EXECUTABLE " run c.yaml ";
  const Finished stopped = shell_command(
      "cd " + folder + "; RANK=0 " + where + "--output out & first=$!; RANK=1 " + where +
      "--output out & second=$!; while [ ! -e weights/*.lock ]; do sleep 0.02; done; sleep 1; " +
      "kill -TERM $first $second; wait $first; a=$?; wait $second; b=$?; echo codes $a $b");
  EXPECT_NE(stopped.output.find("codes 130 130"), std::string::npos) << stopped.output;
  for (const auto& entry : std::filesystem::directory_iterator(folder + "/weights")) {
    EXPECT_EQ(entry.path().extension(), ".lock") << entry.path() << " was made to its end";
  }
}

TEST(World, StopsAndGoesOnTogether) {
  const std::string folder = fresh_folder("world_stop");
  std::string text = small_experiment("l2p");
  text.replace(text.find("epochs: 3"), 9, "epochs: 10");
  const std::string config = write_text(folder + "/c.yaml", text);
  const std::string run = "run " + config + " -q --output " + folder;
  const Finished whole = run_together(2, run + "/whole");
  ASSERT_EQ(whole.exit_code, 0) << whole.output;
  // One of the two is told to stop once some steps were written down; both save and end.
  static int port = 18000 + static_cast<int>(::getpid()) % 3000;
  const std::string where =
      "WORLD_SIZE=2 MASTER_PORT=" + std::to_string(port) + " " REP_EXECUTABLE " " + run + "/out";
  const Finished stopped = shell_command(
      "RANK=0 " + where + " & first=$!; RANK=1 " + where + " & second=$!; while [ \"$(cat " +
      folder + "/out/metrics.jsonl 2>/dev/null | wc -l)\" -lt 3 ]; do sleep 0.02; done; " +
      "kill -TERM $second; wait $first; a=$?; wait $second; b=$?; echo codes $a $b");
  ASSERT_NE(stopped.output.find("codes 130 130"), std::string::npos) << stopped.output;
  const Finished alone = rep_command(run + "/out --resume");
  EXPECT_EQ(alone.exit_code, 1);
  EXPECT_NE(alone.output.find("was made by 2 processes together, and now there are 1"),
            std::string::npos)
      << alone.output;
  const Finished resumed = run_together(2, run + "/out --resume");
  ASSERT_EQ(resumed.exit_code, 0) << resumed.output;
  EXPECT_EQ(comparable(read_json(folder + "/out/result.json")),
            comparable(read_json(folder + "/whole/result.json")));
}

}  // namespace
}  // namespace rep
