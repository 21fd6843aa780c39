#include "nn/query_model.h"

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "core/error.h"
#include "core/hash.h"
#include "tensor/device.h"
#include "tensor/meter.h"
#include "tensor/torch.h"

namespace rep {

QueryModel::QueryModel(std::shared_ptr<Backbone> backbone, VisionTransformer net, int64_t seed)
    : backbone_(std::move(backbone)), net_(std::move(net)) {
  if (net_.is_empty()) return;
  const int64_t d = net_->feature_dim(), D = backbone_->feature_dim();
  if (d == D) return;
  auto generator = make_generator(seed, RandomUse::kQueryProjection);
  projection_ = torch::randn({d, D}, generator).div_(std::sqrt(static_cast<double>(d)));
  projection_ = projection_.to(backbone_->parameters().front().device());
}

void QueryModel::score_patches(bool times_values, int64_t patches) {
  if (!net_.is_empty() && net_->options.num_patches() != patches) {
    throw Error("efficiency.query_backbone: it has " + std::to_string(net_->options.num_patches()) +
                " patches and the backbone " + std::to_string(patches) +
                ", so that cps cannot choose by its scores; take one with the same patches");
  }
  times_values_ = times_values;
  train_.set_patches(patches);
}

QueryAnswer QueryModel::compute(const torch::Tensor& images, bool scored) {
  const PhaseScope phase(Phase::kSelect);
  const torch::NoGradGuard no_grad;
  ForwardPlan plan;
  PatchScoreRequest request{times_values_, {}};
  if (scored) plan.patch_scores = &request;
  torch::Tensor features =
      net_.is_empty() ? backbone_->features(images, plan) : net_->features(images, plan);
  if (projection_.defined()) features = torch::mm(features, projection_);
  return {features, request.scores};
}

QueryAnswer QueryModel::cached(QueryCache& cache, const torch::Tensor& images,
                               const torch::Tensor& indices) {
  // Both at once, before the pass that the first query is for: a task's peak of bytes is then the
  // same whichever split comes first.
  if (!cache.is_made()) {
    const c10::InferenceMode off(false);  // a test's tensors could not be written to in training
    for (QueryCache* each : {&train_, &test_}) each->make(backbone_->feature_dim());
  }
  return cache.answer(images, indices, [this](const torch::Tensor& fresh, bool scored) {
    return compute(fresh, scored);
  });
}

void QueryModel::share(const std::string& folder, const std::string& train_key,
                       const std::string& test_key) {
  const auto trains = [](const torch::Tensor& p) { return p.requires_grad(); };
  const auto parameters = net_.is_empty() ? backbone_->parameters() : net_->parameters();
  if (std::any_of(parameters.begin(), parameters.end(), trains)) return;
  const auto path = [&](const std::string& key) {
    return folder + "/" + sha256_of_text(key).substr(0, 16) + ".safetensors";
  };
  train_.share(path(train_key), train_key);
  test_.share(path(test_key), test_key);
}

void QueryModel::forget() {
  train_.forget();
  test_.forget();
}

void QueryModel::keep() {
  train_.keep();
  test_.keep();
}

Json QueryModel::from_files() const {
  return {{"train", train_.from_file()}, {"test", test_.from_file()}};
}

std::vector<std::string> QueryModel::cached_splits() const {
  std::vector<std::string> splits;
  if (train_.is_made()) splits.emplace_back("train");
  if (test_.is_made()) splits.emplace_back("test");
  return splits;
}

int64_t QueryModel::carried_bytes() const {
  return projection_.defined()
             ? projection_.numel() * static_cast<int64_t>(projection_.element_size())
             : 0;
}

void QueryModel::state(State& s) {
  if (projection_.defined()) s("projection", projection_);
  train_.state(s, "train");
  test_.state(s, "test");
}

}  // namespace rep
