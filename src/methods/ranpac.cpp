// RanPAC: Random Projections and Pre-trained Models for Continual Learning (McDonnell et al., arXiv
// 2307.02251).
// The idea in three lines: the first task adapts the ViT through small adapters, then everything is
// frozen; features go through a wide random layer with ReLU; a ridge regression on them needs
// nothing but two sums over all images, so earlier tasks weigh as much as later ones. Differs from
// the published code: no dropout inside the adapters unless asked for; double precision where it
// solves; ridge strengths compared on one eigendecomposition; 2,000 random features by default,
// since state grows with the square of their number and each task's solution with its cube
// (published: 10,000).
#include "methods/ranpac.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <memory>
#include <string>
#include <tuple>

#include "methods/adapter_options.h"
#include "methods/classifier.h"
#include "methods/cosine_head.h"
#include "methods/frozen_features.h"
#include "methods/method.h"
#include "tensor/device.h"
#include "tensor/torch.h"

namespace rep {

RidgeClassifier::RidgeClassifier(int64_t dim, int64_t num_classes, torch::Device device)
    : gram_(torch::zeros({dim, dim}, device)),
      prototypes_(torch::zeros({dim, num_classes}, device)),
      weight_(torch::zeros({dim, num_classes}, device)) {}

void RidgeClassifier::add(const torch::Tensor& features, const torch::Tensor& labels) {
  if (!features.isfinite().all().item<bool>()) {  // nothing could be solved, now or later
    throw Error(
        "method: ranpac's features are not finite numbers; look at backbone.weights, or lower "
        "train.optimizer.lr of the first task");
  }
  gram_.addmm_(features.t(), features);
  prototypes_.addmm_(features.t(), torch::one_hot(labels, prototypes_.size(1)).to(torch::kFloat));
}

double RidgeClassifier::solve(double lambda) {
  // Beyond the trace no rounding in the sums can count; of sums that ran over it is not finite.
  const double trace = gram_.diagonal().sum(torch::kDouble).item<double>();
  const double most = std::max(lambda, 10 * std::max(1.0, trace));
  for (; std::isfinite(trace) && lambda <= most; lambda *= 10) {
    torch::Tensor system = gram_.to(torch::kDouble);
    system.diagonal().add_(lambda);
    const auto [factor, failed] = torch::linalg_cholesky_ex(system);
    system.reset();  // M x M doubles, needed no more
    if (failed.item<int64_t>() == 0) {
      weight_.copy_(torch::cholesky_solve(prototypes_.to(torch::kDouble), factor));
      return lambda;
    }
  }
  throw Error(
      "method: ranpac's sums over features have no solution, whatever the ridge: the features are "
      "too large for floats; look at backbone.weights, or lower train.optimizer.lr of the first "
      "task");
}

torch::Tensor RidgeClassifier::logits(const torch::Tensor& features) const {
  return torch::mm(features, weight_)
      .masked_fill(prototypes_.eq(0).all(0), -std::numeric_limits<float>::infinity());
}

void RidgeClassifier::state(State& s) {
  s("gram", gram_);
  s("prototypes", prototypes_);
  s("weight", weight_);
}

std::vector<double> ridge_candidates() {
  std::vector<double> lambdas;
  for (int exponent = -8; exponent <= 8; ++exponent) lambdas.push_back(std::pow(10.0, exponent));
  return lambdas;
}

namespace {

// a b^T of float matrices in double precision, without a double copy of either.
torch::Tensor double_product(const torch::Tensor& a, const torch::Tensor& b) {
  constexpr int64_t kColumns = 1024;
  torch::Tensor sum =
      torch::zeros({a.size(0), b.size(0)}, torch::device(a.device()).dtype(torch::kDouble));
  for (int64_t first = 0; first < a.size(1); first += kColumns) {
    const int64_t columns = std::min(kColumns, a.size(1) - first);
    sum.addmm_(a.narrow(1, first, columns).to(torch::kDouble),
               b.narrow(1, first, columns).to(torch::kDouble).t());
  }
  return sum;
}

}  // namespace

std::vector<double> ridge_losses(const torch::Tensor& fit, const torch::Tensor& fit_targets,
                                 const torch::Tensor& validation,
                                 const torch::Tensor& validation_targets,
                                 const std::vector<double>& lambdas) {
  // With G (or K) = U diag(e) U^T the predictions are left diag(1 / (e + lambda)) right.
  const bool dual = fit.size(0) < fit.size(1);
  const auto [e, U] =
      torch::linalg_eigh(dual ? double_product(fit, fit) : double_product(fit.t(), fit.t()), "L");
  const torch::Tensor left =
      torch::mm(dual ? double_product(validation, fit) : validation.to(torch::kDouble), U);
  const torch::Tensor right = torch::mm(
      U.t(), dual ? fit_targets.to(torch::kDouble) : double_product(fit.t(), fit_targets.t()));
  const double lowest = e.min().item<double>(), highest = e.abs().max().item<double>();
  const double noise =
      highest * std::numeric_limits<double>::epsilon() * static_cast<double>(e.size(0));
  std::vector<double> losses;
  for (const double lambda : lambdas) {
    const double loss =
        (torch::mm(left / (e + lambda), right) - validation_targets).square().mean().item<double>();
    const bool singular = lowest + lambda <= noise || !std::isfinite(loss);
    losses.push_back(singular ? std::numeric_limits<double>::infinity() : loss);
  }
  return losses;
}

namespace {

struct RanpacOptions : AdapterOptions {
  RanpacOptions() { adapter_dropout = 0; }  // the authors have 0.1
  int64_t projection = 2000;
  std::string first_task = "adapter";
  template <class Visitor>
  void fields(Visitor&& visit) {
    visit("projection", projection, between(0, 100000),
          doc("Random features (M); 0: the backbone's own.", "features"));
    visit("first_task", first_task, one_of({"none", "adapter"}),
          doc("Whether the first task adapts the ViT by adapters."));
    adapter_fields(visit);
  }
};

class Ranpac final : public Method {
 public:
  Ranpac(const MethodContext& context, const RanpacOptions& options)
      : options_(options),
        backbone_(context.backbone),
        efficiency_(context.efficiency),
        features_(context),
        images_(context.images),
        num_classes_(context.num_classes),
        ridge_(options.projection > 0 ? options.projection : features_.dim(), context.num_classes,
               context.device) {
    const int64_t D = features_.dim();
    if (options.projection > 0) {
      // A function of the seed alone, and so no state.
      auto generator = make_generator(context.seed, RandomUse::kRandomFeatures);
      projection_ = torch::randn({D, options.projection}, generator).to(context.device);
    }
    if (options.first_task == "none") return;
    if (!std::dynamic_pointer_cast<VisionTransformerImpl>(backbone_)) {
      throw Error(
          "method: first_task adapter needs a vision transformer; name one as backbone, or set "
          "first_task: none");
    }
    adapters_ = AdapterSet(backbone_->depth(), D, options.of_set(), context.device);
    head_ = CosineHead(D, context.num_classes, context.device);
  }

  void begin_task(const Task& task) override {
    adapting_ = task.index == 0 && !adapters_.empty();
    trained_ = ClassRange::of(task, "current");
  }

  std::vector<torch::Tensor> parameters() override {
    if (!adapting_) return {};
    std::vector<torch::Tensor> parameters = head_.parameters();
    for (const auto& parameter : adapters_.parameters()) parameters.push_back(parameter);
    return parameters;
  }

  std::vector<TrainedRows> trained_rows() override {
    if (!adapting_) return {};
    std::vector<TrainedRows> rows(parameters().size());
    rows.front() = {0, trained_.first, trained_.last};  // the head's
    return rows;
  }

  torch::Tensor loss(const Batch& batch) override {
    ForwardPlan plan = efficiency_.train_plan(batch.images, batch.indices);
    plan.adapters = adapters_.for_training();
    const torch::Tensor logits = head_.logits(backbone_->features(batch.images, plan));
    return Classifier::loss(logits, batch.labels, trained_.first, trained_.last);
  }

  void end_task(const Task& task) override {
    torch::NoGradGuard no_grad;
    adapting_ = false;
    const LabelledFeatures all = features_of(images_, task.train, [&](const Batch& batch) {
      return project(features_.fixed(batch, adapters_.for_testing()));
    });
    if (!all.features.defined()) return;
    choose_lambda(all);
    ridge_.add(all.features, all.labels);
    lambda_ = ridge_.solve(lambda_);
  }

  bool learns_repeated_classes() const override { return true; }
  torch::Tensor predict(const Batch& batch) override {
    return ridge_.logits(project(features_.test(batch, adapters_.for_testing())));
  }

  bool can_grow() const override { return true; }
  void state(State& s) override {
    s("adapting", adapting_);
    s("lambda", lambda_);
    ridge_.state(s);
    adapters_.state(s);
    if (!adapting_) return;  // the first task's head has done its work
    head_.state(s);
    trained_.state(s);
  }

 private:
  // h, [B, M].
  torch::Tensor project(const torch::Tensor& features) const {
    return projection_.defined() ? torch::relu(torch::mm(features, projection_)) : features;
  }

  // On the task's own images, a random fifth of them held out: earlier tasks' are gone.
  void choose_lambda(const LabelledFeatures& all) {
    const int64_t n = all.features.size(0), fit = n * 4 / 5;
    if (fit == 0) return;
    const torch::Tensor order = torch::randperm(n, torch::kLong).to(all.features.device());
    const torch::Tensor rows = order.narrow(0, 0, fit), held_out = order.narrow(0, fit, n - fit);
    const torch::Tensor targets = torch::one_hot(all.labels, num_classes_).to(torch::kFloat);
    const auto lambdas = ridge_candidates();
    const auto losses = ridge_losses(
        all.features.index_select(0, rows), targets.index_select(0, rows),
        all.features.index_select(0, held_out), targets.index_select(0, held_out), lambdas);
    lambda_ = lambdas[static_cast<size_t>(std::min_element(losses.begin(), losses.end()) -
                                          losses.begin())];
  }

  RanpacOptions options_;
  std::shared_ptr<Backbone> backbone_;
  Efficiency& efficiency_;
  FrozenFeatures features_;
  const TaskImages& images_;
  int64_t num_classes_;
  RidgeClassifier ridge_;
  torch::Tensor projection_;  // W [D, M]; undefined without
  AdapterSet adapters_;       // or none
  CosineHead head_;           // of the first task
  ClassRange trained_;
  bool adapting_ = false;  // in the first task, before its end
  double lambda_ = 1;
};

const Registered<MethodKind> kRanpac{"ranpac", "McDonnell et al. 2023, RanPAC (arXiv 2307.02251)",
                                     method_kind<Ranpac, RanpacOptions>()};

}  // namespace

}  // namespace rep
