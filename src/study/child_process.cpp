#include "study/child_process.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "core/error.h"

namespace rep {
namespace {

[[noreturn]] void fail(const std::string& what, int error) {
  throw Error("cannot " + what + ": " + std::strerror(error));
}

int open_or_fail(const std::string& path, int flags) {
  const int descriptor = ::open(path.c_str(), flags | O_CLOEXEC, 0666);
  if (descriptor < 0) fail("open '" + path + "'", errno);
  return descriptor;
}

/// The child's part between fork and exec, where only async-signal-safe functions may be called.
[[noreturn]] void become(char* const* arguments, int input, int log, int lock, pid_t parent,
                         const sigset_t& signals) {
  ::setpgid(0, 0);
  ::prctl(PR_SET_PDEATHSIG, SIGTERM);
  if (::getppid() != parent) _exit(static_cast<int>(ExitCode::kInterrupted));  // it died just now
  ::dup2(input, STDIN_FILENO);
  ::dup2(log, STDOUT_FILENO);
  ::dup2(log, STDERR_FILENO);
  ::fcntl(lock, F_SETFD, 0);  // stays open through exec, and with it the lock
  for (const int signal : {SIGINT, SIGTERM}) ::signal(signal, SIG_DFL);
  ::sigprocmask(SIG_SETMASK, &signals, nullptr);
  ::execv("/proc/self/exe", arguments);
  constexpr char kFailed[] = "rep: cannot start /proc/self/exe\n";
  [[maybe_unused]] const ssize_t written = ::write(STDERR_FILENO, kFailed, sizeof kFailed - 1);
  _exit(static_cast<int>(ExitCode::kInternal));
}

}  // namespace

ChildProcess::ChildProcess(const std::vector<std::string>& arguments, const std::string& log_path,
                           FileLock lock) {
  std::vector<std::string> words{"rep"};
  words.insert(words.end(), arguments.begin(), arguments.end());
  std::vector<char*> pointers;
  for (std::string& word : words) pointers.push_back(word.data());
  pointers.push_back(nullptr);

  const int log = open_or_fail(log_path, O_WRONLY | O_CREAT | O_APPEND);
  const int input = ::open("/dev/null", O_RDONLY | O_CLOEXEC);
  // A signal that comes before exec would be taken by this process's handler, in the child, and be
  // lost: blocked until there, it ends the child.
  sigset_t interrupts, before;
  sigemptyset(&interrupts);
  for (const int signal : {SIGINT, SIGTERM}) sigaddset(&interrupts, signal);
  ::sigprocmask(SIG_BLOCK, &interrupts, &before);
  const pid_t parent = ::getpid();
  pid_ = ::fork();
  const int error = errno;
  if (pid_ == 0) become(pointers.data(), input, log, lock.descriptor(), parent, before);
  ::sigprocmask(SIG_SETMASK, &before, nullptr);
  ::close(log);
  if (input >= 0) ::close(input);
  if (pid_ < 0) fail("start a process", error);
}  // `lock` is closed here, not released: the child has it open

std::optional<int> ChildProcess::status() {
  int status = 0;
  if (!status_ && ::waitpid(pid_, &status, WNOHANG) == pid_) status_ = status;
  return status_;
}

void ChildProcess::terminate() {
  if (!status_) ::kill(pid_, SIGTERM);  // until it is waited for, the number is no other's
}

}  // namespace rep
