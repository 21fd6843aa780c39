#include "methods/feature_statistics.h"

#include <algorithm>

#include "methods/centroids.h"
#include "tensor/torch.h"

namespace rep {

FeatureStatistics::FeatureStatistics(const std::string& kind, int64_t centroids,
                                     int64_t num_classes, int64_t dim, const torch::Device& device)
    : kind_(kind),
      centroids_(centroids),
      device_(device),
      means_(static_cast<size_t>(num_classes)),
      variances_(static_cast<size_t>(num_classes)),
      gaussians_(kind == "covariance" ? num_classes : 0, dim, device) {}

void FeatureStatistics::fit(const torch::Tensor& features, int64_t label) {
  torch::NoGradGuard no_grad;
  const auto c = static_cast<size_t>(label);
  all_ = torch::Tensor();
  if (kind_ == "multi_centroid") {
    const Centroids groups = k_means(features, centroids_);
    means_[c] = groups.means.to(torch::kFloat);
    variances_[c] = groups.variances.to(torch::kFloat);
    return;
  }
  const torch::Tensor x = features.to(torch::kCPU, torch::kDouble);
  const torch::Tensor mean = x.mean(0, /*keepdim=*/true);
  means_[c] = mean.to(torch::kFloat);
  if (kind_ == "covariance") {
    gaussians_.fit(features, label);
  } else {
    const auto freedom = static_cast<double>(std::max<int64_t>(1, x.size(0) - 1));
    variances_[c] = ((x - mean).square().sum(0, /*keepdim=*/true) / freedom).to(torch::kFloat);
  }
}

torch::Tensor FeatureStatistics::centroids() const {
  if (!all_.defined()) {
    std::vector<torch::Tensor> known;
    for (const auto& means : means_) {
      if (means.defined()) known.push_back(means);
    }
    if (!known.empty()) all_ = torch::cat(known).to(device_);
  }
  return all_;
}

torch::Tensor FeatureStatistics::sample(const torch::Tensor& labels) const {
  torch::NoGradGuard no_grad;
  if (kind_ == "covariance") return gaussians_.sample(labels);
  // All groups one below the other, and which of these rows a class may draw from.
  std::vector<torch::Tensor> means, variances;
  std::vector<std::vector<int64_t>> rows(means_.size());
  int64_t row = 0;
  for (size_t c = 0; c < means_.size(); ++c) {
    if (!means_[c].defined()) continue;
    means.push_back(means_[c]);
    variances.push_back(variances_[c]);
    const torch::Tensor wide = variances_[c].sum(1) > 0;
    const bool any = wide.any().item<bool>();
    for (int64_t i = 0; i < means_[c].size(0); ++i, ++row) {
      if (!any || wide[i].item<bool>()) rows[c].push_back(row);
    }
  }
  const torch::Tensor choice = torch::rand({labels.size(0)}, torch::kDouble);
  torch::Tensor chosen = torch::empty({labels.size(0)}, torch::kLong);
  for (int64_t i = 0; i < labels.size(0); ++i) {
    const auto& own = rows.at(static_cast<size_t>(labels.data_ptr<int64_t>()[i]));
    TORCH_CHECK(!own.empty(), "a draw from a class that was never seen");
    const auto pick =
        static_cast<size_t>(choice.data_ptr<double>()[i] * static_cast<double>(own.size()));
    chosen.data_ptr<int64_t>()[i] = own[pick];
  }
  const torch::Tensor deviation = torch::cat(variances).add_(ClassGaussians::kJitter).sqrt_();
  const torch::Tensor noise = torch::randn({labels.size(0), deviation.size(1)});
  return torch::cat(means)
      .index_select(0, chosen)
      .addcmul_(noise, deviation.index_select(0, chosen))
      .to(device_);
}

void FeatureStatistics::state(State& s) {
  s.on_cpu("mean", means_);
  s.on_cpu("variance", variances_);
  if (kind_ == "covariance") gaussians_.state(s);
  if (s.loading()) all_ = torch::Tensor();
}

}  // namespace rep
