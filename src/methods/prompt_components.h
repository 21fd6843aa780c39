#pragma once

#include <torch/types.h>

#include <cstdint>

#include "methods/method.h"
#include "tensor/optimizer.h"
#include "tensor/state.h"

namespace rep {

/// Which components of a growing pool [M, ...] (CODA-Prompt and its kin) a task has: [0, last), of
/// which it trains the `pool_size` / tasks newest, [first, last), and keeps those before.
class ComponentRange {
 public:
  /// Throws Error where a task gets none, where there are more than can be orthogonal in the
  /// backbone's width, or where `prompt_length` rows are not as many keys as values.
  ComponentRange(const MethodContext& context, int64_t pool_size, int64_t prompt_length);

  void begin_task(const Task& task);
  /// Makes this task's components orthogonal to all before (gram_schmidt).
  void make_fresh(torch::Tensor& components) const;
  /// This task's and the earlier ones, which get no gradient: [last, ...].
  torch::Tensor live(const torch::Tensor& components) const;
  TrainedRows trained() const { return {0, first_, last_}; }
  void state(State& s);

 private:
  int64_t per_task_, first_ = 0, last_ = 0;
};

/// Fresh rows [first, last) of x, flattened, in place: of a draw from N(0, 1) its projections on
/// every earlier row are taken away (classical Gram-Schmidt: earlier rows may be trained and not
/// exactly orthogonal), then the fresh rows get unit length; rows from `last` on become 0. `draws`
/// [last - first, width].
void gram_schmidt(torch::Tensor& x, int64_t first, int64_t last, const torch::Tensor& draws);
/// The same with draws from torch's generator on the CPU, row by row.
void gram_schmidt(torch::Tensor& x, int64_t first, int64_t last);

}  // namespace rep
