#pragma once

#include <torch/types.h>

#include <functional>
#include <vector>

namespace rep {

using Work = std::function<void()>;

/// Runs pieces of work once, in their order, then records what they start on a device; each Work
/// returned starts the same again, on the same memory, in one launch. They share their memory: to
/// be started in the same order. Work must not wait for the device, read from it or draw random
/// numbers. Throws what the work throws, and c10::Error where it cannot be recorded.
using Recorder = std::function<std::vector<Work>(const std::vector<Work>&)>;

/// By CUDA graphs; empty for the CPU and in a build without CUDA or of a LibTorch before 2.1.
Recorder graph_recorder(const torch::Device& device);

}  // namespace rep
