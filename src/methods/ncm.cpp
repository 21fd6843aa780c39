// NCM: the nearest class mean of frozen features (Janson et al., arXiv 2210.04428; SimpleCIL, Zhou
// et al., arXiv 2303.07338).
// The idea in three lines: a pre-trained backbone's [CLS] features are good as they are; the mean
// of a class's features is its prototype, and an image gets the class whose prototype has the
// largest cosine with it. Nothing is trained, so nothing is forgotten: what any method that trains
// must improve on. Differs from SimpleCIL's code in nothing but the images' preparation.
#include "methods/class_means.h"
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
        means_(context.num_classes, features_.dim(), context.device) {}

  std::vector<torch::Tensor> parameters() override { return {}; }
  bool can_share_batches() const override { return true; }
  bool can_grow() const override { return true; }
  torch::Tensor loss(const Batch&) override { return torch::zeros({}); }
  void end_task(const Task& task) override {
    means_.fit(task, [&](const ClassMeans::Take& take) {
      images_.each_batch(task.train,
                         [&](const Batch& batch) { take(features_.fixed(batch), batch.labels); });
    });
  }
  bool learns_repeated_classes() const override { return true; }
  torch::Tensor predict(const Batch& batch) override {
    return means_.logits(features_.test(batch));
  }
  void state(State& s) override { means_.state(s); }

 private:
  FrozenFeatures features_;
  const TaskImages& images_;
  ClassMeans means_;
};

const Registered<MethodKind> kNcm{
    "ncm", "nearest class mean of frozen features (Janson et al. 2022, arXiv 2210.04428)",
    method_kind<Ncm, NcmOptions>()};

}  // namespace

}  // namespace rep
