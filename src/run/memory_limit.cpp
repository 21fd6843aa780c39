#include "run/memory_limit.h"

#include "core/bytes.h"
#include "core/error.h"
#include "tensor/device.h"
#include "tensor/meter.h"

namespace rep {

MemoryLimit::MemoryLimit(const Config& config)
    : limit_(config.memory_limit), bytes_(parse_bytes(config.memory_limit, "memory_limit")) {
  const torch::Device device = choose_device(config.device);
  if (limit_.empty() || device.is_cpu()) return;
  throw Error("memory_limit: only the CPU's tensors are counted, and this run computes on " +
              device.str() + "; leave it out, or set device: cpu");
}

bool MemoryLimit::is_exceeded() const { return bytes_ > 0 && peak_tensor_bytes() > bytes_; }

void MemoryLimit::after_step(const Step&, Optimizer& optimizer) {
  if (!is_exceeded()) return;
  save(optimizer);
  enforce();
}

void MemoryLimit::enforce(bool testing) const {
  if (!is_exceeded()) return;
  throw Error("memory_limit: tensors took " + std::to_string(peak_tensor_bytes()) + " bytes in " +
              (testing ? "testing" : "training") + ", more than the " + limit_ +
              " allowed; take a smaller " + (testing ? "eval" : "train") + ".batch_size" +
              (testing ? "" : ", a larger backbone.recompute or token merging") +
              " (rep plan says what that saves), or raise memory_limit and go on with --resume");
}

}  // namespace rep
