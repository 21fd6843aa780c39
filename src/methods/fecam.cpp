// FeCAM: exploiting the heterogeneity of class distributions in exemplar-free continual learning
// (Goswami et al., arXiv 2309.14062). The idea in three lines: a class is the mean and the
// covariance of its frozen features; covariances are shrunk, and normalised to correlations so that
// distances to different classes compare; an image gets the class with the smallest Mahalanobis
// distance. Differs from the authors' code (dipamgoswami/FeCAM d2479b7): each class is factorised
// once, not inverted at every test, and keeps that factor; the common covariance, too, is of images
// in their fixed view; in the ResNet form the first task is no exception (theirs takes a trained
// head for its means). Of LAMDA-PILOT's form (`form: pilot`) only the classifier is here: theirs
// first trains an adapter on task 0. Its ridge makes its matrices nearly the identity.
#include "methods/fecam.h"

#include <algorithm>
#include <limits>

#include "core/error.h"
#include "methods/cosine_head.h"
#include "methods/frozen_features.h"
#include "methods/method.h"
#include "tensor/torch.h"

namespace rep {

namespace {

using torch::Tensor;

constexpr double kPilotRidge = 100;  // LAMDA-PILOT 2647455, models/fecam.py

Tensor covariance_of(const Tensor& x) {
  const Tensor centred = x - x.mean(0);
  return torch::mm(centred.t(), centred) / std::max<double>(1, static_cast<double>(x.size(0) - 1));
}

// W with W^T W = M^-1; of the pseudo-inverse where M is singular.
Tensor whitening(const Tensor& matrix, int64_t label) {
  const Tensor symmetric = (matrix + matrix.t()) / 2;
  const auto [lower, failed] = torch::linalg_cholesky_ex(symmetric);
  const int64_t D = matrix.size(0);
  const Tensor spread = lower.diagonal();
  // A pivot of rounding alone: singular, as what fails.
  if (failed.item<int64_t>() == 0 && (spread.min() / spread.max()).item<double>() > 1e-6) {
    return torch::linalg_solve_triangular(lower, torch::eye(D, matrix.options()), /*upper=*/false);
  }
  const auto [values, vectors] = torch::linalg_eigh(symmetric);  // ascending
  const double largest = values[-1].item<double>();
  const double floor = largest * 1e-12 * static_cast<double>(D);
  if (values[0].item<double>() < -floor) {
    throw Error("method: the shrunk covariance of " +
                (label < 0 ? "all classes" : "class " + std::to_string(label)) +
                " is not positive semidefinite; set alpha2 to no more than alpha1");
  }
  const Tensor scale =
      torch::where(values > floor, values.clamp_min(floor).rsqrt(), torch::zeros_like(values));
  return scale.unsqueeze(1) * vectors.t();
}

Tensor squared(const Tensor& x) { return x.to(torch::kDouble).square().sum(1); }

}  // namespace

Tensor shrunk(const Tensor& covariance, double alpha1, double alpha2) {
  const Tensor variances = covariance.diagonal();
  const Tensor others = covariance - torch::diag(variances);
  const Tensor mean = others.sum() / others.ne(0).sum().clamp_min(1);
  Tensor result = covariance + alpha2 * mean;
  result.diagonal().add_(alpha1 * variances.mean() - alpha2 * mean);
  return result;
}

Tensor correlation_of(const Tensor& covariance) {
  const Tensor deviations = covariance.diagonal().sqrt();
  return covariance / torch::outer(deviations, deviations);
}

MahalanobisClasses::MahalanobisClasses(const FecamOptions& options, int64_t num_classes,
                                       int64_t dim, torch::Device device)
    : options_(options), factors_(static_cast<size_t>(num_classes)) {
  if (options.form == "pilot" && (options.covariance != "full" || options.tukey != 1)) {
    throw Error("method.form: pilot fixes covariance and tukey; leave them out, or take vit");
  }
  const auto doubles = torch::device(device).dtype(torch::kDouble);
  means_ = torch::zeros({num_classes, dim}, doubles);
  known_ = torch::zeros({num_classes}, torch::device(device).dtype(torch::kBool));
  if (options.covariance == "common") common_ = torch::zeros({dim, dim}, doubles);
}

// Tukey's ladder of powers, where it is asked for.
Tensor MahalanobisClasses::transformed(const Tensor& x) const {
  if (options_.tukey == 1) return x;
  const bool log = options_.tukey == 0;
  const double least = x.min().item<double>();
  if (least < 0 || (log && least == 0)) {
    throw Error("method.tukey: a feature is " + std::string(least < 0 ? "negative" : "zero") +
                ", which has no " + (log ? "logarithm" : "such power") +
                "; Tukey's transform is for features after a ReLU: set tukey to 1");
  }
  return log ? x.log() : x.pow(options_.tukey);
}

// What covariances are of.
Tensor MahalanobisClasses::statistics_of(const Tensor& x) const {
  return options_.form == "vit" ? unit_length(transformed(x)) : transformed(x);
}

Tensor MahalanobisClasses::mean_of(const Tensor& own) const {
  if (options_.form == "vit") return statistics_of(own).mean(0);
  return unit_length(transformed(own.mean(0, /*keepdim=*/true))).squeeze(0);
}

// M of the class whose features are `own`; of a diagonal one its diagonal [D].
Tensor MahalanobisClasses::matrix_of(const Tensor& own, int64_t label) const {
  Tensor matrix = covariance_of(statistics_of(own));
  if (options_.form == "pilot") {
    matrix.diagonal().add_(kPilotRidge);
    return correlation_of(covariance_of(matrix));  // corrcoef takes rows for variables
  }
  for (int64_t i = 0; i < options_.shrink_times; ++i) {
    matrix = shrunk(matrix, options_.alpha1, options_.alpha2);
  }
  const Tensor variances = matrix.diagonal();
  if (own.size(0) < 2 || (variances.max() <= 0).item<bool>()) {
    matrix = torch::eye(matrix.size(0), matrix.options());
  } else if (options_.correlation || options_.covariance == "diagonal") {
    if ((variances <= 0).any().item<bool>()) {
      throw Error("method: a feature of class " + std::to_string(label) +
                  " never varies; set alpha1 above 0, shrink_times to 1 or covariance to none");
    }
  }
  if (options_.covariance == "diagonal") {
    return matrix.diagonal() / matrix.diagonal().norm();
  }
  return options_.correlation ? correlation_of(matrix) : matrix;
}

// S := S n_old/n_all + shrink(S_new) n_new/n_all, n in classes; the first one as it is.
void MahalanobisClasses::fit_common(const Tensor& x, double old_classes, double new_classes) {
  const Tensor fresh = covariance_of(statistics_of(x));
  const double old_share = old_classes / (old_classes + new_classes);
  if (old_classes == 0) {
    common_.copy_(fresh);
  } else {
    common_.mul_(old_share).add_(shrunk(fresh, options_.alpha1, options_.alpha2), 1 - old_share);
  }
  common_factor_ = whitening(common_, -1);
}

void MahalanobisClasses::fit(const Tensor& features, const Tensor& labels, int64_t first,
                             int64_t last) {
  torch::NoGradGuard no_grad;
  const Tensor x = features.to(torch::kDouble);
  const auto old_classes = known_.sum().item<double>();
  for (int64_t label = first; label < last; ++label) {
    const Tensor own = x.index_select(0, labels.eq(label).nonzero().squeeze(1));
    if (own.size(0) == 0) continue;
    means_[label].copy_(mean_of(own));
    known_[label].fill_(true);
    Tensor& factor = factors_[static_cast<size_t>(label)];
    if (options_.covariance == "full") {
      factor = whitening(matrix_of(own, label), label).to(torch::kFloat);
    } else if (options_.covariance == "diagonal") {
      factor = matrix_of(own, label).rsqrt().to(torch::kFloat);
    }
  }
  const double new_classes = known_.sum().item<double>() - old_classes;
  if (options_.covariance == "common" && new_classes > 0) fit_common(x, old_classes, new_classes);
}

Tensor MahalanobisClasses::distances(const Tensor& features) const {
  torch::NoGradGuard no_grad;
  const Tensor x = unit_length(transformed(features.to(torch::kDouble)));
  Tensor result = torch::full({x.size(0), means_.size(0)}, std::numeric_limits<double>::infinity(),
                              x.options());
  const Tensor known = known_.nonzero().squeeze(1);
  const Tensor labels = known.cpu();
  for (int64_t i = 0; i < labels.size(0); ++i) {
    const auto label = labels[i].item<int64_t>();
    Tensor apart = x - means_[label];  // in double: features of length 1 lie close together
    const Tensor& factor = factors_[static_cast<size_t>(label)];
    if (factor.defined()) {
      apart = apart.to(torch::kFloat);
      apart = factor.dim() == 1 ? apart * factor : torch::mm(apart, factor.t());
    } else if (common_factor_.defined()) {
      apart = torch::mm(apart, common_factor_.t());
    }
    result.select(1, label).copy_(squared(apart));
  }
  return result;
}

void MahalanobisClasses::state(State& s) {
  s("mean", means_);
  s("known", known_);
  if (options_.covariance == "common") {
    s("covariance", common_);
    if (s.loading() && known_.any().item<bool>()) common_factor_ = whitening(common_, -1);
  } else if (options_.covariance != "none") {
    s("factor", factors_);
  }
}

namespace {

class Fecam final : public Method {
 public:
  Fecam(const MethodContext& context, const FecamOptions& options)
      : features_(context),
        images_(context.images),
        classes_(options, context.num_classes, features_.dim(), context.device) {}

  std::vector<Tensor> parameters() override { return {}; }
  bool can_share_batches() const override { return true; }
  Tensor loss(const Batch&) override { return torch::zeros({}); }

  void end_task(const Task& task) override {
    const LabelledFeatures all = features_of(
        images_, task.train, [&](const Batch& batch) { return features_.fixed(batch); });
    if (!all.features.defined()) return;
    classes_.fit(all.features, all.labels, task.first_label, task.last_label());
  }

  Tensor predict(const Batch& batch) override { return -classes_.distances(features_.test(batch)); }

  void state(State& s) override { classes_.state(s); }

 private:
  FrozenFeatures features_;
  const TaskImages& images_;
  MahalanobisClasses classes_;
};

const Registered<MethodKind> kFecam{"fecam", "Goswami et al. 2023, FeCAM (arXiv 2309.14062)",
                                    method_kind<Fecam, FecamOptions>()};

}  // namespace

}  // namespace rep
