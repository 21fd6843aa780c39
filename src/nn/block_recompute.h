#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "nn/vit.h"

namespace rep {

/// Runs the blocks of these indices on the stream, in place.
using RunBlocks = std::function<void(TokenStream& stream, const ForwardPlan& plan,
                                     const std::vector<int64_t>& blocks)>;

/// Whether frozen blocks make the same of the same plan a second time, and all that they learn from
/// is in it: no dropout draws, no prefixes made on the way, nobody who looks on.
bool can_run_again(const ForwardPlan& plan);

/// Runs frozen blocks and keeps only what enters them; the backward pass runs them again, to the
/// same bits, before it goes through them (Chen et al., arXiv 1604.06174). Products that are made
/// again are not counted.
void run_keeping_input(TokenStream& stream, const ForwardPlan& plan,
                       const std::vector<int64_t>& blocks, const RunBlocks& run);

}  // namespace rep
