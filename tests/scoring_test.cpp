// Which classes a test image is scored among (eval.classes), by logits written down by hand.
#include <gtest/gtest.h>

#include <map>
#include <memory>
#include <vector>

#include "core/error.h"
#include "data/stream.h"
#include "run/evaluation.h"
#include "run/session.h"
#include "run/setup.h"
#include "tensor/torch.h"

namespace rep {
namespace {

// Says of each test image, by its place in the data set, what it was given to say.
class Written final : public Method {
 public:
  std::map<int64_t, std::vector<float>> logits;
  std::vector<torch::Tensor> parameters() override { return {}; }
  torch::Tensor loss(const Batch&) override { return torch::zeros({}); }
  torch::Tensor predict(const Batch& batch) override {
    std::vector<torch::Tensor> rows;
    for (int64_t i = 0; i < batch.size(); ++i) {
      rows.push_back(torch::tensor(logits.at(batch.indices[i].item<int64_t>())));
    }
    return torch::stack(rows);
  }
  void state(State&) override {}
};

Config small(const std::string& classes, const std::string& method = "l2p") {
  Config config = parse_config(
      "dataset: {name: synthetic, classes: 4, train_per_class: 2, test_per_class: 2}\n"
      "stream: {tasks: 2}\n"
      "backbone: {name: vit_nano, weights: random}\n"
      "method: {name: " +
          method +
          "}\n"
          "eval: {batch_size: 3, classes: " +
          classes + "}\n",
      "test");
  resolve_sections(config);
  return config;
}

// The first task's images (labels 0 0 1 1) after its training, when classes 2 and 3 are to come.
Correct first_task(const std::string& classes, int64_t seen) {
  Session session = open_session(small(classes));
  const Task& task = session.stream.tasks[0];
  const std::vector<std::vector<float>> rows{
      {3, 1, 2, 0},   // right among all
      {2, 1, 5, 0},   // right among the seen; class 2 is higher
      {0, 1, 0, 4},   // right among the seen; class 3 is higher
      {2, 1, 0, 0}};  // wrong
  auto method = std::make_unique<Written>();
  std::vector<int64_t> labels;
  for (size_t i = 0; i < rows.size(); ++i) {
    method->logits[task.test.at(i).index] = rows[i];
    labels.push_back(task.test[i].label);
  }
  EXPECT_EQ(labels, (std::vector<int64_t>{0, 0, 1, 1}));
  session.learner.method = std::move(method);
  return evaluate(session, task, seen);
}

TEST(ScoringTest, AmongTheSeenClassesUnlessAskedOtherwise) {
  EXPECT_EQ(Config().eval.classes, "seen");
  const Correct correct = first_task("seen", 2);
  EXPECT_EQ(correct.class_incremental, 3);
  EXPECT_EQ(correct.task_incremental, 3);
  EXPECT_EQ(correct.images, 4);
  EXPECT_EQ(correct.predicted, (std::vector<int64_t>{0, 0, 1, 0}));
}

TEST(ScoringTest, AmongAllClassesAlsoThoseOfTasksToCome) {
  const Correct correct = first_task("all", 2);
  EXPECT_EQ(correct.class_incremental, 1);
  EXPECT_EQ(correct.task_incremental, 3) << "a task's own classes are what they are";
  EXPECT_EQ(correct.images, 4);
  EXPECT_EQ(correct.predicted, (std::vector<int64_t>{0, 2, 3, 0}));
}

TEST(ScoringTest, BothAgreeOnceEveryClassWasSeen) {
  EXPECT_EQ(first_task("seen", 4).class_incremental, 1);
  EXPECT_EQ(first_task("all", 4).class_incremental, 1);
}

TEST(ScoringTest, RefusesAmongAllWhereTheHeadKnowsTheSeenClassesOnly) {
  for (const char* method : {"ncm", "slda", "ranpac", "icarl", "pnn", "convprompt"}) {
    EXPECT_NO_THROW(open_session(small("seen", method)));
    try {
      open_session(small("all", method));
      ADD_FAILURE() << method << " was taken";
    } catch (const Error& e) {
      EXPECT_EQ(e.what(), std::string("eval.classes: ") + method +
                              " has logits of the classes seen so far only; set it to seen");
    }
  }
}

}  // namespace
}  // namespace rep
