#pragma once

#include <sys/types.h>

#include <optional>
#include <string>
#include <vector>

namespace rep {

/// An exclusive lock on a file (flock), which is made when it is not there and stays when the lock
/// goes. The kernel gives it back when the last process that has it open ends, however it ends.
class FileLock {
 public:
  /// Nothing when another process holds it. Throws Error where nothing can be locked.
  static std::optional<FileLock> try_take(const std::string& path);
  /// Waits for it.
  static FileLock take(const std::string& path);
  FileLock(FileLock&& other) noexcept;
  FileLock& operator=(FileLock&&) = delete;
  ~FileLock();
  int descriptor() const { return descriptor_; }

 private:
  explicit FileLock(int descriptor) : descriptor_(descriptor) {}
  int descriptor_;
};

/// This very executable, started anew with other arguments. It holds `lock` for as long as it
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
