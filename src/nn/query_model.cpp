#include "nn/query_model.h"

#include <cmath>

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

torch::Tensor QueryModel::compute(const torch::Tensor& images) {
  const PhaseScope phase(Phase::kSelect);
  const torch::NoGradGuard no_grad;
  if (net_.is_empty()) return backbone_->features(images);
  const torch::Tensor features = net_->features(images);
  return projection_.defined() ? torch::mm(features, projection_) : features;
}

// Both at once, before the pass that the first query is for: a task's peak of bytes is then the
// same whichever split comes first.
void QueryModel::make_caches() {
  const c10::InferenceMode off(false);  // a test's tensors could not be written to in training
  for (Cache* cache : {&train_, &test_}) {
    if (cache->images == 0 || cache->known.defined()) continue;
    cache->queries = torch::zeros({cache->images, backbone_->feature_dim()});
    cache->known = torch::zeros({cache->images}, torch::kBool);
  }
}

torch::Tensor QueryModel::cached(Cache& cache, const torch::Tensor& images,
                                 const torch::Tensor& indices) {
  make_caches();
  const bool room = indices.numel() > 0 && indices.max().item<int64_t>() < cache.images;
  if (!room) return compute(images);
  const torch::Tensor rows =
      cache.known.index_select(0, indices).logical_not().nonzero().squeeze(1);
  if (rows.numel() > 0) {
    const bool all = rows.numel() == indices.numel();
    const torch::Tensor fresh = all ? images : images.index_select(0, rows.to(images.device()));
    const torch::Tensor positions = indices.index_select(0, rows);
    cache.queries.index_copy_(0, positions, compute(fresh).cpu());
    cache.known.index_fill_(0, positions, true);
  }
  return cache.queries.index_select(0, indices).to(images.device());
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
  s.on_cpu("train_queries", train_.queries);
  s.on_cpu("train_known", train_.known);
  s.on_cpu("test_queries", test_.queries);
  s.on_cpu("test_known", test_.known);
}

}  // namespace rep
