#include "kernels/lanes.h"

#include <algorithm>
#include <cstdlib>
#include <string>

namespace rep {

namespace {

Vectors of_processor() {
#ifdef REP_X86_GENERATIONS
  if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma")) return Vectors::kNothing;
  if (!__builtin_cpu_supports("avx512f") || !__builtin_cpu_supports("avx512bw") ||
      !__builtin_cpu_supports("avx512dq") || !__builtin_cpu_supports("avx512vl")) {
    return Vectors::kEight;
  }
  return __builtin_cpu_supports("avx512bf16") ? Vectors::kPairs : Vectors::kSixteen;
#elif defined(__x86_64__) && !(defined(__AVX2__) && defined(__FMA__))
  return Vectors::kNothing;
#else
  return Vectors::kEight;
#endif
}

Vectors most_allowed() {
  const char* variable = std::getenv("ONEDNN_MAX_CPU_ISA");
  const std::string name = variable ? variable : "";
  if (name == "SSE41" || name == "AVX") return Vectors::kNothing;
  if (name == "AVX2" || name == "AVX2_VNNI") return Vectors::kEight;
  if (name == "AVX512_CORE" || name == "AVX512_CORE_VNNI") return Vectors::kSixteen;
  return Vectors::kPairs;
}

}  // namespace

Vectors vectors() { return std::min(of_processor(), most_allowed()); }

}  // namespace rep
