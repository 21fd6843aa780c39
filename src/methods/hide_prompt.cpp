// HiDe-Prompt: hierarchical decomposition of prompt-based continual learning (Wang et al., arXiv
// 2310.07234). The idea in three lines: a classifier on the un-prompted feature infers an image's
// task; that task's own prefix prompts then give the feature that a second classifier sees; and
// after each task both classifiers are trained once more, on draws from every class's statistics.
// Differs from the authors' code: their two runs (task inference first, its every snapshot stored)
// are one, each step minimising both losses, which share no parameter, on the same epochs and with
// one clipping norm; the task inference whose answer their training throws away is not computed
// (exact); keys and values are permuted to their images, where theirs are reshaped across the batch
// (`published_reshape: true` does as it does, for comparison only); alignment draws only what it
// trains on.
#include "methods/hide_prompt.h"

#include <cmath>
#include <functional>

#include "methods/frozen_features.h"
#include "methods/method.h"
#include "tensor/optimizer.h"
#include "tensor/torch.h"

namespace rep {

namespace {

torch::Tensor trained(const torch::Tensor& value, const torch::Device& device) {
  return value.to(device).set_requires_grad(true);
}

torch::Tensor row_index(int64_t first, int64_t size, const torch::Tensor& like) {
  return torch::arange(first, first + size, like.options().dtype(torch::kLong));
}

}  // namespace

MlpClassifier::MlpClassifier(int64_t dim, int64_t num_classes, const torch::Device& device)
    : weight1_(trained(torch::randn({2 * dim, dim}) * 0.02, device)),
      bias1_(trained(torch::zeros({2 * dim}), device)),
      weight2_(trained(torch::randn({dim, 2 * dim}) * 0.02, device)),
      bias2_(trained(torch::zeros({dim}), device)),
      norm_weight_(trained(torch::ones({dim}), device)),
      norm_bias_(trained(torch::zeros({dim}), device)),
      head_(dim, num_classes, device) {}

torch::Tensor MlpClassifier::logits(const torch::Tensor& features) const {
  const torch::Tensor inner = torch::gelu(torch::linear(features, weight1_, bias1_));
  const torch::Tensor sum = features + torch::linear(inner, weight2_, bias2_);
  return head_.logits(torch::layer_norm(sum, {features.size(1)}, norm_weight_, norm_bias_));
}

std::vector<torch::Tensor> MlpClassifier::parameters() const {
  auto parameters = head_.parameters();
  parameters.insert(parameters.end(),
                    {weight1_, bias1_, weight2_, bias2_, norm_weight_, norm_bias_});
  return parameters;
}

void MlpClassifier::state(State& s) {
  s("mlp.fc1.weight", weight1_);
  s("mlp.fc1.bias", bias1_);
  s("mlp.fc2.weight", weight2_);
  s("mlp.fc2.bias", bias2_);
  s("mlp.norm.weight", norm_weight_);
  s("mlp.norm.bias", norm_bias_);
  head_.state(s);
}

void align(MlpClassifier& classifier, const FeatureStatistics& statistics, int64_t seen,
           int64_t steps_per_epoch, int64_t epochs, int64_t batch, double lr) {
  OptimizerConfig config;
  config.name = "sgd";
  config.lr = lr;
  config.momentum = 0.9;
  Optimizer optimizer(config, classifier.parameters());
  for (int64_t epoch = 0; epoch < epochs; ++epoch) {
    const double turn = M_PI * static_cast<double>(epoch) / static_cast<double>(epochs);
    optimizer.set_lr(lr * 0.5 * (1 + std::cos(turn)));
    const torch::Tensor drawn = torch::randint(seen, {steps_per_epoch * batch}, torch::kLong);
    const torch::Tensor features = statistics.sample(drawn);
    const torch::Tensor labels = drawn.to(features.device());
    for (int64_t step = 0; step < steps_per_epoch; ++step) {
      optimizer.zero_grad();
      Classifier::loss(classifier.logits(features.narrow(0, step * batch, batch)),
                       labels.narrow(0, step * batch, batch), 0, seen)
          .backward();
      optimizer.step();
    }
  }
  optimizer.zero_grad();
}

torch::Tensor contrast(const torch::Tensor& centroids, const torch::Tensor& features,
                       double temperature) {
  const torch::Tensor rows = centroids.defined() ? torch::cat({centroids, features}) : features;
  const torch::Tensor logits = torch::mm(rows, rows.t()) / temperature;
  return torch::cross_entropy_loss(logits, row_index(0, rows.size(0), rows));
}

torch::Tensor with_momentum(const std::vector<torch::Tensor>& prompts, int64_t task, double m) {
  const torch::Tensor& own = prompts[static_cast<size_t>(task)];
  if (task == 0 || m == 0) return own;
  const torch::Tensor earlier =
      torch::stack(at::TensorList(prompts).slice(0, static_cast<size_t>(task))).mean(0).detach();
  return (1 - m) * own + m * earlier;
}

torch::Tensor per_layer(const torch::Tensor& prompts, bool published_reshape) {
  const torch::Tensor own = prompts.transpose(0, 1);  // [layers, B, 2, L, D]
  return published_reshape ? own.transpose(1, 2).reshape(own.sizes()) : own;
}

namespace {

struct HidePromptOptions {
  int64_t prompt_length = 5;
  std::vector<int64_t> layers{0, 1, 2, 3, 4};
  bool copy_previous = true;
  double prompt_momentum = 0.01;
  double contrast_weight = 0.1;
  double contrast_temperature = 0.8;
  double mlp_lr_factor = 0.1;
  double tii_lr_factor = 1.0 / 60;
  std::string statistics = "multi_centroid";
  int64_t centroids = 10;
  int64_t tap_epochs = 30;
  int64_t tap_batch = 120, tii_tap_batch = 24;
  double tap_lr = 0.005, tii_tap_lr = 0.005 * 24 / 256;
  bool published_reshape = false;

  template <class Visitor>
  void fields(Visitor&& visit) {
    visit("prompt_length", prompt_length, at_least(1), doc("Tokens of a task's prompt.", "tokens"));
    visit("layers", layers, doc("Blocks, from 0, with prompts.", "blocks"));
    visit("copy_previous", copy_previous, doc("A new task's prompts start as the previous one's."));
    visit("prompt_momentum", prompt_momentum, between(0, 1),
          doc("Share of the earlier prompts' mean in a task's prompts (m)."));
    visit("contrast_weight", contrast_weight, at_least(0), doc("Weight of the contrastive loss."));
    visit("contrast_temperature", contrast_temperature, above(0),
          doc("Temperature of the contrastive loss."));
    visit("mlp_lr_factor", mlp_lr_factor, at_least(0),
          doc("Factor on the learning rate of the MLP and head on prompted features."));
    visit("tii_lr_factor", tii_lr_factor, at_least(0),
          doc("Factor on the learning rate of the task inference."));
    visit("statistics", statistics, one_of({"multi_centroid", "covariance", "variance"}),
          doc("What a class leaves behind for the alignment: centroids of clusters, or mean and "
              "covariance or variance."));
    visit("centroids", centroids, at_least(1),
          doc("Centroids of a class for multi_centroid.", "centroids"));
    visit("tap_epochs", tap_epochs, at_least(0),
          doc("Epochs of the alignment on draws; 0: none.", "epochs"));
    visit("tap_batch", tap_batch, at_least(1),
          doc("Draws of a step of the classifier's alignment.", "draws"));
    visit("tii_tap_batch", tii_tap_batch, at_least(1),
          doc("Draws of a step of the task inference's alignment.", "draws"));
    visit("tap_lr", tap_lr, above(0), doc("Learning rate of the classifier's alignment."));
    visit("tii_tap_lr", tii_tap_lr, above(0),
          doc("Learning rate of the task inference's alignment."));
    visit("published_reshape", published_reshape,
          doc("Reshape prompts across the batch as the authors' code does; for comparison only."));
  }
};

class HidePrompt final : public Method {
 public:
  HidePrompt(const MethodContext& context, const HidePromptOptions& options)
      : options_(options),
        backbone_(context.vit()),
        efficiency_(context.efficiency),
        images_(context.images),
        // Within-task prediction (WTP) sees the prompted feature, task-identity inference (TII) the
        // plain one.
        wtp_(dim(), context.num_classes, context.device),
        tii_(dim(), context.num_classes, context.device),
        wtp_statistics_(options.statistics, options.centroids, context.num_classes, dim(),
                        context.device),
        tii_statistics_(options.statistics, options.centroids, context.num_classes, dim(),
                        context.device),
        task_of_class_(torch::zeros({context.num_classes},
                                    torch::device(context.device).dtype(torch::kLong))) {
    check_blocks(backbone_->options, "method.layers", options.layers);
    efficiency_.set_prompted_blocks(options.layers);
    const auto layers = static_cast<int64_t>(options.layers.size());
    for (int64_t i = 0; i < context.num_tasks; ++i) {
      prompts_.push_back(
          trained(torch::rand({layers, 2, options.prompt_length, dim()}) * 2 - 1, context.device));
    }
  }

  void begin_task(const Task& task) override {
    trained_ = ClassRange::of(task, "current");
    task_ = task.index;
    torch::NoGradGuard no_grad;
    task_of_class_.narrow(0, trained_.first, trained_.size()).fill_(task_);
    if (task_ > 0 && options_.copy_previous) {
      prompt().copy_(prompts_[static_cast<size_t>(task_ - 1)]);
    }
  }

  std::vector<torch::Tensor> parameters() override {
    std::vector<torch::Tensor> parameters{prompt()};
    for (const MlpClassifier* classifier : {&wtp_, &tii_}) {
      const auto own = classifier->parameters();
      parameters.insert(parameters.end(), own.begin(), own.end());
    }
    return parameters;
  }

  std::vector<torch::Tensor> head_parameters() override {
    std::vector<torch::Tensor> parameters = wtp_.parameters();
    for (const auto& own : tii_.parameters()) parameters.push_back(own);
    return parameters;
  }

  std::vector<double> lr_factors() override {
    std::vector<double> factors{1};
    factors.insert(factors.end(), wtp_.parameters().size(), options_.mlp_lr_factor);
    factors.insert(factors.end(), tii_.parameters().size(), options_.tii_lr_factor);
    return factors;
  }

  std::vector<TrainedRows> trained_rows() override {
    std::vector<TrainedRows> rows(1);
    for (const MlpClassifier* classifier : {&wtp_, &tii_}) {
      auto own = trained_.rows();  // the head's parameters come first
      own.resize(classifier->parameters().size());
      rows.insert(rows.end(), own.begin(), own.end());
    }
    return rows;
  }

  torch::Tensor loss(const Batch& batch) override {
    const auto cross_entropy = [&](const MlpClassifier& classifier, const torch::Tensor& x) {
      return Classifier::loss(classifier.logits(x), batch.labels, trained_.first, trained_.last);
    };
    const torch::Tensor plain = efficiency_.train_query(batch.images, batch.indices);
    // All images carry the task's own prompts, mixed with the earlier ones.
    const torch::Tensor mixed = with_momentum(prompts_, task_, options_.prompt_momentum);
    const torch::Tensor prompted = features(batch.images, same_for_all(mixed, batch.size()),
                                            efficiency_.train_plan(batch.images, batch.indices));
    torch::Tensor total = cross_entropy(tii_, plain) + cross_entropy(wtp_, prompted);
    if (options_.contrast_weight > 0) {
      total = total + options_.contrast_weight * contrast(wtp_statistics_.centroids(), prompted,
                                                          options_.contrast_temperature);
    }
    return total;
  }

  torch::Tensor predict(const Batch& batch) override {
    const torch::Tensor inferred = tii_.logits(efficiency_.test_query(batch.images, batch.indices))
                                       .narrow(1, 0, trained_.last)
                                       .argmax(1);
    const torch::Tensor own =
        torch::stack(prompts_).index_select(0, task_of_class_.index_select(0, inferred));
    return wtp_.logits(features(batch.images, own, efficiency_.test_plan()));
  }

  bool has_unseen_logits() const override { return true; }
  bool loss_is_within_task() const override { return true; }

  void end_task(const Task& task) override {
    {
      torch::NoGradGuard no_grad;
      prompt().copy_(with_momentum(prompts_, task_, options_.prompt_momentum));
      fit(tii_statistics_, task,
          [&](const Batch& batch) { return efficiency_.fixed_query(batch.images, batch.indices); });
      fit(wtp_statistics_, task, [&](const Batch& batch) {
        return features(batch.images, same_for_all(prompt(), batch.size()),
                        efficiency_.test_plan());
      });
    }
    // As many steps an epoch as there are earlier classes: none after the first task.
    align(tii_, tii_statistics_, trained_.last, trained_.first, options_.tap_epochs,
          options_.tii_tap_batch, options_.tii_tap_lr);
    align(wtp_, wtp_statistics_, trained_.last, trained_.first, options_.tap_epochs,
          options_.tap_batch, options_.tap_lr);
  }

  void state(State& s) override {
    s("prompt", prompts_);
    s("task_of_class", task_of_class_);
    s("task", task_);
    trained_.state(s);
    const auto both = [&](const char* name, MlpClassifier& classifier,
                          FeatureStatistics& statistics) {
      s.scope(name, [&](State& inner) {
        classifier.state(inner);
        statistics.state(inner);
      });
    };
    both("wtp", wtp_, wtp_statistics_);
    both("tii", tii_, tii_statistics_);
  }

 private:
  int64_t dim() const { return backbone_->options.embed_dim; }
  torch::Tensor& prompt() { return prompts_[static_cast<size_t>(task_)]; }

  // [layers, 2, L, D] -> [B, layers, 2, L, D]
  static torch::Tensor same_for_all(const torch::Tensor& prompt, int64_t images) {
    return prompt.unsqueeze(0).expand({images, -1, -1, -1, -1});
  }

  // images, prompts [B, layers, 2, L, D] -> [CLS] features [B, D]
  torch::Tensor features(const torch::Tensor& images, const torch::Tensor& prompts,
                         ForwardPlan plan) {
    const torch::Tensor prefixes = per_layer(prompts, options_.published_reshape);
    plan.prefixes.resize(static_cast<size_t>(backbone_->options.depth));
    for (size_t i = 0; i < options_.layers.size(); ++i) {
      plan.prefixes[static_cast<size_t>(options_.layers[i])] = prefixes[static_cast<int64_t>(i)];
    }
    return backbone_->features(images, plan);
  }

  void fit(FeatureStatistics& statistics, const Task& task,
           const std::function<torch::Tensor(const Batch&)>& feature) {
    const LabelledFeatures all = features_of(images_, task.train, feature);
    for (int64_t label = task.first_label; label < task.last_label(); ++label) {
      const torch::Tensor own = all.labels.eq(label).nonzero().squeeze(1);
      if (own.numel() > 0) statistics.fit(all.features.index_select(0, own), label);
    }
  }

  HidePromptOptions options_;
  VisionTransformer backbone_;
  Efficiency& efficiency_;
  const TaskImages& images_;
  MlpClassifier wtp_, tii_;
  FeatureStatistics wtp_statistics_, tii_statistics_;
  torch::Tensor task_of_class_;         // int64 [C]
  std::vector<torch::Tensor> prompts_;  // per task [layers, 2, L, D]
  int64_t task_ = 0;
  ClassRange trained_;
};

const Registered<MethodKind> kHidePrompt{"hide_prompt",
                                         "Wang et al. 2023, HiDe-Prompt (arXiv 2310.07234)",
                                         method_kind<HidePrompt, HidePromptOptions>()};

}  // namespace

}  // namespace rep
