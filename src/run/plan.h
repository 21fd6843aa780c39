#pragma once

#include <cstdint>

#include "core/config.h"
#include "core/json.h"

namespace rep {

struct PlanOptions {
  int64_t steps = 3;         // rehearsed in a task, of which the first only warms up
  int64_t memory_limit = 0;  // bytes; 0: config.memory_limit
};

/// What a run will cost, before it runs: a rehearsal of it (run/rehearsal.h), whether its tensors
/// fit, and what to change when they do not, each with its own rehearsed peak. Fields as in
/// docs/results.md, "rep plan". Weights that are not there are taken as random, CIFAR-100 as as
/// many synthetic images; `notes` says so. Writes nothing. Throws Error as a run would.
Json plan(const Config& config, const PlanOptions& options);

}  // namespace rep
