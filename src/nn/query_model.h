#pragma once

#include <torch/types.h>

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "core/json.h"
#include "nn/query_cache.h"
#include "nn/vit.h"
#include "tensor/state.h"

namespace rep {

/// q(x), which selects prompts: the [CLS] feature of a small query model of its own (REP's swift
/// prompt selection), projected to the backbone's width by a fixed random N(0, 1/d) matrix where
/// the widths differ; or else the backbone's feature itself.
class QueryModel {
 public:
  /// `net` may be empty: then the backbone answers. `seed` draws the projection.
  QueryModel(std::shared_ptr<Backbone> backbone, VisionTransformer net, int64_t seed);

  /// [B, D], no gradient. Where the split is cached, an image's query is computed once a run:
  /// exact, since the model is frozen and those images never change. `indices`: their positions in
  /// the split's data set, int64 [B] on the CPU; those behind its end (a buffer's) are not cached.
  torch::Tensor train_query(const torch::Tensor& images, const torch::Tensor& indices) {
    return cached(train_, images, indices).queries;
  }
  torch::Tensor test_query(const torch::Tensor& images, const torch::Tensor& indices) {
    return cached(test_, images, indices).queries;
  }
  /// From now on training images' query passes tell their patches' scores, too, with values' norms
  /// as a factor or without. Throws Error where the net has other patches than the backbone's
  /// `patches`.
  void score_patches(bool times_values, int64_t patches);
  QueryAnswer train_answer(const torch::Tensor& images, const torch::Tensor& indices) {
    return cached(train_, images, indices);
  }
  /// Whether the backbone itself answers, so that a query is its plain feature.
  bool is_backbone() const { return net_.is_empty(); }

  /// Caches the queries of that many images of a split, from the first query that a method asks
  /// for. Training images only where the pipeline gives every one of them a single view.
  void cache_train(int64_t images) { train_.set_images(images); }
  void cache_test(int64_t images) { test_.set_images(images); }
  bool caches_train() const { return train_.images() > 0; }
  /// "train", "test": whose queries were cached so far.
  std::vector<std::string> cached_splits() const;
  /// Shares both caches with other runs by files in `folder` (QueryCache::share), named after the
  /// keys, which say all that queries follow from. No effect where the model trains.
  void share(const std::string& folder, const std::string& train_key, const std::string& test_key);
  /// Adds what this run computed to the files. Throws Error.
  void keep();
  /// Forgets every query, as when images have another view from now on.
  void forget();
  /// How many images' queries came from files, in all: {"train", "test"}.
  Json from_files() const;

  /// Bytes that learning carries from task to task: the projection's. A cache is none of them: it
  /// saves time and changes nothing.
  int64_t carried_bytes() const;
  void state(State& s);

 private:
  QueryAnswer compute(const torch::Tensor& images, bool scored);
  QueryAnswer cached(QueryCache& cache, const torch::Tensor& images, const torch::Tensor& indices);

  std::shared_ptr<Backbone> backbone_;
  VisionTransformer net_{nullptr};
  torch::Tensor projection_;  // [d, D] or undefined
  QueryCache train_, test_;
  bool times_values_ = true;
};

}  // namespace rep
