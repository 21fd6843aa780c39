// APT: additive prompt tuning (ICCV 2025, arXiv 2503.07979). The idea in three lines: two vectors a
// block, which all tasks share, are added to the [CLS] token's key and value, so that one pass
// without a query and without tokens more does both training and test; after every task they are
// averaged into those that tests use; a head of weights without lengths sees the standardised
// feature. Differs from the authors' code (HaoranChen/Additive-Prompt-Tuning 9b293da): all test
// images are scored (theirs drops a last incomplete batch), parameters that it creates and never
// uses are not there. As there, the second norm stays as it begins, a plain standardisation
// (`feature_norm: trained` trains it), and a block that is dropped leaves its vectors a gradient of
// zero, not none: they are one parameter.
#include <algorithm>
#include <cmath>
#include <numeric>

#include "methods/classifier.h"
#include "methods/cosine_head.h"
#include "methods/method.h"
#include "tensor/torch.h"

namespace rep {

namespace {

constexpr double kFeatureNormEps = 1e-5;

struct AptOptions {
  std::vector<int64_t> layers;
  std::string merge = "ema";
  double merge_alpha = 0.7;
  std::string head = "cosine_weight";
  std::string feature_norm = "fixed";
  double init_std = 0.02;

  template <class Visitor>
  void fields(Visitor&& visit) {
    visit("layers", layers, doc("Blocks, from 0, with prompts; empty: all.", "blocks"));
    visit("merge", merge, one_of({"ema", "none"}),
          doc("What tests use. ema: the vectors averaged over tasks; none: as trained last."));
    visit("merge_alpha", merge_alpha, between(0, 1),
          doc("Share of the earlier tasks' vectors in that average."));
    visit("head", head, one_of({"cosine_weight", "linear"}),
          doc("Classifier. cosine_weight: weights of unit length, no bias; linear."));
    visit("feature_norm", feature_norm, one_of({"fixed", "trained", "off"}),
          doc("Second norm of the feature: fixed (a standardisation), trained, or off."));
    visit("init_std", init_std, above(0), doc("Standard deviation of the initial vectors."));
  }
};

class Apt final : public Method {
 public:
  Apt(const MethodContext& context, const AptOptions& options)
      : options_(options), backbone_(context.vit()), efficiency_(context.efficiency) {
    efficiency_.expect_no_query(context.options.name);
    layers_ = options.layers;
    if (layers_.empty()) {
      layers_.resize(static_cast<size_t>(backbone_->options.depth));
      std::iota(layers_.begin(), layers_.end(), 0);
    }
    check_blocks(backbone_->options, "method.layers", layers_);
    efficiency_.set_prompted_blocks(layers_);
    const int64_t D = backbone_->options.embed_dim, C = context.num_classes;
    const auto trained = [&](const torch::Tensor& t) {
      return t.to(context.device).set_requires_grad(true);
    };
    // N(0, std^2), cut at 2 (of a std of 0.02: at 100 deviations).
    prompt_ =
        trained((torch::randn({2 * static_cast<int64_t>(layers_.size()), D}) * options.init_std)
                    .clamp_(-2, 2));
    merged_ = prompt_.detach().clone();
    const double bound = 1 / std::sqrt(static_cast<double>(D));  // torch.nn.Linear's
    weight_ = trained((torch::rand({C, D}) * 2 - 1) * bound);
    if (options.head == "linear") bias_ = trained((torch::rand({C}) * 2 - 1) * bound);
    if (options.feature_norm == "trained") {
      norm_weight_ = trained(torch::ones({D}));
      norm_bias_ = trained(torch::zeros({D}));
    }
  }

  void begin_task(const Task& task) override { trained_ = ClassRange::of(task, "current"); }

  std::vector<torch::Tensor> parameters() override {
    std::vector<torch::Tensor> parameters = head_parameters();
    parameters.push_back(prompt_);
    return parameters;
  }
  std::vector<torch::Tensor> head_parameters() override {
    std::vector<torch::Tensor> parameters{weight_};
    for (const auto& t : {bias_, norm_weight_, norm_bias_}) {
      if (t.defined()) parameters.push_back(t);
    }
    return parameters;
  }

  std::vector<TrainedRows> trained_rows() override {
    std::vector<TrainedRows> rows = trained_.rows();
    if (!bias_.defined()) rows.resize(1);
    rows.resize(parameters().size());
    return rows;
  }

  torch::Tensor loss(const Batch& batch) override {
    const torch::Tensor logits =
        classify(batch.images, prompt_, efficiency_.train_plan(batch.images, batch.indices));
    return Classifier::loss(logits, batch.labels, trained_.first, trained_.last);
  }

  torch::Tensor predict(const Batch& batch) override {
    return classify(batch.images, options_.merge == "ema" ? merged_ : prompt_,
                    efficiency_.test_plan());
  }

  void end_task(const Task& task) override {
    torch::NoGradGuard no_grad;
    if (task.index == 0) {
      merged_.copy_(prompt_);
    } else {
      merged_.mul_(options_.merge_alpha).add_(prompt_, 1 - options_.merge_alpha);
    }
  }

  bool has_unseen_logits() const override { return true; }
  bool learns_repeated_classes() const override { return true; }
  bool predicts_within_task() const override { return options_.merge == "none"; }
  bool loss_is_within_task() const override { return true; }
  bool can_share_batches() const override { return true; }
  void state(State& s) override {
    s("prompt", prompt_);
    s("merged_prompt", merged_);
    s("head.weight", weight_);
    s("head.bias", bias_);
    s("norm.weight", norm_weight_);
    s("norm.bias", norm_bias_);
    trained_.state(s);
  }

 private:
  torch::Tensor classify(const torch::Tensor& images, const torch::Tensor& prompt,
                         ForwardPlan plan) {
    const int64_t D = backbone_->options.embed_dim;
    const std::vector<torch::Tensor> pairs = prompt.view({-1, 2, D}).unbind(0);
    plan.class_offsets.resize(static_cast<size_t>(backbone_->options.depth));
    for (size_t i = 0; i < layers_.size(); ++i) {
      plan.class_offsets[static_cast<size_t>(layers_[i])] = pairs[i];
    }
    torch::Tensor x = backbone_->features(images, plan);
    if (options_.feature_norm != "off") {
      x = torch::layer_norm(x, {D}, norm_weight_, norm_bias_, kFeatureNormEps);
    }
    if (options_.head == "linear") return torch::linear(x, weight_, bias_);
    return torch::mm(x, unit_length(weight_).t());
  }

  AptOptions options_;
  VisionTransformer backbone_;
  Efficiency& efficiency_;
  std::vector<int64_t> layers_;
  torch::Tensor prompt_, merged_;  // [2 layers, D]: of each layer what is added to key and value
  torch::Tensor weight_, bias_;    // [C, D], [C] or undefined
  torch::Tensor norm_weight_, norm_bias_;  // undefined unless they train
  ClassRange trained_;
};

const Registered<MethodKind> kApt{"apt", "Chen et al. 2025, APT (arXiv 2503.07979)",
                                  method_kind<Apt, AptOptions>()};

}  // namespace

}  // namespace rep
