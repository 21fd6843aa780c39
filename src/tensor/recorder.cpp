#include "tensor/recorder.h"

#include <torch/version.h>

#if defined(REP_CUDA) && \
    (TORCH_VERSION_MAJOR > 2 || (TORCH_VERSION_MAJOR == 2 && TORCH_VERSION_MINOR >= 1))
#define REP_CUDA_GRAPHS
#include <ATen/cuda/CUDAGraph.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>

#include <memory>
#endif

namespace rep {

#ifdef REP_CUDA_GRAPHS
namespace {

// The loader's thread may go on with its copies: only this thread is held to what can be recorded.
Work record(const Work& work, const at::cuda::MempoolId_t& pool) {
  auto graph = std::make_shared<at::cuda::CUDAGraph>();
  graph->capture_begin(pool, cudaStreamCaptureModeThreadLocal);
  try {
    work();
  } catch (...) {
    try {
      graph->capture_end();  // else the stream would go on recording
    } catch (const std::exception&) {
    }
    (void)cudaGetLastError();
    throw;
  }
  graph->capture_end();
  return [graph] { graph->replay(); };
}

std::vector<Work> record_all(const torch::Device& device, const std::vector<Work>& works) {
  const c10::cuda::CUDAGuard on(device);
  // Not the default stream, which cannot be recorded.
  const auto side = c10::cuda::getStreamFromPool(/*isHighPriority=*/false, device.index());
  c10::cuda::device_synchronize();
  std::vector<Work> recorded;
  {
    const c10::cuda::CUDAStreamGuard guard(side);
    for (const Work& work : works) work();  // libraries set up what they need on a stream
    c10::cuda::device_synchronize();
    const auto pool = at::cuda::graph_pool_handle();
    for (const Work& work : works) recorded.push_back(record(work, pool));
  }
  c10::cuda::device_synchronize();
  return recorded;
}

}  // namespace
#endif

Recorder graph_recorder([[maybe_unused]] const torch::Device& device) {
#ifdef REP_CUDA_GRAPHS
  if (device.is_cuda()) {
    return [device](const std::vector<Work>& works) { return record_all(device, works); };
  }
#endif
  return {};
}

}  // namespace rep
