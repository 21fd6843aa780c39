#pragma once

#include <cstdint>

#include "core/config.h"
#include "core/json.h"

namespace rep {

struct PlanOptions {
  int64_t steps = 3;  // rehearsed in a task, of which the first only warms up
};

/// What a run will cost, before it runs: a rehearsal of it (run/rehearsal.h), whether it fits into
/// config.memory_limit, and by which settings (run/memory_fit.h). Fields as in docs/results.md,
/// "rep plan". Of a model whose whole batches would be rehearsed for long, images are one at a
/// time. Weights that are not there are taken as random, CIFAR-100 as as many synthetic images;
/// `notes` says so. Writes nothing. Throws Error as a run would.
Json plan(const Config& config, const PlanOptions& options);

}  // namespace rep
