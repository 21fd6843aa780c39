// Bad input is one sentence and exit code 1 (2 for a wrong command line).
#include <set>

#include "data/image.h"
#include "tests/run_command.h"

namespace rep {
namespace {

struct BadInput {
  const char* name;
  std::string yaml;
  std::string message;
};

class Bad : public ::testing::TestWithParam<BadInput> {};

TEST_P(Bad, IsOneSentenceAndExitCodeOne) {
  const std::string folder = fresh_folder(std::string("bad_") + GetParam().name);
  const std::string config = write_text(folder + "/c.yaml", GetParam().yaml);
  const Finished run = rep_command("run " + config + " --output " + folder + "/out");
  EXPECT_EQ(run.exit_code, 1) << run.output;
  EXPECT_NE(run.output.find(GetParam().message), std::string::npos) << run.output;
  EXPECT_EQ(std::count(run.output.begin(), run.output.end(), '\n'), 1) << run.output;
}

INSTANTIATE_TEST_SUITE_P(
    Inputs, Bad,
    ::testing::Values(
        BadInput{"unknown_key", "name: x\nepoch: 3\ntrain: {epochs: 1}\n",
                 "c.yaml:2: unknown key 'epoch'"},
        BadInput{"suggestion", "train:\n  epoch: 3\n", "did you mean 'epochs'?"},
        BadInput{"wrong_type", "train: {epochs: many}\n", "train.epochs"},
        BadInput{"unknown_method", "method: l2pp\n", "did you mean 'l2p'?"},
        BadInput{"method_option", "method: {name: l2p, pool: 3}\n", "pool_size"},
        BadInput{"missing_weights", "backbone: {name: vit_nano, weights: nowhere.safetensors}\n",
                 "nowhere.safetensors"},
        BadInput{"no_weights", "backbone: {name: vit_nano}\n", "random"},
        BadInput{"repeat_in_order",
                 small_experiment("l2p").replace(small_experiment("l2p").find("tasks: 3"), 8,
                                                 "tasks: 3, class_order: [0, 1, 2, 3, 4, 4]"),
                 "4"},
        BadInput{"too_many_tasks",
                 small_experiment("l2p").replace(small_experiment("l2p").find("tasks: 3"), 8,
                                                 "tasks: 7"),
                 "7"},
        BadInput{
            "trainable",
            small_experiment("finetune")
                .replace(small_experiment("finetune").find("trainable: all"), 14, "trainable: 7"),
            "backbone.trainable: 7 is more than the 6 blocks of vit_nano"},
        BadInput{"top_k",
                 small_experiment("l2p").replace(small_experiment("l2p").find("name: l2p"), 9,
                                                 "name: l2p, top_k: 11"),
                 "top_k 11"},
        BadInput{"missing_data",
                 "dataset: {name: cifar100, root: nowhere}\nbackbone: {name: "
                 "vit_nano, weights: random}\n",
                 "nowhere"}),
    [](const auto& test) { return test.param.name; });

TEST(CommandLine, AMistypedFlagIsExitCodeTwo) {
  EXPECT_EQ(rep_command("run x.yaml --sett a=b").exit_code, 2);
  EXPECT_EQ(rep_command("").exit_code, 2);
}

TEST(CommandLine, ListIsJson) {
  const Finished list = rep_command("list --json");
  ASSERT_EQ(list.exit_code, 0);
  const auto json = nlohmann::json::parse(list.output);
  for (const char* kind : {"methods", "datasets", "backbones", "metrics"}) {
    ASSERT_FALSE(json.at(kind).empty()) << kind;
    for (const auto& entry : json.at(kind))
      EXPECT_FALSE(entry.at("citation").get<std::string>().empty());
  }
}

TEST(CommandLine, DryRunPrintsTheStreamAndWritesNothing) {
  const std::string folder = fresh_folder("dry");
  const std::string config = write_text(folder + "/c.yaml", small_experiment("l2p"));
  const Finished run =
      rep_command("run " + config + " --dry-run --limit-train 5 --output " + folder + "/out");
  ASSERT_EQ(run.exit_code, 0) << run.output;
  const auto json = nlohmann::json::parse(run.output);
  EXPECT_EQ(json.at("tasks").size(), 3u);
  EXPECT_EQ(json.at("tasks")[0].at("train_images"), 10);  // 2 classes, 5 each
  EXPECT_EQ(json.at("config").at("method").at("top_k"), 5);
  EXPECT_FALSE(std::filesystem::exists(folder + "/out"));
}

TEST(CommandLine, CheckAcceptsWhatRunWould) {
  const std::string folder = fresh_folder("check");
  const std::string config = write_text(folder + "/c.yaml", small_experiment("l2p"));
  const Finished good = rep_command("check " + config);
  EXPECT_EQ(good.exit_code, 0) << good.output;
  EXPECT_EQ(rep_command("check " + config + " --set method.top_k=11").exit_code, 1);
}

TEST(CommandLine, CheckSaysWhatTheDataHoldsAndDrawsIt) {
  const std::string folder = fresh_folder("check_data");
  const std::string config = write_text(folder + "/c.yaml", small_experiment("l2p"));
  const std::string sheet = folder + "/sheet.png";
  const Finished drawn = rep_command("check " + config + " --preview " + sheet);
  ASSERT_EQ(drawn.exit_code, 0) << drawn.output;
  EXPECT_NE(drawn.output.find("training: 96 images of 6 classes, 0 B, fingerprint "),
            std::string::npos)
      << drawn.output;
  const Image image = read_image(sheet);
  EXPECT_EQ(image.width, 8 + 4 * (4 * 112 + 8));
  EXPECT_EQ(image.height, 8 + 2 * (20 + 112 + 8));
  const Finished two = rep_command("check " + config + " " + config + " --preview " + sheet);
  EXPECT_EQ(two.exit_code, 1);

  // One record a class of CIFAR-100 is a part of it: a note, not an error.
  std::string records;
  for (int label = 0; label < 100; ++label) {
    records += '\3';
    records += std::string(1, static_cast<char>(label)) + std::string(3072, '\3');
  }
  for (const char* name : {"/train.bin", "/test.bin"}) write_text(folder + name, records);
  const std::string cifar =
      " --set 'dataset={name: cifar100, root: " + folder + "}' --set stream.tasks=10";
  const Finished part = rep_command("check " + config + cifar);
  EXPECT_EQ(part.exit_code, 0) << part.output;
  EXPECT_NE(part.output.find("it lacks 49900 of 50000 images"), std::string::npos) << part.output;
  EXPECT_NE(part.output.find("has 1 of 100"), std::string::npos) << part.output;
  EXPECT_EQ(rep_command("check " + config + cifar + " --limit-train 1").exit_code, 2);
  const Finished limited = rep_command("check " + config + cifar + " --set dataset.limit_train=1");
  EXPECT_EQ(limited.output.find("of 50000"), std::string::npos) << limited.output;
}

TEST(CommandLine, CheckNamesImagesOfAListThatAreNotThere) {
  const std::string folder = fresh_folder("check_lost");
  write_text(folder + "/Stream-51_meta_train.json",
             R"([[0, 0, 0, 0, [9, 9, 3], [9, 1, 9, 1], "train/0.jpg"]])");
  write_text(folder + "/Stream-51_meta_test.json", "[]");
  const std::string config = write_text(folder + "/c.yaml", small_experiment("l2p"));
  const Finished check =
      rep_command("check " + config + " --set 'dataset={name: stream51, root: " + folder +
                  "}' --set stream.tasks=1");
  EXPECT_EQ(check.exit_code, 1);
  EXPECT_NE(check.output.find("1 of 1 training images are missing or empty"), std::string::npos)
      << check.output;
  EXPECT_NE(check.output.find("train/0.jpg"), std::string::npos) << check.output;
}

TEST(CommandLine, AnOfflineResultGivesOmega) {
  const std::string folder = fresh_folder("omega");
  const std::string config = write_text(folder + "/c.yaml", small_experiment("ncm"));
  const std::string joint = write_text(folder + "/j.yaml", small_experiment("joint"));
  ASSERT_EQ(rep_command("run " + joint + " --quiet --output " + folder + "/joint").exit_code, 0);
  const std::string offline = " --set eval.offline_result=" + folder + "/joint/result.json";
  const Finished run =
      rep_command("run " + config + " --quiet --output " + folder + "/ncm" + offline);
  ASSERT_EQ(run.exit_code, 0) << run.output;
  const auto ours = read_json(folder + "/ncm/result.json"),
             theirs = read_json(folder + "/joint/result.json");
  double omega = 0;  // three equal tasks: plain means
  const auto& last = theirs["accuracy"]["class_incremental"][2];
  for (size_t t = 0; t < 3; ++t) {
    double own = 0, best = 0;
    for (size_t i = 0; i <= t; ++i) {
      own += ours["accuracy"]["class_incremental"][t][i].get<double>();
      best += last[i].get<double>();
    }
    omega += own / best / 3;
  }
  EXPECT_NEAR(ours["metrics"]["omega"].get<double>(), omega, 1e-9);
  EXPECT_EQ(rep_command("check " + config + offline + " --set stream.tasks=2").exit_code, 1);
}

/// An experiment on weights that `pretrain` (YAML of train) makes, in a folder of its own.
std::string pretrained_experiment(const std::string& folder, const std::string& pretrain) {
  write_text(folder + "/p.yaml",
             "dataset: {name: synthetic, classes: 4, train_per_class: 128, test_per_class: 2}\n"
             "backbone: {name: vit_nano}\nthreads: 1\ntrain: " +
                 pretrain + "\n");
  return write_text(folder + "/c.yaml", edited(small_experiment("ncm"), "weights: random",
                                               "weights: 'pretrain:p.yaml'"));
}

TEST(Pretraining, HappensOnceForRunsThatStartTogether) {
  const std::string folder = fresh_folder("pretrain_once");
  pretrained_experiment(folder, "{epochs: 1, iterations: 6, batch_size: 16}");
  const Finished both =
      shell_command("cd " + folder +
                    "; for i in 1 2 3; do " REP_EXECUTABLE
                    " run c.yaml --output $i >$i.log 2>&1 & done; wait; cat *.log");
  size_t times = 0;
  for (size_t at = 0; (at = both.output.find("pretraining once", at)) != std::string::npos; ++at) {
    ++times;
  }
  EXPECT_EQ(times, 1U) << both.output;
  std::set<std::string> digests;
  for (const char* run : {"/1", "/2", "/3"}) {
    digests.insert(read_json(folder + run + "/result.json")["identity"]["inputs"]["weights"]);
  }
  EXPECT_EQ(digests.size(), 1U);
  EXPECT_EQ(digests.begin()->size(), 64U);
}

TEST(Pretraining, DoesNotCountInTheMemoryOfTheRunAfterIt) {
  const std::string folder = fresh_folder("pretrain_rss");
  pretrained_experiment(folder, "{epochs: 1, iterations: 2, batch_size: 512}");
  const auto peak = [&](const std::string& out) {
    const Finished run =
        shell_command("cd " + folder + "; " REP_EXECUTABLE " run c.yaml -q --output " + out);
    EXPECT_EQ(run.exit_code, 0) << run.output;
    return read_json(folder + "/" + out + "/result.json")["cost"]["total"]["peak_rss_bytes"]
        .get<double>();
  };
  const double after_pretraining = peak("first"), alone = peak("second");
  EXPECT_LT(after_pretraining, 1.25 * alone);
}

TEST(CommandLine, OutOfMemoryIsTheUsersToPutRight) {
  const std::string folder = fresh_folder("out_of_memory");
  const std::string config = write_text(folder + "/c.yaml", small_experiment("ranpac"));
  const Finished run = shell_command("ulimit -v 16000000; " REP_EXECUTABLE " run " + config +
                                     " -q --set method.projection=100000 --output " + folder +
                                     "/out");  // its Gram matrix: 40 GB
  EXPECT_EQ(run.exit_code, 1) << run.output;
  EXPECT_NE(run.output.find("out of memory; a smaller"), std::string::npos) << run.output;
}

TEST(CommandLine, BenchMeasuresEveryPhaseInUnitsOfAPlainForward) {
  const std::string folder = fresh_folder("bench");
  const std::string config = write_text(folder + "/c.yaml", small_experiment("l2p"));
  const Finished run = rep_command("bench " + config + " --steps 4 --json");
  ASSERT_EQ(run.exit_code, 0) << run.output;
  const nlohmann::json result = nlohmann::json::parse(run.output);
  EXPECT_EQ(result["steps"], 4);
  double phases = 0, least = 0;
  for (const auto& [name, phase] : result["phases"].items()) {
    const auto& seconds = result["phase_seconds"][name];
    EXPECT_LE(seconds["min"], seconds["median"]) << name;
    EXPECT_LE(seconds["median"], seconds["max"]) << name;
    EXPECT_LE(phase.get<double>() * result["unit_seconds"].get<double>(),
              seconds["max"].get<double>() * 1.000001)
        << name;
    phases += phase.get<double>();
    least += seconds["min"].get<double>();
  }
  EXPECT_GT(phases, 0);
  EXPECT_LE(0.99 * least, result["step_seconds"]["min"].get<double>());
  for (const char* key : {"unit_seconds", "step_ratio", "eval_ratio", "matmul_fraction",
                          "peak_tensor_bytes", "peak_rss_bytes", "macs_per_step"}) {
    EXPECT_GT(result[key].get<double>(), 0) << key;
  }
  EXPECT_TRUE(result["cuda_peak_bytes"].is_null()) << "no GPU is in use";
  // An exact count: select, forward and backward of every step alike.
  const double select = result["macs_by_phase"]["select"],
               forward = result["macs_by_phase"]["forward"];
  EXPECT_GT(forward, select) << "prompts are more tokens";
  EXPECT_EQ(result["macs_by_phase"]["data_wait"], 0.0);
  // As published code lays it out: attention's weights kept, nothing left out of the last block.
  const Finished book = rep_command("bench " + config + " --steps 1 --reference --json");
  ASSERT_EQ(book.exit_code, 0) << book.output;
  const nlohmann::json peer = nlohmann::json::parse(book.output);
  EXPECT_EQ(peer["reference"], true);
  EXPECT_GT(peer["macs_per_step"], result["macs_per_step"]);
  EXPECT_GT(peer["peak_tensor_bytes"], result["peak_tensor_bytes"]);
  const Finished none =
      rep_command("bench " + write_text(folder + "/n.yaml", small_experiment("ncm")));
  EXPECT_EQ(none.exit_code, 1);
  EXPECT_NE(none.output.find("ncm has no training steps"), std::string::npos) << none.output;
}

}  // namespace
}  // namespace rep
