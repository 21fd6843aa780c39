#pragma once

#include <stdexcept>
#include <string>

namespace rep {

/// What the process exits with; scripts rely on these.
enum class ExitCode : int {
  kDone = 0,
  kUserError = 1,
  kUsage = 2,
  kInternal = 70,
  kInterrupted = 130,
};

/// The user's mistake: one sentence that says what is wrong, where, and how to put it right.
/// Caught only in main(), which prints it and exits with ExitCode::kUserError.
class Error : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

/// A loss, a parameter or a prediction is not finite: the run stops, and its folder goes back to
/// the last checkpoint that is known to be good. Says what may help.
class Diverged : public Error {
 public:
  explicit Diverged(const std::string& what)
      : Error(what +
              "; lower train.optimizer.lr or set train.clip_norm, and --resume goes on from the "
              "last good checkpoint (or from the beginning, where there is none)") {}
};

/// SIGINT or SIGTERM arrived and the run's state was saved. Caught only in main().
class Interrupted : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

}  // namespace rep
