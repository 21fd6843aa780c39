#pragma once

#include <torch/types.h>

#include <cstdint>

namespace rep {

// The growing pools of CODA-Prompt and its kin: components [M, ...], of which every task trains a
// few more and keeps those before as they are.

/// The rows 0 ... last - 1: those of earlier tasks without a gradient, [first, last) with one.
torch::Tensor live_components(const torch::Tensor& components, int64_t first, int64_t last);

/// Fresh rows [first, last) of x, flattened, in place: of a draw from N(0, 1) its projections on
/// every earlier row are taken away (classical Gram-Schmidt: earlier rows may be trained and not
/// exactly orthogonal), then the fresh rows get unit length; rows from `last` on become 0. `draws`
/// [last - first, width].
void gram_schmidt(torch::Tensor& x, int64_t first, int64_t last, const torch::Tensor& draws);
/// The same with draws from torch's generator on the CPU, row by row.
void gram_schmidt(torch::Tensor& x, int64_t first, int64_t last);

}  // namespace rep
