// Stream-51 in its official layout, and its orders up to what the method is shown.
#include <gtest/gtest.h>

#include <algorithm>

#include "data/image_files.h"
#include "data/stream.h"
#include "methods/method.h"
#include "run/experiment.h"
#include "run/setup.h"
#include "tensor/torch.h"
#include "tests/image_sets.h"

namespace rep {
namespace {

// A set of three rows and a picture of 40 x 30.
std::string stream51(const std::string& root, const std::string& train_rows) {
  put(root + "/train/0.png", picture(30, 40, 1));
  put(root + "/test/0.png", picture(30, 40, 2));
  write_text(root + "/Stream-51_meta_train.json", train_rows);
  write_text(root + "/Stream-51_meta_test.json",
             "[[3, [30, 40, 3], [30, 10, 25, 5], \"test/0.png\"],"
             " [51, [30, 40, 3], [30, 10, 25, 5], \"test/0.png\"]]");
  return "{name: stream51, root: " + root;
}

TEST(Stream51, CropsTheBoxEnlargedAsTheOfficialLoaderDoes) {
  const std::string root = fresh_folder("stream51");
  const std::string yaml =
      stream51(root,
               "[[0, 0, 0, 0, [30, 40, 3], [30, 10, 25, 5], \"train/0.png\"],"
               " [50, 1, 0, 7, [30, 40, 3], [40, 0, 30, 0], \"train/0.png\"]]");
  const auto train = open(yaml + "}", Split::kTrain);
  ASSERT_EQ(train->size(), 2);
  // w = 20, h = 20; centre (20, 15); half of 1.1 * 20 is 11: x 9..31, y 4..26.
  const Image first = train->image(0), whole = picture(30, 40, 1);
  ASSERT_EQ(first.height, 22);
  ASSERT_EQ(first.width, 22);
  EXPECT_EQ(first.pixels, cut_out(whole, {4, 9, 22, 22}).pixels);
  // The whole picture's box grows over its edges and is cut there.
  EXPECT_EQ(train->image(1).pixels, whole.pixels);
  EXPECT_EQ(train->num_classes(), 51);

  EXPECT_EQ(open(yaml + "}", Split::kTest)->labels(), (std::vector<int64_t>{3}));
  EXPECT_EQ(open(yaml + ", frame_stride: 2}", Split::kTrain)->size(), 1);
  EXPECT_EQ(open(yaml + ", crop: false}", Split::kTrain)->image(0).width, 40);
}

// stream.order: instance cuts the stream there.
TEST(Stream51, FingerprintKnowsWhereVideosBegin) {
  const auto print = [](const std::string& frame) {
    const std::string row = ", [30, 40, 3], [30, 10, 25, 5], \"train/0.png\"]";
    return open(stream51(fresh_folder("stream51_print"),
                         "[[0, 0, 0, 0" + row + ", [0, 0, 1, " + frame + row + "]") +
                    "}",
                Split::kTrain)
        ->fingerprint();
  };
  EXPECT_NE(print("0"), print("1"));
  EXPECT_EQ(print("2"), print("1"));
}

TEST(Stream51, SaysWhichRowIsWrong) {
  const std::string root = fresh_folder("stream51_bad");
  const auto message = [&](const std::string& rows) {
    return message_of(stream51(root, rows) + "}", Split::kTrain);
  };
  const std::string good = "[0, 0, 0, 0, [30, 40, 3], [30, 10, 25, 5], \"train/0.png\"]";
  EXPECT_EQ(message("[" + good + "]"), "");
  for (const char* bad : {"[51, 0, 0, 0, [30, 40, 3], [30, 10, 25, 5], \"train/0.png\"]",
                          "[-1, 0, 0, 0, [30, 40, 3], [30, 10, 25, 5], \"train/0.png\"]",
                          "[0, 0, 0, 0, [30, 40, 3], [30, 10, 25, 5], \"../../etc/passwd\"]",
                          "[0, 0, 0, 0, [30, 40, 3], [30, 10, 25, 5], 7]",
                          "[0, 0, 0, 0, [30, 40, 3], [10, 30, 5, 25], \"train/0.png\"]",
                          "[0, 0, 0, 0, [30, 40, 3], [1e300, 10, 25, 5], \"train/0.png\"]",
                          "[0, 0, 0, 0, [30, 40, 3], [30, 10], \"train/0.png\"]",
                          "[0, 0, 0, [30, 40, 3], [30, 10, 25, 5], \"train/0.png\"]", "7", "{}"}) {
    const std::string text = message("[" + good + ", " + bad + "]");
    EXPECT_TRUE(text.find("row 1 ") != std::string::npos ||
                text.find("leads out of") != std::string::npos)
        << bad << " -> " << text;
  }
  for (const char* bad : {"", "{}", "[", "[[[[[["}) EXPECT_NE(message(bad), "") << bad;
  // A box that fits the announced shape but not the picture.
  const std::string lying =
      message("[[0, 0, 0, 0, [900, 900, 3], [800, 700, 800, 700], \"train/0.png\"]]");
  EXPECT_NE(lying.find("train/0.png"), std::string::npos) << lying;
}

// A small set of 51 classes, and its orders as Python computes them.
nlohmann::json reference() {
  return read_json(REP_SOURCE_DIR "/tests/fixtures/stream51_orders.json");
}

std::string set_of_51(const std::string& name) {
  return stream51(fresh_folder(name), reference().at("rows").dump());
}

StreamConfig official(const std::string& order, const std::string& seed, bool classes) {
  StreamConfig config;
  config.order = order;
  config.order_seed = std::stoll(seed);
  config.class_order = "python:" + seed;
  config.tasks = 1;
  if (classes) config.classes_per_task = {10, 10, 10, 10, 10, 1};
  return config;
}

TEST(Stream51, OrdersImagesAsTheOfficialCodeDoes) {
  const std::string yaml = set_of_51("stream51_orders") + "}";
  const auto train = open(yaml, Split::kTrain), test = open(yaml, Split::kTest);
  const nlohmann::json orders = reference().at("orders");
  ASSERT_EQ(orders.size(), 4U);
  for (const auto& [order, by_seed] : orders.items()) {
    for (const auto& [seed, expected] : by_seed.items()) {
      SCOPED_TRACE(order + " " + seed);
      const bool classes = order.rfind("class", 0) == 0;
      const Stream stream = cut_into_tasks(*train, *test, official(order, seed, classes), 42);
      EXPECT_EQ(stream.tasks.size(), classes ? 6U : 1U);
      EXPECT_EQ(stream.tasks.back().classes.size(), classes ? 1U : 51U);
      std::vector<int64_t> shown;
      for (const Task& task : stream.tasks) {
        for (const Sample& sample : task.train) shown.push_back(sample.index);
      }
      EXPECT_EQ(shown, expected.get<std::vector<int64_t>>());
    }
  }
}

TEST(Stream51, KeepsAVideosFramesTogetherWhenFewerAreTaken) {
  const auto train =
      open(set_of_51("stream51_stride") + ", frame_stride: 2, limit_train: 2}", Split::kTrain);
  const std::vector<bool> starts = train->sequence_starts();
  ASSERT_EQ(static_cast<int64_t>(starts.size()), train->size());
  // Frames 0 and 2 of every video are left, and of each class its first two images.
  std::vector<int64_t> kept(51);
  std::vector<bool> expected;
  const nlohmann::json rows = reference().at("rows");
  for (const auto& row : rows) {
    const int64_t label = row[0], frame = row[3];
    if (frame % 2 == 0 && ++kept[static_cast<size_t>(label)] <= 2) expected.push_back(frame == 0);
  }
  EXPECT_EQ(starts, expected);
}

TEST(StreamOrder, OfVideosNeedsADataSetThatHasThem) {
  const std::string yaml = "{name: synthetic, classes: 4, train_per_class: 3, test_per_class: 1}";
  const auto train = open(yaml, Split::kTrain), test = open(yaml, Split::kTest);
  StreamConfig config = official("instance", "10", false);
  try {
    cut_into_tasks(*train, *test, config, 42);
    FAIL() << "videos were made up";
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("take iid"), std::string::npos) << error.what();
  }
  config.order = "iid";
  EXPECT_EQ(cut_into_tasks(*train, *test, config, 42).tasks[0].train.size(), 12U);
}

// What the loop showed, image by image.
std::vector<int64_t>& shown() {
  static std::vector<int64_t> indices;
  return indices;
}

struct NoOptions {
  template <class Visitor>
  void fields(Visitor&&) {}
};

class Recorder final : public Method {
 public:
  Recorder(const MethodContext& context, const NoOptions&)
      : weight_(torch::zeros({context.num_classes}).set_requires_grad(true)) {}
  std::vector<torch::Tensor> parameters() override { return {weight_}; }
  torch::Tensor loss(const Batch& batch) override {
    const auto* const indices = batch.indices.data_ptr<int64_t>();
    shown().insert(shown().end(), indices, indices + batch.size());
    return weight_.sum();
  }
  torch::Tensor predict(const Batch& batch) override {
    return weight_.expand({batch.size(), weight_.size(0)});
  }
  void state(State& s) override { s("weight", weight_); }

 private:
  torch::Tensor weight_;
};

const Registered<MethodKind> kRecorder{"recorder", "this test", method_kind<Recorder, NoOptions>()};

std::vector<int64_t> shown_by_a_run(const std::string& order, int64_t epochs) {
  const std::string folder = fresh_folder("stream_order_run");
  Config config = parse_config(
      "dataset: {name: synthetic, classes: 4, train_per_class: 5, test_per_class: 1}\n"
      "stream: {tasks: 2, class_order: [2, 0, 3, 1], order: " +
          order +
          ", order_seed: 20}\n"
          "backbone: {name: vit_nano, weights: random}\n"
          "method: recorder\n"
          "train: {batch_size: 3, workers: 2, epochs: " +
          std::to_string(epochs) + "}\n",
      "test");
  resolve_sections(config);
  shown().clear();
  Progress progress(Progress::Verbosity::kQuiet, "");
  RunOptions options;
  options.output = folder;
  run_experiment(config, options, progress);
  return shown();
}

TEST(StreamOrder, ReachesTheMethodImageByImage) {
  // Synthetic images are stored class by class: 0 0 0 0 0 1 1 ...
  EXPECT_EQ(shown_by_a_run("stored", 1),
            (std::vector<int64_t>{0, 1, 2, 3, 4, 10, 11, 12, 13, 14,  //
                                  5, 6, 7, 8, 9, 15, 16, 17, 18, 19}));
  // random.seed(20); x = list(range(5)); random.shuffle(x) in Python 3.
  const std::vector<int64_t> shuffle = {4, 0, 3, 2, 1};
  std::vector<int64_t> expected;
  for (const int64_t label : {2, 0, 2, 0, 3, 1, 3, 1}) {  // two epochs of each task
    for (const int64_t i : shuffle) expected.push_back(5 * label + i);
  }
  EXPECT_EQ(shown_by_a_run("class_iid", 2), expected);
  std::vector<int64_t> shuffled = shown_by_a_run("shuffled", 1);
  EXPECT_NE(shuffled, shown_by_a_run("stored", 1));
  std::sort(shuffled.begin(), shuffled.end());
  for (int64_t i = 0; i < 20; ++i) EXPECT_EQ(shuffled[static_cast<size_t>(i)], i);
}

}  // namespace
}  // namespace rep
