#pragma once

#include <CLI/CLI.hpp>
#include <cstdint>
#include <string>
#include <vector>

#include "cli/commands.h"

namespace rep {

/// The flags that change an experiment's configuration, for every command that runs experiments.
struct OverrideFlags {
  std::vector<std::string> set;
  int64_t limit_train = -1, limit_test = -1;
  std::string memory_limit;

  void add_to(CLI::App& command) {
    command.add_option("--set", set, "Override a key, e.g. train.optimizer.lr=0.01")
        ->type_name("KEY=VALUE")
        ->allow_extra_args(false);
    command.add_option("--limit-train", limit_train, "Train images kept a class")->check(kCount);
    command.add_option("--limit-test", limit_test, "Test images kept a class")->check(kCount);
    command.add_option("--memory-limit", memory_limit,
                       "What the process may hold resident, e.g. 512MiB: the run fits itself in");
  }

  /// "key=value". The flags that are another way to say --set come last, so that they win.
  std::vector<std::string> overrides() const {
    std::vector<std::string> all = set;
    if (limit_train >= 0) all.push_back("dataset.limit_train=" + std::to_string(limit_train));
    if (limit_test >= 0) all.push_back("dataset.limit_test=" + std::to_string(limit_test));
    if (!memory_limit.empty()) all.push_back("memory_limit=" + memory_limit);
    return all;
  }
};

}  // namespace rep
