#pragma once

#include <torch/types.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "methods/classifier.h"
#include "methods/method.h"
#include "nn/lora.h"

namespace rep {

/// What earlier tasks use of a layer's inputs (DualGPM, Liang and Li, arXiv 2303.13856): an
/// orthonormal basis F [D, k] of it (DualGPM's type `remove`) or, once that has more than D / 2
/// columns, of the free space, which is what they do not use (`retain`).
class SubspaceMemory {
 public:
  struct Options {
    bool dual = true;             // false: always a basis of what is used (GPM)
    bool covariance_rule = true;  // energies are squared singular values of the covariance (code);
                                  // false: its eigenvalues, as GPM's rule for the data has it
  };
  explicit SubspaceMemory(const Options& options) : options_(options) {}

  /// A new branch's `down` [r, D]: the r directions of most energy that a covariance C [D, D] has
  /// in the free space, over sqrt 3: as long as Linear's random rows are in the mean. Rows beyond
  /// the free directions are 0, so that nothing of `up` there ever learns.
  torch::Tensor design_down(const torch::Tensor& covariance, int64_t rank) const;
  /// Adds as many directions of C to the used ones as hold the share `threshold` of its energy.
  void update(const torch::Tensor& covariance, double threshold);

  int64_t columns() const { return basis_.defined() ? basis_.size(1) : 0; }
  bool is_free_space() const { return is_free_space_; }
  const torch::Tensor& basis() const { return basis_; }  // float [D, k], undefined before a task
  void state(State& s);

 private:
  torch::Tensor projected(const torch::Tensor& c, bool onto) const;
  double energy_of(const torch::Tensor& c) const;
  void extend_used(const torch::Tensor& c, double threshold);
  void shrink_free(const torch::Tensor& c, double threshold);

  Options options_;
  torch::Tensor basis_;
  bool is_free_space_ = false;  // what F spans; else the used one
};

struct InfLoraOptions {
  int64_t rank = 10;
  std::vector<std::string> targets{"k", "v"};
  double lamb = 0.95, lame = 1.0;
  std::string energy = "covariance";
  std::string memory = "dualgpm";
  std::string covariance_images = "train";
  template <class Visitor>
  void fields(Visitor&& visit) {
    visit("rank", rank, at_least(1), doc("Rank of a task's branches."));
    visit("targets", targets, doc("Projections with branches, of q, k and v."));
    visit("lamb", lamb, between(0, 1), doc("Energy that the memory keeps of the first task."));
    visit("lame", lame, between(0, 1),
          doc("Energy that it keeps of the last; linear between them."));
    visit(
        "energy", energy, one_of({"covariance", "data"}),
        doc("What energy is measured on. covariance: as the authors' code; data: as GPM's rule."));
    visit("memory", memory, one_of({"dualgpm", "gpm", "none"}),
          doc("What earlier tasks' inputs leave as: DualGPM's basis, GPM's, or none, for branches "
              "anywhere.",
              "", "arXiv 2303.13856"));
    visit("covariance_images", covariance_images, one_of({"train", "test"}),
          doc("Views for the covariances: random training views, as the authors' code, or fixed "
              "test views."));
  }
};

class InfLora final : public Method {
 public:
  InfLora(const MethodContext& context, const InfLoraOptions& options);

  /// Calls its argument with one batch after the other.
  using Images = std::function<void(const std::function<void(const Batch&)>& visit)>;
  /// begin_task and end_task, the task's images coming from somewhere else.
  void begin(const Task& task, const Images& images);
  void end(const Task& task, const Images& images);

  void begin_task(const Task& task) override { begin(task, images_of(task, 0)); }
  std::vector<torch::Tensor> parameters() override;
  std::vector<TrainedRows> trained_rows() override;
  int64_t frozen_parameters() override;
  torch::Tensor loss(const Batch& batch) override;
  torch::Tensor predict(const Batch& batch) override;
  void end_task(const Task& task) override { end(task, images_of(task, 1)); }
  bool has_unseen_logits() const override { return true; }
  bool learns_repeated_classes() const override { return true; }
  bool predicts_within_task() const override { return true; }
  bool loss_is_within_task() const override { return true; }
  bool can_share_batches() const override { return true; }
  void state(State& s) override;

  const std::vector<SubspaceMemory>& memories() const { return memories_; }
  /// Of the pass after the last task; empty while a task trains.
  const std::vector<torch::Tensor>& last_covariances() const { return covariances_; }

 private:
  Images images_of(const Task& task, int64_t pass) const;
  Lora new_branch() const;
  std::vector<BlockBranches> branches() const;
  void fold();
  void measure_covariances(const Task& task, const Images& images);

  InfLoraOptions options_;
  VisionTransformer backbone_;
  Efficiency& efficiency_;
  const TaskImages& images_;
  int64_t num_tasks_;
  torch::Device device_;
  Classifier head_;
  std::vector<Lora> branches_;              // one a task begun
  std::vector<BlockBranches> folded_;       // [K], of those that do not train
  std::vector<SubspaceMemory> memories_;    // [K]
  std::vector<torch::Tensor> covariances_;  // [K], double [D, D], after a task's end; not carried
  ClassRange trained_;
  bool training_ = false;  // the last branch
};

}  // namespace rep
