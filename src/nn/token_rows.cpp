// The distribution function of the normal distribution is made of its density: erf by Abramowitz
// and Stegun, Handbook of Mathematical Functions, 7.1.26, to 1.5e-7, of which a GELU keeps half.
#include "nn/token_rows.h"

#include <ATen/Parallel.h>

#include <algorithm>
#include <array>
#include <cmath>

#include "core/lanes.h"

namespace rep {

namespace {

// ---- rows of D, a multiple of the lanes ----

struct RowStatistics {
  float mean, scale;  // scale: 1 / sqrt(variance + eps)
};

template <class L>
REP_INLINE RowStatistics statistics_of(const float* x, int64_t D, float eps) {
  using Floats = typename L::Floats;
  Floats sums = {}, squares = {};
  for (int64_t j = 0; j < D; j += L::kCount) sums += lanes<L>(x + j);
  const float mean = sum_of<L>(sums) / static_cast<float>(D);
  for (int64_t j = 0; j < D; j += L::kCount) {
    const Floats off = lanes<L>(x + j) - mean;
    squares += off * off;
  }
  return {mean, 1.0f / std::sqrt(sum_of<L>(squares) / static_cast<float>(D) + eps)};
}

template <class L, class T>
REP_INLINE void normalise_row(const float* x, int64_t D, const float* weight, const float* bias,
                              float eps, T* y) {
  using Floats = typename L::Floats;
  const RowStatistics row = statistics_of<L>(x, D, eps);
  for (int64_t j = 0; j < D; j += L::kCount) {
    const Floats normed = (lanes<L>(x + j) - row.mean) * row.scale;
    store<L>(normed * lanes<L>(weight + j) + lanes<L>(bias + j), y + j);
  }
}

// With n = (x - mean) scale and g = dy weight: dx = scale (g - mean(g) - n mean(g n)), plus
// residual, if any.
template <class L>
REP_INLINE void norm_gradient_row(const float* dy, const float* x, int64_t D, const float* weight,
                                  float eps, const float* residual, float* dx) {
  using Floats = typename L::Floats;
  const RowStatistics row = statistics_of<L>(x, D, eps);
  Floats sums = {}, products = {};
  for (int64_t j = 0; j < D; j += L::kCount) {
    const Floats g = lanes<L>(dy + j) * lanes<L>(weight + j);
    sums += g;
    products += g * (lanes<L>(x + j) - row.mean);
  }
  const float mean = sum_of<L>(sums) / static_cast<float>(D);
  const float along = sum_of<L>(products) * row.scale * row.scale / static_cast<float>(D);
  for (int64_t j = 0; j < D; j += L::kCount) {
    const Floats g = lanes<L>(dy + j) * lanes<L>(weight + j);
    const Floats slope = row.scale * (g - mean - (lanes<L>(x + j) - row.mean) * along);
    lanes<L>(dx + j) = residual ? slope + lanes<L>(residual + j) : slope;
  }
}

// ---- GELU ----

// density: e^(-x^2 / 2); below: the probability of less than x.
template <class L>
REP_INLINE void normal(const typename L::Floats& x, typename L::Floats& density,
                       typename L::Floats& below) {
  using Floats = typename L::Floats;
  const Floats off = x < 0.0f ? -x : x;
  density = x * x * -0.5f;
  to_exp_of_negative<L>(density);
  const Floats t = 1.0f / (1.0f + (0.3275911f * 0.707106781f) * off);
  Floats p = t * 1.061405429f - 1.453152027f;
  p = p * t + 1.421413741f;
  p = p * t - 0.284496736f;
  p = p * t + 0.254829592f;
  const Floats beyond = 0.5f * p * t * density;  // the probability of more than |x|
  below = x < 0.0f ? beyond : 1.0f - beyond;
}

template <class L, class T>
REP_INLINE void gelu(const T* x, int64_t n, T* y) {
  typename L::Floats value, density, below;
  for (int64_t j = 0; j < n; j += L::kCount) {
    load<L>(x + j, value);
    normal<L>(value, density, below);
    store<L>(value * below, y + j);
  }
}

template <class L, class T>
REP_INLINE void to_gelu_gradient(const T* x, int64_t n, T* g) {
  typename L::Floats value, density, below, slope;
  for (int64_t j = 0; j < n; j += L::kCount) {
    load<L>(x + j, value);
    load<L>(g + j, slope);
    normal<L>(value, density, below);
    store<L>(slope * (below + value * density * 0.398942280f), g + j);  // 1 / sqrt(2 pi)
  }
}

// ---- tensors ----

bool fits_lanes(const torch::Tensor& t) {
  return t.is_cpu() && t.is_contiguous() && lanes_are_fast() &&
         (t.scalar_type() == torch::kFloat || t.scalar_type() == torch::kBFloat16) &&
         t.size(-1) % kMostLanes == 0;
}

// Calls work(first, count) for the rows of t in parts, on all threads.
template <class Work>
void for_rows(const torch::Tensor& t, const Work& work) {
  const int64_t D = t.size(-1);
  at::parallel_for(0, t.numel() / D, std::max<int64_t>(1, 16384 / D),
                   [&](int64_t begin, int64_t end) { work(begin, end - begin); });
}

const float* floats(const torch::Tensor& t) { return t.data_ptr<float>(); }

// Calls work with t's memory, as floats or as bf16.
template <class Work>
void with_data(const torch::Tensor& t, const Work& work) {
  if (t.scalar_type() == torch::kFloat) {
    work(static_cast<float*>(t.data_ptr()));
  } else {
    work(static_cast<Bf16*>(t.data_ptr()));
  }
}

}  // namespace

torch::Tensor normalised(const torch::Tensor& x, const Norm& norm, torch::ScalarType type) {
  const int64_t D = x.size(-1);
  if (!fits_lanes(x) || !fits_lanes(norm.weight)) {
    return torch::layer_norm(x, {D}, norm.weight, norm.bias, norm.eps).flatten(0, -2).to(type);
  }
  const torch::Tensor out = torch::empty({x.numel() / D, D}, x.options().dtype(type));
  const float *from = floats(x), *weight = floats(norm.weight), *bias = floats(norm.bias);
  const auto eps = static_cast<float>(norm.eps);
  with_data(out, [&](auto* to) {
    for_rows(x, [&](int64_t first, int64_t count) {
      on_widest_lanes([&](auto width) REP_ALWAYS_INLINE {
        for (int64_t at = first * D; at < (first + count) * D; at += D) {
          normalise_row<decltype(width)>(from + at, D, weight, bias, eps, to + at);
        }
      });
    });
  });
  return out;
}

torch::Tensor norm_gradient(const torch::Tensor& dy, const torch::Tensor& x, const Norm& norm,
                            const torch::Tensor& residual) {
  const int64_t D = x.size(-1);
  if (!fits_lanes(x) || !fits_lanes(dy) || !fits_lanes(norm.weight) ||
      (residual.defined() && !fits_lanes(residual))) {
    auto [y, mean, rstd] = torch::native_layer_norm(x, {D}, norm.weight, norm.bias, norm.eps);
    const torch::Tensor dx = std::get<0>(
        torch::native_layer_norm_backward(dy.view_as(x), x, {D}, mean, rstd, norm.weight, norm.bias,
                                          std::array<bool, 3>{true, false, false}));
    return residual.defined() ? dx + residual : dx;
  }
  const torch::Tensor dx = torch::empty_like(x);
  const float *slopes = floats(dy), *inputs = floats(x), *weight = floats(norm.weight),
              *more = residual.defined() ? floats(residual) : nullptr;
  float* to = dx.data_ptr<float>();
  const auto eps = static_cast<float>(norm.eps);
  for_rows(x, [&](int64_t first, int64_t count) {
    on_widest_lanes([&](auto width) REP_ALWAYS_INLINE {
      for (int64_t at = first * D; at < (first + count) * D; at += D) {
        norm_gradient_row<decltype(width)>(slopes + at, inputs + at, D, weight, eps,
                                           more ? more + at : nullptr, to + at);
      }
    });
  });
  return dx;
}

torch::Tensor gelu_of(const torch::Tensor& x) {
  if (!fits_lanes(x)) return torch::gelu(x);
  const torch::Tensor y = torch::empty_like(x);
  const int64_t D = x.size(-1);
  with_data(x, [&](auto* from) {
    auto* const to = static_cast<decltype(from)>(y.data_ptr());
    for_rows(x, [&](int64_t first, int64_t count) {
      on_widest_lanes([&](auto width) REP_ALWAYS_INLINE {
        gelu<decltype(width)>(from + first * D, count * D, to + first * D);
      });
    });
  });
  return y;
}

void to_gelu_gradient(const torch::Tensor& x, torch::Tensor& g) {
  if (!fits_lanes(x) || !fits_lanes(g)) {
    g = torch::gelu_backward(g, x);
    return;
  }
  const int64_t D = x.size(-1);
  with_data(x, [&](auto* from) {
    auto* const to = static_cast<decltype(from)>(g.data_ptr());
    for_rows(x, [&](int64_t first, int64_t count) {
      on_widest_lanes([&](auto width) REP_ALWAYS_INLINE {
        to_gelu_gradient<decltype(width)>(from + first * D, count * D, to + first * D);
      });
    });
  });
}

}  // namespace rep
