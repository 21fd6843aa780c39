#pragma once

#include <torch/types.h>

#include <cstdint>
#include <vector>

#include "core/config.h"
#include "tensor/state.h"

namespace rep {

/// The part of a parameter that trains: [first, last) of dimension `dim`; all of it unless set. No
/// weight decay and no momentum moves the rest, which has no gradient.
struct TrainedRows {
  int64_t dim = 0, first = 0, last = -1;
};

/// Adam (Kingma & Ba 2015), AdamW (Loshchilov & Hutter 2019) and SGD with momentum, with PyTorch's
/// arithmetic: its update rules and its order of operations. State is plain tensors beside the
/// parameters, so that a checkpoint is a list. Parameters without a gradient are left alone.
class Optimizer {
 public:
  /// `lr_factors`: of each parameter, on the learning rate; empty: 1 for all. `rows`: what of each
  /// trains; empty: all of all.
  Optimizer(const OptimizerConfig& config, std::vector<torch::Tensor> parameters,
            std::vector<double> lr_factors = {}, std::vector<TrainedRows> rows = {});
  void set_lr(double lr) { lr_ = lr; }
  void zero_grad();  // gradients become undefined, not zero
  void step();
  const std::vector<torch::Tensor>& parameters() const { return parameters_; }
  /// What it keeps beside them: Adam's two moments, SGD's momentum.
  std::vector<torch::Tensor> moments() const;
  void state(State& s);

 private:
  void sgd(size_t i);
  void adam(size_t i);
  double lr(size_t i) const { return lr_factors_.empty() ? lr_ : lr_ * lr_factors_[i]; }
  torch::Tensor trained(const torch::Tensor& whole, size_t i) const;  // a view
  OptimizerConfig config_;
  double lr_;
  std::vector<torch::Tensor> parameters_;
  std::vector<double> lr_factors_;
  std::vector<TrainedRows> rows_;
  std::vector<torch::Tensor> first_, second_;  // Adam's moments; SGD's momentum in first_
  std::vector<int64_t> steps_;                 // taken by each parameter
};

/// The learning rate of epoch e = 0, 1, ... of E, each with base rate `optimizer.lr`:
/// * constant: the base rate;
/// * cosine: base (1 + cos(pi e / E)) / 2, to 0 at the end of the last epoch;
/// * coda_no_lag: base cos(99 pi e / (200 (E - 1))), nearly a quarter wave, as CPS-Prompt has it
///   (arXiv 2604.07399);
/// * coda: the same an epoch late, so that epochs 0 and 1 have the base rate, as the code of
///   CODA-Prompt, OS-Prompt and APT has it.
double scheduled_lr(const TrainConfig& config, int64_t epoch);

/// torch.nn.utils.clip_grad_norm_ over the parameters that have a gradient, without a host sync.
void clip_grad_norm(const std::vector<torch::Tensor>& parameters, double max_norm);

}  // namespace rep
