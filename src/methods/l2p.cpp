// L2P: Learning to Prompt for Continual Learning (Wang et al., arXiv 2112.08654).
// The idea in three lines: a pool of prompts, each with a key; an image's frozen [CLS] feature
// picks the prompts with the nearest keys; those become extra tokens, and their outputs' mean is
// classified. Differs from the authors' JAX code, following l2p-pytorch: mean of all prompt
// outputs, keys pulled by the sum (not mean) of the selected cosines, pool 10 x 5, top 5.
// `selection: per_image` is the default; `batchwise` (one vote for the whole batch, in training and
// testing) is the published code's CIFAR-100 setting: since test batches hold one task, it tells
// the model which, so results carry the label.

#include "methods/classifier.h"
#include "methods/key_matching.h"
#include "methods/method.h"
#include "tensor/torch.h"

namespace rep {

namespace {

struct L2pOptions {
  int64_t pool_size = 10;
  int64_t prompt_length = 5;
  int64_t top_k = 5;
  double pull_weight = 0.1;
  std::string selection = "per_image";

  template <class Visitor>
  void fields(Visitor&& visit) {
    visit("pool_size", pool_size, at_least(1), doc("Prompts in the pool (M).", "prompts"));
    visit("prompt_length", prompt_length, at_least(1), doc("Tokens of a prompt.", "tokens"));
    visit("top_k", top_k, at_least(1), doc("Prompts that an image selects.", "prompts"));
    visit("pull_weight", pull_weight, at_least(0),
          doc("Weight of the loss that pulls selected keys to the query (lambda)."));
    visit("selection", selection, one_of({"per_image", "batchwise"}),
          doc("per_image: every image selects for itself; batchwise: a batch votes for one set, as "
              "published code does, which tells tasks apart."));
  }
};

class L2p final : public Method {
 public:
  L2p(const MethodContext& context, const L2pOptions& options)
      : options_(options),
        backbone_(context.vit()),
        efficiency_(context.efficiency),
        head_(backbone_->options.embed_dim, context.num_classes, context.device) {
    if (options.top_k > options.pool_size) {
      throw Error("method: top_k " + std::to_string(options.top_k) + " is more than pool_size " +
                  std::to_string(options.pool_size) + "; choose at most that many");
    }
    const int64_t D = backbone_->options.embed_dim;
    const auto uniform = [&](at::IntArrayRef shape) {
      return (torch::rand(shape) * 2 - 1).to(context.device).set_requires_grad(true);
    };
    prompt_ = uniform({options.pool_size, options.prompt_length, D});
    key_ = uniform({options.pool_size, D});
  }

  void begin_task(const Task& task) override { trained_ = ClassRange::of(task, "current"); }

  std::vector<torch::Tensor> parameters() override {
    auto parameters = head_.parameters();
    parameters.push_back(prompt_);
    parameters.push_back(key_);
    return parameters;
  }

  std::vector<TrainedRows> trained_rows() override {
    auto rows = trained_.rows();
    rows.resize(parameters().size());
    return rows;
  }
  std::vector<torch::Tensor> head_parameters() override { return head_.parameters(); }

  int64_t prompt_tokens() const override { return options_.top_k * options_.prompt_length; }
  torch::Tensor loss(const Batch& batch) override {
    const KeyMatch match = select(efficiency_.train_query(batch.images, batch.indices));
    const torch::Tensor logits =
        classify(batch.images, match.ids, efficiency_.train_plan(batch.images, batch.indices));
    return Classifier::loss(logits, batch.labels, trained_.first, trained_.last) -
           options_.pull_weight * match.pull(match.ids);
  }

  torch::Tensor predict(const Batch& batch) override {
    return classify(batch.images, select(efficiency_.test_query(batch.images, batch.indices)).ids,
                    efficiency_.test_plan());
  }

  bool has_unseen_logits() const override { return true; }
  bool learns_repeated_classes() const override { return true; }
  bool predicts_within_task() const override { return true; }
  bool predicts_by_batch() const override { return options_.selection == "batchwise"; }
  bool can_grow() const override { return true; }
  bool loss_is_within_task() const override { return true; }
  bool can_share_batches() const override { return options_.selection == "per_image"; }
  void state(State& s) override {
    head_.state(s);
    s("prompt", prompt_);
    s("prompt_key", key_);
    trained_.state(s);
  }

 private:
  KeyMatch select(const torch::Tensor& query) {
    return match_keys(query, key_, options_.top_k, options_.selection == "batchwise");
  }

  torch::Tensor classify(const torch::Tensor& images, const torch::Tensor& ids, ForwardPlan plan) {
    plan.prompts = prompt_.index_select(0, ids.flatten())
                       .view({ids.size(0), prompt_tokens(), backbone_->options.embed_dim});
    plan.outputs = {1, prompt_tokens()};
    return head_.logits(backbone_->forward(images, plan).mean(1));
  }

  L2pOptions options_;
  VisionTransformer backbone_;
  Efficiency& efficiency_;
  Classifier head_;
  torch::Tensor prompt_, key_;  // [M, length, D], [M, D]
  ClassRange trained_;
};

const Registered<MethodKind> kL2p{"l2p", "Wang et al. 2022, Learning to Prompt (arXiv 2112.08654)",
                                  method_kind<L2p, L2pOptions>()};

}  // namespace

}  // namespace rep
