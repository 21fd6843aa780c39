// CODA-Prompt: continual decomposed attention-based prompting (Smith et al., arXiv 2211.13218).
// The idea in three lines: prompts are sums of components, each weighted by how well the image's
// frozen [CLS] feature, through the component's own attention vector, matches its key; every task
// adds components, orthogonal to the old ones at their start, and freezes those of tasks before.
// Differs from the authors' code: the backbone is frozen in autograd as well as in name, and
// cosines are two matrix products instead of a [B, M, D] tensor.

#include <cmath>

#include "methods/classifier.h"
#include "methods/cosine_head.h"
#include "methods/method.h"
#include "methods/prompt_components.h"
#include "tensor/torch.h"

namespace rep {

namespace {

struct CodaOptions {
  int64_t pool_size = 100;
  int64_t prompt_length = 8;
  std::vector<int64_t> layers{0, 1, 2, 3, 4};
  double ortho_weight = 0.0;

  template <class Visitor>
  void fields(Visitor&& visit) {
    visit("pool_size", pool_size, at_least(1),
          doc("Prompt components (M), shared out equally among the tasks.", "components"));
    visit("prompt_length", prompt_length, at_least(2),
          doc("Rows of a component: the first half are keys, the second values.", "tokens"));
    visit("layers", layers, doc("Blocks, from 0, with prompts.", "blocks"));
    visit("ortho_weight", ortho_weight, at_least(0),
          doc("Weight of the orthogonality loss (mu); the paper has 0.1.", "",
              "0: the published scripts"));
  }
};

// mean((X X^T - I)^2) of the rows of x, flattened.
torch::Tensor ortho_penalty(const torch::Tensor& x) {
  const torch::Tensor rows = x.flatten(1);
  const torch::Tensor gram = torch::mm(rows, rows.t());
  return (gram - torch::eye(gram.size(0), gram.options())).square().mean();
}

class CodaPrompt final : public Method {
 public:
  CodaPrompt(const MethodContext& context, const CodaOptions& options)
      : options_(options),
        backbone_(context.vit()),
        efficiency_(context.efficiency),
        head_(backbone_->options.embed_dim, context.num_classes, context.device,
              Classifier::Init::kUniform),
        components_(context, options.pool_size, options.prompt_length) {
    check_blocks(backbone_->options, "method.layers", options.layers);
    const int64_t D = backbone_->options.embed_dim, M = options.pool_size;
    for (size_t i = 0; i < options.layers.size(); ++i) {
      const auto make = [&](at::IntArrayRef shape) {
        return torch::zeros(shape, context.device).set_requires_grad(true);
      };
      prompts_.push_back(make({M, options.prompt_length, D}));
      keys_.push_back(make({M, D}));
      attentions_.push_back(make({M, D}));
    }
    efficiency_.set_prompted_blocks(options.layers);
  }

  void begin_task(const Task& task) override {
    trained_ = ClassRange::of(task, "current");
    components_.begin_task(task);
    for (size_t i = 0; i < prompts_.size(); ++i) {
      components_.make_fresh(prompts_[i]);
      components_.make_fresh(keys_[i]);
      components_.make_fresh(attentions_[i]);
    }
  }

  std::vector<torch::Tensor> parameters() override {
    auto parameters = head_.parameters();
    for (const auto* list : {&prompts_, &keys_, &attentions_}) {
      parameters.insert(parameters.end(), list->begin(), list->end());
    }
    return parameters;
  }

  std::vector<TrainedRows> trained_rows() override {
    auto rows = trained_.rows();
    rows.resize(parameters().size(), components_.trained());
    return rows;
  }
  std::vector<torch::Tensor> head_parameters() override { return head_.parameters(); }

  torch::Tensor loss(const Batch& batch) override {
    const torch::Tensor logits =
        classify(batch.images, efficiency_.train_query(batch.images, batch.indices),
                 efficiency_.train_plan(batch.images, batch.indices));
    torch::Tensor total = Classifier::loss(logits, batch.labels, trained_.first, trained_.last);
    if (options_.ortho_weight > 0) {
      for (size_t i = 0; i < prompts_.size(); ++i) {
        total = total + options_.ortho_weight * (ortho_penalty(components_.live(keys_[i])) +
                                                 ortho_penalty(components_.live(attentions_[i])) +
                                                 ortho_penalty(components_.live(prompts_[i])));
      }
    }
    return total;
  }

  torch::Tensor predict(const Batch& batch) override {
    return classify(batch.images, efficiency_.test_query(batch.images, batch.indices),
                    efficiency_.test_plan());
  }

  bool has_unseen_logits() const override { return true; }
  bool learns_repeated_classes() const override { return true; }
  bool predicts_within_task() const override { return true; }
  bool loss_is_within_task() const override { return true; }
  bool can_share_batches() const override { return true; }
  void state(State& s) override {
    head_.state(s);
    s("prompt", prompts_);
    s("prompt_key", keys_);
    s("attention", attentions_);
    components_.state(s);
    trained_.state(s);
  }

 private:
  // [B, 2, length/2, D]: every image's own sum of components.
  torch::Tensor prefix(const torch::Tensor& query, size_t layer) const {
    const torch::Tensor p = components_.live(prompts_[layer]),
                        a = components_.live(attentions_[layer]);
    const torch::Tensor k = unit_length(components_.live(keys_[layer]));
    // cos(q * A_m, K_m) = q . (A_m * K_m / |K_m|) / |q * A_m|
    const torch::Tensor length = torch::mm(query.square(), a.square().t()).sqrt().clamp_min(1e-12);
    const torch::Tensor weights = torch::mm(query, (a * k).t()) / length;  // [B, m]
    return torch::mm(weights, p.flatten(1))
        .view({query.size(0), 2, options_.prompt_length / 2, p.size(2)});
  }

  torch::Tensor classify(const torch::Tensor& images, const torch::Tensor& query,
                         ForwardPlan plan) {
    plan.prefixes.resize(static_cast<size_t>(backbone_->options.depth));
    for (size_t i = 0; i < options_.layers.size(); ++i) {
      const auto layer = static_cast<size_t>(options_.layers[i]);
      if (!plan.skips(options_.layers[i])) plan.prefixes[layer] = prefix(query, i);
    }
    return head_.logits(backbone_->features(images, plan));
  }

  CodaOptions options_;
  VisionTransformer backbone_;
  Efficiency& efficiency_;
  Classifier head_;
  ComponentRange components_;              // this task's
  std::vector<torch::Tensor> prompts_;     // per layer [M, length, D]
  std::vector<torch::Tensor> keys_;        // per layer [M, D]
  std::vector<torch::Tensor> attentions_;  // per layer [M, D]
  ClassRange trained_;
};

const Registered<MethodKind> kCodaPrompt{"coda_prompt",
                                         "Smith et al. 2023, CODA-Prompt (arXiv 2211.13218)",
                                         method_kind<CodaPrompt, CodaOptions>()};

}  // namespace

}  // namespace rep
