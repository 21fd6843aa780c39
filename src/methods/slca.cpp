// SLCA: Slow Learner with Classifier Alignment (Zhang et al., arXiv 2303.05118).
// The idea in three lines: the whole backbone is fine-tuned, but a hundred times slower than the
// heads; every class leaves a Gaussian of its features behind; after each task the classifier is
// aligned on draws from all of them, for testing only: the next task goes on from the heads before.
// Differs from the published code: a class's age is its task's, also where tasks are of different
// sizes; Cholesky factors are kept in place of covariances; the optimisers' schedules are the
// runner's.
#include "methods/slca.h"

#include <algorithm>
#include <cmath>

#include "methods/class_gaussians.h"
#include "methods/frozen_features.h"
#include "methods/network.h"
#include "tensor/optimizer.h"
#include "tensor/torch.h"

namespace rep {

torch::Tensor normalise_by_task(const torch::Tensor& logits, const std::vector<int64_t>& task_sizes,
                                double temperature) {
  torch::Tensor norms = torch::zeros({logits.size(0), 1}, logits.options());
  int64_t first = 0;
  for (const int64_t size : task_sizes) {
    norms = norms + logits.narrow(1, first, size).norm(2, 1, /*keepdim=*/true) + 1e-7;
    first += size;
  }
  return logits / (norms / static_cast<double>(task_sizes.size())) / temperature;
}

namespace {

struct SlcaOptions {
  double backbone_lr_factor = 0.01;
  bool fresh_norm = true;
  int64_t alignment_epochs = 5;
  int64_t alignment_samples = 256;
  double alignment_lr = 0.01;
  double alignment_momentum = 0.9;
  double alignment_weight_decay = 5e-4;
  double temperature = 0.1;
  template <class Visitor>
  void fields(Visitor&& visit) {
    visit("backbone_lr_factor", backbone_lr_factor, above(0),
          doc("Factor on the learning rate of the backbone."));
    visit("fresh_norm", fresh_norm, doc("Start the ViT's last LayerNorm anew, as published."));
    visit("alignment_epochs", alignment_epochs, at_least(0),
          doc("Epochs of the classifier's alignment; 0: none.", "epochs"));
    visit("alignment_samples", alignment_samples, at_least(1),
          doc("Draws of each class in such an epoch, and its batch.", "draws"));
    visit("alignment_lr", alignment_lr, above(0),
          doc("Learning rate of the alignment, cosine to 0."));
    visit("alignment_momentum", alignment_momentum, between(0, 1),
          doc("Momentum of the alignment."));
    visit("alignment_weight_decay", alignment_weight_decay, at_least(0),
          doc("Weight decay of the alignment."));
    visit("temperature", temperature, above(0), doc("Temperature of the normalised logits."));
  }
};

// The published code drops the pre-trained final norm for a new one with PyTorch's own epsilon.
void renew_final_norm(Backbone& backbone) {
  auto* vit = dynamic_cast<VisionTransformerImpl*>(&backbone);
  if (!vit) return;
  torch::NoGradGuard no_grad;
  vit->norm->weight.fill_(1);
  vit->norm->bias.zero_();
  vit->norm->options.eps(1e-5);
}

class Slca final : public Method {
 public:
  Slca(const MethodContext& context, const SlcaOptions& options)
      : options_(options),
        efficiency_(context.efficiency),
        images_(context.images),
        network_(context, NetworkOptions{}),
        gaussians_(context.num_classes, network_.feature_dim(), context.device),
        before_alignment_(head_values()) {
    if (network_.frozen()) {
      throw Error(
          "backbone.trainable: slca fine-tunes the backbone slowly; set it to all or to a number "
          "of "
          "last blocks");
    }
    if (options.fresh_norm) renew_final_norm(*context.backbone);
  }

  void begin_task(const Task& task) override {
    trained_ = ClassRange::of(task, "current");
    task_sizes_.push_back(trained_.size());
    torch::NoGradGuard no_grad;
    const auto head = network_.head().parameters();
    for (size_t i = 0; i < head.size(); ++i) torch::Tensor(head[i]).copy_(before_alignment_[i]);
  }

  std::vector<torch::Tensor> parameters() override { return network_.parameters(); }
  std::vector<double> lr_factors() override {
    std::vector<double> factors(network_.parameters().size(), options_.backbone_lr_factor);
    std::fill_n(factors.begin(), network_.head().parameters().size(), 1.0);  // they come first
    return factors;
  }

  std::vector<TrainedRows> trained_rows() override { return network_.trained_rows(trained_); }

  torch::Tensor loss(const Batch& batch) override {
    return Classifier::loss(network_.logits(network_.train_input(batch)), batch.labels,
                            trained_.first, trained_.last);
  }

  void end_task(const Task& task) override {
    before_alignment_ = head_values();
    const LabelledFeatures all = features_of(images_, task.train, [&](const Batch& batch) {
      Network::Input input = network_.fixed_input(batch);
      input.plan = efficiency_.test_plan();  // statistics of what the classifier sees at test
      return network_.features(input);
    });
    for (int64_t label = task.first_label; label < task.last_label(); ++label) {
      if (!all.features.defined()) break;
      const torch::Tensor rows = all.labels.eq(label).nonzero().squeeze(1);
      if (rows.size(0) > 0) gaussians_.fit(all.features.index_select(0, rows), label);
    }
    if (task.index > 0) align();
  }

  torch::Tensor predict(const Batch& batch) override {
    return network_.logits(network_.test_input(batch));
  }
  bool has_unseen_logits() const override { return true; }
  bool loss_is_within_task() const override { return true; }

  void state(State& s) override {
    network_.state(s);
    gaussians_.state(s);
    s("head_before_alignment", before_alignment_);
    trained_.state(s);
    Json sizes = task_sizes_;
    s("task_sizes", sizes);
    task_sizes_ = sizes.get<std::vector<int64_t>>();
  }

 private:
  std::vector<torch::Tensor> head_values() {
    std::vector<torch::Tensor> values;
    for (const auto& parameter : network_.head().parameters()) {
      values.push_back(parameter.detach().clone());
    }
    return values;
  }

  // Trains all heads on draws from every class's Gaussian.
  void align() {
    std::vector<int64_t> classes;
    std::vector<float> decays(static_cast<size_t>(gaussians_.means().size(0)), 0);
    int64_t label = 0;
    const auto tasks = static_cast<int64_t>(task_sizes_.size());
    for (int64_t t = 0; t < tasks; ++t) {
      for (int64_t i = 0; i < task_sizes_[static_cast<size_t>(t)]; ++i, ++label) {
        if (!gaussians_.knows(label)) continue;
        classes.push_back(label);
        decays[static_cast<size_t>(label)] = static_cast<float>(mean_decay(t, tasks - 1));
      }
    }
    const int64_t seen = label, batch = options_.alignment_samples;
    const auto device = gaussians_.means().device();
    const torch::Tensor ordered = torch::tensor(classes).repeat_interleave(batch);
    // A draw is mean + noise; the mean's decay is what has to be added.
    const torch::Tensor shift =
        gaussians_.means() * (torch::tensor(decays).unsqueeze(1).to(device) - 1);

    OptimizerConfig config;
    config.name = "sgd";
    config.momentum = options_.alignment_momentum;
    config.weight_decay = options_.alignment_weight_decay;
    Optimizer optimizer(config, network_.head().parameters());
    for (int64_t epoch = 0; epoch < options_.alignment_epochs; ++epoch) {
      optimizer.set_lr(options_.alignment_lr * 0.5 *
                       (1 + std::cos(M_PI * static_cast<double>(epoch) /
                                     static_cast<double>(options_.alignment_epochs))));
      const torch::Tensor labels =
          ordered.index_select(0, torch::randperm(ordered.size(0), torch::kLong));
      const torch::Tensor targets = labels.to(device);
      const torch::Tensor x = gaussians_.sample(labels) + shift.index_select(0, targets);
      for (int64_t first = 0; first < x.size(0); first += batch) {
        optimizer.zero_grad();
        const torch::Tensor logits =
            network_.head().logits(x.narrow(0, first, batch)).narrow(1, 0, seen);
        torch::cross_entropy_loss(normalise_by_task(logits, task_sizes_, options_.temperature),
                                  targets.narrow(0, first, batch))
            .backward();
        optimizer.step();
      }
    }
    optimizer.zero_grad();
  }

  SlcaOptions options_;
  Efficiency& efficiency_;
  const TaskImages& images_;
  Network network_;
  ClassGaussians gaussians_;
  std::vector<torch::Tensor> before_alignment_;  // the head's weights and bias, as tasks train them
  std::vector<int64_t> task_sizes_;              // classes, of every task begun
  ClassRange trained_;
};

const Registered<MethodKind> kSlca{
    "slca", "Zhang et al. 2023, Slow Learner with Classifier Alignment (arXiv 2303.05118)",
    method_kind<Slca, SlcaOptions>()};

}  // namespace

}  // namespace rep
