#pragma once

#include <array>
#include <cstdint>
#include <string>

#include "core/json.h"

namespace rep {

/// Where a run's time and arithmetic go. `kSelect` is the query pass that picks prompts.
enum class Phase : int { kOther, kDataWait, kSelect, kForward, kBackward, kStep, kEval };
constexpr int kPhases = 7;

/// Exclusive seconds, multiply-accumulates and joules by phase. Joules are not numbers where they
/// were not measured, and neither is any sum with them.
struct PhaseCost {
  std::array<double, kPhases> seconds{};
  std::array<int64_t, kPhases> macs{};
  std::array<double, kPhases> joules{};
  PhaseCost& operator+=(const PhaseCost& other);
  PhaseCost operator-(const PhaseCost& earlier) const;
};

/// Counts what LibTorch really runs: MACs of the matrix products and convolutions (RecordFunction;
/// element-wise work is not counted, as is the field's habit) and the bytes of CPU tensors (an
/// allocator with a header in front of every block). Process-wide, because both hooks are. Install
/// once, before the first tensor. Energy is the machine's (tensor/energy.h), read at most every 20
/// ms: shorter phases share it as their times fall.
void install_meter();
/// What the joules come from, or "none: " and why there are none.
std::string energy_source();

/// From construction to destruction, time and MACs go to `phase`; the enclosing scope's clock
/// stands still meanwhile. Inside Phase::kEval nested scopes change nothing. Only one thread opens
/// scopes.
class PhaseScope {
 public:
  explicit PhaseScope(Phase phase);
  ~PhaseScope();
  PhaseScope(const PhaseScope&) = delete;
  PhaseScope& operator=(const PhaseScope&) = delete;

 private:
  Phase outer_;
};

/// Totals since the start of the process, the open scope's share so far included.
PhaseCost metered();
/// MACs of every thread since the start of the process.
int64_t macs_so_far();
/// Adds what a kernel of this program's own multiplied, which LibTorch does not see.
void count_macs(int64_t macs);
/// While it lives, MACs of this thread are not counted: those of recomputation (activation
/// checkpointing).
class UncountedMacs {
 public:
  UncountedMacs();
  ~UncountedMacs();
  UncountedMacs(const UncountedMacs&) = delete;
  UncountedMacs& operator=(const UncountedMacs&) = delete;
};

/// Bytes that CPU tensors hold now; the most they held since the last reset.
int64_t tensor_bytes();
int64_t peak_tensor_bytes();
void reset_peak_tensor_bytes();
/// From now on the tensors of that CUDA device, too, on which the program computes.
void meter_cuda_device(int64_t index);
/// The most that they held since the last reset of peaks; -1: no such device is metered.
int64_t cuda_peak_bytes();
/// The process's peak resident set: VmHWM of /proc/self/status, or getrusage's where there is none.
int64_t peak_rss_bytes();
/// From here on VmHWM is of what follows: what was freed goes back to the kernel before.
void reset_peak_rss_bytes();

}  // namespace rep
