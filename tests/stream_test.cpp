#include "data/stream.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <fstream>
#include <functional>
#include <numeric>
#include <set>
#include <string>
#include <vector>

#include "core/error.h"
#include "tests/labels.h"

namespace rep {
namespace {

Stream cut(const StreamConfig& config, int64_t classes = 10, int64_t seed = 42) {
  return cut_into_tasks(Labels(classes, 3), Labels(classes, 2), config, seed);
}

StreamConfig tasks(int64_t n) {
  StreamConfig config;
  config.tasks = n;
  return config;
}

std::vector<int64_t> sizes(const Stream& stream) {
  std::vector<int64_t> sizes;
  for (const Task& task : stream.tasks) sizes.push_back(static_cast<int64_t>(task.classes.size()));
  return sizes;
}

std::string message(const std::function<void()>& act) {
  try {
    act();
  } catch (const Error& error) {
    return error.what();
  }
  return "none";
}

void expect_permutation(std::vector<int64_t> order, int64_t num_classes) {
  std::vector<int64_t> all(static_cast<size_t>(num_classes));
  std::iota(all.begin(), all.end(), 0);
  std::sort(order.begin(), order.end());
  EXPECT_EQ(order, all);
}

TEST(ClassOrder, NaturalCountsUp) {
  EXPECT_EQ(make_class_order("natural", 4, 42), (std::vector<int64_t>{0, 1, 2, 3}));
}

TEST(ClassOrder, OfANumberIsNumpysLegacyShuffle) {
  // numpy.random.seed(1993); numpy.random.shuffle(range(100)), printed in iCaRL's successors.
  const std::vector<int64_t> order = make_class_order("1993", 100, 42);
  EXPECT_EQ(std::vector<int64_t>(order.begin(), order.begin() + 10),
            (std::vector<int64_t>{68, 56, 78, 8, 23, 84, 90, 65, 74, 76}));
  expect_permutation(order, 100);
  // numpy.random.RandomState(n).shuffle(numpy.arange(size)) by numpy 2.4.
  EXPECT_EQ(make_class_order("0", 10, 42), (std::vector<int64_t>{2, 8, 4, 9, 1, 6, 7, 3, 0, 5}));
  EXPECT_EQ(make_class_order("4294967295", 12, 42),
            (std::vector<int64_t>{11, 8, 5, 9, 1, 10, 6, 0, 4, 7, 2, 3}));
}

TEST(ClassOrder, OfTheSeedDependsOnTheSeedAlone) {
  const std::vector<int64_t> order = make_class_order("seed", 100, 1);
  expect_permutation(order, 100);
  EXPECT_EQ(order, make_class_order("seed", 100, 1));
  EXPECT_NE(order, make_class_order("seed", 100, 2));
}

TEST(ClassOrder, ComesFromAListOrAFile) {
  EXPECT_EQ(make_class_order(std::vector<int64_t>{2, 0, 1}, 3, 42),
            (std::vector<int64_t>{2, 0, 1}));
  const std::string path = ::testing::TempDir() + "/class_order.txt";
  std::ofstream(path) << "2 0\n1\n";
  EXPECT_EQ(make_class_order(path, 3, 42), (std::vector<int64_t>{2, 0, 1}));
}

TEST(ClassOrder, NamesWhatIsWrongWithAList) {
  const auto error = [](const std::vector<int64_t>& list) {
    return message([&] { make_class_order(list, 3, 42); });
  };
  EXPECT_NE(error({0, 1, 0}).find("class 0 comes twice"), std::string::npos);
  EXPECT_NE(error({0, 2}).find("class 1 is missing"), std::string::npos);
  EXPECT_NE(error({0, 1, 3}).find("class 3 is not in 0..2"), std::string::npos);
  EXPECT_NE(error({0, -1, 2}).find("class -1 is not in 0..2"), std::string::npos);
}

TEST(ClassOrder, NamesWhatIsWrongWithAWordOrAFile) {
  const auto error = [](const std::string& word) {
    return message([&] { make_class_order(word, 3, 42); });
  };
  EXPECT_NE(error("natrual").find("'natrual' is neither natural"), std::string::npos);
  EXPECT_NE(error("4294967296").find("number below 2^32"), std::string::npos);
  EXPECT_NE(error("").find("neither natural"), std::string::npos);
  const std::string path = ::testing::TempDir() + "/bad_class_order.txt";
  std::ofstream(path) << "0 n01440764 2\n";
  EXPECT_NE(error(path).find("'n01440764' is not a whole number"), std::string::npos);
}

TEST(CutIntoTasks, NamesTheClassesThatDoNotDivide) {
  EXPECT_EQ(message([] { cut(tasks(4), 6); }),
            "stream.tasks: 6 classes ('class 0', 'class 1', 'class 2', 'class 3', 'class 4', "
            "'class 5') do not divide into 4 equal tasks; say how many each has in "
            "classes_per_task");
  EXPECT_NE(message([] { cut(tasks(40), 30); }).find("'class 9', ...)"), std::string::npos);
}

TEST(CutIntoTasks, PutsEveryImageIntoTheTaskThatOwnsItsClass) {
  StreamConfig config = tasks(5);
  config.class_order = std::string("1993");
  const Stream stream = cut(config);
  const Labels train(10, 3), test(10, 2);
  ASSERT_EQ(stream.tasks.size(), 5u);
  EXPECT_EQ(stream.num_classes(), 10);
  std::set<int64_t> classes, seen_train, seen_test;
  for (const Task& task : stream.tasks) {
    EXPECT_EQ(task.first_label, 2 * task.index);
    EXPECT_EQ(task.last_label(), 2 * task.index + 2);
    classes.insert(task.classes.begin(), task.classes.end());
    EXPECT_TRUE(std::is_sorted(task.train.begin(), task.train.end(),
                               [](const Sample& a, const Sample& b) { return a.index < b.index; }));
    const auto expect_owned = [&](const Sample& sample, const Labels& dataset) {
      EXPECT_GE(sample.label, task.first_label);
      EXPECT_LT(sample.label, task.last_label());
      EXPECT_EQ(stream.class_order[static_cast<size_t>(sample.label)],
                dataset.labels()[static_cast<size_t>(sample.index)]);
    };
    for (const Sample& sample : task.train) {
      expect_owned(sample, train);
      seen_train.insert(sample.index);
    }
    for (const Sample& sample : task.test) {
      expect_owned(sample, test);
      seen_test.insert(sample.index);
    }
    EXPECT_EQ(task.train.size(), 6u);
    EXPECT_EQ(task.test.size(), 4u);
  }
  EXPECT_EQ(classes.size(), 10u);
  EXPECT_EQ(seen_train.size(), 30u);
  EXPECT_EQ(seen_test.size(), 20u);
}

TEST(CutIntoTasks, FollowsUnevenSizes) {
  StreamConfig config;
  config.classes_per_task = {4, 5, 1};
  const Stream stream = cut(config);
  EXPECT_EQ(sizes(stream), (std::vector<int64_t>{4, 5, 1}));
  EXPECT_EQ(stream.tasks[2].first_label, 9);
  EXPECT_EQ(stream.tasks[2].classes, std::vector<int64_t>{9});
}

TEST(CutIntoTasks, SharesWhatTheInitialClassesLeave) {
  StreamConfig config = tasks(6);
  config.initial_classes = 5;
  EXPECT_EQ(sizes(cut(config)), (std::vector<int64_t>{5, 1, 1, 1, 1, 1}));
  config.tasks = 1;
  config.initial_classes = 10;
  EXPECT_EQ(sizes(cut(config)), std::vector<int64_t>{10});
}

TEST(CutIntoTasks, NamesTasksThatDoNotCutUpTheClasses) {
  const auto error = [](const StreamConfig& config) { return message([&] { cut(config); }); };
  EXPECT_NE(error(tasks(11)).find("11 tasks cannot share 10 classes"), std::string::npos);
  EXPECT_NE(error(tasks(3)).find("classes_per_task"), std::string::npos);

  StreamConfig config;
  config.classes_per_task = {4, 5};
  EXPECT_NE(error(config).find("the tasks have 9 classes"), std::string::npos);
  config.classes_per_task = {4, 7};
  EXPECT_NE(error(config).find("a task of 7 classes does not fit"), std::string::npos);
  config.classes_per_task = {4, 0, 6};
  EXPECT_NE(error(config).find("a task of 0 classes"), std::string::npos);
  config.classes_per_task = {INT64_MAX, INT64_MAX};
  EXPECT_NE(error(config).find("does not fit after 0 of 10"), std::string::npos);
  config.classes_per_task = {5, 5};
  config.initial_classes = 5;
  EXPECT_NE(error(config).find("exclude each other"), std::string::npos);

  config = tasks(2);
  config.initial_classes = 11;
  EXPECT_NE(error(config).find("stream.initial_classes"), std::string::npos);
  config.initial_classes = 10;
  EXPECT_NE(error(config).find("1 tasks cannot share 0 classes"), std::string::npos);
  config = tasks(1);
  config.initial_classes = 5;
  EXPECT_NE(error(config).find("stream.initial_classes"), std::string::npos);
}

TEST(CutIntoTasks, RefusesSplitsOfDifferentClasses) {
  EXPECT_THROW(cut_into_tasks(Labels(10, 1), Labels(5, 1), tasks(5), 42), Error);
}

TEST(ClassOrderTest, PythonSeedsGiveStream51sOrders) {
  const auto order = [](const char* word) { return make_class_order(std::string(word), 51, 42); };
  EXPECT_EQ(
      order("python:10"),
      (std::vector<int64_t>{22, 37, 40, 46, 41, 16, 1,  32, 3,  18, 25, 45, 6,  28, 34, 7,  38,
                            43, 47, 24, 5,  14, 8,  21, 9,  44, 12, 11, 19, 35, 48, 26, 39, 23,
                            15, 4,  20, 42, 33, 49, 10, 17, 31, 29, 13, 0,  50, 30, 27, 2,  36}));
  EXPECT_EQ(order("python:20").back(), 46);
  EXPECT_EQ(order("python:20").front(), 31);
  EXPECT_EQ(order("python:30").back(), 34);
  EXPECT_EQ(order("python:30").front(), 6);
  EXPECT_THROW(order("python:ten"), Error);
}

}  // namespace
}  // namespace rep
