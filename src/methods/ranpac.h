#pragma once

#include <torch/types.h>

#include <cstdint>
#include <vector>

#include "tensor/state.h"

namespace rep {

/// Ridge regression from features to one-hot labels, out of running sums over all images:
///   G = sum h h^T, Q = sum h y^T, W_o = (G + lambda I)^-1 Q.
/// The sums are float, as large as they are: M x M; what is solved is double.
class RidgeClassifier {
 public:
  RidgeClassifier(int64_t dim, int64_t num_classes, torch::Device device);
  /// Features [n, M] and their labels int64 [n] enter the sums. Throws Error where features
  /// are not finite.
  void add(const torch::Tensor& features, const torch::Tensor& labels);
  /// W_o for `lambda`, by Cholesky in double precision: G's eigenvalues span more than float's
  /// seven digits. Where rounding in the sums leaves G + lambda I not positive definite, lambda is
  /// raised tenfold until it is. Returns the lambda taken. Throws Error where none could help.
  double solve(double lambda);
  /// h W_o, [B, C]; -inf for a class without images, which has no column in Q.
  torch::Tensor logits(const torch::Tensor& features) const;
  void state(State& s);

  const torch::Tensor& gram() const { return gram_; }
  const torch::Tensor& prototypes() const { return prototypes_; }
  const torch::Tensor& weight() const { return weight_; }

 private:
  torch::Tensor gram_, prototypes_, weight_;  // G [M, M], Q [M, C], W_o [M, C]
};

/// 1e-8, 1e-7, ..., 1e8.
std::vector<double> ridge_candidates();

/// For every lambda the mean squared error, on the validation part, of ridge regression fitted to
/// the other part; infinite where the system is singular to double precision. One
/// eigendecomposition serves all lambdas: of H^T H [M, M] or, when there are fewer images n than
/// features M, of H H^T [n, n], since (H^T H + lambda I)^-1 H^T = H^T (H H^T + lambda I)^-1: the
/// same numbers for (n/M)^3 of the work.
std::vector<double> ridge_losses(const torch::Tensor& fit, const torch::Tensor& fit_targets,
                                 const torch::Tensor& validation,
                                 const torch::Tensor& validation_targets,
                                 const std::vector<double>& lambdas);

}  // namespace rep
