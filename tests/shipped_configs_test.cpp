// Every configuration that is shipped opens and takes its first training step: its keys are known,
// its options fit each other, the method fits the stream. Pictures and weights are stand-ins (as
// many classes, random weights), and what is larger than a ViT-Ti is one here.
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "methods/method.h"
#include "run/loops.h"
#include "run/session.h"
#include "run/setup.h"
#include "tensor/torch.h"

namespace rep {
namespace {

namespace fs = std::filesystem;

std::vector<std::string> shipped() {
  std::vector<std::string> paths;
  for (const auto& entry : fs::recursive_directory_iterator(REP_SOURCE_DIR "/configs")) {
    if (entry.path().extension() == ".yaml") {
      paths.push_back(fs::relative(entry.path(), REP_SOURCE_DIR "/configs").string());
    }
  }
  std::sort(paths.begin(), paths.end());
  return paths;
}

// Of the data sets that configurations name.
int64_t classes_of(const Config& config) {
  static const std::map<std::string, int64_t> kClassesOf{{"cifar100", 100},
                                                         {"imagenet_subset", 100},
                                                         {"imagenet_r", 200},
                                                         {"stream51", 51},
                                                         {"plantvillage", 38}};
  std::string name = config.dataset.name;
  if (name == "image_folder") {  // named by its folder
    name = fs::path(config.dataset.node["root"].as<std::string>()).filename().string();
    std::replace(name.begin(), name.end(), '-', '_');
  }
  const auto found = kClassesOf.find(name);
  return found == kClassesOf.end() ? 12 : found->second;  // any pictures
}

std::vector<std::string> stand_ins(const Config& config) {
  std::vector<std::string> overrides{"train.iterations=1", "train.seconds=0", "train.batch_size=2",
                                     "precision=fp32", "threads=1"};
  if (config.dataset.name != "synthetic") {
    overrides.push_back("dataset={name: synthetic, classes: " + std::to_string(classes_of(config)) +
                        ", train_per_class: 2, test_per_class: 1}");
  }
  if (config.backbone.name.rfind("vit_nano", 0) != 0 && config.backbone.name != "resnet18") {
    // ConvPrompt has no more keys than the width.
    const bool wide =
        config.method.name == "convprompt" && config.backbone.name != "vit_tiny_patch16_224";
    overrides.push_back(std::string("backbone.name=vit_") + (wide ? "small" : "tiny") +
                        "_patch16_224");
  }
  overrides.push_back("backbone.weights=random");
  if (!config.efficiency.query_backbone.name.empty()) {
    overrides.push_back("efficiency.query_backbone.name=vit_tiny_patch16_224");
    overrides.push_back("efficiency.query_backbone.weights=random");
  }
  return overrides;
}

class ShippedConfiguration : public ::testing::TestWithParam<std::string> {};

TEST_P(ShippedConfiguration, TakesItsFirstStep) {
  const std::string path = std::string(REP_SOURCE_DIR "/configs/") + GetParam();
  const Config as_shipped = read_experiment(path);
  const Config config = read_experiment(path, stand_ins(as_shipped));
  Session session = open_session(config);
  const auto& tasks = session.stream.tasks;
  const auto task =
      std::find_if(tasks.begin(), tasks.end(), [](const Task& t) { return !t.train.empty(); });
  ASSERT_NE(task, tasks.end());
  session.learner.images->set_task(*task);
  session.learner.method->begin_task(*task);
  Position position;
  position.task = task->index;
  train_task(session, *task, position, {});
  // Class statistics take no steps.
  EXPECT_EQ(position.iteration, session.learner.method->parameters().empty() ? 0 : 1);
}

INSTANTIATE_TEST_SUITE_P(All, ShippedConfiguration, ::testing::ValuesIn(shipped()),
                         [](const auto& info) {
                           std::string name = info.param.substr(0, info.param.size() - 5);
                           for (char& c : name)
                             c = std::isalnum(static_cast<unsigned char>(c)) ? c : '_';
                           return name;
                         });

}  // namespace
}  // namespace rep
