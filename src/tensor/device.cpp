#include "tensor/device.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/Parallel.h>
#include <dlfcn.h>

#include <fstream>
#include <mutex>
#include <optional>
#include <thread>

#include "core/error.h"
#include "core/numbers.h"
#include "tensor/torch.h"

namespace rep {

namespace {

int64_t g_threads = 1;

std::string cpu_name() {
  std::ifstream cpuinfo("/proc/cpuinfo");
  for (std::string line; std::getline(cpuinfo, line);) {
    if (line.rfind("model name", 0) == 0) return line.substr(line.find(':') + 2);
  }
  return "cpu";
}

// N of cuda:N.
std::optional<uint16_t> cuda_index(const std::string& name) {
  const std::string prefix = "cuda:";
  if (name == "cuda") return 0;
  if (name.rfind(prefix, 0) != 0) return std::nullopt;
  return parse_number<uint16_t>(name.substr(prefix.size()));
}

}  // namespace

torch::Device choose_device(const std::string& name) {
  const bool cuda = torch::cuda::is_available();
  if (name == "cpu" || (name == "auto" && !cuda)) return torch::Device(torch::kCPU);
  if (name == "auto") return torch::Device(torch::kCUDA, 0);
  const auto index = cuda_index(name);
  if (!index) {
    throw Error("device: '" + name + "' must be auto, cpu, cuda or cuda:N");
  }
  if (!cuda) {
    throw Error("device: '" + name +
                "' was asked for, but this LibTorch sees no CUDA device; use device: cpu");
  }
  const auto count = static_cast<int64_t>(torch::cuda::device_count());
  if (*index >= count) {
    throw Error("device: '" + name + "' is not there; this machine has " + std::to_string(count) +
                " CUDA device(s), numbered from 0");
  }
  return torch::Device(torch::kCUDA, static_cast<c10::DeviceIndex>(*index));
}

int64_t set_threads(int64_t threads, int64_t processes) {
  if (threads <= 0) threads = std::max<int64_t>(1, std::thread::hardware_concurrency() / processes);
  g_threads = threads;
  at::set_num_threads(static_cast<int>(threads));
  // OpenBLAS's pthread build has a pool of its own that LibTorch's setting does not reach.
  using SetThreads = void (*)(int);
  if (auto set = reinterpret_cast<SetThreads>(dlsym(RTLD_DEFAULT, "openblas_set_num_threads"))) {
    set(static_cast<int>(threads));
  }
  return threads;
}

int64_t threads_in_use() { return g_threads; }

void seed_everything(int64_t seed) { torch::manual_seed(static_cast<uint64_t>(seed)); }

at::Generator make_generator(int64_t seed, RandomUse use) {
  Random random({static_cast<uint64_t>(seed), static_cast<uint64_t>(use)});
  return at::make_generator<at::CPUGeneratorImpl>(random.next());
}

namespace {

at::Generator default_generator(const torch::Device& device) {
  return at::globalContext().defaultGenerator(device);
}

}  // namespace

torch::Tensor rng_state(const torch::Device& device) {
  auto generator = default_generator(device);
  const std::lock_guard<std::mutex> lock(generator.mutex());
  return generator.get_state().clone();
}

void set_rng_state(const torch::Device& device, const torch::Tensor& state) {
  auto generator = default_generator(device);
  const std::lock_guard<std::mutex> lock(generator.mutex());
  generator.set_state(state);
}

std::string blas_name() {
  using GetConfig = const char* (*)();
  if (auto config = reinterpret_cast<GetConfig>(dlsym(RTLD_DEFAULT, "openblas_get_config"))) {
    return config();
  }
  if (at::hasMKL() || dlsym(RTLD_DEFAULT, "mkl_get_max_threads")) return "MKL";
  return "";
}

Json describe_device(const torch::Device& device) {
  return {{"kind", device.is_cuda() ? "cuda" : "cpu"},
          {"name", device.is_cuda() ? device.str() : cpu_name()},
          {"threads", g_threads}};
}

}  // namespace rep
