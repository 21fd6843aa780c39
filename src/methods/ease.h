#pragma once

#include <torch/types.h>

#include <cstdint>
#include <vector>

namespace rep {

/// EASE's prototypes P [C, S, D] of C classes seen in S subspaces, one of each task's adapters: a
/// class of task i has means of its own in subspaces 0 .. i, in later ones those of similar
/// classes:
///   P[c][j] = sum_k softmax_k(cos(P[c][i], P[k][i])) P[k][j], k over all classes of tasks j and
///   on,
/// filled in for the subspaces `from` and on, in place. `task_sizes`: the tasks' numbers of
/// classes.
void complete_prototypes(const torch::Tensor& prototypes, const std::vector<int64_t>& task_sizes,
                         int64_t from);

/// Logits [B, C] = sum_j w_ij cos(f_j, P[c][j]) for a class of task i, features [B, S, D]: w_ii =
/// 1, w_ij = alpha / (S - 1).
torch::Tensor reweighted_logits(const torch::Tensor& features, const torch::Tensor& prototypes,
                                const std::vector<int64_t>& task_sizes, double alpha);

}  // namespace rep
