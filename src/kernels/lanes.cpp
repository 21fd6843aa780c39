#include "kernels/lanes.h"

#include <algorithm>
#include <cstdlib>
#include <string>

namespace rep {

namespace {

SimdLevel of_processor() {
#ifdef REP_X86_GENERATIONS
  if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma")) return SimdLevel::kNone;
  if (!__builtin_cpu_supports("avx512f") || !__builtin_cpu_supports("avx512bw") ||
      !__builtin_cpu_supports("avx512dq") || !__builtin_cpu_supports("avx512vl")) {
    return SimdLevel::kNarrow;
  }
  return __builtin_cpu_supports("avx512bf16") ? SimdLevel::kAvx512Bf16 : SimdLevel::kAvx512;
#elif defined(__x86_64__) && !(defined(__AVX2__) && defined(__FMA__))
  return SimdLevel::kNone;
#else
  return SimdLevel::kNarrow;
#endif
}

SimdLevel most_allowed() {
  const char* variable = std::getenv("ONEDNN_MAX_CPU_ISA");
  const std::string name = variable ? variable : "";
  if (name == "SSE41" || name == "AVX") return SimdLevel::kNone;
  if (name == "AVX2" || name == "AVX2_VNNI") return SimdLevel::kNarrow;
  if (name == "AVX512_CORE" || name == "AVX512_CORE_VNNI") return SimdLevel::kAvx512;
  return SimdLevel::kAvx512Bf16;
}

}  // namespace

SimdLevel simd_level() { return std::min(of_processor(), most_allowed()); }

}  // namespace rep
