#pragma once

#include <torch/types.h>

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

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
    return cached(train_, images, indices);
  }
  torch::Tensor test_query(const torch::Tensor& images, const torch::Tensor& indices) {
    return cached(test_, images, indices);
  }
  /// Whether the backbone itself answers, so that a query is its plain feature.
  bool is_backbone() const { return net_.is_empty(); }

  /// Caches the queries of that many images of a split, from the first query that a method asks
  /// for. Training images only where the pipeline gives every one of them a single view.
  void cache_train(int64_t images) { train_.images = images; }
  void cache_test(int64_t images) { test_.images = images; }
  bool caches_train() const { return train_.images > 0; }
  /// "train", "test": whose queries were cached so far.
  std::vector<std::string> cached_splits() const;

  /// Bytes that learning carries from task to task: the projection's. A cache is none of them: it
  /// saves time and changes nothing.
  int64_t carried_bytes() const;
  void state(State& s);

 private:
  struct Cache {
    int64_t images = 0;            // room for; 0: nothing is cached
    torch::Tensor queries, known;  // float [images, D], bool [images], on the CPU
  };
  torch::Tensor compute(const torch::Tensor& images);
  torch::Tensor cached(Cache& cache, const torch::Tensor& images, const torch::Tensor& indices);
  void make_caches();

  std::shared_ptr<Backbone> backbone_;
  VisionTransformer net_{nullptr};
  torch::Tensor projection_;  // [d, D] or undefined
  Cache train_, test_;
};

}  // namespace rep
