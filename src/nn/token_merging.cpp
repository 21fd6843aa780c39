// ToMe: Token Merging (Bolya et al., arXiv 2210.09461) and REP's AToM (arXiv 2406.04772, Algorithm
// 1). The idea in three lines: in every block, tokens whose attention keys are alike are averaged
// into one; ToMe takes the same number from each block, AToM none from the first and most from the
// last, and never touches prompts. Differs from ToMe's code: a matching says of each token which
// row it goes to, and merging is one pass over the rows, as is its gradient.
#include "nn/token_merging.h"

#include <ATen/Parallel.h>

#include <algorithm>
#include <limits>
#include <tuple>
#include <vector>

#include "kernels/lanes.h"
#include "tensor/torch.h"

namespace rep {

namespace {

torch::Tensor evens(const torch::Tensor& x) { return x.slice(1, 0, x.size(1), 2); }
torch::Tensor odds(const torch::Tensor& x) { return x.slice(1, 1, x.size(1), 2); }

// ---- a sum of rows ----

REP_CLONES void scale_row(const float* from, float share, int64_t D, bool add, float* to) {
  if (add) {
    for (int64_t j = 0; j < D; ++j) to[j] += share * from[j];
  } else {
    for (int64_t j = 0; j < D; ++j) to[j] = share * from[j];
  }
}

// out[b, rows[b, i]] += shares[b, i] x[b, i], for all i: shares float [B, N], out [B, left, D].
struct SumOfRows : torch::autograd::Function<SumOfRows> {
  static torch::Tensor forward(torch::autograd::AutogradContext* ctx, const torch::Tensor& x,
                               const torch::Tensor& rows, const torch::Tensor& shares,
                               int64_t left) {
    ctx->save_for_backward({rows, shares});
    const int64_t B = x.size(0), N = x.size(1), D = x.size(2);
    if (!is_in_memory(x)) {
      return torch::zeros({B, left, D}, x.options())
          .scatter_add(1, everywhere(rows, D), x * shares.unsqueeze(-1));
    }
    const torch::Tensor out = torch::empty({B, left, D}, x.options());
    const float *from = x.data_ptr<float>(), *share = shares.data_ptr<float>();
    const int64_t* row = rows.data_ptr<int64_t>();
    float* to = out.data_ptr<float>();
    at::parallel_for(0, B, 1, [&](int64_t begin, int64_t end) {
      for (int64_t b = begin; b < end; ++b) {
        std::vector<bool> begun(static_cast<size_t>(left), false);
        for (int64_t i = b * N; i < (b + 1) * N; ++i) {
          const auto r = static_cast<size_t>(row[i]);
          scale_row(from + i * D, share[i], D, begun[r], to + (b * left + row[i]) * D);
          begun[r] = true;
        }
      }
    });
    return out;
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* ctx,
                                                 torch::autograd::variable_list grads) {
    const auto saved = ctx->get_saved_variables();
    const torch::Tensor &rows = saved[0], &shares = saved[1], d_out = grads[0].contiguous();
    const int64_t B = rows.size(0), N = rows.size(1), left = d_out.size(1), D = d_out.size(2);
    if (!is_in_memory(d_out)) {
      return {d_out.gather(1, everywhere(rows, D)) * shares.unsqueeze(-1), {}, {}, {}};
    }
    const torch::Tensor dx = torch::empty({B, N, D}, d_out.options());
    const float *from = d_out.data_ptr<float>(), *share = shares.data_ptr<float>();
    const int64_t* row = rows.data_ptr<int64_t>();
    float* to = dx.data_ptr<float>();
    at::parallel_for(0, B * N, 64, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        scale_row(from + (i / N * left + row[i]) * D, share[i], D, false, to + i * D);
      }
    });
    return {dx, {}, {}, {}};
  }

 private:
  static bool is_in_memory(const torch::Tensor& t) {
    return t.is_cpu() && t.scalar_type() == torch::kFloat;
  }
  static torch::Tensor everywhere(const torch::Tensor& rows, int64_t D) {
    return rows.unsqueeze(-1).expand({-1, -1, D});
  }
};

}  // namespace

int64_t mergeable(int64_t tokens, int64_t fixed) {
  return std::max<int64_t>(0, (tokens - fixed) / 2);
}

Matching match_tokens(const torch::Tensor& whole_metric, int64_t r, bool class_token,
                      int64_t prompts) {
  torch::NoGradGuard no_grad;
  const int64_t N = whole_metric.size(1), B = whole_metric.size(0);
  Matching matching;
  matching.tokens = N;
  matching.r = std::max<int64_t>(0, std::min(r, mergeable(N - prompts, class_token ? 1 : 0)));
  if (matching.r == 0) return matching;
  const int64_t first = class_token ? 1 : 0;  // where prompts begin
  const torch::Tensor metric =
      prompts == 0 ? whole_metric
                   : torch::cat({whole_metric.narrow(1, 0, first),
                                 whole_metric.narrow(1, first + prompts, N - first - prompts)},
                                1);
  const torch::Tensor unit = metric / metric.norm(2, -1, /*keepdim=*/true);
  const torch::Tensor a = evens(unit), b = odds(unit);
  const torch::Tensor scores = torch::bmm(a, b.transpose(1, 2));
  if (class_token) scores.select(1, 0).fill_(-std::numeric_limits<float>::infinity());
  const auto [best, partner] = scores.max(-1);  // [B, |A|]
  const torch::Tensor order = best.argsort(-1, /*descending=*/true);
  const int64_t A = order.size(1), stay = A - matching.r;
  torch::Tensor kept = order.narrow(1, matching.r, stay);
  if (class_token) kept = std::get<0>(kept.sort(1));
  const torch::Tensor source = order.narrow(1, 0, matching.r);
  const torch::Tensor numbers = torch::arange(N, order.options());
  torch::Tensor rows = torch::empty({B, N - prompts}, order.options());
  evens(rows).scatter_(1, kept, numbers.narrow(0, 0, stay).expand({B, -1}));
  evens(rows).scatter_(1, source, partner.gather(1, source) + stay);
  odds(rows).copy_(numbers.narrow(0, stay, rows.size(1) - A));
  if (prompts > 0) {
    rows = torch::cat({rows.narrow(1, 0, first), numbers.narrow(0, first, prompts).expand({B, -1}),
                       rows.narrow(1, first, rows.size(1) - first) + prompts},
                      1);
  }
  matching.rows = rows;
  return matching;
}

torch::Tensor merge_sizes(const torch::Tensor& sizes, const Matching& matching) {
  if (matching.r == 0) return sizes;
  return torch::zeros({sizes.size(0), matching.tokens - matching.r}, sizes.options())
      .scatter_add(1, matching.rows, sizes);
}

torch::Tensor merge_mean(const torch::Tensor& x, const torch::Tensor& weights,
                         const Matching& matching) {
  if (matching.r == 0) return x;
  const torch::Tensor shares = weights / merge_sizes(weights, matching).gather(1, matching.rows);
  return SumOfRows::apply(x.contiguous(), matching.rows, shares.contiguous(),
                          matching.tokens - matching.r);
}

std::vector<int64_t> merging_schedule(const TokenMergingConfig& config, int64_t depth) {
  std::vector<int64_t> merge(static_cast<size_t>(depth), 0);
  if (config.kind != "atom" && config.kind != "tome") return merge;
  for (int64_t i = 0; i < depth; ++i) {
    // AToM: delta (l - 1) with delta = r_max / (K - 1), rounded down; in whole numbers, so exact.
    const int64_t r_max = 2 * config.n;
    merge[static_cast<size_t>(i)] =
        config.kind == "tome" ? config.n : (depth > 1 ? r_max * i / (depth - 1) : 0);
  }
  return merge;
}

}  // namespace rep
