#include "data/device_images.h"

#include <gtest/gtest.h>

#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "core/error.h"
#include "data/augment.h"
#include "data/loader.h"
#include "tensor/meter.h"
#include "tensor/torch.h"
#include "tests/golden_images.h"

namespace rep {
namespace {

/// uint8 [n, 3, H, W], as DeviceImages lays them out.
torch::Tensor stacked(const std::vector<Image>& images) {
  std::vector<torch::Tensor> planes;
  for (const Image& image : images) {
    planes.push_back(torch::tensor(image.pixels, torch::kByte)
                         .view({image.height, image.width, 3})
                         .permute({2, 0, 1}));
  }
  return torch::stack(planes);
}

torch::Tensor values_of(const Transform& transform) {
  return torch::from_blob(const_cast<float*>(transform.values()), {3, 256}, torch::kFloat).clone();
}

torch::Tensor weights_of(const Transform& transform, const View& view, const Image& image) {
  torch::Tensor weights = torch::empty({transform.size(), image.height + image.width});
  transform.weigh(view, image.height, image.width, weights.data_ptr<float>());
  return weights;
}

/// Square noise. Image 3 may be broken, or of another size than the rest.
class Squares final : public Dataset {
 public:
  Squares(int64_t size, int64_t side, std::string third = "")
      : labels_(static_cast<size_t>(size)), side_(side), third_(std::move(third)) {}
  const std::vector<int64_t>& labels() const override { return labels_; }
  const std::vector<std::string>& class_names() const override { return names_; }
  std::vector<bool> sequence_starts() const override { return {true}; }
  int64_t side() const override { return side_; }
  int64_t stored_bytes(int64_t index) const override { return 10 * index; }
  Image image(int64_t index) const override {
    if (index == 3 && third_ == "broken") throw Error("image 3 is broken");
    const int64_t side = index == 3 && third_ == "larger" ? side_ + 1 : side_;
    return golden::image("noise", static_cast<uint32_t>(index), side, side);
  }
  std::string fingerprint() const override { return "squares"; }

 private:
  std::vector<int64_t> labels_;
  std::vector<std::string> names_{"square"};
  int64_t side_;
  std::string third_;
};

Transform l2p(int64_t size = 24) { return Transform("l2p", size, normalisation("half"), true); }

std::vector<Sample> samples(int64_t n) {
  std::vector<Sample> samples;
  for (int64_t i = 0; i < n; ++i) samples.push_back({i * 7 % n, 100 + i});
  return samples;
}

Loader::Options options(const torch::Device& device, int64_t workers = 2) {
  Loader::Options options;
  options.batch_size = 4;
  options.workers = workers;
  options.seed = 42;
  options.device = device;
  return options;
}

/// Copies of all batches on the CPU; `meanwhile` is called with each batch in hand.
std::vector<Batch> all(
    Loader& loader, const std::function<void()>& meanwhile = [] {}) {
  std::vector<Batch> batches;
  Batch batch;
  while (loader.next(batch)) {
    batches.push_back({batch.images.clone(), batch.labels.clone(), batch.indices.clone()});
    meanwhile();
  }
  for (Batch& copy : batches) copy = {copy.images.cpu(), copy.labels.cpu(), copy.indices};
  return batches;
}

void expect_same(const std::vector<Batch>& a, const std::vector<Batch>& b) {
  ASSERT_EQ(a.size(), b.size());
  for (size_t i = 0; i < a.size(); ++i) {
    EXPECT_TRUE(torch::equal(a[i].images, b[i].images)) << "images of batch " << i;
    EXPECT_TRUE(torch::equal(a[i].labels, b[i].labels)) << "labels of batch " << i;
    EXPECT_TRUE(torch::equal(a[i].indices, b[i].indices)) << "indices of batch " << i;
  }
}

class OnDevice : public ::testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
    if (device().is_cuda() && !torch::cuda::is_available()) {
      GTEST_SKIP() << "needs a CUDA device, and this LibTorch sees none";
    }
  }
  static torch::Device device() { return torch::Device(GetParam()); }

  static torch::Tensor viewed(const Transform& transform, const std::vector<Image>& images,
                              const std::vector<int64_t>& indices,
                              const std::vector<torch::Tensor>& weights) {
    return view_batch(stacked(images).to(device()), torch::tensor(indices).to(device()),
                      torch::stack(weights).to(device()), values_of(transform).to(device()))
        .cpu();
  }
};

INSTANTIATE_TEST_SUITE_P(Cpu, OnDevice, ::testing::Values("cpu"));
INSTANTIATE_TEST_SUITE_P(Cuda, OnDevice, ::testing::Values("cuda:0"));

// Not within a grey level: bit for bit, normalised numbers included.
TEST_P(OnDevice, ViewsAreTheTransformsToTheLastBit) {
  constexpr int64_t kImages = 6;
  for (const auto& [height, width] : {std::pair<int64_t, int64_t>{32, 32}, {64, 64}, {21, 50}}) {
    std::vector<Image> images;
    for (uint32_t i = 0; i < kImages; ++i) {
      images.push_back(golden::image(i % 2 ? "noise" : "blocks", i, height, width));
    }
    for (const std::string preset : {"l2p", "coda", "crop", "none"}) {
      for (const bool train : {true, false}) {
        for (const int64_t size : {16, 32, 224}) {
          if (size == 224 && height != 32) continue;  // the rest takes seconds and shows no more
          const Transform transform(preset, size, normalisation("imagenet"), train);
          std::vector<torch::Tensor> expected, weights;
          std::vector<int64_t> indices;
          for (uint64_t key = 0; key < 12; ++key) {
            indices.push_back(static_cast<int64_t>(key) * 5 % kImages);
            const Image& image = images[static_cast<size_t>(indices.back())];
            weights.push_back(
                weights_of(transform, transform.draw(height, width, Random({key})), image));
            expected.push_back(torch::empty({3, size, size}));
            transform.apply(image, Random({key}), expected.back().data_ptr<float>());
          }
          const torch::Tensor views = viewed(transform, images, indices, weights);
          EXPECT_TRUE(torch::equal(views, torch::stack(expected)))
              << preset << (train ? " train " : " test ") << size << " of " << height << " x "
              << width << ": differs at "
              << views.ne(torch::stack(expected)).to(torch::kDouble).mean().item<double>();
        }
      }
    }
  }
}

TEST_P(OnDevice, ViewsArePillowsPictures) {
  const auto reference = golden::load("data.json");
  int compared = 0;
  for (const auto& c : reference["cases"]) {
    const std::string op = c["op"];
    const int64_t height = c["h"], width = c["w"], size = c["size_wh"][0];
    if (c["size_wh"][1] != size) continue;  // a network's input is square
    SCOPED_TRACE(c["image"].get<std::string>() + " " + c["h"].dump() + " " + op);
    const Filter filter =
        op.find("bicubic") == std::string::npos ? Filter::kBilinear : Filter::kBicubic;
    View view;
    view.flip = op == "hflip";
    view.resizing = {{0, 0, height, width}, size, size, {0, 0, size, size}, filter};
    if (op.find("crop_top5_left7_h20_w18") != std::string::npos) {
      view.resizing.region = {5, 7, 20, 18};
    }
    if (op.find("centercrop") != std::string::npos) {
      view.resizing = resizing_to_center(height, width, 256, size, filter);
    }
    const Transform transform("none", size, normalisation("none"), false);
    const Image image = golden::image(c["image"], c["seed"], height, width);
    const torch::Tensor bytes =
        viewed(transform, {image}, {0}, {weights_of(transform, view, image)})
            .mul(255)
            .round()
            .to(torch::kLong)[0]
            .permute({1, 2, 0})
            .contiguous();
    EXPECT_EQ(bytes.sum().item<int64_t>(), c["sum"].get<int64_t>());
    EXPECT_EQ(bytes.mul(bytes).sum().item<int64_t>(), c["sum_sq"].get<int64_t>());
    const auto first16 = [](const torch::Tensor& rows) {
      const torch::Tensor numbers = rows.flatten().contiguous();
      return std::vector<int64_t>(numbers.data_ptr<int64_t>(), numbers.data_ptr<int64_t>() + 16);
    };
    EXPECT_EQ(first16(bytes), c["first16"].get<std::vector<int64_t>>());
    EXPECT_EQ(first16(bytes[size / 2]), c["row_mid_first16"].get<std::vector<int64_t>>());
    ++compared;
  }
  EXPECT_EQ(compared, 22);  // of 24; the flips of 375 x 500 are not square
}

TEST_P(OnDevice, TheLoadersBatchesAreThoseOfTheCpu) {
  const DeviceImages there(std::make_unique<Squares>(26, 32), device());
  Squares here(26, 32);
  for (const int64_t first : {0, 3}) {
    Loader::Options with = options(torch::kCPU);
    with.first_batch = first;
    Loader plain(here, samples(26), l2p(), with);
    const std::vector<Batch> expected = all(plain);
    for (const int64_t workers : {1, 3}) {
      with = options(device(), workers);
      with.first_batch = first;
      Loader of_views(there, samples(26), l2p(), with), of_images(here, samples(26), l2p(), with);
      expect_same(all(of_views), expected);
      expect_same(all(of_images), expected);
    }
  }
}

// A slot that went back before its copy was done would be overwritten by the workers, which are far
// ahead of a device that is always given more to do than it can finish.
TEST_P(OnDevice, ABatchOutlivesItsSlotsReuse) {
  const Squares here(200, 12);
  const auto other = std::make_unique<DeviceImages>(std::make_unique<Squares>(200, 12), device());
  Loader plain(here, samples(200), l2p(64), options(torch::kCPU));
  const std::vector<Batch> expected = all(plain);
  const int64_t side = device().is_cuda() ? 4096 : 8;
  const torch::Tensor a = torch::rand({side, side}, device());
  for (const Dataset* dataset :
       {static_cast<const Dataset*>(&here), static_cast<const Dataset*>(other.get())}) {
    Loader loader(*dataset, samples(200), l2p(64), options(device(), 4));
    expect_same(all(loader,
                    [&] {
                      for (int i = 0; i < 4; ++i) torch::mm(a, a);
                    }),
                expected);
  }
}

TEST_P(OnDevice, ABatchIsWhereItIsWanted) {
  const Squares here(4, 12);
  Loader loader(here, samples(4), l2p(), options(device()));
  Batch batch;
  ASSERT_TRUE(loader.next(batch));
  EXPECT_EQ(batch.images.device(), device());
  EXPECT_EQ(batch.labels.device(), device());
  EXPECT_TRUE(batch.indices.device().is_cpu());
}

TEST_P(OnDevice, MakingViewsIsNoneOfTheLearnersArithmetic) {
  install_meter();
  const DeviceImages there(std::make_unique<Squares>(8, 32), device());
  Loader loader(there, samples(8), l2p(), options(device()));
  const int64_t before = macs_so_far();
  EXPECT_EQ(all(loader).size(), 2u);
  EXPECT_EQ(macs_so_far(), before);
  const torch::Tensor a = torch::ones({2, 3}, device());
  torch::mm(a, a.t());
  EXPECT_EQ(macs_so_far(), before + 12);  // that the meter is there, and counts again
}

TEST_P(OnDevice, OpensSmallSquaresOntoAGpuOnly) {
  const auto opened = [](const std::string& options) {
    Section section{
        "synthetic", YAML::Load("{classes: 2, train_per_class: 2, " + options + "}"), "test", {}};
    section.node["name"] = "synthetic";
    return on_device(open_dataset(section, Split::kTrain, 42), device());
  };
  const auto there = [](const std::unique_ptr<Dataset>& data) {
    return dynamic_cast<const DeviceImages*>(data.get()) != nullptr;
  };
  EXPECT_EQ(there(opened("image_size: 64")), device().is_cuda());
  EXPECT_EQ(there(opened("image_size: 64, limit_train: 1")), device().is_cuda());
  EXPECT_FALSE(there(opened("image_size: 65")));
}

TEST(DeviceImages, HoldsTheImagesAndStaysTheDataSet) {
  const DeviceImages there(std::make_unique<Squares>(150, 9), torch::kCPU);
  const Squares here(150, 9);
  EXPECT_EQ(there.pixels().sizes(), (std::vector<int64_t>{150, 3, 9, 9}));
  EXPECT_TRUE(torch::equal(there.pixels()[149], stacked({here.image(149)})[0]));
  EXPECT_EQ(there.image(2).pixels, here.image(2).pixels);
  EXPECT_EQ(there.labels(), here.labels());
  EXPECT_EQ(there.class_names(), here.class_names());
  EXPECT_EQ(there.sequence_starts(), here.sequence_starts());
  EXPECT_EQ(there.side(), 9);
  EXPECT_EQ(there.stored_bytes(3), 30);
  EXPECT_EQ(there.fingerprint(), "squares");
}

TEST(DeviceImages, PassesOnWhatAnImageThrows) {
  try {
    DeviceImages(std::make_unique<Squares>(200, 9, "broken"), torch::kCPU);
    FAIL() << "an error was lost";
  } catch (const Error& error) {
    EXPECT_STREQ(error.what(), "image 3 is broken");
  }
}

TEST(DeviceImages, RefusesAnImageThatIsNotOfTheSize) {
  EXPECT_THROW(DeviceImages(std::make_unique<Squares>(5, 9, "larger"), torch::kCPU), c10::Error);
}

// Images that do not lie where the batches are wanted are of no use there.
TEST(DeviceImages, OnAnotherDeviceAreLoadedAsAnyOther) {
  if (!torch::cuda::is_available()) GTEST_SKIP() << "needs a CUDA device";
  const DeviceImages there(std::make_unique<Squares>(6, 12), torch::Device("cuda:0"));
  const Squares here(6, 12);
  Loader one(there, samples(6), l2p(), options(torch::kCPU));
  Loader other(here, samples(6), l2p(), options(torch::kCPU));
  expect_same(all(one), all(other));
}

}  // namespace
}  // namespace rep
