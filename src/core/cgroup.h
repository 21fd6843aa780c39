#pragma once

#include <cstdint>
#include <optional>
#include <string>

namespace rep {

/// The least that the control groups of this process let it hold, and the file that says so.
struct CgroupLimit {
  int64_t bytes = 0;
  std::string file;
};

/// From memory.max (version 2) and memory.limit_in_bytes (version 1) of the process's groups and of
/// all above them, as far as they can be read; nothing where none limits it. `groups`: the list of
/// them (proc(5)); `root`: where the file systems of cgroups(7) are.
std::optional<CgroupLimit> cgroup_memory_limit(const std::string& groups = "/proc/self/cgroup",
                                               const std::string& root = "/sys/fs/cgroup");

}  // namespace rep
