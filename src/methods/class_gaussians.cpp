#include "methods/class_gaussians.h"

#include <algorithm>
#include <utility>

#include "tensor/torch.h"

namespace rep {

ClassGaussians::ClassGaussians(int64_t num_classes, int64_t dim, torch::Device device)
    : device_(device),
      means_(torch::zeros({num_classes, dim}, device)),
      factors_(static_cast<size_t>(num_classes)) {}

void ClassGaussians::fit(const torch::Tensor& features, int64_t label) {
  torch::NoGradGuard no_grad;
  const torch::Tensor x = features.to(torch::kDouble);
  const torch::Tensor mean = x.mean(0), centred = x - mean;
  const auto freedom = static_cast<double>(std::max<int64_t>(1, x.size(0) - 1));
  torch::Tensor covariance = torch::mm(centred.t(), centred).div_(freedom);
  covariance.diagonal().add_(kJitter);
  means_[label].copy_(mean);
  factors_[static_cast<size_t>(label)] =
      torch::linalg_cholesky(covariance).to(device_, torch::kFloat);
}

torch::Tensor ClassGaussians::sample(const torch::Tensor& labels, at::Generator generator) const {
  torch::NoGradGuard no_grad;
  const torch::Tensor noise =
      torch::randn({labels.size(0), means_.size(1)}, std::move(generator)).to(device_);
  torch::Tensor samples = means_.index_select(0, labels.to(device_));
  // One product a class.
  const torch::Tensor order = labels.argsort(/*dim=*/0, /*descending=*/false);
  const torch::Tensor counts = labels.bincount({}, means_.size(0));
  const int64_t* count = counts.data_ptr<int64_t>();
  int64_t first = 0;
  for (size_t label = 0; label < factors_.size(); first += count[label], ++label) {
    if (count[label] == 0) continue;
    const torch::Tensor rows = order.narrow(0, first, count[label]).to(device_);
    samples.index_add_(0, rows, torch::mm(noise.index_select(0, rows), factors_[label].t()));
  }
  return samples;
}

torch::Tensor ClassGaussians::sample(const torch::Tensor& labels) const {
  return sample(labels, at::detail::getDefaultCPUGenerator());
}

void ClassGaussians::state(State& s) {
  s("gaussian_mean", means_);
  s("gaussian_factor", factors_);
}

}  // namespace rep
