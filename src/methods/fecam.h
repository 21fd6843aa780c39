#pragma once

#include <torch/types.h>

#include <cstdint>
#include <string>
#include <vector>

#include "core/fields.h"
#include "tensor/state.h"

namespace rep {

struct FecamOptions {
  std::string form = "vit";         // vit: features normalised first, and the mean of those;
                                    // resnet: statistics of features, normalised last; pilot:
                                    // LAMDA-PILOT's
  std::string covariance = "full";  // full | diagonal: a class each; common: one, running; none
  double alpha1 = 1, alpha2 = 0;    // shrinkage: of the mean variance and of the mean covariance
  int64_t shrink_times = 1;         // the authors' ResNet form shrinks twice
  bool correlation = true;          // normalise a class's covariance to a correlation
  double tukey = 1;                 // lambda of Tukey's ladder, x^lambda; 0: log x; 1: none
  template <class Visitor>
  void fields(Visitor&& visit) {
    visit("form", form, one_of({"vit", "resnet", "pilot"}));
    visit("covariance", covariance, one_of({"full", "diagonal", "common", "none"}));
    visit("alpha1", alpha1, at_least(0));
    visit("alpha2", alpha2, at_least(0));
    visit("shrink_times", shrink_times, between(0, 2));
    visit("correlation", correlation);
    visit("tukey", tukey, between(0, 1));
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
