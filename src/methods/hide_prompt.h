#pragma once

#include <torch/types.h>

#include <cstdint>
#include <vector>

#include "methods/classifier.h"
#include "methods/feature_statistics.h"
#include "tensor/state.h"

namespace rep {

// HiDe-Prompt's parts (hide_prompt.cpp puts them together).

/// What turns a feature into logits: LayerNorm(x + W2 GELU(W1 x + b1) + b2), then a linear
/// classifier over all classes of the stream.
class MlpClassifier {
 public:
  MlpClassifier(int64_t dim, int64_t num_classes, const torch::Device& device);
  /// [B, D] -> [B, C]
  torch::Tensor logits(const torch::Tensor& features) const;
  std::vector<torch::Tensor> parameters() const;
  void state(State& s);

 private:
  torch::Tensor weight1_, bias1_, weight2_, bias2_;  // [2 D, D], [2 D], [D, 2 D], [D]
  torch::Tensor norm_weight_, norm_bias_;            // [D]
  Classifier head_;
};

/// Task-adaptive prediction: the classifier learns all `seen` classes anew from draws.
/// `steps_per_epoch` batches of `batch` draws; SGD with momentum 0.9, its rate falling by a cosine.
void align(MlpClassifier& classifier, const FeatureStatistics& statistics, int64_t seen,
           int64_t steps_per_epoch, int64_t epochs, int64_t batch, double lr);

/// Pushes features [B, D] apart from each other and from earlier centroids [n, D] (or undefined):
/// the mean cross-entropy by which every row of both finds itself, logits being inner products by
/// temperature.
torch::Tensor contrast(const torch::Tensor& centroids, const torch::Tensor& features,
                       double temperature);

/// (1 - m) own + m mean of the earlier tasks' prompts, which get no gradient.
torch::Tensor with_momentum(const std::vector<torch::Tensor>& prompts, int64_t task, double m);

/// Every image's own prompts [B, layers, 2, L, D] -> the prefixes of the layers [layers, B, 2, L,
/// D]. `published_reshape`: as the authors' code, which lays keys and values of the whole batch one
/// after the other and cuts them up anew, so that images get each other's.
torch::Tensor per_layer(const torch::Tensor& prompts, bool published_reshape);

}  // namespace rep
