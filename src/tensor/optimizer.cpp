#include "tensor/optimizer.h"

#include <algorithm>
#include <cmath>

#include "tensor/torch.h"

namespace rep {

Optimizer::Optimizer(const OptimizerConfig& config, std::vector<torch::Tensor> parameters,
                     std::vector<double> lr_factors, std::vector<TrainedRows> rows)
    : config_(config),
      lr_(config.lr),
      parameters_(std::move(parameters)),
      lr_factors_(std::move(lr_factors)),
      rows_(std::move(rows)) {
  TORCH_CHECK(lr_factors_.empty() || lr_factors_.size() == parameters_.size(),
              "a factor for every parameter, or none");
  TORCH_CHECK(rows_.empty() || rows_.size() == parameters_.size(), parameters_.size(),
              " parameters and the rows of ", rows_.size());
  const bool two = config.name != "sgd", one = two || config.momentum > 0;
  for (const auto& parameter : parameters_) {
    first_.push_back(one ? torch::zeros_like(parameter) : torch::Tensor());
    second_.push_back(two ? torch::zeros_like(parameter) : torch::Tensor());
  }
  steps_.assign(parameters_.size(), 0);
}

void Optimizer::zero_grad() {
  for (auto& parameter : parameters_) parameter.mutable_grad() = torch::Tensor();
}

void Optimizer::step() {
  torch::NoGradGuard no_grad;
  for (size_t i = 0; i < parameters_.size(); ++i) {
    if (!parameters_[i].grad().defined()) continue;
    ++steps_[i];
    if (config_.name == "sgd") {
      sgd(i);
    } else {
      adam(i);
    }
  }
}

torch::Tensor Optimizer::trained(const torch::Tensor& whole, size_t i) const {
  if (rows_.empty() || rows_[i].last < 0) return whole;
  const TrainedRows& rows = rows_[i];
  return whole.narrow(rows.dim, rows.first, rows.last - rows.first);
}

void Optimizer::sgd(size_t i) {
  torch::Tensor p = trained(parameters_[i], i), g = trained(parameters_[i].grad(), i);
  if (config_.weight_decay != 0) g = g.add(p, config_.weight_decay);
  if (config_.momentum != 0) {
    // The first step starts the average with the gradient itself, as PyTorch does.
    torch::Tensor average = trained(first_[i], i);
    if (steps_[i] == 1) {
      average.copy_(g);
    } else {
      average.mul_(config_.momentum).add_(g);
    }
    g = average;
  }
  p.add_(g, -lr(i));
}

void Optimizer::adam(size_t i) {
  torch::Tensor p = trained(parameters_[i], i), g = trained(parameters_[i].grad(), i);
  torch::Tensor first = trained(first_[i], i), second = trained(second_[i], i);
  if (config_.weight_decay != 0) {
    if (config_.name == "adamw") {
      p.mul_(1 - lr(i) * config_.weight_decay);
    } else {
      g = g.add(p, config_.weight_decay);
    }
  }
  const auto t = static_cast<double>(steps_[i]);
  first.mul_(config_.beta1).add_(g, 1 - config_.beta1);
  second.mul_(config_.beta2).addcmul_(g, g, 1 - config_.beta2);
  const double correction1 = 1 - std::pow(config_.beta1, t);
  const double correction2 = std::sqrt(1 - std::pow(config_.beta2, t));
  const torch::Tensor denominator = second.sqrt().div_(correction2).add_(config_.eps);
  p.addcdiv_(first, denominator, -lr(i) / correction1);
}

std::vector<torch::Tensor> Optimizer::moments() const {
  std::vector<torch::Tensor> all;
  for (const auto* list : {&first_, &second_}) {
    for (const torch::Tensor& moment : *list) {
      if (moment.defined()) all.push_back(moment);
    }
  }
  return all;
}

void Optimizer::state(State& s) {
  s("lr", lr_);
  s("first", first_);
  s("second", second_);
  Json steps = steps_;
  s("steps", steps);
  steps_ = steps.get<std::vector<int64_t>>();
}

double scheduled_lr(const TrainConfig& config, int64_t epoch) {
  const double base = config.optimizer.lr;
  const auto e = static_cast<double>(epoch), epochs = static_cast<double>(config.epochs);
  const auto nearly_quarter_wave = [&](double at) {
    return config.epochs == 1 ? base : base * std::cos(99 * M_PI * at / (200 * (epochs - 1)));
  };
  if (config.schedule == "cosine") return base * 0.5 * (1 + std::cos(M_PI * e / epochs));
  if (config.schedule == "coda") return nearly_quarter_wave(std::max(0.0, e - 1));
  if (config.schedule == "coda_no_lag") return nearly_quarter_wave(e);
  TORCH_CHECK(config.schedule == "constant", "no schedule is called ", config.schedule);
  return base;
}

void clip_grad_norm(const std::vector<torch::Tensor>& parameters, double max_norm) {
  torch::NoGradGuard no_grad;
  std::vector<torch::Tensor> norms;
  for (const auto& parameter : parameters) {
    if (parameter.grad().defined()) norms.push_back(parameter.grad().norm(2));
  }
  if (norms.empty()) return;
  const torch::Tensor total = torch::stack(norms).norm(2);
  const torch::Tensor factor = (max_norm / (total + 1e-6)).clamp_max(1.0);
  for (const auto& parameter : parameters) {
    if (parameter.grad().defined()) parameter.grad().mul_(factor);
  }
}

}  // namespace rep
