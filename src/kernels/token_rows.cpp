// The distribution function of the normal distribution is made of its density: erf by Abramowitz
// and Stegun, Handbook of Mathematical Functions, 7.1.26, to 1.5e-7, of which a GELU keeps half.
#include "kernels/token_rows.h"

#include <ATen/Parallel.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <type_traits>

#include "kernels/lanes.h"

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

// weight and bias: null where folded. Returns the scale.
template <class L, class T>
REP_INLINE float normalise_row(const float* x, int64_t D, const float* weight, const float* bias,
                               float eps, T* y) {
  using Floats = typename L::Floats;
  const RowStatistics row = statistics_of<L>(x, D, eps);
  for (int64_t j = 0; j < D; j += L::kCount) {
    const Floats normed = (lanes<L>(x + j) - row.mean) * row.scale;
    store<L>(weight ? normed * lanes<L>(weight + j) + lanes<L>(bias + j) : normed, y + j);
  }
  return row.scale;
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

// The same of a folded norm, with n kept.
template <class L, class T>
REP_INLINE void folded_norm_gradient_row(const float* dy, const T* n, int64_t D, float scale,
                                         const float* residual, float* dx) {
  using Floats = typename L::Floats;
  Floats sums = {}, products = {}, normed;
  for (int64_t j = 0; j < D; j += L::kCount) {
    load<L>(n + j, normed);
    sums += lanes<L>(dy + j);
    products += lanes<L>(dy + j) * normed;
  }
  const float mean = sum_of<L>(sums) / static_cast<float>(D);
  const float along = sum_of<L>(products) / static_cast<float>(D);
  for (int64_t j = 0; j < D; j += L::kCount) {
    load<L>(n + j, normed);
    const Floats slope = scale * (lanes<L>(dy + j) - mean - normed * along);
    lanes<L>(dx + j) = residual ? slope + lanes<L>(residual + j) : slope;
  }
}

// ---- GELU ----

// density: e^(-x^2 / 2); below: the probability of less than x. As exactly as T has them.
template <class L, class T>
REP_INLINE void normal(const typename L::Floats& x, typename L::Floats& density,
                       typename L::Floats& below) {
  using Floats = typename L::Floats;
  const Floats off = x < 0.0f ? -x : x;
  density = x * x * -0.5f;
  Floats t = 1.0f + (0.3275911f * 0.707106781f) * off;
  to_exp_of_negative<L, T>(density);
  to_reciprocal<L, T>(t);
  Floats p = t * 1.061405429f - 1.453152027f;
  p = p * t + 1.421413741f;
  p = p * t - 0.284496736f;
  p = p * t + 0.254829592f;
  const Floats beyond = 0.5f * p * t * density;  // the probability of more than |x|
  below = x < 0.0f ? beyond : 1.0f - beyond;
}

constexpr float kSteepness = 1.702f;  // of the quick GELU's logistic distribution

// The same of the logistic distribution, below = 1 / (1 + e^-1.702 x), whose density is 1.702 times
// below (1 - below): by e^-|1.702 x|, which is small where numbers nearly cancel.
template <class L, class T>
REP_INLINE void logistic(const typename L::Floats& x, typename L::Floats& density,
                         typename L::Floats& below) {
  using Floats = typename L::Floats;
  Floats power = (x < 0.0f ? x : -x) * kSteepness;
  to_exp_of_negative<L, T>(power);
  Floats most = 1.0f + power;
  to_reciprocal<L, T>(most);  // the probability of less than |x|
  density = power * most * most;
  below = x < 0.0f ? power * most : most;
}

template <Gelu kind, class L, class T>
REP_INLINE void gelu(const T* x, int64_t n, T* y) {
  typename L::Floats value, density, below;
  for (int64_t j = 0; j < n; j += L::kCount) {
    load<L>(x + j, value);
    if constexpr (kind == Gelu::kExact) {
      normal<L, T>(value, density, below);
    } else {
      logistic<L, T>(value, density, below);
    }
    store<L>(value * below, y + j);
  }
}

template <Gelu kind, class L, class T>
REP_INLINE void to_gelu_gradient(const T* x, int64_t n, T* g) {
  typename L::Floats value, density, below, slope;
  for (int64_t j = 0; j < n; j += L::kCount) {
    load<L>(x + j, value);
    load<L>(g + j, slope);
    if constexpr (kind == Gelu::kExact) {
      normal<L, T>(value, density, below);
      store<L>(slope * (below + value * density * 0.398942280f), g + j);  // 1 / sqrt(2 pi)
    } else {
      logistic<L, T>(value, density, below);
      store<L>(slope * (below + value * density * kSteepness), g + j);
    }
  }
}

// ---- tensors ----

bool fits_lanes(const torch::Tensor& t) {
  return t.is_cpu() && t.is_contiguous() && lanes_are_fast() &&
         (t.scalar_type() == torch::kFloat || t.scalar_type() == torch::kBFloat16) &&
         t.size(-1) % kMaxLanes == 0;
}

// Of bf16 on the CPU: LibTorch's operations on it take what this program may have been told not to
// (kernels/lanes.h). On a GPU they widen by themselves.
torch::Tensor as_floats(const torch::Tensor& t) { return t.is_cpu() ? t.to(torch::kFloat) : t; }

// Calls work(first, count) for the rows of t in parts, on all threads.
template <class Work>
void for_rows(const torch::Tensor& t, const Work& work) {
  const int64_t D = t.size(-1);
  at::parallel_for(0, t.numel() / D, std::max<int64_t>(1, 16384 / D),
                   [&](int64_t begin, int64_t end) { work(begin, end - begin); });
}

// Calls work with a type that stands for `kind`: decltype(work's argument)::value.
template <class Work>
void with_kind(Gelu kind, const Work& work) {
  if (kind == Gelu::kExact) {
    work(std::integral_constant<Gelu, Gelu::kExact>{});
  } else {
    work(std::integral_constant<Gelu, Gelu::kQuick>{});
  }
}

template <class Pointer>
using Number = std::remove_pointer_t<Pointer>;

// Calls work(lanes, i) for every row i of t, on all threads, with numbers of T; an inlined work.
template <class T, class Work>
void for_each_row(const torch::Tensor& t, const Work& work) {
  for_rows(t, [&](int64_t first, int64_t count) {
    dispatch_simd_for<T>([&](auto width) REP_ALWAYS_INLINE {
      for (int64_t i = first; i < first + count; ++i) work(width, i);
    });
  });
}

// Null where undefined.
const float* floats(const torch::Tensor& t) { return t.defined() ? t.data_ptr<float>() : nullptr; }

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

torch::Tensor normalised(const torch::Tensor& x, const Norm& norm, torch::ScalarType type,
                         NormMemory* memory) {
  const int64_t D = x.size(-1);
  const bool folded = !norm.weight.defined();
  torch::Tensor out, scales;
  if (fits_lanes(x) && (folded || fits_lanes(norm.weight))) {
    out = torch::empty({x.numel() / D, D}, x.options().dtype(type));
    scales = torch::empty({out.size(0)}, x.options());
    const float *from = floats(x), *weight = floats(norm.weight), *bias = floats(norm.bias);
    float* const of_row = scales.data_ptr<float>();
    const auto eps = static_cast<float>(norm.eps);
    with_data(out, [&](auto* to) {
      for_each_row<Number<decltype(to)>>(x, [&](auto width, int64_t i) REP_ALWAYS_INLINE {
        of_row[i] = normalise_row<decltype(width)>(from + i * D, D, weight, bias, eps, to + i * D);
      });
    });
  } else {
    const auto made = torch::native_layer_norm(x, {D}, norm.weight, norm.bias, norm.eps);
    out = std::get<0>(made).flatten(0, -2).to(type);
    scales = std::get<2>(made).flatten();
  }
  if (memory) *memory = folded ? NormMemory{out, scales} : NormMemory{x, {}};
  return out;
}

torch::Tensor normalised(const NormMemory& memory, const Norm& norm, torch::ScalarType type) {
  return memory.scales.defined() ? memory.rows : normalised(memory.rows, norm, type);
}

torch::Tensor norm_gradient(const torch::Tensor& dy, const NormMemory& memory, const Norm& norm,
                            const torch::Tensor& residual) {
  const torch::Tensor& rows = memory.rows;
  const int64_t D = rows.size(-1);
  const bool folded = memory.scales.defined();
  if (!fits_lanes(rows) || !fits_lanes(dy) || !(folded || fits_lanes(norm.weight)) ||
      (residual.defined() && !fits_lanes(residual))) {
    torch::Tensor dx;
    if (folded) {
      const torch::Tensor n = rows.to(dy.scalar_type());
      dx = (dy - dy.mean(-1, true) - n * (dy * n).mean(-1, true)) * memory.scales.unsqueeze(-1);
    } else {
      const auto [y, mean, scale] =
          torch::native_layer_norm(rows, {D}, norm.weight, norm.bias, norm.eps);
      dx = std::get<0>(torch::native_layer_norm_backward(dy.view_as(rows), rows, {D}, mean, scale,
                                                         norm.weight, norm.bias,
                                                         std::array<bool, 3>{true, false, false}));
    }
    return residual.defined() ? dx + residual.view_as(dx) : dx;
  }
  const torch::Tensor dx = torch::empty(rows.sizes(), dy.options());
  const float *slopes = floats(dy), *weight = floats(norm.weight), *scales = floats(memory.scales),
              *more = floats(residual);
  float* to = dx.data_ptr<float>();
  if (folded) {
    with_data(rows, [&](auto* from) {
      for_each_row<Number<decltype(from)>>(rows, [&](auto width, int64_t i) REP_ALWAYS_INLINE {
        folded_norm_gradient_row<decltype(width)>(slopes + i * D, from + i * D, D, scales[i],
                                                  more ? more + i * D : nullptr, to + i * D);
      });
    });
  } else {
    const auto eps = static_cast<float>(norm.eps);
    const float* from = floats(rows);
    for_each_row<float>(rows, [&](auto width, int64_t i) REP_ALWAYS_INLINE {
      norm_gradient_row<decltype(width)>(slopes + i * D, from + i * D, D, weight, eps,
                                         more ? more + i * D : nullptr, to + i * D);
    });
  }
  return dx;
}

torch::Tensor gelu_of(const torch::Tensor& x, Gelu kind) {
  if (!fits_lanes(x)) {
    const torch::Tensor floats = as_floats(x);
    return (kind == Gelu::kExact ? torch::gelu(floats)
                                 : floats * torch::sigmoid(kSteepness * floats))
        .to(x.scalar_type());
  }
  const torch::Tensor y = torch::empty_like(x);
  const int64_t D = x.size(-1);
  with_kind(kind, [&](auto of) {
    with_data(x, [&](auto* from) {
      auto* const to = static_cast<decltype(from)>(y.data_ptr());
      for_rows(x, [&](int64_t first, int64_t count) {
        dispatch_simd_for<Number<decltype(from)>>([&](auto width) REP_ALWAYS_INLINE {
          gelu<decltype(of)::value, decltype(width)>(from + first * D, count * D, to + first * D);
        });
      });
    });
  });
  return y;
}

void to_gelu_gradient(const torch::Tensor& x, torch::Tensor& g, Gelu kind) {
  if (!fits_lanes(x) || !fits_lanes(g)) {
    const torch::Tensor floats = as_floats(x), upstream = as_floats(g);
    if (kind == Gelu::kExact) {
      g = torch::gelu_backward(upstream, floats).to(g.scalar_type());
    } else {
      const torch::Tensor below = torch::sigmoid(kSteepness * floats);
      g = (upstream * (below + kSteepness * floats * below * (1 - below))).to(g.scalar_type());
    }
    return;
  }
  const int64_t D = x.size(-1);
  with_kind(kind, [&](auto of) {
    with_data(x, [&](auto* from) {
      auto* const to = static_cast<decltype(from)>(g.data_ptr());
      for_rows(x, [&](int64_t first, int64_t count) {
        dispatch_simd_for<Number<decltype(from)>>([&](auto width) REP_ALWAYS_INLINE {
          to_gelu_gradient<decltype(of)::value, decltype(width)>(from + first * D, count * D,
                                                                 to + first * D);
        });
      });
    });
  });
}

}  // namespace rep
