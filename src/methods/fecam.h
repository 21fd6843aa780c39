#pragma once

#include <torch/types.h>

#include <cstdint>
#include <string>
#include <vector>

#include "core/fields.h"
#include "tensor/state.h"

namespace rep {

struct FecamOptions {
  std::string form = "vit";
  std::string covariance = "full";
  double alpha1 = 1, alpha2 = 0;
  int64_t shrink_times = 1;
  bool correlation = true;
  double tukey = 1;
  template <class Visitor>
  void fields(Visitor&& visit) {
    visit("form", form, one_of({"vit", "resnet", "pilot"}),
          doc("Order of normalising features and taking statistics. vit: normalised first; resnet: "
              "last; pilot: as LAMDA-PILOT, without its adapter."));
    visit("covariance", covariance, one_of({"full", "diagonal", "common", "none"}),
          doc("Covariances: a full one or the variances for each class, one common to all, or "
              "none."));
    visit("alpha1", alpha1, at_least(0), doc("Shrinkage by the mean variance."));
    visit("alpha2", alpha2, at_least(0), doc("Shrinkage by the mean covariance."));
    visit("shrink_times", shrink_times, between(0, 2),
          doc("How often a covariance is shrunk; the authors' ResNet form does it twice."));
    visit("correlation", correlation, doc("Normalise a class's covariance to a correlation."));
    visit("tukey", tukey, between(0, 1),
          doc("Power of Tukey's transformation of features; 0: the logarithm; 1: none."));
  }
};

/// FeCAM's classes: a mean each and the matrix M that its distance is measured with,
///   d_c(x) = (x' - mu_c)^T M_c^-1 (x' - mu_c).
/// What is kept of M is W with M^-1 = W^T W, so that d = |W (x' - mu)|^2.
class MahalanobisClasses {
 public:
  /// Throws Error where options contradict each other.
  MahalanobisClasses(const FecamOptions& options, int64_t num_classes, int64_t dim,
                     torch::Device device);

  /// A task's features [n, D] and their labels, of classes [first, last): those without an image
  /// stay unknown. A class of images that are all alike has no covariance: M is the identity.
  /// Throws Error where a feature cannot be transformed or a matrix has no inverse.
  void fit(const torch::Tensor& features, const torch::Tensor& labels, int64_t first, int64_t last);
  /// d [B, C], double; infinite for unknown classes.
  torch::Tensor distances(const torch::Tensor& features) const;
  void state(State& s);

  const torch::Tensor& means() const { return means_; }    // [C, D], double
  const torch::Tensor& common() const { return common_; }  // [D, D], double

 private:
  torch::Tensor transformed(const torch::Tensor& x) const;
  torch::Tensor mean_of(const torch::Tensor& own) const;
  torch::Tensor statistics_of(const torch::Tensor& x) const;
  torch::Tensor matrix_of(const torch::Tensor& own, int64_t label) const;
  void fit_common(const torch::Tensor& x, double old_classes, double new_classes);

  FecamOptions options_;
  torch::Tensor means_;                 // [C, D], double
  torch::Tensor known_;                 // bool [C]
  std::vector<torch::Tensor> factors_;  // W of a class: [D, D], or [D] of a diagonal one; undefined
  torch::Tensor common_, common_factor_;
};

/// C + alpha1 mean(diag C) I + alpha2 mean(off-diagonal C) (1 - I); exact zeros are left out of the
/// mean over what is off the diagonal.
torch::Tensor shrunk(const torch::Tensor& covariance, double alpha1, double alpha2);

/// C_ij / sqrt(C_ii C_jj).
torch::Tensor correlation_of(const torch::Tensor& covariance);

}  // namespace rep
