#pragma once

#include <torch/types.h>

#include <cstdint>

namespace rep {

/// Groups of points, each described by itself: [k, D] both, on the CPU in double precision. The
/// variance is the population's, so that of a group of one is 0.
struct Centroids {
  torch::Tensor means, variances;
};

/// k-means: Lloyd's iterations from one k-means++ start (Arthur & Vassilvitskii 2007), drawn from
/// torch's default generator. Fewer than k groups when there are fewer different points [n, D].
Centroids k_means(const torch::Tensor& points, int64_t k);

}  // namespace rep
