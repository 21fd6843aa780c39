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

// ---- storage ----

using Bf16Lanes = uint16_t __attribute__((vector_size(16), aligned(2), may_alias));

REP_INLINE void load(const float* from, Lanes& to) { to = lanes(from); }
REP_INLINE void store(const Lanes& from, float* to) { lanes(to) = from; }

REP_INLINE void load(const c10::BFloat16* from, Lanes& to) {
  const auto& halves = *reinterpret_cast<const Bf16Lanes*>(from);
  reinterpret_cast<LaneBits&>(to) = __builtin_convertvector(halves, LaneBits) << 16;
}

// To the nearest, ties to even; what is no number stays none.
REP_INLINE void store(const Lanes& from, c10::BFloat16* to) {
  const LaneBits bits = reinterpret_cast<const LaneBits&>(from);
  const LaneBits rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
  const LaneBits quiet = (bits >> 16) | 0x40u;
  *reinterpret_cast<Bf16Lanes*>(to) =
      __builtin_convertvector(from == from ? rounded : quiet, Bf16Lanes);
}

// ---- rows of D, a multiple of 8 ----

struct RowStatistics {
  float mean, scale;  // scale: 1 / sqrt(variance + eps)
};

REP_INLINE void measure(const float* x, int64_t D, float eps, RowStatistics& out) {
  Lanes sums = {}, squares = {};
  for (int64_t j = 0; j < D; j += kLanes) sums += lanes(x + j);
  out.mean = sum_of(sums) / static_cast<float>(D);
  for (int64_t j = 0; j < D; j += kLanes) {
    const Lanes off = lanes(x + j) - out.mean;
    squares += off * off;
  }
  out.scale = 1.0f / std::sqrt(sum_of(squares) / static_cast<float>(D) + eps);
}

template <class T>
REP_INLINE void normalise(const float* x, int64_t rows, int64_t D, const float* weight,
                          const float* bias, float eps, T* y) {
  for (int64_t i = 0; i < rows; ++i, x += D, y += D) {
    RowStatistics row;
    measure(x, D, eps, row);
    for (int64_t j = 0; j < D; j += kLanes) {
      store((lanes(x + j) - row.mean) * row.scale * lanes(weight + j) + lanes(bias + j), y + j);
    }
  }
}

REP_CLONES void normalise_rows(const float* x, int64_t rows, int64_t D, const float* weight,
                               const float* bias, float eps, float* y) {
  normalise(x, rows, D, weight, bias, eps, y);
}

REP_CLONES void normalise_rows(const float* x, int64_t rows, int64_t D, const float* weight,
                               const float* bias, float eps, c10::BFloat16* y) {
  normalise(x, rows, D, weight, bias, eps, y);
}

// With n = (x - mean) scale and g = dy weight: dx = scale (g - mean(g) - n mean(g n)), plus
// residual, if any.
REP_CLONES void norm_gradient_rows(const float* dy, const float* x, int64_t rows, int64_t D,
                                   const float* weight, float eps, const float* residual,
                                   float* dx) {
  for (int64_t i = 0; i < rows; ++i, dy += D, x += D, dx += D) {
    RowStatistics row;
    measure(x, D, eps, row);
    Lanes sums = {}, products = {};
    for (int64_t j = 0; j < D; j += kLanes) {
      const Lanes g = lanes(dy + j) * lanes(weight + j);
      sums += g;
      products += g * (lanes(x + j) - row.mean);
    }
    const float mean = sum_of(sums) / static_cast<float>(D);
    const float along = sum_of(products) * row.scale * row.scale / static_cast<float>(D);
    for (int64_t j = 0; j < D; j += kLanes) {
      const Lanes g = lanes(dy + j) * lanes(weight + j);
      const Lanes slope = row.scale * (g - mean - (lanes(x + j) - row.mean) * along);
      lanes(dx + j) = residual ? slope + lanes(residual + j) : slope;
    }
    if (residual) residual += D;
  }
}

// ---- GELU ----

// density: e^(-x^2 / 2); below: the probability of less than x.
REP_INLINE void normal(const Lanes& x, Lanes& density, Lanes& below) {
  const Lanes off = x < 0.0f ? -x : x;
  density = x * x * -0.5f;
  to_exp_of_negative(density);
  const Lanes t = 1.0f / (1.0f + (0.3275911f * 0.707106781f) * off);
  Lanes p = t * 1.061405429f - 1.453152027f;
  p = p * t + 1.421413741f;
  p = p * t - 0.284496736f;
  p = p * t + 0.254829592f;
  const Lanes beyond = 0.5f * p * t * density;  // the probability of more than |x|
  below = x < 0.0f ? beyond : 1.0f - beyond;
}

REP_INLINE void to_gelu(Lanes& x) {
  Lanes density, below;
  normal(x, density, below);
  x *= below;
}

REP_INLINE void times_gelu_gradient(const Lanes& x, Lanes& g) {
  Lanes density, below;
  normal(x, density, below);
  g *= below + x * density * 0.398942280f;  // 1 / sqrt(2 pi)
}

template <class T>
REP_INLINE void gelu(const T* x, int64_t n, T* y) {
  for (int64_t j = 0; j < n; j += kLanes) {
    Lanes value;
    load(x + j, value);
    to_gelu(value);
    store(value, y + j);
  }
}

template <class T>
REP_INLINE void gelu_gradient(const T* x, int64_t n, T* g) {
  for (int64_t j = 0; j < n; j += kLanes) {
    Lanes value, slope;
    load(x + j, value);
    load(g + j, slope);
    times_gelu_gradient(value, slope);
    store(slope, g + j);
  }
}

REP_CLONES void gelu_all(const float* x, int64_t n, float* y) { gelu(x, n, y); }
REP_CLONES void gelu_all(const c10::BFloat16* x, int64_t n, c10::BFloat16* y) { gelu(x, n, y); }
REP_CLONES void gelu_gradient_all(const float* x, int64_t n, float* g) { gelu_gradient(x, n, g); }
REP_CLONES void gelu_gradient_all(const c10::BFloat16* x, int64_t n, c10::BFloat16* g) {
  gelu_gradient(x, n, g);
}

// ---- tensors ----

bool fits(const torch::Tensor& t) {
  return t.is_cpu() && t.is_contiguous() && lanes_are_fast() &&
         (t.scalar_type() == torch::kFloat || t.scalar_type() == torch::kBFloat16) &&
         t.size(-1) % kLanes == 0;
}

// Calls work(first, count) for the rows of t in parts, on all threads.
template <class Work>
void for_rows(const torch::Tensor& t, const Work& work) {
  const int64_t D = t.size(-1);
  at::parallel_for(0, t.numel() / D, std::max<int64_t>(1, 16384 / D),
                   [&](int64_t begin, int64_t end) { work(begin, end - begin); });
}

}  // namespace

torch::Tensor normalised(const torch::Tensor& x, const Norm& norm, torch::ScalarType type) {
  const int64_t D = x.size(-1);
  if (!fits(x) || !fits(norm.weight)) {
    return torch::layer_norm(x, {D}, norm.weight, norm.bias, norm.eps).flatten(0, -2).to(type);
  }
  const torch::Tensor y = torch::empty({x.numel() / D, D}, x.options().dtype(type));
  const float *from = x.data_ptr<float>(), *weight = norm.weight.data_ptr<float>(),
              *bias = norm.bias.data_ptr<float>();
  const auto eps = static_cast<float>(norm.eps);
  for_rows(x, [&](int64_t first, int64_t count) {
    const int64_t at = first * D;
    if (type == torch::kFloat) {
      normalise_rows(from + at, count, D, weight, bias, eps, y.data_ptr<float>() + at);
    } else {
      normalise_rows(from + at, count, D, weight, bias, eps, y.data_ptr<c10::BFloat16>() + at);
    }
  });
  return y;
}

torch::Tensor norm_gradient(const torch::Tensor& dy, const torch::Tensor& x, const Norm& norm,
                            const torch::Tensor& residual) {
  const int64_t D = x.size(-1);
  if (!fits(x) || !fits(dy) || !fits(norm.weight) || (residual.defined() && !fits(residual))) {
    auto [y, mean, rstd] = torch::native_layer_norm(x, {D}, norm.weight, norm.bias, norm.eps);
    const torch::Tensor dx = std::get<0>(
        torch::native_layer_norm_backward(dy.view_as(x), x, {D}, mean, rstd, norm.weight, norm.bias,
                                          std::array<bool, 3>{true, false, false}));
    return residual.defined() ? dx + residual : dx;
  }
  const torch::Tensor dx = torch::empty_like(x);
  const float *slopes = dy.data_ptr<float>(), *inputs = x.data_ptr<float>(),
              *weight = norm.weight.data_ptr<float>(),
              *more = residual.defined() ? residual.data_ptr<float>() : nullptr;
  float* out = dx.data_ptr<float>();
  for_rows(x, [&](int64_t first, int64_t count) {
    const int64_t at = first * D;
    norm_gradient_rows(slopes + at, inputs + at, count, D, weight, static_cast<float>(norm.eps),
                       more ? more + at : nullptr, out + at);
  });
  return dx;
}

torch::Tensor gelu_of(const torch::Tensor& x) {
  if (!fits(x)) return torch::gelu(x);
  const torch::Tensor y = torch::empty_like(x);
  const int64_t D = x.size(-1);
  for_rows(x, [&](int64_t first, int64_t count) {
    const int64_t at = first * D, n = count * D;
    if (x.scalar_type() == torch::kFloat) {
      gelu_all(x.data_ptr<float>() + at, n, y.data_ptr<float>() + at);
    } else {
      gelu_all(x.data_ptr<c10::BFloat16>() + at, n, y.data_ptr<c10::BFloat16>() + at);
    }
  });
  return y;
}

void to_gelu_gradient(const torch::Tensor& x, torch::Tensor& g) {
  if (!fits(x) || !fits(g)) {
    g = torch::gelu_backward(g, x);
    return;
  }
  const int64_t D = x.size(-1);
  for_rows(x, [&](int64_t first, int64_t count) {
    const int64_t at = first * D, n = count * D;
    if (x.scalar_type() == torch::kFloat) {
      gelu_gradient_all(x.data_ptr<float>() + at, n, g.data_ptr<float>() + at);
    } else {
      gelu_gradient_all(x.data_ptr<c10::BFloat16>() + at, n, g.data_ptr<c10::BFloat16>() + at);
    }
  });
}

}  // namespace rep
