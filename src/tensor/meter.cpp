#include "tensor/meter.h"

#include <ATen/record_function.h>
#include <c10/core/Allocator.h>
#include <c10/core/CPUAllocator.h>
#include <malloc.h>
#include <sys/resource.h>

#include <atomic>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <limits>
#include <mutex>
#include <string>
#include <thread>
#include <unordered_map>

#include "tensor/cuda_memory.h"
#include "tensor/energy.h"
#include "tensor/torch.h"

namespace rep {

namespace {

// ---- multiply-accumulates: a RecordFunction callback on the leaf matrix products ----

std::atomic<int64_t> g_macs{0};
thread_local int g_inside = 0;  // > 0 while in a counted op: the outermost one wins; or uncounted

int64_t macs_of_product(c10::ArrayRef<const c10::IValue> inputs, size_t a, size_t b) {
  const at::Tensor &x = inputs[a].toTensor(), &y = inputs[b].toTensor();
  return x.numel() * y.size(-1);  // [.., n, k] x [.., k, m]
}

int64_t macs_of_convolution(const at::Tensor& output_like, const at::Tensor& weight) {
  return output_like.numel() * weight.numel() / weight.size(0);
}

int64_t spatial_output(const at::Tensor& x, const at::Tensor& w, const std::vector<int64_t>& stride,
                       const std::vector<int64_t>& padding, const std::vector<int64_t>& dilation) {
  int64_t positions = 1;
  for (int64_t i = 2; i < x.dim(); ++i) {
    const auto at_most = [i](const std::vector<int64_t>& list) {
      return list[std::min(static_cast<size_t>(i - 2), list.size() - 1)];
    };
    const int64_t reach = at_most(dilation) * (w.size(i) - 1) + 1;
    positions *= (x.size(i) + 2 * at_most(padding) - reach) / at_most(stride) + 1;
  }
  return positions;
}

// Forward: one MAC per output element and weight of its filter. Transposed: per input element.
int64_t macs_of_convolution_forward(c10::ArrayRef<const c10::IValue> inputs) {
  const at::Tensor &x = inputs[0].toTensor(), &w = inputs[1].toTensor();
  if (inputs[6].toBool()) return x.numel() * w.numel() / w.size(0);
  const int64_t positions = spatial_output(x, w, inputs[3].toIntVector(), inputs[4].toIntVector(),
                                           inputs[5].toIntVector());
  return x.size(0) * positions * w.numel();
}

// As many as the forward for the input's gradient, and again for the weight's.
int64_t macs_of_convolution_backward(c10::ArrayRef<const c10::IValue> inputs) {
  const at::Tensor &grad = inputs[0].toTensor(), &x = inputs[1].toTensor(),
                   &w = inputs[2].toTensor();
  const bool transposed = inputs[7].toBool();
  const int64_t once = macs_of_convolution(transposed ? x : grad, w);
  const auto mask = inputs[inputs.size() - 1].toBoolList();
  return once * (static_cast<int64_t>(mask.get(0)) + static_cast<int64_t>(mask.get(1)));
}

// Fused attention (LibTorch 2.x): QK^T and PV. q [B, H, N, d], k and v [B, H, M, d]; its backward
// counts four products: the recomputation of QK^T is an implementation's choice, not the method's
// work.
int64_t macs_of_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v) {
  return q.numel() * k.size(-2) + q.numel() / q.size(-1) * k.size(-2) * v.size(-1);
}

enum class Op {
  kMm,
  kMv,
  kAddmm,
  kConvolution,
  kConvolutionBackward,
  kAttention,
  kAttentionBackward
};

const std::unordered_map<std::string, Op>& counted_ops() {
  static const std::unordered_map<std::string, Op> ops{
      {"aten::mm", Op::kMm},
      {"aten::bmm", Op::kMm},
      {"aten::mv", Op::kMv},
      {"aten::addmm", Op::kAddmm},
      {"aten::addmm_", Op::kAddmm},
      {"aten::baddbmm", Op::kAddmm},
      {"aten::baddbmm_", Op::kAddmm},
      {"aten::convolution", Op::kConvolution},
      {"aten::convolution_backward", Op::kConvolutionBackward},
      {"aten::_scaled_dot_product_flash_attention_for_cpu", Op::kAttention},
      {"aten::_scaled_dot_product_flash_attention_for_cpu_backward", Op::kAttentionBackward},
      {"aten::_scaled_dot_product_flash_attention", Op::kAttention},
      {"aten::_scaled_dot_product_flash_attention_backward", Op::kAttentionBackward},
      {"aten::_scaled_dot_product_efficient_attention", Op::kAttention},
      {"aten::_scaled_dot_product_efficient_attention_backward", Op::kAttentionBackward},
      {"aten::_scaled_dot_product_cudnn_attention", Op::kAttention},
      {"aten::_scaled_dot_product_cudnn_attention_backward", Op::kAttentionBackward},
  };
  return ops;
}

int64_t macs_of(const at::RecordFunction& fn, Op op) {
  const auto inputs = fn.inputs();
  switch (op) {
    case Op::kMm:
      return macs_of_product(inputs, 0, 1);
    case Op::kMv:
      return inputs[0].toTensor().numel();
    case Op::kAddmm:
      return macs_of_product(inputs, 1, 2);
    case Op::kConvolution:
      return macs_of_convolution_forward(inputs);
    case Op::kConvolutionBackward:
      return macs_of_convolution_backward(inputs);
    case Op::kAttention:
      return macs_of_attention(inputs[0].toTensor(), inputs[1].toTensor(), inputs[2].toTensor());
    case Op::kAttentionBackward:
      return 2 *
             macs_of_attention(inputs[1].toTensor(), inputs[2].toTensor(), inputs[3].toTensor());
  }
  return 0;
}

struct Counted : at::ObserverContext {};

std::unique_ptr<at::ObserverContext> on_start(const at::RecordFunction& fn) {
  // Most ops are not counted: reject them by their first letters before hashing.
  const char* name = fn.name();
  if (std::strncmp(name, "aten::", 6) != 0) return nullptr;
  const auto found = counted_ops().find(name);
  if (found == counted_ops().end()) return nullptr;
  if (g_inside++ == 0) g_macs.fetch_add(macs_of(fn, found->second), std::memory_order_relaxed);
  return std::make_unique<Counted>();
}

void on_end(const at::RecordFunction&, at::ObserverContext* context) {
  if (context) --g_inside;
}

// ---- bytes of CPU tensors: an allocator with a header in front of every block ----

std::atomic<int64_t> g_bytes{0}, g_peak{0}, g_cuda_device{-1};

// oneDNN takes raw_allocate, which demands that data and context are one pointer: so the count
// lives in a header in front of the block, not in a context object. The header keeps 64-byte
// alignment.
class CountingAllocator final : public c10::Allocator {
 public:
  // Without `override` on purpose: 1.13 declares allocate const, 2.x not, and copy_data only exists
  // there.
  c10::DataPtr allocate(size_t bytes) const { return take(bytes); }
  c10::DataPtr allocate(size_t bytes) { return take(bytes); }
  void copy_data(void* to, const void* from, std::size_t bytes) const {
    std::memcpy(to, from, bytes);
  }
  c10::DeleterFnPtr raw_deleter() const override { return &give_back; }

 private:
  // Before the data.
  struct alignas(64) Header {
    void* block;
    int64_t bytes;
  };

  // malloc and not posix_memalign, as LibTorch does: glibc (2.36) looks there for a block that
  // is larger than the one that was freed of the same size, so that a step's blocks never fit where
  // the last step's were, and the process grows by a third.
  static c10::DataPtr take(size_t bytes) {
    if (bytes == 0) return {nullptr, nullptr, &give_back, c10::Device(c10::kCPU)};
    void* block = std::malloc(bytes + sizeof(Header) + alignof(Header));
    TORCH_CHECK(block, "not enough memory: a tensor of ", bytes, " bytes cannot be had");
    auto* header = reinterpret_cast<Header*>(
        (reinterpret_cast<uintptr_t>(block) + alignof(Header)) / alignof(Header) * alignof(Header));
    const auto count = static_cast<int64_t>(bytes);
    *header = {block, count};
    const int64_t now = g_bytes.fetch_add(count) + count;
    int64_t peak = g_peak.load();
    while (now > peak && !g_peak.compare_exchange_weak(peak, now)) {
    }
    return {header + 1, header + 1, &give_back, c10::Device(c10::kCPU)};
  }
  static void give_back(void* data) {
    if (!data) return;
    const Header header = *(static_cast<Header*>(data) - 1);
    g_bytes.fetch_sub(header.bytes);
    std::free(header.block);
  }
};

// ---- joules: the machine's sensors ----

using Clock = std::chrono::steady_clock;

double seconds_since_boot() {
  return std::chrono::duration<double>(Clock::now().time_since_epoch()).count();
}

// Joules so far. A thread of its own reads when nobody asks: power has to be integrated, and
// counters start again.
class EnergySampler {
 public:
  EnergySampler() : meter_(options()), last_(seconds_since_boot()) {
    if (!meter_.measures()) return;
    joules_ = 0;
    std::thread([this] {
      while (true) {
        std::this_thread::sleep_for(std::chrono::milliseconds(100));
        joules();
      }
    }).detach();  // lives as long as the process, as the sampler does
  }
  double joules() {
    if (!meter_.measures()) return joules_;
    const std::lock_guard<std::mutex> lock(mutex_);
    const double now = seconds_since_boot();
    if (now - last_ < 0.02) return joules_;
    last_ = now;
    return joules_ = meter_.joules(now);
  }
  const std::string& source() const { return meter_.source(); }

 private:
  static EnergyMeter::Options options() {
    EnergyMeter::Options options;
    if (!torch::cuda::is_available()) options.nvml = "";  // a GPU that does not compute
    options.now = seconds_since_boot();
    return options;
  }
  EnergyMeter meter_;
  std::mutex mutex_;
  double last_, joules_ = std::numeric_limits<double>::quiet_NaN();
};

EnergySampler* g_energy = nullptr;

// ---- phases ----

PhaseCost g_cost;
Phase g_phase = Phase::kOther;
Clock::time_point g_since = Clock::now();
int64_t g_macs_since = 0;
double g_joules_since = 0;

// Charges what passed since the last change to the open phase.
void charge_open_phase() {
  const auto now = Clock::now();
  const int64_t macs = g_macs.load();
  const auto i = static_cast<size_t>(g_phase);
  g_cost.seconds[i] += std::chrono::duration<double>(now - g_since).count();
  g_cost.macs[i] += macs - g_macs_since;
  const double joules = g_energy ? g_energy->joules() : std::numeric_limits<double>::quiet_NaN();
  g_cost.joules[i] += joules - g_joules_since;
  g_joules_since = joules;
  g_since = now;
  g_macs_since = macs;
}

}  // namespace

PhaseCost& PhaseCost::operator+=(const PhaseCost& other) {
  for (size_t i = 0; i < kPhases; ++i) {
    seconds[i] += other.seconds[i];
    macs[i] += other.macs[i];
    joules[i] += other.joules[i];
  }
  return *this;
}

PhaseCost PhaseCost::operator-(const PhaseCost& earlier) const {
  PhaseCost difference = *this;
  for (size_t i = 0; i < kPhases; ++i) {
    difference.seconds[i] -= earlier.seconds[i];
    difference.macs[i] -= earlier.macs[i];
    difference.joules[i] -= earlier.joules[i];
  }
  return difference;
}

void install_meter() {
  static const bool installed = [] {
    // Leaked: tensors with static storage may outlive any destructor of ours.
    c10::SetCPUAllocator(new CountingAllocator);
    at::addGlobalCallback(at::RecordFunctionCallback(on_start, on_end)
                              .needsInputs(true)
                              .scopes({at::RecordScope::FUNCTION}));
    g_energy = new EnergySampler;  // never deleted: its thread reads to the end
    return true;
  }();
  (void)installed;
}

PhaseScope::PhaseScope(Phase phase) : outer_(g_phase) {
  charge_open_phase();
  if (outer_ != Phase::kEval) g_phase = phase;  // all of testing is one phase, its queries too
}

PhaseScope::~PhaseScope() {
  charge_open_phase();
  g_phase = outer_;
}

PhaseCost metered() {
  charge_open_phase();
  return g_cost;
}

std::string energy_source() {
  return g_energy ? g_energy->source() : "none: the meter is not installed";
}

int64_t macs_so_far() { return g_macs.load(); }
void count_macs(int64_t macs) {
  if (g_inside == 0) g_macs.fetch_add(macs, std::memory_order_relaxed);
}
UncountedMacs::UncountedMacs() { ++g_inside; }
UncountedMacs::~UncountedMacs() { --g_inside; }
int64_t tensor_bytes() { return g_bytes.load(); }
int64_t peak_tensor_bytes() { return g_peak.load(); }
void reset_peak_tensor_bytes() {
  g_peak.store(g_bytes.load());
  if (g_cuda_device >= 0) reset_cuda_peak_bytes_of(g_cuda_device);
}
void meter_cuda_device(int64_t index) {
  // The allocator knows no device before its first tensor.
  torch::empty({1}, torch::Device(torch::kCUDA, static_cast<c10::DeviceIndex>(index)));
  g_cuda_device = index;
}
int64_t cuda_peak_bytes() { return g_cuda_device < 0 ? -1 : cuda_peak_bytes_of(g_cuda_device); }

void reset_peak_rss_bytes() {
#ifdef __GLIBC__
  malloc_trim(0);
#endif
  std::ofstream("/proc/self/clear_refs") << "5";  // VmHWM becomes VmRSS: proc(5)
}

int64_t peak_rss_bytes() {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);) {
    if (line.rfind("VmHWM:", 0) == 0) return std::stoll(line.substr(6)) * 1024;  // "VmHWM: 123 kB"
  }
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return static_cast<int64_t>(usage.ru_maxrss) * 1024;
}

}  // namespace rep
