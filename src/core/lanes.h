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
