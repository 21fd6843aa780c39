// SI: continual learning through synaptic intelligence (Zenke et al., arXiv 1703.04200).
// The idea in three lines: while a task is trained, every parameter adds up by how much its own
// moves lowered the loss, w_i -= g_i (theta_i after the step - before); at the end that is its
// importance, Omega_i += w_i / ((theta_i - theta_i at the task's start)^2 + xi); later tasks pay
// c sum_i Omega_i (theta_i - theta*_i)^2 for moving it.
// g is the gradient of the task's own loss, without the penalty's and before clipping, as in the
// authors' code (ganguli-lab/pathint), which also keeps Omega from falling below 0: a negative
// importance would push parameters away. Mammoth does the first only, GMvandeVen/continual-learning
// neither; c and xi are the latter's for class-incremental CIFAR-100, in the same penalty.

#include "methods/head_methods.h"
#include "methods/quadratic_penalty.h"
#include "tensor/torch.h"

namespace rep {

namespace {

struct SiOptions : NetworkOptions {
  double c = 5;
  double xi = 0.1;

  template <class Visitor>
  void fields(Visitor&& visit) {
    network_fields(visit);
    visit("c", c, at_least(0), doc("Strength of the penalty."));
    visit("xi", xi, above(0), doc("Damps the importance of parameters that hardly moved."));
  }
};

std::vector<torch::Tensor> copies(const std::vector<torch::Tensor>& tensors) {
  std::vector<torch::Tensor> result;
  for (const auto& tensor : tensors) result.push_back(tensor.detach().clone());
  return result;
}

class Si final : public HeadMethod {
 public:
  Si(const MethodContext& context, const SiOptions& options)
      : HeadMethod(context, options),
        options_(options),
        penalty_(network_.parameters()),
        start_(copies(network_.parameters())) {
    for (const auto& tensor : start_) path_.push_back(torch::zeros_like(tensor));
  }

  void begin_task(const Task& task) override {
    HeadMethod::begin_task(task);
    start_ = copies(network_.parameters());
    for (auto& path : path_) path.zero_();
  }

  std::vector<TrainedRows> trained_rows() override { return rows_of_seen(); }

  torch::Tensor loss(const Batch& batch) override {
    const torch::Tensor task_loss = HeadMethod::loss(batch);
    if (!penalty_.active()) return task_loss;
    return task_loss + options_.c * penalty_.value(network_.parameters());
  }

  void after_backward() override {
    torch::NoGradGuard no_grad;
    const auto parameters = network_.parameters();
    before_ = copies(parameters);
    gradient_.assign(parameters.size(), {});
    for (size_t i = 0; i < parameters.size(); ++i) {
      // Undefined: the parameter had no part in this step, and will not move.
      const torch::Tensor& all = parameters[i].grad();
      if (!all.defined()) continue;
      gradient_[i] = penalty_.active() ? all - options_.c * penalty_.gradient(parameters, i)
                                       : all.clone();  // clipping works in place
    }
  }

  void after_step() override {
    torch::NoGradGuard no_grad;
    const auto parameters = network_.parameters();
    for (size_t i = 0; i < parameters.size(); ++i) {
      if (!gradient_[i].defined()) continue;
      path_[i].addcmul_(gradient_[i], parameters[i] - before_[i], -1);
    }
    gradient_.clear();
    before_.clear();
  }

  void end_task(const Task&) override {
    torch::NoGradGuard no_grad;
    const auto parameters = network_.parameters();
    std::vector<torch::Tensor> importance;
    for (size_t i = 0; i < parameters.size(); ++i) {
      const torch::Tensor moved = parameters[i] - start_[i];
      importance.push_back(
          (penalty_.importance()[i] + path_[i] / (moved.square() + options_.xi)).clamp_min(0));
    }
    penalty_.set(importance, parameters);
  }

  void state(State& s) override {
    HeadMethod::state(s);
    penalty_.state(s);
    s("task_start", start_);
    s("path_integral", path_);
  }

 private:
  SiOptions options_;
  QuadraticPenalty penalty_;
  std::vector<torch::Tensor> start_, path_;       // of each parameter: theta when the task began, w
  std::vector<torch::Tensor> gradient_, before_;  // of the step in hand
};

const Registered<MethodKind> kSi{"si",
                                 "Zenke et al. 2017, synaptic intelligence (arXiv 1703.04200)",
                                 method_kind<Si, SiOptions>()};

}  // namespace

}  // namespace rep
