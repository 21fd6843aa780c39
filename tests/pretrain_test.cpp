#include "run/pretrain.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "core/error.h"
#include "core/files.h"
#include "data/dataset.h"
#include "formats/safetensors.h"
#include "nn/vit.h"
#include "run/setup.h"
#include "tensor/torch.h"
#include "tests/run_command.h"

namespace rep {
namespace {

// Four classes of four colours and shapes.
const std::string kTiny =
    "dataset: {name: synthetic, classes: 4, train_per_class: 40, test_per_class: 10, "
    "difficulty: 0.3}\n"
    "backbone: {name: vit_nano, patch_size: 8, normalise: half}\n"
    "train: {epochs: 4, batch_size: 16, augment: none, optimizer: {name: adamw, lr: 0.001}}\n";

class Pretraining : public ::testing::Test {
 protected:
  void SetUp() override {
    folder_ = ::testing::TempDir() + "pretrain_test_" +
              ::testing::UnitTest::GetInstance()->current_test_info()->name();
    std::filesystem::remove_all(folder_);
    std::filesystem::create_directories(folder_);
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }

  std::string config(const std::string& text = kTiny) const {
    const std::string path = folder_ + "/pretrain.yaml";
    std::ofstream(path) << text;
    return path;
  }
  std::string file(const std::string& name) const { return folder_ + "/" + name; }

  std::string folder_;
  Progress quiet_{Progress::Verbosity::kQuiet, ""};
};

// float [B, 3, 32, 32] in [-1, 1], as `normalise: half` makes them.
torch::Tensor all_images(const Dataset& data) {
  std::vector<torch::Tensor> images;
  for (int64_t i = 0; i < data.size(); ++i) {
    Image image = data.image(i);
    images.push_back(
        torch::from_blob(image.pixels.data(), {image.height, image.width, 3}, torch::kUInt8)
            .permute({2, 0, 1})
            .to(torch::kFloat));
  }
  return torch::stack(images) / 127.5 - 1;
}

// How often the nearest class mean of the train features is a test image's own.
double nearest_mean_accuracy(VisionTransformer& vit, const Section& section) {
  const torch::NoGradGuard no_grad;
  const auto train = open_dataset(section, Split::kTrain, 1);
  const auto test = open_dataset(section, Split::kTest, 1);
  const torch::Tensor means = vit->features(all_images(*train))
                                  .view({train->num_classes(), -1, vit->options.embed_dim})
                                  .mean(1);  // stored class by class
  const torch::Tensor nearest = torch::cdist(vit->features(all_images(*test)), means).argmin(1);
  return nearest.eq(torch::tensor(test->labels())).to(torch::kFloat).mean().item<double>();
}

TEST_F(Pretraining, LearnsClassesAndKeepsThemInTheFile) {
  const Config tiny = read_pretraining(config());
  const std::string path = file("tiny.safetensors");
  const Pretrained done = pretrain(tiny, path, quiet_);
  EXPECT_EQ(done.images, 40);
  EXPECT_GT(done.accuracy, 75);  // chance: 25

  BackboneConfig backbone = tiny.backbone;
  backbone.weights = path;
  backbone.trainable = "none";
  Json inputs;
  VisionTransformer reloaded = make_vit(backbone, &inputs);
  EXPECT_GT(nearest_mean_accuracy(reloaded, tiny.dataset), 0.75);
}

TEST_F(Pretraining, ReloadedWeightsGiveTheSameFeatures) {
  const Config tiny = read_pretraining(config(), {"train.iterations=3"});
  const std::string path = file("tiny.safetensors");
  pretrain(tiny, path, quiet_);

  BackboneConfig backbone = tiny.backbone;
  backbone.weights = path;
  Json inputs;
  VisionTransformer reloaded = make_vit(backbone, &inputs);
  VisionTransformer by_hand(vit_options("vit_nano", 0, 8));
  const torch::NoGradGuard no_grad;
  const Safetensors stored = read_safetensors(path);
  EXPECT_EQ(stored.tensors.size(), by_hand->named_parameters().size());
  for (const auto& [name, tensor] : stored.tensors) by_hand->named_parameters()[name].copy_(tensor);
  const torch::Tensor images =
      all_images(*open_dataset(tiny.dataset, Split::kTest, /*seed=*/1)).slice(0, 0, 4);
  EXPECT_TRUE(torch::equal(reloaded->features(images), by_hand->features(images)));
  EXPECT_EQ(stored.metadata.at("format"), "pt");
  EXPECT_EQ(stored.metadata.count("pretraining_sha256"), 1u);
}

TEST_F(Pretraining, TheSameConfigurationYieldsTheSameFile) {
  const Config tiny = read_pretraining(config(), {"train.iterations=3"});
  pretrain(tiny, file("one.safetensors"), quiet_);
  torch::rand({5});  // whatever was drawn before must not matter
  pretrain(tiny, file("two.safetensors"), quiet_);
  EXPECT_EQ(read_file(file("one.safetensors")), read_file(file("two.safetensors")));
}

TEST_F(Pretraining, IsDoneOncePerConfiguration) {
  const std::string tiny = config(kTiny + "seed: 3\n");
  const std::string path = pretrained_path(read_pretraining(tiny), folder_);
  std::ofstream(path) << "made before";
  EXPECT_EQ(pretrained(tiny, quiet_, folder_), path);
  EXPECT_EQ(read_file(path), "made before");

  std::filesystem::remove(path);
  EXPECT_EQ(pretrained(tiny, quiet_, folder_), path);
  EXPECT_EQ(read_safetensors(path).metadata.count("held_out_accuracy"), 1u);
}

// Its name had the hash of every option, which the file itself says.
TEST_F(Pretraining, TakesTheFileOfAnEarlierBuild) {
  const Config tiny = read_pretraining(config(), {"train.iterations=3"});
  const std::string path = pretrained_path(tiny, folder_);
  pretrain(tiny, path, quiet_);
  const std::string hash = read_safetensors(path).metadata.at("pretraining_sha256").substr(0, 16);
  const std::string before = file("vit_nano-" + hash + ".safetensors");
  ASSERT_NE(path, before);
  std::filesystem::rename(path, before);
  EXPECT_EQ(pretrained_path(tiny, folder_), before);
  std::ofstream(path) << "made now";
  EXPECT_EQ(pretrained_path(tiny, folder_), path);
}

// The data is not there: that a process is at it is seen before that.
TEST_F(Pretraining, ASecondCommandIsToldBeforeTheDataIsOpened) {
  const std::string path = config(
      "dataset: {name: cifar100, root: /nowhere}\n"
      "backbone: {name: vit_nano}\n");
  const FileLock lock = lock_pretraining(
      pretraining_request(read_pretraining(path), file("weights")), /*waiting=*/nullptr);
  const Finished second =
      shell_command("cd " + folder_ + " && " REP_EXECUTABLE " pretrain " + path);
  EXPECT_EQ(second.exit_code, 1);
  EXPECT_NE(second.output.find("another process is pre-training these weights"), std::string::npos)
      << second.output;
}

TEST_F(Pretraining, OnlyWhatBearsOnTheWeightsNamesTheFile) {
  const auto path_with = [&](const std::vector<std::string>& overrides) {
    return pretrained_path(read_pretraining(config(), overrides));
  };
  const std::string plain = path_with({});
  EXPECT_EQ(plain.rfind("weights/vit_nano-", 0), 0u) << plain;
  for (const char* same : {"name=other", "threads=1", "train.workers=2", "eval.batch_size=8",
                           "train.checkpoint_seconds=5", "device=cpu"}) {
    EXPECT_EQ(path_with({same}), plain) << same;
  }
  for (const char* other :
       {"seed=7", "train.optimizer.lr=0.002", "dataset.classes=5", "dataset.difficulty=0.4",
        "backbone.patch_size=4", "backbone.normalise=none"}) {
    EXPECT_NE(path_with({other}), plain) << other;
  }
}

TEST_F(Pretraining, RefusesWhatMeansNothingToIt) {
  for (const char* key : {"method.name=l2p", "stream.tasks=3", "backbone.weights=a.npz",
                          "efficiency.token_merging.kind=atom", "backbone.trainable=2"}) {
    EXPECT_THROW(read_pretraining(config(), {key}), Error) << key;
  }
  EXPECT_THROW(pretrain(read_pretraining(config()), file("tiny.npz"), quiet_), Error);
  EXPECT_FALSE(std::filesystem::exists(file("tiny.npz")));
}

TEST_F(Pretraining, AnExperimentGetsItsFiles) {
  const std::string tiny = config();
  const std::string path = pretrained_path(read_pretraining(tiny), folder_);
  const auto resolved = [&](Progress* progress) {
    Config experiment;
    experiment.backbone.weights = "pretrain:" + tiny;
    experiment.efficiency.query_backbone.weights = "query.npz";
    resolve_pretrained(experiment, progress, folder_);
    EXPECT_EQ(experiment.efficiency.query_backbone.weights, "query.npz");
    return experiment.backbone.weights;
  };
  EXPECT_EQ(resolved(nullptr), "random");
  EXPECT_FALSE(std::filesystem::exists(path));
  std::ofstream(path) << "made before";
  EXPECT_EQ(resolved(nullptr), path);
  EXPECT_EQ(resolved(&quiet_), path);
}

}  // namespace
}  // namespace rep
