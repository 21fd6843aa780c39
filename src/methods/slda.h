#pragma once

#include <torch/types.h>

#include <cstdint>

#include "tensor/state.h"

namespace rep {

/// Streaming linear discriminant analysis: running class means, and one running covariance of what
/// is left when each image's own class mean, as it was before that image, is taken away. All in
/// double precision.
class StreamingLda {
 public:
  StreamingLda(int64_t num_classes, int64_t dim, bool skip_first, torch::Device device);

  /// Learns features [n, D] with labels int64 [n] one after the other in their order:
  ///   delta = x - mu_y;  Sigma := (k Sigma + k/(k+1) delta delta^T) / (k+1);
  ///   mu_y := mu_y + delta/(c_y+1);  c_y += 1;  k += 1
  /// With S = k Sigma that is S := S + k/(k+1) delta delta^T, so that all n images are one weighted
  /// product: the same numbers up to rounding. `skip_first`: a class's first image, whose delta is
  /// the whole feature because its mean is still 0, counts but does not enter the covariance.
  void update(const torch::Tensor& features, const torch::Tensor& labels);

  /// Starts from a batch at once: its class means, and the covariance of what is left of it with
  /// oracle approximating shrinkage (Chen et al. 2010).
  void start(const torch::Tensor& features, const torch::Tensor& labels);

  /// The classifier of the moment, for scores(): weights from the solution of
  /// ((1 - shrinkage) Sigma + shrinkage I) W = means^T.
  void solve(double shrinkage);
  /// x W - 1/2 mu^T W, [B, C]; -inf for a class never seen, whose score would be exactly 0.
  torch::Tensor scores(const torch::Tensor& features) const;

  const torch::Tensor& means() const { return means_; }
  torch::Tensor covariance() const { return scatter_ / static_cast<double>(seen_ > 0 ? seen_ : 1); }
  int64_t seen() const { return seen_; }
  /// The sums; solve() afterwards.
  void state(State& s);

 private:
  bool skip_first_;
  int64_t seen_ = 0;              // k, images of all classes
  torch::Tensor means_, counts_;  // [C, D], [C]
  torch::Tensor scatter_;         // S [D, D]
  torch::Tensor weight_, bias_;   // [D, C], [C]
};

}  // namespace rep
