// ResNet-18 (He et al., arXiv 1512.03385), with torchvision's names and initialisation.
// The idea in three lines: a stem, four stages of two residual blocks, each stage at half the
// resolution and twice the channels of the one before, and the mean over all positions as feature.
// Differs from torchvision: the stem of small images is the 3x3 convolution without pooling that
// continual-learning code uses on CIFAR, and the width is free.
#include "nn/resnet.h"

#include <torch/nn/init.h>

#include <algorithm>

#include "core/error.h"

namespace rep {

namespace {

torch::nn::Conv2d convolution(int64_t in, int64_t out, int64_t kernel, int64_t stride) {
  return torch::nn::Conv2d(
      torch::nn::Conv2dOptions(in, out, kernel).stride(stride).padding(kernel / 2).bias(false));
}

const Registered<ResNetOptions> kResNet18{
    "resnet18", "He et al. 2016 (arXiv 1512.03385), with the 3x3 stem on small images", {}};

ResNetOptions resnet_options_of(const BackboneConfig& config) {
  ResNetOptions options = Registry<ResNetOptions>::get().at(config.name).value;
  if (config.image_size > 0) options.image_size = config.image_size;
  options.width = config.width;
  options.stem = config.stem;
  return options;
}

std::shared_ptr<Backbone> make_resnet(const BackboneConfig& config, Json* inputs,
                                      bool /*in_bf16*/) {
  if (config.weights != "random") {
    throw Error("backbone.weights: " + config.name +
                " is trained from scratch; set weights: random and trainable: all");
  }
  auto resnet = std::make_shared<ResNet18Impl>(resnet_options_of(config));
  const int64_t blocks = trainable_blocks(config, resnet->depth());
  resnet->train_last_blocks(blocks);
  *inputs = {{"path", "random"}};
  if (blocks < resnet->depth()) {
    (*inputs)["warning"] =
        "the backbone is not pre-trained: accuracies say nothing about the method";
  }
  return resnet;
}

const Registered<BackboneFamily> kResNets{
    "resnet",
    "",
    {members_of<ResNetOptions>, [](const BackboneConfig&) { return ResNet18Impl::kStages; },
     [](const BackboneConfig& config) { return resnet_options_of(config).image_size; }, make_resnet,
     /*has_tokens=*/false}};

}  // namespace

BasicBlockImpl::BasicBlockImpl(int64_t in, int64_t out, int64_t stride) {
  conv1 = register_module("conv1", convolution(in, out, 3, stride));
  bn1 = register_module("bn1", torch::nn::BatchNorm2d(out));
  conv2 = register_module("conv2", convolution(out, out, 3, 1));
  bn2 = register_module("bn2", torch::nn::BatchNorm2d(out));
  if (stride == 1 && in == out) return;
  downsample = register_module("downsample", torch::nn::Sequential(convolution(in, out, 1, stride),
                                                                   torch::nn::BatchNorm2d(out)));
}

torch::Tensor BasicBlockImpl::forward(const torch::Tensor& x) {
  const torch::Tensor shortcut = downsample.is_empty() ? x : downsample->forward(x);
  const torch::Tensor inner = torch::relu(bn1->forward(conv1->forward(x)));
  return torch::relu(bn2->forward(conv2->forward(inner)) + shortcut);
}

ResNet18Impl::ResNet18Impl(const ResNetOptions& options_) : options(options_) {
  const bool small = options.cifar_stem();
  conv1 = register_module("conv1", convolution(3, options.width, small ? 3 : 7, small ? 1 : 2));
  bn1 = register_module("bn1", torch::nn::BatchNorm2d(options.width));
  int64_t channels = options.width;
  for (int64_t stage = 0; stage < kStages; ++stage) {
    const int64_t out = options.width << stage;
    stages_.push_back(
        register_module("layer" + std::to_string(stage + 1),
                        torch::nn::Sequential(BasicBlock(channels, out, stage == 0 ? 1 : 2),
                                              BasicBlock(out, out, 1))));
    channels = out;
  }
  torch::NoGradGuard no_grad;
  for (auto& item : named_parameters()) {
    if (item.value().dim() == 4) {
      torch::nn::init::kaiming_normal_(item.value(), 0, torch::kFanOut, torch::kReLU);
    }
  }
}

torch::Tensor ResNet18Impl::features(const torch::Tensor& images, const ForwardPlan&) {
  if (images.size(0) == 1 && is_training() && min_training_batch() > 1) {
    throw Error(
        "backbone: batch norm cannot learn from a batch of one image; take another "
        "train.batch_size, or train.drop_last: true");
  }
  torch::Tensor x = torch::relu(bn1->forward(conv1->forward(images)));
  if (!options.cifar_stem()) x = torch::max_pool2d(x, 3, 2, 1);
  for (auto& stage : stages_) x = stage->forward(x);
  return x.mean({2, 3});
}

int64_t ResNet18Impl::min_training_batch() const {
  int64_t side = options.image_size;
  for (int halvings = options.cifar_stem() ? 3 : 5; halvings > 0; --halvings) side = (side + 1) / 2;
  const auto all = parameters();
  const bool trains =
      std::any_of(all.begin(), all.end(), [](const torch::Tensor& p) { return p.requires_grad(); });
  return trains && side == 1 ? 2 : 1;
}

void ResNet18Impl::train_last_blocks(int64_t count) {
  for (auto& parameter : parameters()) parameter.set_requires_grad(count >= depth());
  for (int64_t i = std::max<int64_t>(0, depth() - count); i < depth(); ++i) {
    for (auto& parameter : stages_[static_cast<size_t>(i)]->parameters()) {
      parameter.set_requires_grad(true);
    }
  }
}

}  // namespace rep
