#pragma once

#include <cstdint>

// Loops over lanes are compiled for the generations of x86 processors that have AVX2 and AVX-512;
// the right one is chosen when the program starts. Sanitizers cannot stand the functions that
// choose.
#if defined(__x86_64__) && defined(__GNUC__) && __GNUC__ >= 12 && !defined(__SANITIZE_ADDRESS__)
#define REP_CLONES __attribute__((target_clones("default", "arch=x86-64-v3", "arch=x86-64-v4")))
#define REP_AVX512 __attribute__((target("arch=x86-64-v4")))
#else
#define REP_CLONES
#endif
#define REP_INLINE inline __attribute__((always_inline))

namespace rep {

/// Eight floats that every compiler for a vector machine keeps in one register or two.
constexpr int64_t kLanes = 8;
using Lanes = float __attribute__((vector_size(32), aligned(4), may_alias));
using LaneBits = uint32_t __attribute__((vector_size(32), aligned(4), may_alias));

REP_INLINE const Lanes& lanes(const float* at) { return *reinterpret_cast<const Lanes*>(at); }
REP_INLINE Lanes& lanes(float* at) { return *reinterpret_cast<Lanes*>(at); }

/// Sixteen, one register of AVX-512: only within functions compiled for it.
using WideLanes = float __attribute__((vector_size(64), aligned(4), may_alias));

REP_INLINE float sum_of(const Lanes& x) {
  float sum = 0;
  for (int64_t l = 0; l < kLanes; ++l) sum += x[l];
  return sum;
}

/// x = exp(x) for x <= 0 (or NaN), to 2 units in the last place; what is below e^-87 comes out as
/// e^-87, which is 0 to a softmax. Cephes' polynomial.
REP_INLINE void to_exp_of_negative(Lanes& x) {
  const Lanes lowest = Lanes{} - 87.0f;
  x = x < lowest ? lowest : x;
  const Lanes shifted = x * 1.44269504088896341f + 12582912.0f;  // rounds to an integer
  const Lanes n = shifted - 12582912.0f;
  const Lanes r = (x - n * 0.693359375f) - n * -2.12194440e-4f;
  Lanes p = r * 1.9875691500e-4f + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * r * r + r + 1.0f;
  // 12582912 = 1.5 * 2^23: the integer sits in the low bits.
  const LaneBits power = (reinterpret_cast<const LaneBits&>(shifted) + 127u) << 23;
  x = p * reinterpret_cast<const Lanes&>(power);
}

/// False on an x86 processor without AVX2, where products of lanes are several times slower than a
/// BLAS library's.
inline bool lanes_are_fast() {
#if defined(__x86_64__)
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
#else
  return true;
#endif
}

}  // namespace rep
