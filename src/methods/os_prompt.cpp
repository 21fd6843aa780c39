// OS-Prompt and OS-Prompt++: one-stage prompt-based continual learning (Kim et al., arXiv
// 2402.16189). The idea in three lines: CODA-Prompt's components, but weighted by the cosine of
// their keys with the [CLS] token that enters the very block, so that no query pass is needed;
// OS-Prompt++ (`qr.weight` above 0) draws, in training only, these weights to those of the query
// pass's [CLS]. Differs from the authors' code (at 90e3241 of guhyun9454/OSPrompt-Study): no pass
// for a reference where nothing is made of it, and no second copy of the weights; `qr.form:
// token_mse` is that code's, the default the paper's.
#include <algorithm>

#include "methods/classifier.h"
#include "methods/cosine_head.h"
#include "methods/method.h"
#include "methods/prompt_components.h"
#include "tensor/torch.h"

namespace rep {

namespace {

struct QueryRegularisation {
  double weight = 0;
  std::string form = "softmax";
  template <class Visitor>
  void fields(Visitor&& visit) {
    visit("weight", weight, at_least(0),
          doc("Weight of the query regularisation (lambda): 0 is OS-Prompt; OS-Prompt++ takes "
              "1e-4."));
    visit("form", form, one_of({"softmax", "cosine", "token_mse"}),
          doc("What it draws together. softmax: of the cosines with all keys; cosine: the cosines; "
              "token_mse: the tokens, without keys.",
              "", "softmax: the paper; token_mse: the authors' code"));
  }
};

struct OsPromptOptions {
  int64_t pool_size = 100;
  int64_t prompt_length = 8;
  std::vector<int64_t> layers{0, 1, 2, 3, 4};
  bool query_grad = true;
  QueryRegularisation qr;

  template <class Visitor>
  void fields(Visitor&& visit) {
    visit("pool_size", pool_size, at_least(1),
          doc("Prompt components (M), shared out equally among the tasks.", "components"));
    visit("prompt_length", prompt_length, at_least(2),
          doc("Rows of a component: the first half are keys, the second values.", "tokens"));
    visit("layers", layers, doc("Blocks, from 0, with prompts.", "blocks"));
    visit("query_grad", query_grad,
          doc("Let gradients flow through queries into the prompts of lower blocks."));
    visit("qr", qr, doc("Query regularisation, of OS-Prompt++, in training only."));
  }
};

class OsPrompt final : public Method {
 public:
  OsPrompt(const MethodContext& context, const OsPromptOptions& options)
      : options_(options),
        backbone_(context.vit()),
        efficiency_(context.efficiency),
        head_(backbone_->options.embed_dim, context.num_classes, context.device,
              Classifier::Init::kUniform),
        components_(context, options.pool_size, options.prompt_length) {
    if (options.qr.weight == 0) efficiency_.expect_no_query(context.options.name);
    if (options.qr.weight > 0 && options.qr.form == "token_mse" &&
        !efficiency_.query_is_feature()) {
      throw Error(
          "method.qr.form: token_mse compares tokens, and those of another query backbone have "
          "another scale; take softmax or cosine, or leave efficiency.query_backbone out");
    }
    check_blocks(backbone_->options, "method.layers", options.layers);
    efficiency_.set_prompted_blocks(options.layers);
    const int64_t D = backbone_->options.embed_dim, M = options.pool_size;
    for (size_t i = 0; i < options.layers.size(); ++i) {
      const auto make = [&](at::IntArrayRef shape) {
        return torch::zeros(shape, context.device).set_requires_grad(true);
      };
      prompts_.push_back(make({M, options.prompt_length, D}));
      keys_.push_back(make({M, D}));
    }
  }

  void begin_task(const Task& task) override {
    trained_ = ClassRange::of(task, "current");
    components_.begin_task(task);
    for (size_t i = 0; i < prompts_.size(); ++i) {
      components_.make_fresh(keys_[i]);
      components_.make_fresh(prompts_[i]);
    }
  }

  std::vector<torch::Tensor> parameters() override {
    auto parameters = head_.parameters();
    parameters.insert(parameters.end(), prompts_.begin(), prompts_.end());
    parameters.insert(parameters.end(), keys_.begin(), keys_.end());
    return parameters;
  }
  std::vector<torch::Tensor> head_parameters() override { return head_.parameters(); }
  std::vector<TrainedRows> trained_rows() override {
    auto rows = trained_.rows();
    rows.resize(parameters().size(), components_.trained());
    return rows;
  }

  torch::Tensor loss(const Batch& batch) override {
    std::vector<torch::Tensor> queries(keys_.size());
    const torch::Tensor logits =
        classify(batch.images, efficiency_.train_plan(batch.images, batch.indices), &queries);
    torch::Tensor total = Classifier::loss(logits, batch.labels, trained_.first, trained_.last);
    if (options_.qr.weight == 0 || efficiency_.head_only()) return total;
    const torch::Tensor reference = efficiency_.train_query(batch.images, batch.indices);
    for (size_t i = 0; i < queries.size(); ++i) {
      if (!queries[i].defined()) continue;  // of a block that was dropped
      total = total + options_.qr.weight * apart(queries[i], reference, i);
    }
    return total;
  }

  torch::Tensor predict(const Batch& batch) override {
    return classify(batch.images, efficiency_.test_plan(), nullptr);
  }

  bool has_unseen_logits() const override { return true; }
  bool learns_repeated_classes() const override { return true; }
  bool predicts_within_task() const override { return true; }
  bool loss_is_within_task() const override { return options_.qr.weight == 0; }
  bool can_share_batches() const override { return true; }
  void state(State& s) override {
    head_.state(s);
    s("prompt", prompts_);
    s("prompt_key", keys_);
    components_.state(s);
    trained_.state(s);
  }

 private:
  // cos(q, K_m): [B, m]
  torch::Tensor cosines(const torch::Tensor& query, size_t layer) const {
    return rep::cosines(query, components_.live(keys_[layer]));
  }

  // How far a layer's query is from the reference: a mean over images.
  torch::Tensor apart(const torch::Tensor& query, const torch::Tensor& reference,
                      size_t layer) const {
    if (options_.qr.form == "token_mse") return (query - reference).square().mean();
    torch::Tensor a = cosines(query, layer), b = cosines(reference, layer);
    if (options_.qr.form == "softmax") a = a.softmax(1), b = b.softmax(1);
    return (a - b).square().sum(1).mean();
  }

  // `queries`, when wanted, receives each layer's [B, D].
  torch::Tensor classify(const torch::Tensor& images, ForwardPlan plan,
                         std::vector<torch::Tensor>* queries) {
    plan.make_prefix = [&](const torch::Tensor& x, int64_t block) {
      const auto found = std::find(options_.layers.begin(), options_.layers.end(), block);
      if (found == options_.layers.end()) return torch::Tensor();
      const auto layer = static_cast<size_t>(found - options_.layers.begin());
      torch::Tensor query = x.select(1, 0);
      if (!options_.query_grad) query = query.detach();
      if (queries) (*queries)[layer] = query;
      const torch::Tensor p = components_.live(prompts_[layer]);
      return torch::mm(cosines(query, layer), p.flatten(1))
          .view({query.size(0), 2, options_.prompt_length / 2, p.size(2)});
    };
    return head_.logits(backbone_->features(images, plan));
  }

  OsPromptOptions options_;
  VisionTransformer backbone_;
  Efficiency& efficiency_;
  Classifier head_;
  ComponentRange components_;           // this task's
  std::vector<torch::Tensor> prompts_;  // per layer [M, length, D]
  std::vector<torch::Tensor> keys_;     // per layer [M, D]
  ClassRange trained_;
};

const Registered<MethodKind> kOsPrompt{
    "os_prompt", "Kim et al. 2024, OS-Prompt and, by qr.weight, OS-Prompt++ (arXiv 2402.16189)",
    method_kind<OsPrompt, OsPromptOptions>()};

}  // namespace

}  // namespace rep
