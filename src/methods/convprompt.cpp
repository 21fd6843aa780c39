// ConvPrompt: convolutional prompting meets language models for continual learning (Roy et al.,
// arXiv 2403.20317). The idea in three lines: each prompted layer has one prompt embedding that all
// tasks share; every task adds a few small convolutions that make prefixes of it, and an image's
// own prefix is their sum, weighted by the cosine of the layer's [CLS] input, projected, with one
// key a kernel; the norms of the backbone learn along, and a task has a head of its own. Differs
// from the authors' code: a kernel is convolved once a step, not once an image (exact, as the
// embedding is the same for all); how many kernels a task gets, there computed from sentence
// embeddings of class descriptions, is read from `new_kernels`. As there, keys stay as drawn:
// theirs leave the optimiser without notice (`train_keys: true` trains them as the paper says).
#include "methods/convprompt.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "methods/classifier.h"
#include "methods/method.h"
#include "tensor/torch.h"

namespace rep {

torch::Tensor convolve(const torch::Tensor& embedding, const torch::Tensor& weight,
                       const torch::Tensor& bias) {
  const int64_t H = embedding.size(1), f = weight.size(2), size = weight.size(3);
  // A channel and group for each of keys and values of each head: one convolution for all.
  const torch::Tensor maps =
      torch::conv2d(embedding.flatten(0, 1).unsqueeze(0),
                    weight.reshape({2 * H * f, 1, size, size}), bias.reshape({2 * H * f}),
                    /*stride=*/1, /*padding=*/at::IntArrayRef({0}), /*dilation=*/1,
                    /*groups=*/2 * H);
  const int64_t L = maps.size(2), d = maps.size(3);
  return maps.view({2, H, f, L, d}).permute({2, 0, 3, 1, 4}).reshape({f, 2, L, H * d});
}

torch::Tensor mix(const torch::Tensor& shares, const torch::Tensor& prompts) {
  return torch::mm(shares, prompts.flatten(1))
      .view({shares.size(0), 2, prompts.size(2), prompts.size(3)});
}

void draw_orthonormal(torch::Tensor& keys, int64_t first, int64_t last) {
  torch::NoGradGuard no_grad;
  keys.narrow(0, first, keys.size(0) - first).zero_();
  // Gram-Schmidt, as the columns of a QR decomposition whose first columns are the rows at hand.
  const torch::Tensor fresh = torch::randn({last - first, keys.size(1)});
  const torch::Tensor columns = torch::cat({keys.narrow(0, 0, first).cpu(), fresh}).t();
  const auto [q, r] = torch::linalg_qr(columns);
  const torch::Tensor signs = r.diagonal().sign();  // QR leaves them open, Gram-Schmidt does not
  keys.narrow(0, first, last - first).copy_((q * signs).t().narrow(0, first, last - first));
}

torch::Tensor PreviousPrompt::add_to(const torch::Tensor& own, int64_t layer) {
  const bool there = previous_.defined() && (latest_ || layer_ == layer - 1);
  const torch::Tensor sum = there ? own + previous_ : own;
  previous_ = own;
  layer_ = layer;
  return sum;
}

namespace {

constexpr size_t kPublishedLayers = 7;

struct ConvPromptOptions {
  int64_t prompt_length = 20;
  int64_t kernel_size = 17;
  std::vector<int64_t> layers;
  int64_t kernels = 5;
  std::vector<int64_t> new_kernels;
  double change_weight = 0.01;
  double norm_lr_factor = 0.005;
  bool train_keys = false;
  std::string dropped = "latest";

  template <class Visitor>
  void fields(Visitor&& visit) {
    visit("prompt_length", prompt_length, at_least(1), doc("Tokens of a prompt.", "tokens"));
    visit("kernel_size", kernel_size, at_least(1), doc("Side of a convolution kernel."));
    visit("layers", layers, doc("Blocks, from 0, with prompts; empty: the first seven.", "blocks"));
    visit("kernels", kernels, at_least(1),
          doc("Kernels that each task adds to every prompted block and head.", "kernels"));
    visit("new_kernels", new_kernels, doc("Kernels of each task, in place of kernels.", "kernels"));
    visit("change_weight", change_weight, at_least(0),
          doc("Weight of the L1 change of what all tasks share."));
    visit("norm_lr_factor", norm_lr_factor, at_least(0),
          doc("Factor on the learning rate of the backbone's norms after the first task."));
    visit("train_keys", train_keys,
          doc("Train the keys, as the paper says; the authors' code leaves them as drawn."));
    visit("dropped", dropped, one_of({"latest", "zero"}),
          doc("What a block adds when the one before was dropped: its latest prompt, or zero."));
  }
};

// x / sqrt(max(|x|^2, 1e-12)), rows
torch::Tensor unit_rows(const torch::Tensor& x) {
  return x * x.square().sum(1, /*keepdim=*/true).clamp_min(1e-12).rsqrt();
}

class ConvPrompt final : public Method {
 public:
  ConvPrompt(const MethodContext& context, const ConvPromptOptions& options)
      : options_(options),
        device_(context.device),
        backbone_(context.vit()),
        efficiency_(context.efficiency),
        num_classes_(context.num_classes),
        layers_(layers_of(options)),
        kernels_(kernels_of(options, context.num_tasks)) {
    for (auto& item : backbone_->named_parameters()) {
      if (item.value().requires_grad()) {
        throw Error("backbone.trainable: " + context.options.name +
                    " itself trains the backbone's norms and nothing else of it; set it to none");
      }
      if (item.key().find("norm") != std::string::npos) norms_.push_back(item);
    }
    for (auto& norm : norms_) norm.value().set_requires_grad(true);
    efficiency_.set_prompted_blocks(layers_);

    const int64_t D = dim(), H = heads(), overlap = options.kernel_size - 1;
    const auto layers = static_cast<int64_t>(layers_.size());
    embedding_ = trained(
        torch::rand({layers, 2, H, options.prompt_length + overlap, D / H + overlap}) * 2 - 1);
    projection_ = {trained(torch::randn({D / 2, D}) * 0.02), trained(torch::zeros({D / 2})),
                   trained(torch::randn({D / 4, D / 2}) * 0.02), trained(torch::zeros({D / 4}))};
    keys_ = torch::zeros({std::accumulate(kernels_.begin(), kernels_.end(), int64_t{0}), D / 4},
                         device_);
    keys_.set_requires_grad(options.train_keys);
    if (keys_.size(0) > keys_.size(1)) {
      throw Error("method.kernels: " + std::to_string(keys_.size(0)) +
                  " kernels over all tasks are more than the " + std::to_string(keys_.size(1)) +
                  " orthogonal keys there can be; add fewer a task or take a wider backbone");
    }
  }

  void begin_task(const Task& task) override {
    task_ = task.index;
    first_label_ = task.first_label;
    first_kernel_ = last_kernel_;
    const int64_t fresh = kernels_[static_cast<size_t>(task_)];
    last_kernel_ += fresh;
    draw_orthonormal(keys_, first_kernel_, last_kernel_);

    const int64_t D = dim(), C = static_cast<int64_t>(task.classes.size());
    const int64_t layers = embedding_.size(0), H = heads(), size = options_.kernel_size;
    const double bound = 1.0 / static_cast<double>(size);  // torch.nn.Conv2d's, of size^2 inputs
    kernel_weight_.push_back((torch::rand({layers, 2, H, fresh, size, size}) * 2 - 1) * bound);
    kernel_bias_.push_back((torch::rand({layers, 2, H, fresh}) * 2 - 1) * bound);
    head_norm_weight_.push_back(torch::ones({D}));
    head_norm_bias_.push_back(torch::zeros({D}));
    head_weight_.push_back(torch::randn({C, D}) * 0.02);
    head_bias_.push_back(torch::zeros({C}));
    train_only_last_task();

    shared_before_.clear();
    if (task_ == 0) return;
    for (const auto& value : shared()) shared_before_.push_back(value.detach().clone());
  }

  std::vector<torch::Tensor> parameters() override {
    auto parameters = shared();
    for (const auto* list : per_task()) parameters.push_back(list->back());
    if (options_.train_keys) parameters.push_back(keys_);
    for (const auto& norm : norms_) parameters.push_back(norm.value());
    return parameters;
  }

  std::vector<torch::Tensor> head_parameters() override {
    return {head_norm_weight_.back(), head_norm_bias_.back(), head_weight_.back(),
            head_bias_.back()};
  }

  std::vector<double> lr_factors() override {
    std::vector<double> factors(parameters().size(), 1);
    if (task_ > 0) {
      std::fill(factors.end() - static_cast<std::ptrdiff_t>(norms_.size()), factors.end(),
                options_.norm_lr_factor);
    }
    return factors;
  }

  std::vector<TrainedRows> trained_rows() override {
    std::vector<TrainedRows> rows(parameters().size());
    if (options_.train_keys) {
      rows[rows.size() - norms_.size() - 1] = {0, first_kernel_, last_kernel_};
    }
    return rows;
  }

  torch::Tensor loss(const Batch& batch) override {
    const torch::Tensor x =
        features(batch.images, efficiency_.train_plan(batch.images, batch.indices));
    torch::Tensor total = torch::cross_entropy_loss(head_logits(x, head_weight_.size() - 1),
                                                    batch.labels - first_label_);
    const auto values = shared();
    for (size_t i = 0; i < shared_before_.size(); ++i) {
      total = total + options_.change_weight * (values[i] - shared_before_[i]).abs().sum();
    }
    return total;
  }

  torch::Tensor predict(const Batch& batch) override {
    const torch::Tensor x = features(batch.images, efficiency_.test_plan());
    std::vector<torch::Tensor> logits;
    int64_t known = 0;
    for (size_t i = 0; i < head_weight_.size(); ++i) {
      logits.push_back(head_logits(x, i));
      known += logits.back().size(1);
    }
    logits.push_back(torch::zeros({x.size(0), num_classes_ - known}, x.options()));
    return torch::cat(logits, 1);
  }

  bool loss_is_within_task() const override { return true; }

  void state(State& s) override {
    s("embedding", embedding_);
    s("projection", projection_);
    s("keys", keys_);
    s("kernel.weight", kernel_weight_);
    s("kernel.bias", kernel_bias_);
    s("head.norm.weight", head_norm_weight_);
    s("head.norm.bias", head_norm_bias_);
    s("head.weight", head_weight_);
    s("head.bias", head_bias_);
    s("shared_before", shared_before_);
    for (auto& norm : norms_) s("backbone." + norm.key(), norm.value());
    s("task", task_);
    s("first_label", first_label_);
    s("first_kernel", first_kernel_);
    s("last_kernel", last_kernel_);
    if (s.loading()) train_only_last_task();
  }

 private:
  using Norm = torch::OrderedDict<std::string, torch::Tensor>::Item;

  int64_t dim() const { return backbone_->options.embed_dim; }
  int64_t heads() const { return backbone_->options.num_heads; }

  torch::Tensor trained(const torch::Tensor& value) const {
    return value.to(device_).set_requires_grad(true);
  }

  std::vector<int64_t> layers_of(const ConvPromptOptions& options) const {
    std::vector<int64_t> layers = options.layers;
    const auto depth = static_cast<size_t>(backbone_->options.depth);
    if (layers.empty()) {
      layers.resize(std::min(kPublishedLayers, depth));
      std::iota(layers.begin(), layers.end(), 0);
    }
    for (size_t i = 0; i < layers.size(); ++i) {
      if (layers[i] < 0 || layers[i] >= backbone_->options.depth ||
          (i > 0 && layers[i] <= layers[i - 1])) {
        throw Error("method.layers: " + std::to_string(layers[i]) +
                    " is not there or not in order; list some of the blocks 0 to " +
                    std::to_string(depth - 1) + ", rising");
      }
    }
    return layers;
  }

  static std::vector<int64_t> kernels_of(const ConvPromptOptions& options, int64_t tasks) {
    if (options.new_kernels.empty()) {
      return std::vector<int64_t>(static_cast<size_t>(tasks), options.kernels);
    }
    if (static_cast<int64_t>(options.new_kernels.size()) != tasks ||
        *std::min_element(options.new_kernels.begin(), options.new_kernels.end()) < 1) {
      throw Error("method.new_kernels: " + std::to_string(options.new_kernels.size()) +
                  " numbers for " + std::to_string(tasks) +
                  " tasks, or one below 1; give every task a number from 1, or only `kernels`");
    }
    return options.new_kernels;
  }

  // What all tasks share, and may change but a little after the first.
  std::vector<torch::Tensor> shared() const {
    std::vector<torch::Tensor> values{embedding_};
    values.insert(values.end(), projection_.begin(), projection_.end());
    return values;
  }

  // What every task has of its own.
  std::vector<std::vector<torch::Tensor>*> per_task() {
    return {&kernel_weight_,  &kernel_bias_, &head_norm_weight_,
            &head_norm_bias_, &head_weight_, &head_bias_};
  }

  // Of each the last is the task's in hand; all others are as they will stay.
  void train_only_last_task() {
    for (auto* list : per_task()) {
      for (size_t i = 0; i < list->size(); ++i) {
        torch::Tensor& value = (*list)[i];
        value = value.to(device_);  // a new task's was drawn on the CPU
        value.set_requires_grad(i + 1 == list->size());
      }
    }
  }

  // cos(g(x), key) for the keys in use: [B, D] -> [B, f]
  torch::Tensor shares(const torch::Tensor& x) const {
    const torch::Tensor inner = torch::relu(torch::linear(x, projection_[0], projection_[1]));
    const torch::Tensor query = torch::linear(inner, projection_[2], projection_[3]);
    const torch::Tensor keys =
        torch::cat({keys_.narrow(0, 0, first_kernel_).detach(),
                    keys_.narrow(0, first_kernel_, last_kernel_ - first_kernel_)});
    return torch::mm(unit_rows(query), unit_rows(keys).t());
  }

  // The prompts of one layer for the input of its block: x [B, N, D] -> [B, 2, L, D]
  torch::Tensor prompts(const torch::Tensor& x, int64_t layer) const {
    const auto of_layer = [layer](const std::vector<torch::Tensor>& kernels) {
      std::vector<torch::Tensor> own;
      for (const auto& kernel : kernels) own.push_back(kernel[layer]);
      return torch::cat(own, /*dim=*/2);
    };
    return mix(shares(x.select(1, 0)),
               convolve(embedding_[layer], of_layer(kernel_weight_), of_layer(kernel_bias_)));
  }

  torch::Tensor features(const torch::Tensor& images, ForwardPlan plan) {
    PreviousPrompt previous(options_.dropped == "latest");
    plan.make_prefix = [&](const torch::Tensor& x, int64_t block) {
      const auto found = std::find(layers_.begin(), layers_.end(), block);
      if (found == layers_.end()) return torch::Tensor();
      const int64_t layer = found - layers_.begin();
      return previous.add_to(prompts(x, layer), layer);
    };
    return backbone_->features(images, plan);
  }

  torch::Tensor head_logits(const torch::Tensor& x, size_t task) const {
    return torch::linear(
        torch::layer_norm(x, {x.size(1)}, head_norm_weight_[task], head_norm_bias_[task]),
        head_weight_[task], head_bias_[task]);
  }

  ConvPromptOptions options_;
  torch::Device device_;
  VisionTransformer backbone_;
  Efficiency& efficiency_;
  int64_t num_classes_;
  std::vector<int64_t> layers_;   // the prompted blocks
  std::vector<int64_t> kernels_;  // per task
  std::vector<Norm> norms_;       // the backbone's, which train

  torch::Tensor embedding_;                // [layers, 2, H, L + s - 1, d + s - 1]
  std::vector<torch::Tensor> projection_;  // weight [D / 2, D], bias, weight [D / 4, D / 2], bias
  torch::Tensor keys_;                     // [kernels of all tasks, D / 4]
  // Per task so far: kernels [layers, 2, H, k, s, s] and [layers, 2, H, k], head with its norm.
  std::vector<torch::Tensor> kernel_weight_, kernel_bias_;
  std::vector<torch::Tensor> head_norm_weight_, head_norm_bias_, head_weight_, head_bias_;

  std::vector<torch::Tensor> shared_before_;  // shared() when the task began; not in the first
  int64_t task_ = 0, first_label_ = 0;
  int64_t first_kernel_ = 0, last_kernel_ = 0;  // this task's
};

MethodKind convprompt() {
  MethodKind kind = method_kind<ConvPrompt, ConvPromptOptions>();
  kind.trains_norms = true;
  return kind;
}

const Registered<MethodKind> kConvPrompt{
    "convprompt", "Roy et al. 2024, ConvPrompt (arXiv 2403.20317)", convprompt()};

}  // namespace

}  // namespace rep
