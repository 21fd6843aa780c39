#include "tensor/cuda_memory.h"

#ifdef REP_CUDA
#include <c10/cuda/CUDACachingAllocator.h>
#endif

namespace rep {

int64_t cuda_peak_bytes_of([[maybe_unused]] int64_t index) {
#ifdef REP_CUDA
  const auto device = static_cast<c10::DeviceIndex>(index);
  const auto stats = c10::cuda::CUDACachingAllocator::getDeviceStats(device);
  return stats.allocated_bytes[0].peak;  // 0: of all pools together
#else
  return -1;
#endif
}

void reset_cuda_peak_bytes_of([[maybe_unused]] int64_t index) {
#ifdef REP_CUDA
  c10::cuda::CUDACachingAllocator::resetPeakStats(static_cast<c10::DeviceIndex>(index));
#endif
}

}  // namespace rep
