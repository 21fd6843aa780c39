// EWC: elastic weight consolidation (Kirkpatrick et al., arXiv 1612.00796), and online EWC (Schwarz
// et al., Progress & Compress, arXiv 1805.06370).
// The idea in three lines: after each task, the diagonal of the Fisher information says how much
// every parameter mattered to it; later tasks pay lambda/2 sum_i F_i (theta_i - theta*_i)^2 for
// moving parameters from where they were. F is the mean over images, so lambda does not depend on
// the batch size (Mammoth leaves out the 1/2: its lambda is half of this one).
// `variant: offline` sums a term per task, each around that task's own theta*, as published; the
// sum is one quadratic form (methods/quadratic_penalty.h), so memory does not grow. `online` keeps
// the last theta* only: the penalty is gamma F, and after the task F <- gamma F + F_task.
// `fisher`: `exact` is the expectation over the model's labels, a backward pass per class and
// image; `sampled` draws one label an image from the model, which has that expectation; `empirical`
// takes the true label, which has not, and is what many codes call Fisher (Kunstner et al., arXiv
// 1905.12558). The default follows van de Ven, arXiv 2502.11756, who compares them: exact, if need
// be of 500 images only, comes before approximating the labels.
// Gradients are taken image by image: squares of mini-batches' mean gradients shrink with the
// batch. The network is in evaluation mode, so that batch norm's running statistics stay put.
// Differs from GMvandeVen/continual-learning, whose lambda for class-incremental CIFAR-100 this is:
// 500 images of a task, not all, and their sum is divided by their number (there: by one less).

#include "methods/head_methods.h"
#include "methods/quadratic_penalty.h"
#include "tensor/torch.h"

namespace rep {

namespace {

struct EwcOptions : NetworkOptions {
  double lambda = 100;
  std::string variant = "offline";
  double gamma = 1;
  std::string fisher = "exact";
  int64_t fisher_samples = 500;

  template <class Visitor>
  void fields(Visitor&& visit) {
    network_fields(visit);
    visit("lambda", lambda, at_least(0),
          doc("Strength of the penalty, lambda / 2 times the sum of F (theta - theta*)^2."));
    visit("variant", variant, one_of({"offline", "online"}),
          doc("offline: a penalty for each task; online: one, around the last task's parameters."));
    visit("gamma", gamma, between(0, 1),
          doc("online: share of the earlier importance that a task leaves."));
    visit("fisher", fisher, one_of({"exact", "sampled", "empirical"}),
          doc("Labels of the Fisher information. exact: the expectation over the model's; sampled: "
              "one draw from them; empirical: the true ones."));
    visit("fisher_samples", fisher_samples, at_least(0),
          doc("Images of a task for the Fisher information; 0: all.", "images"));
  }
};

class Ewc final : public HeadMethod {
 public:
  Ewc(const MethodContext& context, const EwcOptions& options)
      : HeadMethod(context, options),
        options_(options),
        images_(context.images),
        penalty_(network_.parameters()) {}

  std::vector<TrainedRows> trained_rows() override { return rows_of_seen(); }

  torch::Tensor loss(const Batch& batch) override {
    const torch::Tensor task_loss = HeadMethod::loss(batch);
    if (!penalty_.active()) return task_loss;
    const double decay = options_.variant == "online" ? options_.gamma : 1;
    return task_loss + 0.5 * options_.lambda * decay * penalty_.value(network_.parameters());
  }

  void end_task(const Task& task) override {
    std::vector<torch::Tensor> fisher = fisher_information(task);
    if (options_.variant == "offline") {
      penalty_.add(fisher, network_.parameters());
    } else {
      for (size_t i = 0; i < fisher.size(); ++i) {
        fisher[i].add_(penalty_.importance()[i], options_.gamma);
      }
      penalty_.set(fisher, network_.parameters());
    }
  }

  void state(State& s) override {
    HeadMethod::state(s);
    penalty_.state(s);
  }

 private:
  std::vector<Sample> fisher_images(const Task& task) const {
    const auto count = static_cast<size_t>(options_.fisher_samples);
    if (count == 0 || count >= task.train.size()) return task.train;
    const torch::Tensor order =
        torch::randperm(static_cast<int64_t>(task.train.size()), torch::kLong);
    std::vector<Sample> chosen;
    for (size_t i = 0; i < count; ++i) {
      chosen.push_back(task.train[static_cast<size_t>(order.data_ptr<int64_t>()[i])]);
    }
    return chosen;
  }

  // The mean over images of E[(d log p(label | image) / d parameter)^2], labels as `fisher` says.
  std::vector<torch::Tensor> fisher_information(const Task& task) {
    std::vector<torch::Tensor> sum;
    for (const auto& parameter : network_.parameters()) {
      sum.push_back(torch::zeros_like(parameter.detach()));
    }
    const std::vector<Sample> samples = fisher_images(task);
    images_.each_batch(samples, [&](const Batch& batch) {
      const Network::Input input = network_.fixed_input(batch);
      torch::Tensor draws;  // [B]
      if (options_.fisher == "sampled")
        draws = torch::rand({batch.size()}).to(batch.labels.device());
      for (int64_t i = 0; i < batch.size(); ++i) {
        const torch::Tensor log_p =  // [classes in training]
            torch::log_softmax(
                network_.logits({input.x.narrow(0, i, 1), input.plan, false})[0].narrow(
                    0, trained_.first, trained_.size()),
                0);
        if (options_.fisher == "exact") {
          for (int64_t c = 0; c < log_p.size(0); ++c) {
            add_square(log_p[c], log_p[c].detach().exp(), c + 1 < log_p.size(0), sum);
          }
        } else {
          const torch::Tensor label = options_.fisher == "empirical"
                                          ? batch.labels.narrow(0, i, 1) - trained_.first
                                          : sample(log_p.detach(), draws.narrow(0, i, 1));
          add_square(log_p.index_select(0, label)[0], {}, false, sum);
        }
      }
    });
    for (auto& fisher : sum) fisher.div_(static_cast<double>(samples.size()));
    return sum;
  }

  // The class [1] in which the cumulative probability passes `draw` [1]; without a host sync.
  static torch::Tensor sample(const torch::Tensor& log_p, const torch::Tensor& draw) {
    const torch::Tensor passed = log_p.exp().cumsum(0).le(draw).sum(0, /*keepdim=*/true);
    return passed.clamp_max(log_p.size(0) - 1);
  }

  // sum += weight (d log_p / d parameter)^2; `weight` undefined: 1.
  void add_square(const torch::Tensor& log_p, const torch::Tensor& weight, bool keep_graph,
                  std::vector<torch::Tensor>& sum) const {
    const auto gradients =
        torch::autograd::grad({log_p}, network_.parameters(), /*grad_outputs=*/{}, keep_graph,
                              /*create_graph=*/false, /*allow_unused=*/true);
    torch::NoGradGuard no_grad;
    for (size_t i = 0; i < sum.size(); ++i) {
      if (!gradients[i].defined()) continue;
      sum[i].addcmul_(weight.defined() ? gradients[i] * weight : gradients[i], gradients[i]);
    }
  }

  EwcOptions options_;
  const TaskImages& images_;
  QuadraticPenalty penalty_;
};

const Registered<MethodKind> kEwc{
    "ewc",
    "Kirkpatrick et al. 2017, elastic weight consolidation (arXiv 1612.00796); online: Schwarz et "
    "al. 2018 (arXiv 1805.06370)",
    method_kind<Ewc, EwcOptions>()};

}  // namespace

}  // namespace rep
