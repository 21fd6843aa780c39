#pragma once

#include <cstdint>

namespace rep {

/// The most bytes that tensors on that CUDA device held since the last reset, by LibTorch's
/// allocator; -1 in a build without CUDA.
int64_t cuda_peak_bytes_of(int64_t index);
void reset_cuda_peak_bytes_of(int64_t index);

}  // namespace rep
