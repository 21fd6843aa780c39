#pragma once

#include <torch/types.h>

#include <cstdint>
#include <vector>

namespace rep {

/// Logits [B, C] over the classes of tasks of the given sizes, one after the other, each row
/// divided by the mean over tasks of (the norm of that task's logits + 1e-7), and by `temperature`:
/// so that no task wins by the size of its logits (SLCA, classifier alignment).
torch::Tensor normalise_by_task(const torch::Tensor& logits, const std::vector<int64_t>& task_sizes,
                                double temperature);

/// The factor on the means of the classes of task `task` after task `now`, both counted from 0:
/// older classes' features have drifted and are drawn nearer to the origin.
inline double mean_decay(int64_t task, int64_t now) {
  return 0.9 + 0.1 * static_cast<double>(task + 1) / static_cast<double>(now + 1);
}

}  // namespace rep
