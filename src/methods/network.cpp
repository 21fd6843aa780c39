#include "methods/network.h"

#include <algorithm>
#include <cmath>

#include "tensor/torch.h"

namespace rep {

Network::Network(const MethodContext& context, const NetworkOptions& options, Classifier::Init init)
    : backbone_(context.backbone),
      efficiency_(context.efficiency),
      hidden_(options.hidden),
      head_(options.hidden > 0 ? options.hidden : context.backbone->feature_dim(),
            context.num_classes, context.device, init) {
  if (hidden_ > 0) {
    const int64_t D = backbone_->feature_dim();
    hidden_weight_ = torch::empty({hidden_, D}, context.device).set_requires_grad(true);
    hidden_bias_ = torch::empty({hidden_}, context.device).set_requires_grad(true);
  }
  for (const auto& parameter : backbone_->parameters()) {
    if (parameter.requires_grad()) trained_backbone_.push_back(parameter);
  }
  draw_hidden();
}

void Network::draw_hidden() {
  if (hidden_ == 0) return;
  torch::NoGradGuard no_grad;  // torch.nn.Linear's initialisation
  const double bound = 1 / std::sqrt(static_cast<double>(backbone_->feature_dim()));
  hidden_weight_.copy_((torch::rand(hidden_weight_.sizes()) * 2 - 1) * bound);
  hidden_bias_.copy_((torch::rand(hidden_bias_.sizes()) * 2 - 1) * bound);
}

void Network::reset(const std::vector<torch::Tensor>& first_values) {
  set_values(first_values);
  head_.reset();
  draw_hidden();
}

void Network::set_values(const std::vector<torch::Tensor>& other) {
  torch::NoGradGuard no_grad;
  const auto own = values();
  TORCH_CHECK(own.size() == other.size(), "a copy of another network");
  for (size_t i = 0; i < own.size(); ++i) torch::Tensor(own[i]).copy_(other[i]);
}

Network::Input Network::train_input(const Batch& batch) {
  if (!frozen()) {
    return {batch.images, efficiency_.train_plan(batch.images, batch.indices),
            /*training=*/!efficiency_.head_only()};
  }
  const ForwardPlan plan = efficiency_.train_plan(batch.images, batch.indices);
  if (!efficiency_.changes_training() && efficiency_.query_is_feature()) {
    return {efficiency_.train_query(batch.images, batch.indices), {}, true};
  }
  torch::NoGradGuard no_grad;
  return {backbone_->features(batch.images, plan), {}, true};
}

Network::Input Network::fixed_input(const Batch& batch) {
  if (!frozen()) return {batch.images, {}, false};
  if (efficiency_.query_is_feature()) {
    return {efficiency_.fixed_query(batch.images, batch.indices), {}, false};
  }
  torch::NoGradGuard no_grad;
  return {backbone_->features(batch.images), {}, false};
}

Network::Input Network::test_input(const Batch& batch) {
  if (!frozen()) return {batch.images, efficiency_.test_plan(), false};
  if (!efficiency_.changes_testing() && efficiency_.query_is_feature()) {
    return {efficiency_.test_query(batch.images, batch.indices), {}, false};
  }
  torch::NoGradGuard no_grad;
  return {backbone_->features(batch.images, efficiency_.test_plan()), {}, false};
}

torch::Tensor Network::features(const Input& input) {
  torch::Tensor x = input.x;
  if (!frozen()) {
    backbone_->train(input.training);
    x = backbone_->features(x, input.plan);
  }
  return hidden_ > 0 ? torch::relu(torch::linear(x, hidden_weight_, hidden_bias_)) : x;
}

std::vector<torch::Tensor> Network::parameters() const {
  std::vector<torch::Tensor> all = head_parameters();
  all.insert(all.end(), trained_backbone_.begin(), trained_backbone_.end());
  return all;
}

std::vector<TrainedRows> Network::trained_rows(const ClassRange& classes) const {
  std::vector<TrainedRows> rows = classes.rows();  // the head's parameters come first
  rows.resize(parameters().size());
  return rows;
}

std::vector<torch::Tensor> Network::head_parameters() const {
  std::vector<torch::Tensor> own = head_.parameters();
  if (hidden_ > 0) own.insert(own.end(), {hidden_weight_, hidden_bias_});
  return own;
}

std::vector<torch::Tensor> Network::values() const {
  std::vector<torch::Tensor> all = parameters();
  if (frozen()) return all;
  for (const auto& buffer : backbone_->buffers()) all.push_back(buffer);
  return all;
}

std::vector<torch::Tensor> Network::copy_values() const {
  std::vector<torch::Tensor> copies;
  for (const auto& value : values()) copies.push_back(value.detach().clone());
  return copies;
}

Network::Exchange::Exchange(Network& network, const std::vector<torch::Tensor>& values)
    : targets(network.values()) {
  TORCH_CHECK(values.size() == targets.size(), "a copy of another network");
  for (size_t i = 0; i < targets.size(); ++i) {
    own.push_back(targets[i].variable_data());
    targets[i].set_data(values[i]);
  }
}

Network::Exchange::~Exchange() {
  for (size_t i = 0; i < targets.size(); ++i) targets[i].set_data(own[i]);
}

void Network::state(State& s) {
  head_.state(s);
  if (hidden_ > 0) {
    s("hidden.weight", hidden_weight_);
    s("hidden.bias", hidden_bias_);
  }
  if (frozen()) return;
  for (auto& item : backbone_->named_parameters()) {
    // Not by requires_grad: a phase may be under way in which the backbone rests.
    const bool trains =
        std::any_of(trained_backbone_.begin(), trained_backbone_.end(),
                    [&](const torch::Tensor& trained) { return trained.is_same(item.value()); });
    if (trains) s("backbone." + item.key(), item.value());
  }
  for (auto& item : backbone_->named_buffers()) s("backbone." + item.key(), item.value());
}

Batch joined(const Batch& a, const Batch& b) {
  if (b.size() == 0) return a;
  return {torch::cat({a.images, b.images}), torch::cat({a.labels, b.labels}),
          torch::cat({a.indices, b.indices})};
}

}  // namespace rep
