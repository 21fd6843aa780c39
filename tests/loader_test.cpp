#include "data/loader.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "core/error.h"
#include "tensor/torch.h"

namespace rep {
namespace {

/// Image i is noise of its own; one index may be made to fail, and early images may be slow, so
/// that workers finish out of order.
class Pictures : public Dataset {
 public:
  explicit Pictures(int64_t size, int64_t broken = -1, bool slow = false)
      : labels_(static_cast<size_t>(size)), broken_(broken), slow_(slow) {}
  const std::vector<int64_t>& labels() const override { return labels_; }
  const std::vector<std::string>& class_names() const override { return names_; }
  Image image(int64_t index) const override {
    if (index == broken_) throw Error("image 5 is broken");
    if (slow_) std::this_thread::sleep_for(std::chrono::milliseconds(index % 3 == 0 ? 5 : 0));
    Image image = Image::make(12, 12);
    Random random({static_cast<uint64_t>(index)});
    for (uint8_t& p : image.pixels) p = static_cast<uint8_t>(random.next());
    return image;
  }
  std::string fingerprint() const override { return "pictures"; }

 private:
  std::vector<int64_t> labels_;
  std::vector<std::string> names_{"picture"};
  int64_t broken_;
  bool slow_;
};

std::vector<Sample> samples(int64_t n) {
  std::vector<Sample> samples;
  for (int64_t i = 0; i < n; ++i) samples.push_back({i, 100 + i});
  return samples;
}

Transform transform() { return Transform("l2p", 8, normalisation("half"), true); }

Loader::Options options(int64_t workers, int64_t batch_size = 4) {
  Loader::Options options;
  options.batch_size = batch_size;
  options.workers = workers;
  options.seed = 42;
  return options;
}

/// Copies of all batches.
std::vector<Batch> all(Loader& loader) {
  std::vector<Batch> batches;
  Batch batch;
  while (loader.next(batch)) {
    batches.push_back({batch.images.clone(), batch.labels.clone(), batch.indices.clone()});
  }
  return batches;
}

std::vector<Batch> all(const Dataset& dataset, const Loader::Options& with) {
  Loader loader(dataset, shuffled(samples(dataset.size()), 42, 0, 0), transform(), with);
  return all(loader);
}

void expect_same(const std::vector<Batch>& a, const std::vector<Batch>& b) {
  ASSERT_EQ(a.size(), b.size());
  for (size_t i = 0; i < a.size(); ++i) {
    EXPECT_TRUE(torch::equal(a[i].images, b[i].images)) << "images of batch " << i;
    EXPECT_TRUE(torch::equal(a[i].labels, b[i].labels)) << "labels of batch " << i;
    EXPECT_TRUE(torch::equal(a[i].indices, b[i].indices)) << "indices of batch " << i;
  }
}

TEST(Loader, HandsOutEverySampleInOrderAndTheRestAsAShortBatch) {
  const Pictures dataset(10);
  Loader loader(dataset, samples(10), transform(), options(2));
  const std::vector<Batch> batches = all(loader);
  ASSERT_EQ(batches.size(), 3u);
  EXPECT_EQ(batches[0].images.sizes(), (std::vector<int64_t>{4, 3, 8, 8}));
  EXPECT_EQ(batches[2].images.sizes(), (std::vector<int64_t>{2, 3, 8, 8}));
  EXPECT_TRUE(torch::equal(batches[2].labels, torch::tensor({108, 109}, torch::kLong)));
  EXPECT_TRUE(torch::equal(batches[1].indices, torch::tensor({4, 5, 6, 7}, torch::kLong)));
}

TEST(Loader, DropsTheShortBatchWhenTold) {
  Loader::Options with = options(1);
  with.drop_last = true;
  EXPECT_EQ(all(Pictures(10), with).size(), 2u);
}

TEST(Loader, GivesAnImageAsTheTransformMakesItForItsKeys) {
  const Pictures dataset(6);
  Loader::Options with = options(1, 3);
  with.task = 2;
  with.epoch = 1;
  Loader loader(dataset, samples(6), transform(), with);
  const std::vector<Batch> batches = all(loader);
  const Random random({42, static_cast<uint64_t>(RandomUse::kAugmentation), 2, 1, 4});
  const torch::Tensor expected = torch::empty({3, 8, 8});
  transform().apply(dataset.image(4), random, expected.data_ptr<float>());
  EXPECT_TRUE(torch::equal(batches[1].images[1], expected));
}

TEST(Loader, GivesTheSameBatchesWhateverTheNumberOfWorkers) {
  const Pictures dataset(50, -1, true);
  const std::vector<Batch> one = all(dataset, options(1));
  expect_same(all(dataset, options(2)), one);
  expect_same(all(dataset, options(3)), one);
  expect_same(all(dataset, options(16)), one);
}

TEST(Loader, GoesOnFromAnyBatch) {
  const Pictures dataset(30);
  std::vector<Batch> whole = all(dataset, options(2));
  Loader::Options with = options(2);
  with.first_batch = 5;
  whole.erase(whole.begin(), whole.begin() + 5);
  expect_same(all(dataset, with), whole);
  with.first_batch = 8;
  EXPECT_TRUE(all(dataset, with).empty());
}

TEST(Loader, AugmentsDifferentlyInEachTaskAndEpoch) {
  const Pictures dataset(4);
  Loader::Options later = options(1), other = options(1);
  later.epoch = 1;
  other.task = 1;
  const torch::Tensor first = all(dataset, options(1))[0].images;
  EXPECT_FALSE(torch::equal(all(dataset, later)[0].images, first));
  EXPECT_FALSE(torch::equal(all(dataset, other)[0].images, first));
}

TEST(Loader, RethrowsAWorkersErrorAtItsBatchAndEveryTimeAfter) {
  const Pictures dataset(40, 5);
  Loader loader(dataset, samples(40), transform(), options(3));
  Batch batch;
  EXPECT_TRUE(loader.next(batch));  // images 0 to 3
  for (int attempt = 0; attempt < 2; ++attempt) {
    try {
      loader.next(batch);
      FAIL() << "an error was lost";
    } catch (const Error& error) {
      EXPECT_STREQ(error.what(), "image 5 is broken");
    }
  }
}

TEST(Loader, EndsCleanlyAtAnyTime) {
  const Pictures dataset(200, -1, true);
  for (const int taken : {0, 1, 3}) {
    Loader loader(dataset, samples(200), transform(), options(3));
    Batch batch;
    for (int i = 0; i < taken; ++i) EXPECT_TRUE(loader.next(batch));
  }
}

TEST(Loader, MakesOnlyTheImagesThatAreWanted) {
  const auto whole = all(Pictures(10), options(2));
  for (const int64_t rank : {0, 1, 2}) {
    Loader::Options with = options(2);
    with.part = [rank](int64_t n) { return std::pair{n * rank / 3, n * (rank + 1) / 3}; };
    // Whoever makes another's image meets the broken one.
    int64_t failed = 0;
    for (int64_t broken = 0; broken < 10; ++broken) {
      const Pictures dataset(10, broken);
      try {
        const auto parts = all(dataset, with);
        ASSERT_EQ(parts.size(), whole.size());
        for (size_t b = 0; b < parts.size(); ++b) {
          const auto [first, last] = with.part(parts[b].size());
          EXPECT_TRUE(torch::equal(parts[b].images.slice(0, first, last),
                                   whole[b].images.slice(0, first, last)));
          EXPECT_TRUE(torch::equal(parts[b].labels, whole[b].labels));
          EXPECT_TRUE(torch::equal(parts[b].indices, whole[b].indices));
        }
      } catch (const Error&) {
        ++failed;
      }
    }
    int64_t own = 0;
    for (const Batch& batch : whole)
      own += with.part(batch.size()).second - with.part(batch.size()).first;
    EXPECT_EQ(failed, own);
  }
}

TEST(Loader, OfNothingEndsAtOnce) {
  Loader loader(Pictures(0), {}, transform(), options(2));
  Batch batch;
  EXPECT_FALSE(loader.next(batch));
}

TEST(Loader, UsesItsBuffersAgain) {
  // One worker: a ring of three, so the fourth batch lies where the first one lay.
  const Pictures dataset(24);
  Loader loader(dataset, samples(24), transform(), options(1));
  std::vector<void*> places;
  Batch batch;
  while (loader.next(batch)) places.push_back(batch.images.data_ptr());
  ASSERT_EQ(places.size(), 6u);
  EXPECT_NE(places[0], places[1]);
  EXPECT_EQ(places[0], places[3]);
  EXPECT_EQ(places[2], places[5]);
}

TEST(Shuffled, IsAPermutationThatDependsOnSeedTaskAndEpoch) {
  const auto indices = [](uint64_t seed, uint64_t task, uint64_t epoch) {
    std::vector<int64_t> order;
    for (const Sample& sample : shuffled(samples(100), seed, task, epoch)) {
      EXPECT_EQ(sample.label, 100 + sample.index);
      order.push_back(sample.index);
    }
    return order;
  };
  const std::vector<int64_t> order = indices(1, 2, 3);
  EXPECT_EQ(indices(1, 2, 3), order);
  EXPECT_NE(indices(9, 2, 3), order);
  EXPECT_NE(indices(1, 9, 3), order);
  EXPECT_NE(indices(1, 2, 9), order);
  std::vector<int64_t> sorted = order;
  std::sort(sorted.begin(), sorted.end());
  for (int64_t i = 0; i < 100; ++i) EXPECT_EQ(sorted[static_cast<size_t>(i)], i);
}

}  // namespace
}  // namespace rep
