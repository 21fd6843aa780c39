#pragma once

#include <torch/types.h>

#include <cstdint>

namespace rep {

/// Tokens first, first + 1, ... of a pass; `count` 0: all of them.
struct TokenRange {
  int64_t first = 0, count = 0;
};

/// Multi-head softmax attention (Vaswani et al., arXiv 1706.03762, equation 1) over what the joint
/// projection of a block leaves: `qkv` [B, N, 3 D], per token its query, key and value, each of
/// `heads` x d = D. `prefix` is undefined or [B, 2, L, D]: keys and values before the tokens' own.
/// `log_sizes` is undefined or [B, N], without a gradient: added to the logits of every key
/// (proportional attention, Bolya et al., arXiv 2210.09461, section 3); a prefix has size 1.
/// Returns [B, N, D]: of the queries in `queries` only, [B, count, D], where it names some; in
/// qkv's type, fp32 or bf16, to which the prefix is rounded. Logits, softmax and sums are fp32.
///
/// On the CPU, one head at a time in a buffer of the second cache level: nothing of size N x N is
/// ever stored, the backward pass computes the weights again. Factors of bf16 meet in its own
/// products where the processor has them, weights rounded to it, else in fp32. On a GPU, LibTorch's
/// own fused kernel where it has one (2.x). Otherwise, and on an x86 without AVX2, op by op.
torch::Tensor attend(const torch::Tensor& qkv, int64_t heads, const torch::Tensor& prefix = {},
                     const torch::Tensor& log_sizes = {}, TokenRange queries = {});

}  // namespace rep
