// DualPrompt: complementary prompting for rehearsal-free continual learning (Wang et al.,
// 2204.04799). The idea in three lines: prompts are extra keys and values (prefixes) of some
// blocks' attention; general ones in the first blocks serve every task; of the expert ones in the
// next, each task trains its own, and a test image takes the one whose key is nearest to its frozen
// [CLS] feature. Differs from dualprompt-pytorch: keys and values are permuted to their images,
// where the published code reshapes across the batch (`published_reshape: true` does as it does,
// for comparison only), and selection at test is per image by default, as in its ImageNet-R
// setting.

#include "methods/classifier.h"
#include "methods/key_matching.h"
#include "methods/method.h"
#include "tensor/torch.h"

namespace rep {

namespace {

struct DualPromptOptions {
  int64_t pool_size = 10;
  int64_t prompt_length = 5;
  int64_t general_length = 5;
  std::vector<int64_t> general_layers{0, 1};
  std::vector<int64_t> expert_layers{2, 3, 4};
  double pull_weight = 1.0;
  std::string selection = "per_image";
  bool copy_previous = true;
  bool published_reshape = false;

  template <class Visitor>
  void fields(Visitor&& visit) {
    visit("pool_size", pool_size, at_least(1),
          doc("Expert prompts (M), one for each task.", "prompts"));
    visit("prompt_length", prompt_length, at_least(1),
          doc("Tokens of an expert prompt.", "tokens"));
    visit("general_length", general_length, at_least(1),
          doc("Tokens of a general prompt.", "tokens"));
    visit("general_layers", general_layers, doc("Blocks, from 0, with general prompts.", "blocks"));
    visit("expert_layers", expert_layers, doc("Blocks, from 0, with expert prompts.", "blocks"));
    visit("pull_weight", pull_weight, at_least(0),
          doc("Weight of the loss that pulls the task's key to the query."));
    visit("selection", selection, one_of({"per_image", "batchwise"}),
          doc("At test. per_image: every image selects for itself; batchwise: a batch votes, as "
              "published code does on CIFAR-100."));
    visit("copy_previous", copy_previous,
          doc("A new task's expert prompt starts as the previous one's."));
    visit("published_reshape", published_reshape,
          doc("Reshape prompts across the batch as dualprompt-pytorch does; for comparison only."));
  }
};

class DualPrompt final : public Method {
 public:
  DualPrompt(const MethodContext& context, const DualPromptOptions& options)
      : options_(options),
        backbone_(context.vit()),
        efficiency_(context.efficiency),
        head_(backbone_->options.embed_dim, context.num_classes, context.device) {
    check_blocks(backbone_->options, "method.general_layers", options.general_layers);
    check_blocks(backbone_->options, "method.expert_layers", options.expert_layers);
    if (context.num_tasks > options.pool_size) {
      throw Error("method: pool_size " + std::to_string(options.pool_size) +
                  " is less than the stream's " + std::to_string(context.num_tasks) +
                  " tasks; every task trains an expert prompt of its own");
    }
    auto prompted = options.general_layers;
    prompted.insert(prompted.end(), options.expert_layers.begin(), options.expert_layers.end());
    efficiency_.set_prompted_blocks(prompted);
    const int64_t D = backbone_->options.embed_dim;
    const auto uniform = [&](at::IntArrayRef shape) {
      return (torch::rand(shape) * 2 - 1).to(context.device).set_requires_grad(true);
    };
    const auto layers = [](const std::vector<int64_t>& list) {
      return static_cast<int64_t>(list.size());
    };
    general_ = uniform({layers(options.general_layers), 2, options.general_length, D});
    expert_ =
        uniform({layers(options.expert_layers), 2, options.pool_size, options.prompt_length, D});
    key_ = uniform({options.pool_size, D});
  }

  void begin_task(const Task& task) override {
    trained_ = ClassRange::of(task, "current");
    task_ = task.index;
    if (task_ > 0 && options_.copy_previous) {
      torch::NoGradGuard no_grad;
      expert_.select(2, task_).copy_(expert_.select(2, task_ - 1));
    }
  }

  std::vector<torch::Tensor> parameters() override {
    auto parameters = head_.parameters();
    parameters.insert(parameters.end(), {general_, expert_, key_});
    return parameters;
  }

  std::vector<TrainedRows> trained_rows() override {
    auto rows = trained_.rows();
    rows.insert(rows.end(), {TrainedRows{}, {2, task_, task_ + 1}, {0, task_, task_ + 1}});
    return rows;
  }
  std::vector<torch::Tensor> head_parameters() override { return head_.parameters(); }

  torch::Tensor loss(const Batch& batch) override {
    const KeyMatch match = select(efficiency_.train_query(batch.images, batch.indices));
    const torch::Tensor own =
        efficiency_.head_only() ? match.ids : torch::full_like(match.ids, task_);
    const torch::Tensor logits =
        classify(batch.images, own, efficiency_.train_plan(batch.images, batch.indices));
    return Classifier::loss(logits, batch.labels, trained_.first, trained_.last) -
           options_.pull_weight * match.pull(own);
  }

  torch::Tensor predict(const Batch& batch) override {
    return classify(batch.images, select(efficiency_.test_query(batch.images, batch.indices)).ids,
                    efficiency_.test_plan());
  }

  bool has_unseen_logits() const override { return true; }
  bool learns_repeated_classes() const override { return true; }
  bool predicts_within_task() const override { return true; }
  bool predicts_by_batch() const override {
    return options_.selection == "batchwise" || options_.published_reshape;
  }
  bool can_grow() const override { return true; }
  bool loss_is_within_task() const override { return true; }
  bool can_share_batches() const override {
    return options_.selection == "per_image" && !options_.published_reshape;
  }
  void state(State& s) override {
    head_.state(s);
    s("g_prompt", general_);
    s("e_prompt", expert_);
    s("prompt_key", key_);
    s("task", task_);
    trained_.state(s);
  }

 private:
  KeyMatch select(const torch::Tensor& query) {
    return match_keys(query, key_, /*top_k=*/1, options_.selection == "batchwise");
  }

  torch::Tensor classify(const torch::Tensor& images, const torch::Tensor& ids, ForwardPlan plan) {
    const int64_t B = images.size(0), L = options_.prompt_length;
    const int64_t D = backbone_->options.embed_dim;
    plan.prefixes.resize(static_cast<size_t>(backbone_->options.depth));
    for (size_t i = 0; i < options_.general_layers.size(); ++i) {
      plan.prefixes[static_cast<size_t>(options_.general_layers[i])] =
          general_[static_cast<int64_t>(i)].unsqueeze(0).expand({B, -1, -1, -1});
    }
    for (size_t i = 0; i < options_.expert_layers.size(); ++i) {
      // [2, M, L, D] -> [2, B, L, D]
      const torch::Tensor rows = expert_[static_cast<int64_t>(i)].index_select(1, ids.flatten());
      plan.prefixes[static_cast<size_t>(options_.expert_layers[i])] =
          options_.published_reshape ? rows.reshape({B, 2, L, D}) : rows.transpose(0, 1);
    }
    return head_.logits(backbone_->features(images, plan));
  }

  DualPromptOptions options_;
  VisionTransformer backbone_;
  Efficiency& efficiency_;
  Classifier head_;
  torch::Tensor general_;  // [layers, 2, L, D]
  torch::Tensor expert_;   // [layers, 2, M, L, D]
  torch::Tensor key_;      // [M, D]
  int64_t task_ = 0;
  ClassRange trained_;
};

const Registered<MethodKind> kDualPrompt{"dualprompt",
                                         "Wang et al. 2022, DualPrompt (arXiv 2204.04799)",
                                         method_kind<DualPrompt, DualPromptOptions>()};

}  // namespace

}  // namespace rep
