#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "core/config.h"
#include "core/json.h"
#include "core/progress.h"
#include "run/loops.h"
#include "run/memory_fit.h"
#include "run/observer.h"
#include "run/session.h"

namespace rep {

/// Keeps a run within what config.memory_limit lets its process hold resident: it begins with the
/// quickest settings that fit by an estimate, takes the next smaller ones when they do not, and
/// ends the run only when there are none. Does nothing without a limit.
class MemoryLimit final : public Observer {
 public:
  /// Throws Error where there is a limit and the run computes on a GPU.
  explicit MemoryLimit(const Config& config);

  bool is_set() const { return cap_.bytes > 0; }
  /// The configuration with the settings to begin with, measured and chosen here; `divides`:
  /// whether micro-batches are allowed (processes share a batch another way). Throws Error when
  /// nothing fits.
  Config fit(const Config& config, bool divides, const std::function<void(std::string)>& say);
  /// The session of that configuration, which follows from now on. `earlier`: to_json() of the part
  /// of the run that it goes on from, or null; with the limit of then it goes on with the settings
  /// of then.
  void watch(Session& session, const Json& earlier, const Position& from);
  /// What a result says of it: {"limit", "limit_bytes", "used": [settings, from when on]}; null
  /// without a limit.
  Json to_json() const;

  /// Called before a step's error is thrown; when other settings are taken.
  std::function<void(Optimizer&)> save = [](Optimizer&) {};
  std::function<void()> changed = [] {};

  void begin_training(const Task& task, int64_t, int64_t done, Optimizer&) override;
  void after_step(const Step& step, Optimizer& optimizer) override;
  void end_training() override;
  void after_test_batch(const TestedBatch&) override { enforce("testing"); }
  /// Takes smaller settings when more is resident than allowed. Throws Error when there are none.
  void enforce(const char* when);

 private:
  bool is_exceeded() const;
  bool take_next();
  void use(const Rung& rung);

  MemoryCap cap_;
  Config asked_;
  std::vector<Rung> ladder_;
  Rung now_;
  Session* session_ = nullptr;
  Json used_ = Json::array();
  int64_t task_ = 0, step_ = 0;
  std::function<void(std::string)> say_ = [](const std::string&) {};
};

}  // namespace rep
