#pragma once

#include "tensor/torch.h"

namespace rep {

/// Products of large matrices. On an x86 processor they go to oneDNN, where the build found it
/// (with Debian's LibTorch, which brings it): its kernels are made for the processor that it meets,
/// while a BLAS older than the processor falls back on an ancestor's, at half the rate on AMD's
/// Zen 5. Elsewhere, and on other devices, they are LibTorch's. Sums are in fp32 either way.

/// a b + bias, [M, N]: a [M, K] and b [K, N] both of fp32 or both of bf16, each possibly transposed
/// (b = w.t() for a layer's weight); bias [N], fp32 or as they are, or undefined; the result in
/// `type`.
torch::Tensor product(const torch::Tensor& a, const torch::Tensor& b, torch::ScalarType type,
                      const torch::Tensor& bias = {});

/// sum [M, N] += a b, in place; sum's rows contiguous, in fp32.
void add_product(const torch::Tensor& sum, const torch::Tensor& a, const torch::Tensor& b);

}  // namespace rep
