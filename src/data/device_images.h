#pragma once

#include <torch/types.h>

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "data/dataset.h"

namespace rep {

/// What is kept on a device: a CIFAR data set is 150 MB, one of photographs would fill it.
constexpr int64_t kMaxSideOnDevice = 64;

/// A data set whose images also lie on a device, where the loader makes views a batch at a time.
class DeviceImages final : public Dataset {
 public:
  /// Of a `dataset` that has a side(). Throws what its image() throws.
  DeviceImages(std::unique_ptr<Dataset> dataset, const torch::Device& device);
  const torch::Tensor& pixels() const { return pixels_; }  // uint8 [size, 3, side, side]

  const std::vector<int64_t>& labels() const override { return dataset_->labels(); }
  const std::vector<std::string>& class_names() const override { return dataset_->class_names(); }
  std::vector<bool> sequence_starts() const override { return dataset_->sequence_starts(); }
  std::vector<int64_t> domains() const override { return dataset_->domains(); }
  std::vector<std::string> domain_names() const override { return dataset_->domain_names(); }
  int64_t side() const override { return dataset_->side(); }
  std::string path(int64_t index) const override { return dataset_->path(index); }
  int64_t stored_bytes(int64_t index) const override { return dataset_->stored_bytes(index); }
  Image image(int64_t index) const override { return dataset_->image(index); }
  void part(int64_t index, const Wanted& wanted, ImagePart& out) const override {
    dataset_->part(index, wanted, out);
  }
  std::string fingerprint() const override { return dataset_->fingerprint(); }
  std::string fingerprint_of(const std::vector<int64_t>& images,
                             const std::string& choice) const override {
    return dataset_->fingerprint_of(images, choice);
  }
  std::vector<std::string> notes() const override { return dataset_->notes(); }

 private:
  std::unique_ptr<Dataset> dataset_;
  torch::Tensor pixels_;
};

/// For learning on that device: as DeviceImages where that is a GPU and the images are squares of
/// one size, at most kMaxSideOnDevice.
std::unique_ptr<Dataset> on_device(std::unique_ptr<Dataset> dataset, const torch::Device& device);

/// The network's input [B, 3, S, S] of images[indices], in the bits of Transform::apply(): two
/// matrix products an image, each rounded to bytes as Pillow does. All tensors lie on one device,
/// for which the host does not wait.
///   images   uint8 [n, 3, H, W]
///   indices  int64 [B]
///   weights  float [B, S, H + W], an image's as Transform::weigh() writes them
///   values   float [3, 256], Transform::values()
torch::Tensor view_batch(const torch::Tensor& images, const torch::Tensor& indices,
                         const torch::Tensor& weights, const torch::Tensor& values);

}  // namespace rep
