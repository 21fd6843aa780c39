// A batch that goes through in parts, one after another, teaches what it teaches as a whole.
#include <cmath>
#include <string>
#include <vector>

#include "core/error.h"
#include "run/loops.h"
#include "run/session.h"
#include "run/setup.h"
#include "tensor/meter.h"
#include "tensor/torch.h"
#include "tests/run_command.h"

namespace rep {
namespace {

using torch::Tensor;

// What the steps of a run's first two tasks come to.
class Watch final : public Observer {
 public:
  void after_step(const Step& step, Optimizer& optimizer) override {
    losses.push_back(*step.loss);
    images.push_back(step.images);
    gradients.emplace_back();
    for (const Tensor& p : optimizer.parameters()) {
      gradients.back().push_back(p.grad().defined() ? p.grad().clone() : torch::zeros_like(p));
    }
  }
  std::vector<double> losses;
  std::vector<int64_t> images;
  std::vector<std::vector<Tensor>> gradients;  // of each step
  int64_t macs = 0, peak = 0;
};

Watch learn(const std::string& config, const std::vector<std::string>& set) {
  reset_peak_tensor_bytes();
  const int64_t held = peak_tensor_bytes();  // by the test itself
  Session session = open_session(read_experiment(config, set));
  Watch watch;
  const int64_t before = macs_so_far();
  for (size_t t = 0; t < 2; ++t) {
    const Task& task = session.stream.tasks[t];
    session.learner.images->set_task(task);
    session.learner.method->begin_task(task);
    Position position;
    position.task = task.index;
    reset_peak_tensor_bytes();
    train_task(session, task, position, {&watch});
    watch.peak = std::max(watch.peak, peak_tensor_bytes() - held);
    session.learner.method->end_task(task);
  }
  watch.macs = macs_so_far() - before;
  return watch;
}

class MicroBatches : public ::testing::TestWithParam<std::string> {
 protected:
  static void SetUpTestSuite() { install_meter(); }
};

TEST_P(MicroBatches, GiveTheLossesAndGradientsOfTheWholeBatch) {
  const std::string name = GetParam();
  const std::string folder = fresh_folder("micro_" + name);
  // 9 images a step, the last step of an epoch 5: parts of 3, and of 3 and 2.
  std::string text = edited(small_experiment(name), "batch_size: 8", "batch_size: 9");
  if (name == "aper" || name == "ease") {  // whose draws are of a whole batch
    text = edited(text, "{name: " + name, "{name: " + name + ", adapter_dropout: 0");
  }
  if (name == "l2p") {
    text += "efficiency: {token_merging: {kind: atom, n: 2}, layer_dropping: {kind: ald}}\n";
  }
  const std::string config = write_text(folder + "/c.yaml", text);
  // Adam would blow rounding up where a gradient is nearly 0.
  const std::vector<std::string> sgd{"train.optimizer={name: sgd, lr: 0.01}", "train.clip_norm=0"};
  const Watch whole = learn(config, sgd);
  std::vector<std::string> with = sgd;
  with.emplace_back("train.micro_batch_size=3");
  const Watch parts = learn(config, with);
  ASSERT_GT(whole.losses.size(), 4U);
  ASSERT_EQ(parts.losses.size(), whole.losses.size());
  EXPECT_EQ(parts.images, whole.images);
  for (size_t i = 0; i < whole.losses.size(); ++i) {
    EXPECT_NEAR(parts.losses[i], whole.losses[i], 1e-4 * std::abs(whole.losses[i])) << i;
    ASSERT_EQ(parts.gradients[i].size(), whole.gradients[i].size());
    double apart = 0, size = 0;
    for (size_t p = 0; p < whole.gradients[i].size(); ++p) {
      apart += (parts.gradients[i][p] - whole.gradients[i][p]).pow(2).sum().item<double>();
      size += whole.gradients[i][p].pow(2).sum().item<double>();
    }
    EXPECT_GT(size, 0) << i;
    EXPECT_LT(std::sqrt(apart), 1e-3 * std::sqrt(size)) << i;
  }
  EXPECT_LT(parts.peak, whole.peak);
}

INSTANTIATE_TEST_SUITE_P(Methods, MicroBatches,
                         ::testing::Values("l2p", "dualprompt", "coda_prompt", "finetune", "ewc",
                                           "inflora", "sd_lora", "aper", "ease", "apt", "os_prompt",
                                           "cps_prompt"));

TEST(MicroBatch, WorksOnWhatDropLastLeaves) {
  install_meter();
  const std::string folder = fresh_folder("micro_drop");
  const std::string config = write_text(folder + "/c.yaml", small_experiment("finetune"));
  // 32 images a task: three steps of 9 an epoch, and 5 images are left out.
  const std::vector<std::string> set{"train.batch_size=9", "train.drop_last=true"};
  std::vector<std::string> with = set;
  with.emplace_back("train.micro_batch_size=1");
  const Watch whole = learn(config, set), parts = learn(config, with);
  ASSERT_EQ(whole.losses.size(), 2U * 3U * 3U);
  EXPECT_EQ(parts.images, whole.images);
  EXPECT_EQ(parts.macs, whole.macs);
}

TEST(MicroBatch, IsRefusedWhereABatchIsLearnedFromAsAWhole) {
  const std::string folder = fresh_folder("micro_refused");
  const auto refusal = [&](const std::string& text, const std::vector<std::string>& set) {
    try {
      open_session(read_experiment(write_text(folder + "/c.yaml", text), set));
    } catch (const Error& error) {
      return std::string(error.what());
    }
    return std::string();
  };
  const std::vector<std::string> two{"train.micro_batch_size=2"};
  EXPECT_EQ(refusal(small_experiment("er"), two),
            "method: er, with these options, learns from whole batches, which cannot be cut; leave "
            "train.micro_batch_size out");
  EXPECT_NE(refusal(small_experiment("l2p"),
                    {"train.micro_batch_size=2", "method={name: l2p, selection: batchwise}"})
                .find("learns from whole batches"),
            std::string::npos);
  EXPECT_EQ(refusal(small_experiment("l2p"), two), "");
  EXPECT_EQ(refusal(small_experiment("l2p"), {"train.micro_batch_size=3"}),
            "train.micro_batch_size: 3 does not divide train.batch_size, 8; take a divisor of it");
}

TEST(MicroBatch, IsNoPartOfWhatARunIs) {
  const std::string folder = fresh_folder("micro_resume");
  const std::string config = write_text(folder + "/c.yaml", small_experiment("l2p"));
  const std::string run = "run " + config + " -q --output " + folder + "/out --set ";
  const Finished first = rep_command(run + "train.iterations=4");
  ASSERT_EQ(first.exit_code, 0) << first.output;
  const auto whole = read_json(folder + "/out/result.json");
  const Finished second = rep_command("run " + config + " -q --output " + folder +
                                      "/parts --set train.iterations=4 --set " +
                                      "train.micro_batch_size=2 --set backbone.recompute_blocks=1");
  ASSERT_EQ(second.exit_code, 0) << second.output;
  const auto parts = read_json(folder + "/parts/result.json");
  EXPECT_EQ(parts.at("identity"), whole.at("identity"));
  EXPECT_EQ(parts.at("config").at("train").at("micro_batch_size"), 2);
  EXPECT_EQ(parts.at("cost").at("total").at("macs"), whole.at("cost").at("total").at("macs"));
}

}  // namespace
}  // namespace rep
