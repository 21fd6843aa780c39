#pragma once

#include <cstdint>
#include <type_traits>

// Loops over lanes are compiled for the generations of x86 processors that have AVX2 and AVX-512;
// the right one is chosen when the program runs.
#if defined(__x86_64__) && defined(__GNUC__) && __GNUC__ >= 12
#define REP_X86_GENERATIONS
#endif
// Of a whole function, when the program starts: sanitizers cannot stand what chooses.
#if defined(REP_X86_GENERATIONS) && !defined(__SANITIZE_ADDRESS__)
#define REP_CLONES __attribute__((target_clones("default", "arch=x86-64-v3", "arch=x86-64-v4")))
#else
#define REP_CLONES
#endif
#define REP_ALWAYS_INLINE __attribute__((always_inline))
#define REP_INLINE inline REP_ALWAYS_INLINE

namespace rep {

/// Four floats, one register of NEON, and what else of four numbers goes with them.
struct FourLanes {
  static constexpr int64_t kCount = 4;
  using Floats = float __attribute__((vector_size(16), aligned(4), may_alias));
  using Bits = uint32_t __attribute__((vector_size(16), aligned(4), may_alias));
  using Halves = uint16_t __attribute__((vector_size(8), aligned(2), may_alias));
};

/// Eight, one register of AVX2. (GCC 12 keeps vectors of 32 bytes on the stack for NEON.)
struct EightLanes {
  static constexpr int64_t kCount = 8;
  using Floats = float __attribute__((vector_size(32), aligned(4), may_alias));
  using Bits = uint32_t __attribute__((vector_size(32), aligned(4), may_alias));
  using Halves = uint16_t __attribute__((vector_size(16), aligned(2), may_alias));
};

/// Sixteen, one register of AVX-512: only within functions compiled for it.
struct SixteenLanes {
  static constexpr int64_t kCount = 16;
  using Floats = float __attribute__((vector_size(64), aligned(4), may_alias));
  using Bits = uint32_t __attribute__((vector_size(64), aligned(4), may_alias));
  using Halves = uint16_t __attribute__((vector_size(32), aligned(2), may_alias));
};
constexpr int64_t kMaxLanes = SixteenLanes::kCount;

/// Sixteen on a processor that multiplies bf16: see add_product.
struct Avx512Bf16 : SixteenLanes {};

#ifdef REP_X86_GENERATIONS
template <class Kernel>
__attribute__((target("arch=x86-64-v4"))) void on_sixteen_lanes(const Kernel& kernel) {
  kernel(SixteenLanes{});
}
template <class Kernel>
__attribute__((target("arch=x86-64-v4,avx512bf16"))) void on_avx512_bf16(const Kernel& kernel) {
  kernel(Avx512Bf16{});
}
template <class Kernel>
__attribute__((target("arch=x86-64-v3"))) void on_eight_lanes(const Kernel& kernel) {
  kernel(EightLanes{});
}
#endif

/// What this processor's vector instructions allow; ordered: each includes the ones before.
enum class SimdLevel {
  kNone,    // x86 without AVX2: products of lanes are several times slower than a BLAS library's
  kNarrow,  // AVX2 (eight lanes); NEON (four)
  kAvx512,
  kAvx512Bf16,  // dot products of pairs of bf16
};
/// The processor's, capped by oneDNN's variable ONEDNN_MAX_CPU_ISA: AVX and SSE41 are kNone, AVX2
/// kNarrow, AVX512_CORE kAvx512, AVX512_CORE_BF16 all.
SimdLevel simd_level();

inline bool has_simd(SimdLevel least) {
  static const SimdLevel level = simd_level();
  return level >= least;
}
inline bool lanes_are_fast() { return has_simd(SimdLevel::kNarrow); }
inline bool pairs_are_fast() { return has_simd(SimdLevel::kAvx512Bf16); }

/// Calls kernel(Avx512Bf16{}), like dispatch_simd. Needs pairs_are_fast().
template <class Kernel>
void on_pairs([[maybe_unused]] const Kernel& kernel) {
#ifdef REP_X86_GENERATIONS
  on_avx512_bf16(kernel);
#endif
}

/// Calls kernel(FourLanes{}), kernel(EightLanes{}) or kernel(SixteenLanes{}), compiled for this
/// processor's registers: a lambda that is REP_ALWAYS_INLINE, as is what it calls. Needs
/// lanes_are_fast().
template <class Kernel>
void dispatch_simd(const Kernel& kernel) {
#ifdef REP_X86_GENERATIONS
  has_simd(SimdLevel::kAvx512) ? on_sixteen_lanes(kernel) : on_eight_lanes(kernel);
#elif defined(__x86_64__)
  kernel(EightLanes{});
#else
  kernel(FourLanes{});
#endif
}

/// bf16: the upper half of a float, in memory.
using Bf16 = uint16_t;

/// dispatch_simd for numbers of T: with those of bf16, Avx512Bf16 where the processor has them.
template <class T, class Kernel>
void dispatch_simd_for(const Kernel& kernel) {
  std::is_same_v<T, Bf16>&& pairs_are_fast() ? on_pairs(kernel) : dispatch_simd(kernel);
}

template <class L>
REP_INLINE const typename L::Floats& lanes(const float* at) {
  return *reinterpret_cast<const typename L::Floats*>(at);
}
template <class L>
REP_INLINE typename L::Floats& lanes(float* at) {
  return *reinterpret_cast<typename L::Floats*>(at);
}

/// Sixteen in one instruction, of which GCC 12 makes five.
template <class L>
REP_INLINE void widen(const typename L::Halves& halves, typename L::Bits& bits) {
  if constexpr (std::is_base_of_v<SixteenLanes, L>) {
    asm("vpmovzxwd %1, %0" : "=v"(bits) : "vm"(halves));
  } else {
    bits = __builtin_convertvector(halves, typename L::Bits);
  }
}

template <class L>
REP_INLINE void load(const float* from, typename L::Floats& to) {
  to = lanes<L>(from);
}
template <class L>
REP_INLINE void load(const Bf16* from, typename L::Floats& to) {
  typename L::Bits bits;
  widen<L>(*reinterpret_cast<const typename L::Halves*>(from), bits);
  reinterpret_cast<typename L::Bits&>(to) = bits << 16;
}

template <class L>
REP_INLINE void store(const typename L::Floats& from, float* to) {
  lanes<L>(to) = from;
}
/// Each as bf16, to the nearest, ties to even; NaNs are preserved. Avx512Bf16 take
/// numbers below 2^-126 for 0, as all of such a processor's instructions for bf16.
template <class L>
REP_INLINE void to_bf16(const typename L::Floats& from, typename L::Halves& bf16) {
  if constexpr (std::is_same_v<L, Avx512Bf16>) {
    asm("vcvtneps2bf16 %1, %0" : "=v"(bf16) : "v"(from));
  } else {
    using Bits = typename L::Bits;
    const Bits bits = reinterpret_cast<const Bits&>(from);
    const Bits rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
    const Bits quiet = (bits >> 16) | 0x40u;
    bf16 = __builtin_convertvector(from == from ? rounded : quiet, typename L::Halves);
  }
}
template <class L>
REP_INLINE void store(const typename L::Floats& from, Bf16* to) {
  typename L::Halves bf16;
  to_bf16<L>(from, bf16);
  *reinterpret_cast<typename L::Halves*>(to) = bf16;
}
/// Pairs of bf16, each in a float's place.
template <class L>
REP_INLINE void store_pairs(const typename L::Floats& first, const typename L::Floats& second,
                            float* to) {
  typename L::Halves half;
  typename L::Bits lower, upper;
  to_bf16<L>(first, half);
  widen<L>(half, lower);
  to_bf16<L>(second, half);
  widen<L>(half, upper);
  *reinterpret_cast<typename L::Bits*>(to) = lower | upper << 16;
}

template <class L>
REP_INLINE float sum_of(const typename L::Floats& x) {
  float sum = 0;
  for (int64_t l = 0; l < L::kCount; ++l) sum += x[l];
  return sum;
}

/// x = exp(x) for x <= 0 (or NaN), what is below e^-86 about that, which is 0 to a softmax: to 2
/// units in the last place by Cephes' polynomial; for a result that is rounded to T = Bf16 to
/// 2^-13, the least relative error that three powers leave.
template <class L, class T>
REP_INLINE void to_exp_of_negative(typename L::Floats& x) {
  using Floats = typename L::Floats;
  using Bits = typename L::Bits;
  if constexpr (std::is_same_v<T, Bf16>) {
    const Floats lowest = Floats{} - 125.0f;
    x *= 1.44269504088896341f;
    x = x < lowest ? lowest : x;
    const Floats shifted = x + 12582912.0f;
    const Floats r = x - (shifted - 12582912.0f);
    Floats p = r * 0.0551716389f + 0.242611381f;
    p = p * r + 0.693261007f;
    p = p * r + 0.999928063f;
    const Bits power = (reinterpret_cast<const Bits&>(shifted) + 127u) << 23;
    x = p * reinterpret_cast<const Floats&>(power);
    return;
  }
  const Floats lowest = Floats{} - 87.0f;
  x = x < lowest ? lowest : x;
  const Floats shifted = x * 1.44269504088896341f + 12582912.0f;  // rounds to an integer
  const Floats n = shifted - 12582912.0f;
  const Floats r = (x - n * 0.693359375f) - n * -2.12194440e-4f;
  Floats p = r * 1.9875691500e-4f + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * r * r + r + 1.0f;
  // 12582912 = 1.5 * 2^23: the integer sits in the low bits.
  const Bits power = (reinterpret_cast<const Bits&>(shifted) + 127u) << 23;
  x = p * reinterpret_cast<const Floats&>(power);
}

/// x = 1 / x; for a result that is rounded to T = Bf16 to 2^-14.
template <class L, class T>
REP_INLINE void to_reciprocal(typename L::Floats& x) {
  if constexpr (std::is_same_v<T, Bf16> && std::is_base_of_v<SixteenLanes, L>) {
    asm("vrcp14ps %1, %0" : "=v"(x) : "v"(x));
  } else {
    x = 1.0f / x;
  }
}

/// sums += words * word, where L's words are floats; where they are pairs of bf16 in a float's
/// place (Avx512Bf16), a product of words is the sum of both of theirs.
template <class L>
REP_INLINE void add_product(typename L::Floats& sums, const typename L::Floats& words, float word) {
  if constexpr (std::is_same_v<L, Avx512Bf16>) {
    const typename L::Floats everywhere = word - typename L::Floats{};
    typename L::Floats sum = sums;  // in a register: an operand of asm can lie in memory
    asm("vdpbf16ps %2, %1, %0" : "+v"(sum) : "v"(words), "v"(everywhere));
    sums = sum;
  } else {
    sums += words * word;
  }
}

}  // namespace rep
