#include "nn/query_model.h"

#include <cmath>
#include <string>
#include <vector>

#include "core/error.h"
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
  train_.patches = patches;
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

// Both at once, before the pass that the first query is for: a task's peak of bytes is then the
// same whichever split comes first.
void QueryModel::make_caches() {
  const c10::InferenceMode off(false);  // a test's tensors could not be written to in training
  for (Cache* cache : {&train_, &test_}) {
    if (cache->images == 0 || cache->known.defined()) continue;
    cache->queries = torch::zeros({cache->images, backbone_->feature_dim()});
    cache->known = torch::zeros({cache->images}, torch::kBool);
    if (cache->patches > 0) cache->scores = torch::zeros({cache->images, cache->patches});
  }
}

// A run that goes on (rep learn) has images behind those whose queries it brought along.
void QueryModel::fit_to_images(Cache& cache) {
  if (!cache.known.defined() || cache.known.size(0) >= cache.images) return;
  for (torch::Tensor* rows : {&cache.queries, &cache.known, &cache.scores}) {
    if (!rows->defined()) continue;
    std::vector<int64_t> more = rows->sizes().vec();
    more[0] = cache.images - more[0];
    *rows = torch::cat({*rows, torch::zeros(more, rows->options())});
  }
}

QueryAnswer QueryModel::cached(Cache& cache, const torch::Tensor& images,
                               const torch::Tensor& indices) {
  make_caches();
  const bool room = indices.numel() > 0 && indices.max().item<int64_t>() < cache.images;
  const bool scored = cache.patches > 0;
  if (!room) return compute(images, scored);
  const torch::Tensor rows =
      cache.known.index_select(0, indices).logical_not().nonzero().squeeze(1);
  if (rows.numel() > 0) {
    const bool all = rows.numel() == indices.numel();
    const torch::Tensor fresh = all ? images : images.index_select(0, rows.to(images.device()));
    const torch::Tensor positions = indices.index_select(0, rows);
    const QueryAnswer answer = compute(fresh, scored);
    cache.queries.index_copy_(0, positions, answer.queries.cpu());
    if (scored) cache.scores.index_copy_(0, positions, answer.patch_scores.cpu());
    cache.known.index_fill_(0, positions, true);
  }
  const auto recalled = [&](const torch::Tensor& all) {
    return all.defined() ? all.index_select(0, indices).to(images.device()) : all;
  };
  return {recalled(cache.queries), recalled(cache.scores)};
}

std::vector<std::string> QueryModel::cached_splits() const {
  std::vector<std::string> splits;
  if (train_.known.defined()) splits.emplace_back("train");
  if (test_.known.defined()) splits.emplace_back("test");
  return splits;
}

int64_t QueryModel::carried_bytes() const {
  return projection_.defined()
             ? projection_.numel() * static_cast<int64_t>(projection_.element_size())
             : 0;
}

void QueryModel::state(State& s) {
  if (projection_.defined()) s("projection", projection_);
  const auto is_wanted = [&](const Cache& cache) { return !s.loading() || cache.images > 0; };
  if (is_wanted(train_)) {
    s.on_cpu("train_queries", train_.queries);
    s.on_cpu("train_known", train_.known);
    s.on_cpu("train_scores", train_.scores);
  }
  if (is_wanted(test_)) {
    s.on_cpu("test_queries", test_.queries);
    s.on_cpu("test_known", test_.known);
  }
  if (!s.loading()) return;
  for (Cache* cache : {&train_, &test_}) fit_to_images(*cache);
}

}  // namespace rep
