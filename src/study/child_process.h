#pragma once

#include <sys/types.h>

#include <optional>
#include <string>
#include <vector>

#include "core/files.h"

namespace rep {

/// This very executable, started again with other arguments. It holds `lock` for as long as it
/// lives, even beyond this process; its stdout and stderr are appended to a log. It is in a process
/// group of its own, so that Ctrl-C reaches it through terminate() alone: a second signal would
/// keep a run from saving. When this process dies, it gets the same signal from the kernel.
class ChildProcess {
 public:
  /// Throws Error when it cannot be started.
  ChildProcess(const std::vector<std::string>& arguments, const std::string& log_path,
               FileLock lock);
  /// The status that waitpid gives, from when it ended on.
  std::optional<int> status();
  /// SIGTERM.
  void terminate();

 private:
  pid_t pid_;
  std::optional<int> status_;
};

}  // namespace rep
