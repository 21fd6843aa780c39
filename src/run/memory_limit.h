#pragma once

#include <cstdint>
#include <functional>
#include <string>

#include "core/config.h"
#include "run/observer.h"

namespace rep {

/// Ends a run whose CPU tensors take more than config.memory_limit, saying what to change.
class MemoryLimit final : public Observer {
 public:
  /// Throws Error where tensors are not counted.
  explicit MemoryLimit(const Config& config);

  /// Called before a step's error is thrown.
  std::function<void(Optimizer&)> save = [](Optimizer&) {};

  void after_step(const Step&, Optimizer& optimizer) override;
  void after_test_batch(const TestedBatch&) override { enforce(/*testing=*/true); }
  /// Throws Error when tensors took more since the last reset of their peak.
  void enforce(bool testing = false) const;

 private:
  bool is_exceeded() const;
  std::string limit_;  // as the configuration has it
  int64_t bytes_;      // 0: none
};

}  // namespace rep
