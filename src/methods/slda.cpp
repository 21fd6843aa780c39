// SLDA: streaming linear discriminant analysis on frozen features (Hayes & Kanan, arXiv 1909.01520;
// Deep_SLDA).
// The idea in three lines: class means and one shared covariance of a frozen backbone's features
// are kept up to date image by image; a class's score is linear, with the inverse of the shrunk
// covariance; one pass over the data, no gradients. Differs from Deep_SLDA's code: a batch of
// updates is one weighted matrix product (equal to image by image), a positive definite solve in
// double precision takes the place of pinv in single, and classes never seen cannot win.
#include "methods/slda.h"

#include <algorithm>
#include <limits>

#include "methods/frozen_features.h"
#include "methods/method.h"
#include "tensor/torch.h"

namespace rep {

StreamingLda::StreamingLda(int64_t num_classes, int64_t dim, bool skip_first, torch::Device device)
    : skip_first_(skip_first) {
  const auto zeros = [&](at::IntArrayRef shape) {
    return torch::zeros(shape, torch::device(device).dtype(torch::kDouble));
  };
  means_ = zeros({num_classes, dim});
  counts_ = zeros({num_classes});
  scatter_ = zeros({dim, dim});
  weight_ = zeros({dim, num_classes});
  bias_ = zeros({num_classes});
}

void StreamingLda::update(const torch::Tensor& features, const torch::Tensor& labels) {
  torch::NoGradGuard no_grad;
  const torch::Tensor x = features.to(torch::kDouble);
  const int64_t n = x.size(0);
  torch::Tensor delta = torch::empty_like(x);
  const torch::Tensor k = torch::arange(seen_, seen_ + n, x.options());
  torch::Tensor weights = k / (k + 1);
  const torch::Tensor present = std::get<0>(at::_unique(labels.cpu()));
  for (int64_t i = 0; i < present.size(0); ++i) {
    const auto label = present[i].item<int64_t>();
    const torch::Tensor rows = labels.eq(label).nonzero().squeeze(1);
    const torch::Tensor own = x.index_select(0, rows);
    // The class's mean just before each of its images: of all images up to then.
    const torch::Tensor before =
        counts_[label] + torch::arange(own.size(0), x.options());  // images until then
    const torch::Tensor sums = means_[label] * counts_[label] + own.cumsum(0) - own;
    delta.index_copy_(0, rows, own - sums / before.clamp_min(1).unsqueeze(1));
    if (skip_first_) weights.index_put_({rows.masked_select(before.eq(0))}, 0.0);
    means_[label].copy_((sums[-1] + own[-1]) / (before[-1] + 1));
    counts_[label] += own.size(0);
  }
  scatter_.addmm_((delta * weights.unsqueeze(1)).t(), delta);
  seen_ += n;
}

void StreamingLda::start(const torch::Tensor& features, const torch::Tensor& labels) {
  torch::NoGradGuard no_grad;
  const torch::Tensor x = features.to(torch::kDouble);
  means_.zero_().index_add_(0, labels, x);
  counts_.zero_().index_add_(0, labels, torch::ones({x.size(0)}, x.options()));
  means_.div_(counts_.clamp_min(1).unsqueeze(1));
  const torch::Tensor centred = x - means_.index_select(0, labels);
  const auto m = static_cast<double>(x.size(0)), d = static_cast<double>(x.size(1));
  const torch::Tensor raw = torch::mm(centred.t(), centred) / m;
  const double mean = raw.trace().item<double>() / d;
  const double square = raw.square().mean().item<double>();
  const double denominator = (m + 1) * (square - mean * mean / d);
  const double rho = denominator > 0 ? std::min(1.0, (square + mean * mean) / denominator) : 1.0;
  scatter_.copy_(raw * ((1 - rho) * m));
  scatter_.diagonal().add_(rho * mean * m);
  seen_ = x.size(0);
}

void StreamingLda::solve(double shrinkage) {
  torch::NoGradGuard no_grad;
  torch::Tensor matrix = covariance() * (1 - shrinkage);
  matrix.diagonal().add_(shrinkage);
  weight_.copy_(torch::cholesky_solve(means_.t(), torch::linalg_cholesky(matrix)));
  bias_.copy_((means_.t() * weight_).sum(0) * -0.5);
  bias_.masked_fill_(counts_.eq(0), -std::numeric_limits<double>::infinity());
}

torch::Tensor StreamingLda::scores(const torch::Tensor& features) const {
  return torch::addmm(bias_, features.to(torch::kDouble), weight_);
}

void StreamingLda::state(State& s) {
  s("mean", means_);
  s("count", counts_);
  s("scatter", scatter_);
  s("seen", seen_);
}

namespace {

struct SldaOptions {
  double shrinkage = 1e-4;
  bool skip_first = false;
  std::string base = "none";
  template <class Visitor>
  void fields(Visitor&& visit) {
    visit("shrinkage", shrinkage, between(1e-10, 1), doc("Shrinkage of the covariance (epsilon)."));
    visit("skip_first", skip_first, doc("Leave a class's first image out of the covariance."));
    visit("base", base, one_of({"none", "oas"}),
          doc("none: image by image from the start; oas: the first task at once, with an "
              "OAS-shrunk covariance."));
  }
};

class Slda final : public Method {
 public:
  Slda(const MethodContext& context, const SldaOptions& options)
      : options_(options),
        features_(context),
        images_(context.images),
        lda_(context.num_classes, features_.dim(), options.skip_first, context.device) {}

  std::vector<torch::Tensor> parameters() override { return {}; }
  bool can_share_batches() const override { return true; }
  torch::Tensor loss(const Batch&) override { return torch::zeros({}); }

  void end_task(const Task& task) override {
    const auto feature = [&](const Batch& batch) { return features_.fixed(batch); };
    if (options_.base == "oas" && lda_.seen() == 0) {
      const LabelledFeatures all = features_of(images_, task.train, feature);
      if (all.features.defined()) lda_.start(all.features, all.labels);
    } else {
      images_.each_batch(task.train,
                         [&](const Batch& batch) { lda_.update(feature(batch), batch.labels); });
    }
    lda_.solve(options_.shrinkage);
  }

  bool learns_repeated_classes() const override { return true; }
  torch::Tensor predict(const Batch& batch) override { return lda_.scores(features_.test(batch)); }

  void state(State& s) override {
    lda_.state(s);
    if (s.loading()) lda_.solve(options_.shrinkage);
  }

 private:
  SldaOptions options_;
  FrozenFeatures features_;
  const TaskImages& images_;
  StreamingLda lda_;
};

const Registered<MethodKind> kSlda{"slda",
                                   "Hayes & Kanan 2020, Deep Streaming LDA (arXiv 1909.01520)",
                                   method_kind<Slda, SldaOptions>()};

}  // namespace

}  // namespace rep
