#pragma once

#include <torch/types.h>

#include <cstdint>

namespace rep {

/// Prompt selection by key, as L2P and DualPrompt do it.
struct KeyMatch {
  torch::Tensor cosine;  // [B, M], with a gradient to the keys
  torch::Tensor ids;     // int64 [B, top_k]: the nearest keys' rows

  /// The sum over batch and the given rows [B, k] of their cosine with the query, by batch size:
  /// what pulls keys towards queries.
  torch::Tensor pull(const torch::Tensor& rows) const;
};

/// Cosine of query [B, D] with keys [M, D], and the top_k rows of each image; with `batchwise` the
/// rows chosen most often over the batch, for every image alike (the published code's CIFAR-100
/// setting).
KeyMatch match_keys(const torch::Tensor& query, const torch::Tensor& keys, int64_t top_k,
                    bool batchwise);

}  // namespace rep
