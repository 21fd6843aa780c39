#include "data/device_images.h"

#include <ATen/Parallel.h>
#include <ATen/record_function.h>
#include <torch/types.h>

#include <utility>

namespace rep {
namespace {

/// To whole numbers in [0, 255], halves up, in place.
torch::Tensor to_bytes(torch::Tensor sums) { return sums.add_(0.5).floor_().clamp_(0, 255); }

}  // namespace

DeviceImages::DeviceImages(std::unique_ptr<Dataset> dataset, const torch::Device& device)
    : dataset_(std::move(dataset)) {
  const int64_t side = dataset_->side(), plane = side * side;
  TORCH_CHECK(side > 0, "DeviceImages: the images are not of one size");
  const torch::Tensor pixels = torch::empty({size(), 3, side, side}, torch::kByte);
  uint8_t* const bytes = pixels.data_ptr<uint8_t>();
  at::parallel_for(0, size(), /*grain_size=*/64, [&](int64_t first, int64_t last) {
    for (int64_t i = first; i < last; ++i) {
      const Image image = dataset_->image(i);
      TORCH_CHECK(image.height == side && image.width == side, "DeviceImages: image ", i, " is ",
                  image.height, " x ", image.width, ", not ", side, " x ", side);
      uint8_t* const red = bytes + i * 3 * plane;
      for (int64_t p = 0; p < plane; ++p) {
        for (int64_t c = 0; c < 3; ++c) {
          red[c * plane + p] = image.pixels[static_cast<size_t>(p * 3 + c)];
        }
      }
    }
  });
  pixels_ = pixels.to(device);
}

std::unique_ptr<Dataset> on_device(std::unique_ptr<Dataset> dataset, const torch::Device& device) {
  const int64_t side = dataset->side();
  if (!device.is_cuda() || side == 0 || side > kMaxSideOnDevice) return dataset;
  return std::make_unique<DeviceImages>(std::move(dataset), device);
}

torch::Tensor view_batch(const torch::Tensor& images, const torch::Tensor& indices,
                         const torch::Tensor& weights, const torch::Tensor& values) {
  const int64_t height = images.size(2), width = images.size(3);
  const int64_t batch = indices.size(0), size = weights.size(1);
  TORCH_CHECK(weights.size(0) == batch && weights.size(2) == height + width, "view_batch: ", batch,
              " images of ", height, " x ", width, ", weights ", weights.sizes());
  // The meter counts what the learner multiplies, and a picture's making is not that.
  const at::DisableRecordFunctionGuard uncounted;
  const torch::Tensor exact = weights.to(torch::kDouble).unsqueeze(1);
  const torch::Tensor down = exact.narrow(3, 0, height);
  const torch::Tensor across = exact.narrow(3, height, width).transpose(2, 3);
  const torch::Tensor whole = images.index_select(0, indices).to(torch::kDouble);
  const torch::Tensor rows = to_bytes(torch::matmul(whole, across));  // [B, 3, H, S]
  const torch::Tensor picture = to_bytes(torch::matmul(down, rows));
  return values.expand({batch, 3, 256})
      .gather(2, picture.to(torch::kLong).flatten(2))
      .view({batch, 3, size, size});
}

}  // namespace rep
