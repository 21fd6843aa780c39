// PNN: Progressive Neural Networks (Rusu et al., arXiv 1606.04671), columns of multilayer
// perceptrons on the frozen backbone's features.
// The idea in three lines: every task gets a column of its own (two hidden layers and an output
// layer for its classes), earlier columns never change again; each layer above the first also sees
// the earlier columns' layer below, through an adapter:
//   h_i = relu(W_i h_(i-1) + U_i relu(V_i [alpha_1 h_(i-1)^(1); ...; alpha_(k-1) h_(i-1)^(k-1)]))
// (the output layer without the outer relu). What is learned is one scale alpha per column and
// layer, V, which brings all of them down to one layer's width, and U.
// The first layer has no adapter: below it all columns see the same. A task's logits come from its
// own column, whoever asks; side by side they are the logits of all classes, of which
// task-incremental accuracy is what the method is made for: columns are never trained against one
// another. Differs from Mammoth: one copy of every column, with its own adapters, serves all later
// ones. Parameters grow with the square of the number of tasks.

#include <cmath>
#include <limits>

#include "methods/network.h"
#include "tensor/torch.h"

namespace rep {

namespace {

struct PnnOptions {
  int64_t width = 256;

  template <class Visitor>
  void fields(Visitor&& visit) {
    visit("width", width, at_least(1), doc("Width of a column's hidden layers.", "units"));
  }
};

// torch.nn.Linear's initialisation; drawn on the CPU: the same numbers whatever the device.
void draw_uniform(const torch::Tensor& tensor, int64_t fan_in) {
  const double bound = 1 / std::sqrt(static_cast<double>(fan_in));
  tensor.copy_((torch::rand(tensor.sizes()) * 2 - 1) * bound);
}

// One layer of a column behind `earlier` others, n_in -> n_out.
struct PnnLayer {
  torch::Tensor weight, bias;  // W [n_out, n_in], [n_out]
  torch::Tensor alpha;         // [earlier, 1]; undefined without adapter, like all that follow
  torch::Tensor down, down_bias, up;  // V [n_in, earlier n_in], [n_in]; U [n_out, n_in]

  PnnLayer(int64_t n_out, int64_t n_in, int64_t earlier, const torch::Device& device) {
    const auto make = [&](at::IntArrayRef shape) { return torch::zeros(shape, device); };
    weight = make({n_out, n_in});
    bias = make({n_out});
    if (earlier == 0) return;
    alpha = make({earlier, 1});
    down = make({n_in, earlier * n_in});
    down_bias = make({n_in});
    up = make({n_out, n_in});
  }

  void draw() {
    torch::NoGradGuard no_grad;
    draw_uniform(weight, weight.size(1));
    draw_uniform(bias, weight.size(1));
    if (!alpha.defined()) return;
    alpha.copy_(torch::rand(alpha.sizes()) * 0.1);  // small, and different for each
    draw_uniform(down, down.size(1));
    draw_uniform(down_bias, down.size(1));
    draw_uniform(up, up.size(1));
  }

  // [B, n_in], and the same of each earlier column, -> [B, n_out]
  torch::Tensor forward(const torch::Tensor& own, const std::vector<torch::Tensor>& earlier) const {
    const torch::Tensor sum = torch::linear(own, weight, bias);
    if (!alpha.defined()) return sum;
    const torch::Tensor scaled = (torch::stack(earlier, 1) * alpha).flatten(1);
    return sum + torch::linear(torch::relu(torch::linear(scaled, down, down_bias)), up);
  }

  std::vector<torch::Tensor> parameters() const {
    if (!alpha.defined()) return {weight, bias};
    return {weight, bias, alpha, down, down_bias, up};
  }

  void state(State& s) {
    s("weight", weight);
    s("bias", bias);
    s("alpha", alpha);
    s("V", down);
    s("V_bias", down_bias);
    s("U", up);
  }
};

struct PnnColumn {
  PnnLayer first, second, output;

  PnnColumn(int64_t dim, int64_t width, int64_t classes, int64_t earlier,
            const torch::Device& device)
      : first(width, dim, 0, device),
        second(width, width, earlier, device),
        output(classes, width, earlier, device) {}

  std::vector<torch::Tensor> parameters() const {
    std::vector<torch::Tensor> all;
    for (const PnnLayer* layer : {&first, &second, &output}) {
      const auto some = layer->parameters();
      all.insert(all.end(), some.begin(), some.end());
    }
    return all;
  }
  void set_trainable(bool trainable) const {
    for (const auto& parameter : parameters()) parameter.requires_grad_(trainable);
  }
  void draw() {
    for (PnnLayer* layer : {&first, &second, &output}) layer->draw();
  }
  void state(State& s) {
    s.scope("first", [&](State& inner) { first.state(inner); });
    s.scope("second", [&](State& inner) { second.state(inner); });
    s.scope("output", [&](State& inner) { output.state(inner); });
  }
};

class Pnn final : public Method {
 public:
  Pnn(const MethodContext& context, const PnnOptions& options)
      : options_(options),
        network_(context, NetworkOptions{}),
        num_classes_(context.num_classes),
        device_(context.device) {
    if (!network_.frozen()) {
      throw Error(
          "backbone.trainable: pnn's columns stand on features that never change; set it to none");
    }
  }

  void begin_task(const Task& task) override {
    add_column(task.last_label() - task.first_label);
    columns_.back().draw();
  }

  std::vector<torch::Tensor> parameters() override { return columns_.back().parameters(); }

  int64_t frozen_parameters() override {
    int64_t count = 0;
    for (size_t k = 0; k + 1 < columns_.size(); ++k) {
      for (const auto& parameter : columns_[k].parameters()) count += parameter.numel();
    }
    return count;
  }

  torch::Tensor loss(const Batch& batch) override {
    const torch::Tensor logits =
        outputs(network_.train_input(batch).x, columns_.size() - 1).front();
    return torch::cross_entropy_loss(logits, batch.labels - (classes_seen() - logits.size(1)));
  }

  bool loss_is_within_task() const override { return true; }

  torch::Tensor predict(const Batch& batch) override {
    const torch::Tensor x = network_.test_input(batch).x;
    std::vector<torch::Tensor> logits = outputs(x, 0);
    logits.push_back(torch::full({x.size(0), num_classes_ - classes_seen()},
                                 -std::numeric_limits<float>::infinity(), x.options()));
    return torch::cat(logits, 1);
  }

  void state(State& s) override {
    Json sizes = column_classes();
    s("column_classes", sizes);
    const auto classes = sizes.get<std::vector<int64_t>>();
    if (s.loading() && classes != column_classes()) {
      columns_.clear();
      for (const int64_t count : classes) add_column(count);
    }
    for (size_t k = 0; k < columns_.size(); ++k) {
      s.scope("column." + std::to_string(k), [&](State& inner) { columns_[k].state(inner); });
    }
  }

 private:
  void add_column(int64_t classes) {
    if (!columns_.empty()) columns_.back().set_trainable(false);
    columns_.emplace_back(network_.feature_dim(), options_.width, classes,
                          static_cast<int64_t>(columns_.size()), device_);
    columns_.back().set_trainable(true);
  }

  std::vector<int64_t> column_classes() const {
    std::vector<int64_t> classes;
    for (const PnnColumn& column : columns_) classes.push_back(column.output.bias.size(0));
    return classes;
  }
  int64_t classes_seen() const {
    int64_t seen = 0;
    for (const int64_t classes : column_classes()) seen += classes;
    return seen;
  }

  // Features [B, D] -> the logits of each column from `from` on, [B, its classes].
  std::vector<torch::Tensor> outputs(const torch::Tensor& x, size_t from) const {
    std::vector<torch::Tensor> first, second, logits;  // of the columns so far
    for (size_t k = 0; k < columns_.size(); ++k) {
      const PnnColumn& column = columns_[k];
      const torch::Tensor h1 = torch::relu(column.first.forward(x, {}));
      const torch::Tensor h2 = torch::relu(column.second.forward(h1, first));
      if (k >= from) logits.push_back(column.output.forward(h2, second));
      first.push_back(h1);
      second.push_back(h2);
    }
    return logits;
  }

  PnnOptions options_;
  Network network_;  // for its features; the columns bring their own output layers
  int64_t num_classes_;
  torch::Device device_;
  std::vector<PnnColumn> columns_;  // one per task; the last one trains
};

const Registered<MethodKind> kPnn{
    "pnn", "Rusu et al. 2016, Progressive Neural Networks (arXiv 1606.04671)",
    method_kind<Pnn, PnnOptions>()};

}  // namespace

}  // namespace rep
