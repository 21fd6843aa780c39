// ResNet-18: its shapes and sizes against the published ones, and what trains.

#include "nn/resnet.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <string>
#include <tuple>
#include <vector>

#include "tensor/meter.h"
#include "tensor/torch.h"

namespace rep {
namespace {

using torch::Tensor;

ResNetOptions sized(int64_t image_size, int64_t width = 64, const std::string& stem = "auto") {
  ResNetOptions options;
  options.image_size = image_size;
  options.width = width;
  options.stem = stem;
  return options;
}

int64_t parameters(const ResNetOptions& options) {
  ResNet18 resnet(options);
  int64_t total = 0;
  for (const auto& parameter : resnet->parameters()) total += parameter.numel();
  return total;
}

TEST(ResNet18, FeaturesAreEightTimesTheWidthWhateverTheStem) {
  torch::NoGradGuard no_grad;
  for (const auto& [size, width, stem] :
       {std::tuple{32, 8, "auto"}, {32, 8, "imagenet"}, {96, 8, "auto"}, {48, 20, "cifar"}}) {
    ResNet18 resnet(sized(size, width, stem));
    EXPECT_EQ(resnet->feature_dim(), 8 * width);
    EXPECT_EQ(resnet->image_size(), size);
    EXPECT_EQ(resnet->features(torch::randn({3, 3, size, size})).sizes(),
              (std::vector<int64_t>{3, 8 * width}));
  }
}

TEST(ResNet18, TheStemFollowsTheImageSizeUnlessNamed) {
  EXPECT_TRUE(sized(32).cifar_stem());
  EXPECT_TRUE(sized(64).cifar_stem());
  EXPECT_FALSE(sized(65).cifar_stem());
  EXPECT_TRUE(sized(224, 64, "cifar").cifar_stem());
  EXPECT_FALSE(sized(32, 64, "imagenet").cifar_stem());
}

TEST(ResNet18, HasThePublishedNumberOfParameters) {
  EXPECT_EQ(parameters(sized(224)), 11176512);  // torchvision's 11,689,512 without its fc layer
  // The 3x3 stem has 3 * 64 * (49 - 9) weights fewer.
  EXPECT_EQ(parameters(sized(32)), 11176512 - 3 * 64 * 40);
}

TEST(ResNet18, CostsWhatIsPublished) {
  install_meter();
  torch::NoGradGuard no_grad;
  const auto gmacs = [](int64_t size) {
    ResNet18 resnet(sized(size));
    const int64_t before = macs_so_far();
    resnet->features(torch::zeros({1, 3, size, size}));
    return static_cast<double>(macs_so_far() - before) * 1e-9;
  };
  EXPECT_NEAR(gmacs(32), 0.556, 0.00556);  // 3x3 stem
  EXPECT_NEAR(gmacs(224), 1.814, 0.018);   // 7x7 stem
}

TEST(ResNet18, TrainsItsLastStages) {
  ResNet18 resnet(sized(32, 4));
  EXPECT_EQ(resnet->depth(), 4);
  for (int64_t blocks = 0; blocks <= 4; ++blocks) {
    resnet->train_last_blocks(blocks);
    for (const auto& item : resnet->named_parameters()) {
      const bool in_stage = item.key().rfind("layer", 0) == 0;
      const int64_t stage = in_stage ? item.key()[5] - '0' : 0;  // 0: the stem
      EXPECT_EQ(item.value().requires_grad(), stage > 4 - blocks || blocks == 4)
          << blocks << " " << item.key();
    }
  }
}

TEST(ResNet18, BatchNormFollowsTheBatchInTrainingOnly) {
  torch::manual_seed(1);
  ResNet18 resnet(sized(32, 4));
  torch::NoGradGuard no_grad;
  const Tensor images = torch::randn({4, 3, 32, 32});
  const auto statistics = [&] {
    std::vector<Tensor> copies;
    for (const auto& buffer : resnet->buffers()) copies.push_back(buffer.clone());
    return copies;
  };
  const auto first = statistics();
  ASSERT_EQ(first.size(), 3u * 20);  // mean, variance and count of 20 batch norms

  resnet->eval();
  const Tensor together = resnet->features(images);
  EXPECT_TRUE(
      resnet->features(images.narrow(0, 1, 1)).allclose(together.narrow(0, 1, 1), 1e-4, 1e-5))
      << "in testing an image's feature depends on its neighbours";
  const auto after_eval = statistics();
  for (size_t i = 0; i < first.size(); ++i) EXPECT_TRUE(after_eval[i].equal(first[i])) << i;

  resnet->train();
  resnet->features(images);
  const auto after_train = statistics();
  for (size_t i = 0; i < first.size(); ++i) EXPECT_FALSE(after_train[i].equal(first[i])) << i;
}

TEST(ResNet18, AFreshBlockWithoutDownsamplingAddsItsInput) {
  torch::manual_seed(2);
  BasicBlock block(4, 4, 1);
  EXPECT_TRUE(block->downsample.is_empty());
  EXPECT_FALSE(BasicBlock(4, 4, 2)->downsample.is_empty());
  EXPECT_FALSE(BasicBlock(4, 8, 1)->downsample.is_empty());
  torch::NoGradGuard no_grad;
  block->eval();
  block->bn2->weight.zero_();  // the inner path says nothing
  const Tensor x = torch::randn({2, 4, 5, 5});
  EXPECT_TRUE(block->forward(x).equal(torch::relu(x)));
}

}  // namespace
}  // namespace rep
