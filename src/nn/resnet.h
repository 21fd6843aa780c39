#pragma once

#include <torch/nn/modules/container/sequential.h>

#include <string>
#include <vector>

#include "core/registry.h"
#include "nn/backbone.h"

namespace rep {

/// Sizes of a ResNet-18 (He et al. 1512.03385).
struct ResNetOptions {
  static constexpr const char* kKind = "backbone";
  int64_t image_size = 32;
  int64_t width = 64;  // channels of the first stage; the others have 2, 4 and 8 times as many
  std::string stem = "auto";  // cifar: 3x3, stride 1; imagenet: 7x7, stride 2, and pooling; auto:
                              // by image size, cifar up to 64 pixels
  bool cifar_stem() const { return stem == "auto" ? image_size <= 64 : stem == "cifar"; }
};

/// Two 3x3 convolutions with batch norm and a shortcut; torchvision's names.
struct BasicBlockImpl : torch::nn::Module {
  BasicBlockImpl(int64_t in, int64_t out, int64_t stride);
  torch::Tensor forward(const torch::Tensor& x);
  torch::nn::Conv2d conv1{nullptr}, conv2{nullptr};
  torch::nn::BatchNorm2d bn1{nullptr}, bn2{nullptr};
  torch::nn::Sequential downsample{nullptr};  // empty where the shapes agree
};
TORCH_MODULE(BasicBlock);

/// ResNet-18, for the families that train a whole network from scratch: batch norm follows the
/// batch while train() is on. Its "blocks", for train_last_blocks, are the four stages.
class ResNet18Impl : public Backbone {
 public:
  explicit ResNet18Impl(const ResNetOptions& options);
  using Backbone::features;
  torch::Tensor features(const torch::Tensor& images, const ForwardPlan& plan) override;
  int64_t feature_dim() const override { return 8 * options.width; }
  int64_t image_size() const override { return options.image_size; }
  int64_t depth() const override { return kStages; }
  void train_last_blocks(int64_t blocks) override;
  /// Two where the last stage's maps have one pixel: batch norm has nothing to normalise one value
  /// with.
  int64_t min_training_batch() const override;

  static constexpr int64_t kStages = 4;
  const ResNetOptions options;

 private:
  torch::nn::Conv2d conv1{nullptr};
  torch::nn::BatchNorm2d bn1{nullptr};
  std::vector<torch::nn::Sequential> stages_;
};
TORCH_MODULE(ResNet18);

}  // namespace rep
