// NCM: the nearest class mean of frozen features (Janson et al., arXiv 2210.04428; SimpleCIL, Zhou
// et al., arXiv 2303.07338).
// The idea in three lines: a pre-trained backbone's [CLS] features are good as they are; the mean
// of a class's features is its prototype, and an image gets the class whose prototype has the
// largest cosine with it. Nothing is trained, so nothing is forgotten: what any method that trains
// must improve on. Differs from SimpleCIL's code in nothing but the images' preparation.

#include <limits>

#include "methods/frozen_features.h"
#include "methods/method.h"
#include "tensor/torch.h"

namespace rep {

namespace {

struct NcmOptions {
  template <class Visitor>
  void fields(Visitor&&) {}
};

class Ncm final : public Method {
 public:
  Ncm(const MethodContext& context, const NcmOptions&)
      : features_(context),
        images_(context.images),
        means_(torch::zeros({context.num_classes, features_.dim()}, context.device)),
        counts_(torch::zeros({context.num_classes}, context.device)) {}

  std::vector<torch::Tensor> parameters() override { return {}; }
  bool can_share_batches() const override { return true; }
  torch::Tensor loss(const Batch&) override { return torch::zeros({}); }

  void end_task(const Task& task) override {
    torch::NoGradGuard no_grad;
    torch::Tensor sums = torch::zeros_like(means_, torch::kDouble);
    images_.each_batch(task.train, [&](const Batch& batch) {
      sums.index_add_(0, batch.labels, features_.fixed(batch).to(torch::kDouble));
      counts_.index_add_(0, batch.labels, torch::ones_like(batch.labels, counts_.options()));
    });
    const int64_t first = task.first_label, size = task.last_label() - first;
    means_.narrow(0, first, size)
        .copy_(sums.narrow(0, first, size) /
               counts_.narrow(0, first, size).clamp_min(1).unsqueeze(1));
  }

  torch::Tensor predict(const Batch& batch) override {
    const auto unit = [](const torch::Tensor& x) { return torch::nn::functional::normalize(x); };
    return torch::mm(unit(features_.test(batch)), unit(means_).t())
        .masked_fill(counts_.eq(0), -std::numeric_limits<float>::infinity());
  }

  void state(State& s) override {
    s("mean", means_);
    s("count", counts_);
  }

 private:
  FrozenFeatures features_;
  const TaskImages& images_;
  torch::Tensor means_, counts_;  // [C, D], [C]
};

const Registered<MethodKind> kNcm{
    "ncm", "nearest class mean of frozen features (Janson et al. 2022, arXiv 2210.04428)",
    method_kind<Ncm, NcmOptions>()};

}  // namespace

}  // namespace rep
