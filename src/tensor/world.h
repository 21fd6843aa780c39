#pragma once

#include <torch/types.h>

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

namespace rep {

/// The processes that train one model together (data parallel): as torchrun, srun or mpirun started
/// them and say in the environment. Every process holds the whole model, learns from its part of
/// each batch, and after averaging the gradients all take the same step. Sums go through LibTorch's
/// own process groups (c10d, gloo). Without a launcher the group has size 1 and every call is a
/// no-op.
class World {
 public:
  /// Who this process is: {rank, size} from RANK and WORLD_SIZE (torchrun), SLURM_PROCID and
  /// SLURM_STEP_NUM_TASKS (srun), or OMPI_COMM_WORLD_RANK and _SIZE or PMI_RANK and PMI_SIZE
  /// (mpirun); {0, 1} without them. Throws Error when one is no such number.
  static std::pair<int64_t, int64_t> place_from_environment();
  /// How many of them are on this machine, as far as the environment says; else 1.
  static int64_t processes_on_this_machine();

  /// A world of one.
  World();
  ~World();
  World(World&&) noexcept;
  World& operator=(World&&) noexcept;

  /// Meets the others at MASTER_ADDR:MASTER_PORT (this machine and a port made from SLURM's job or
  /// 29500, when they are not set). Returns when all are there. Throws Error after 5 minutes, or
  /// where this build has no gloo.
  static World join();

  int64_t rank() const { return rank_; }
  int64_t size() const { return size_; }
  bool writes() const { return rank_ == 0; }  // results and checkpoints

  /// This process's part of n things in a row: [first, second), all parts as equal as can be.
  std::pair<int64_t, int64_t> part_of(int64_t n) const;
  /// Replaces every value of a CPU tensor (float, double, int64) by its sum over all processes.
  /// Throws Error when another process is gone.
  void sum(torch::Tensor& values) const;
  /// The gradients of `parameters` become the sum over processes of weight x gradient, where one
  /// has any. Returns the sums over processes of the numbers `beside` them, in fp32.
  std::vector<double> average_gradients(const std::vector<torch::Tensor>& parameters, double weight,
                                        std::vector<double> beside);
  /// Throws Error unless `values` are the same, bit for bit, in all processes: what every process
  /// computes for itself has gone apart. `what` names them.
  void expect_equal(const std::vector<torch::Tensor>& values, const std::string& what) const;
  /// Throws Error where one of `values` differs by more than rounding: by a thousandth of its norm,
  /// in the root of the mean square over all processes. For what GPUs compute, each for itself,
  /// whose sums have no fixed order.
  void expect_close(const std::vector<torch::Tensor>& values, const std::string& what) const;

 private:
  struct Group;
  std::unique_ptr<Group> group_;
  int64_t rank_ = 0, size_ = 1;
  torch::Tensor flat_;  // gradients on their way
};

}  // namespace rep
