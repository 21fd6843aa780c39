#pragma once

#include <cstdint>

#include "core/config.h"
#include "core/json.h"

namespace rep {

/// Times `steps` training steps of the first task after `warmup` others, the test of its images,
/// and, between the steps, the unit that ratios are over: one plain forward pass of a batch of the
/// same size in the same process, without gradients. Also the machine's rate of large matrix
/// products. Fields as in docs/results.md, "rep bench". With `reference` the steps are those of
/// the published PyTorch code: op by op (nn/reference_vit.h), and queries from a second copy of the
/// model. Throws Error when the task has no steps.
Json bench(const Config& config, int64_t steps, int64_t warmup, bool reference);

}  // namespace rep
