#pragma once

#include <torch/types.h>

namespace rep {

/// A device that is not the CPU, where no GPU is at hand: its memory is the host's and the CPU's
/// kernels do its work, but an operation on its tensors refuses those of the CPU, as CUDA's do:
/// "... of the CPU among those of the device". With LibTorch 1.13 only: 2.x has ideas of its own of
/// every device that it lets modules move to.
torch::Device other_device();

/// Numbers that the host has read from it, one by one (item()) or as copies: where it would wait
/// for a GPU.
int64_t reads_of_other_device();

}  // namespace rep
