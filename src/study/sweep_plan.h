#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "core/config.h"

namespace rep {

/// Configurations x grid x seeds: the runs of a table or a figure.
struct SweepOptions {
  std::vector<std::string> configs;  // YAML files
  std::vector<std::string> set;      // "key=value", for all runs
  std::vector<std::string> grid;     // "key=v1,v2": an axis; each value is YAML
  std::vector<int64_t> seeds;        // none: each configuration's own
  std::string output;                // the folder with one folder a run
  bool on_validation = false;        // runs without a share in stream.validation get this one:
  static constexpr const char* kDefaultValidation = "stream.validation=0.2";
  int64_t jobs = 0;  // runs at a time; 0: one for two cores, or what SLURM allows
};

/// How an experiment is read, options of data set and method included, and what its paths lead to
/// (run/inputs.h): for identity().
struct ExperimentReader {
  std::function<Config(const std::string& path, const std::vector<std::string>& overrides)> read;
  std::function<Json(const Config&)> inputs;
};

struct SweepRun {
  std::string config;
  std::vector<std::string> overrides;  // "key=value"; what --set and the grid say
  int64_t seed;
  /// The beginning of the SHA-256 of the run's identity(), without what is at its default. A
  /// folder's name ends in it, and a run goes into the folder that has its key, whatever that is
  /// called otherwise, or else into one whose result says that it is this run's.
  std::string key;
  std::string directory;  // below SweepOptions::output: NAME-KEY=VALUE-sSEED-KEY
  int64_t threads;        // as the configuration says; 0: it does not
};

/// The runs, without those that are the same as an earlier one. Throws Error, also for an axis of
/// the grid whose values are all one run.
std::vector<SweepRun> plan_sweep(const SweepOptions& options, const ExperimentReader& reader);

}  // namespace rep
