#include "methods/frozen_features.h"

#include <algorithm>

#include "tensor/torch.h"

namespace rep {

LabelledFeatures features_of(const TaskImages& images, const std::vector<Sample>& samples,
                             const std::function<torch::Tensor(const Batch&)>& feature) {
  torch::NoGradGuard no_grad;
  std::vector<torch::Tensor> features, labels;
  images.each_batch(samples, [&](const Batch& batch) {
    features.push_back(feature(batch));
    labels.push_back(batch.labels.clone());  // the loader reuses its buffers
  });
  if (features.empty()) return {};
  return {torch::cat(features), torch::cat(labels)};
}

void require_frozen(const MethodContext& context) {
  const auto parameters = context.backbone->parameters();
  if (std::any_of(parameters.begin(), parameters.end(),
                  [](const torch::Tensor& p) { return p.requires_grad(); })) {
    throw Error("backbone.trainable: " + context.options.name +
                " keeps the backbone frozen; set it to none");
  }
}

FrozenFeatures::FrozenFeatures(const MethodContext& context)
    : backbone_(context.backbone), efficiency_(context.efficiency) {
  require_frozen(context);
  backbone_->eval();
}

torch::Tensor FrozenFeatures::of(const Batch& batch, const std::vector<Adapter>& adapters,
                                 bool test) const {
  torch::NoGradGuard no_grad;
  if (adapters.empty() && !efficiency_.changes_testing() && efficiency_.query_is_feature()) {
    return test ? efficiency_.test_query(batch.images, batch.indices)
                : efficiency_.fixed_query(batch.images, batch.indices);
  }
  ForwardPlan plan = efficiency_.test_plan();
  plan.adapters = adapters;
  return backbone_->features(batch.images, plan);
}

}  // namespace rep
