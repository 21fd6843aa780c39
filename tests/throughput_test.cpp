#include "data/throughput.h"

#include <gtest/gtest.h>

#include <ctime>
#include <map>
#include <string>
#include <vector>

#include "core/error.h"

namespace rep {
namespace {

/// Images whose making takes a known time of the processor, and which counts who asked.
class SlowImages : public Dataset {
 public:
  explicit SlowImages(int64_t size) : labels_(static_cast<size_t>(size), 0) {}
  const std::vector<int64_t>& labels() const override { return labels_; }
  const std::vector<std::string>& class_names() const override { return names_; }
  Image image(int64_t index) const override {
    ++asked[index];
    const std::clock_t start = std::clock();
    while (std::clock() - start < CLOCKS_PER_SEC / 1000 * 2) continue;
    return Image::make(8, 8);
  }
  std::string fingerprint() const override { return "slow"; }

  mutable std::map<int64_t, int> asked;

 private:
  std::vector<int64_t> labels_;
  std::vector<std::string> names_{"only"};
};

TEST(Throughput, TimesImagesSpreadOverTheSetInEveryPass) {
  const SlowImages images(40);
  const Transform view("l2p", 32, normalisation("none"), true);
  const Throughput cost = time_view(images, view, 4, 3, 42);
  EXPECT_EQ(cost.images, 4);
  EXPECT_EQ(images.asked, (std::map<int64_t, int>{{0, 4}, {10, 4}, {20, 4}, {30, 4}}));
  EXPECT_GE(cost.stored_ms, 1.9);
  EXPECT_GT(cost.best_ms, cost.stored_ms);
  EXPECT_GE(cost.median_ms, cost.best_ms);
  EXPECT_LT(cost.best_ms, 20);
}

TEST(Throughput, TakesWhatThereIsOfASmallSetAndRefusesAnEmptyOne) {
  const Transform view("none", 8, normalisation("none"), false);
  EXPECT_EQ(time_view(SlowImages(3), view, 256, 1, 42).images, 3);
  EXPECT_THROW(time_view(SlowImages(0), view, 256, 1, 42), Error);
}

}  // namespace
}  // namespace rep
