#pragma once

#include <ATen/core/Generator.h>
#include <torch/types.h>

#include <cstdint>
#include <string>

#include "core/json.h"
#include "core/random.h"

namespace rep {

/// auto | cpu | cuda | cuda:i. Throws Error when that device is not there.
torch::Device choose_device(const std::string& name);

/// All cores (0; this process's part of them, where there are several `processes`) or `threads`,
/// once, before the first tensor: LibTorch's intra-op pool and OpenBLAS's own (they default to 1
/// and to all CPUs). Returns the number set.
int64_t set_threads(int64_t threads, int64_t processes = 1);

/// What set_threads set last.
int64_t threads_in_use();

/// LibTorch's default generators, CPU and CUDA.
void seed_everything(int64_t seed);

/// A generator for one use alone, on the CPU: no other random number moves by it.
at::Generator make_generator(int64_t seed, RandomUse use);

/// The default generators' state as uint8 tensors, and back.
torch::Tensor rng_state(const torch::Device& device);
void set_rng_state(const torch::Device& device, const torch::Tensor& state);

/// "OpenBLAS 0.3.21 ...", "MKL", or "" when it is the slow reference BLAS or unknown.
std::string blas_name();

/// {"kind", "name", "threads"} for results.
Json describe_device(const torch::Device& device);

}  // namespace rep
