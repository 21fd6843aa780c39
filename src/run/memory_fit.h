#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "core/config.h"
#include "core/json.h"
#include "run/footprint.h"

namespace rep {

/// One way to run a configuration, to the same results but for rounding, and what it costs.
struct Rung {
  int64_t micro_batch_size = 0;  // keys of the configuration, as they would be
  int64_t eval_batch_size = 0;
  double recompute = 0;
  int64_t recompute_blocks = 0;
  int64_t workers = 1;
  int64_t peak_tensor_bytes = 0, resident_bytes = 0;  // as estimated
  double step_time = 1;                               // of a step as configured, as estimated

  /// The configuration with these.
  Config applied_to(Config config) const;
  /// {"micro_batch_size", ...}, all of it; and back.
  Json to_json() const;
  static Rung from_json(const Json& json);
  /// "micro-batches of 4, tests of 16 images": what differs from the configuration.
  std::string difference(const Config& config) const;
  bool same_settings(const Rung& other) const;
};

/// Ways to hold less and less, each the quickest that holds as little; the first is the
/// configuration as it stands. What an image holds comes from the footprint, and is a line;
/// recomputing costs the products that are made again, small micro-batches a fraction
/// (kCostOfAPart), fewer loader threads and smaller tests nothing that a step would notice.
std::vector<Rung> memory_ladder(const Config& config, const Footprint& footprint);

/// What a limit allows, and whose it is.
struct MemoryCap {
  int64_t bytes = 0;  // 0: no limit
  std::string name;   // "memory_limit: 512MiB", or the cgroup's file with its bytes

  /// config.memory_limit, or the limit of a cgroup of this process where that is lower; none where
  /// the configuration has none. Throws Error where it cannot be read.
  static MemoryCap of(const Config& config);
};

/// The quickest rung that fits, or null.
const Rung* quickest_that_fits(const std::vector<Rung>& ladder, int64_t bytes);

/// "memory_limit: 200MiB is less than the 310 MiB that ... takes at the least ...".
std::string nothing_fits(const MemoryCap& cap, const std::vector<Rung>& ladder,
                         const Config& config);

}  // namespace rep
