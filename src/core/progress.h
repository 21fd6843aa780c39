#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

namespace rep {

/// What a person watches while a run goes on. stderr carries it; DIR/run.log gets every line that
/// is not a redrawn bar, with the time. One bar line a task (images/s, loss, ETA), redrawn on a
/// terminal and printed as plain lines, seldom, elsewhere. This is the only file that knows the
/// logging library.
class Progress {
 public:
  enum class Verbosity { kQuiet, kNormal, kVerbose };
  /// `log_path` "" for none (appended to otherwise). Throws Error when it cannot be written.
  Progress(Verbosity verbosity, const std::string& log_path);
  ~Progress();
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  void info(const std::string& line);
  void detail(const std::string& line);  // only with -v
  void warn(const std::string& line);    // also when quiet

  /// A task's training begins: `steps` in all, of which `done` before (a resume).
  void begin_task(int64_t task, int64_t tasks, int64_t steps, int64_t done);
  /// `done` steps of the task are behind us, the last of which took `images` images.
  void step(int64_t done, int64_t images, double loss);
  void end_task();

  /// One row of the accuracy matrix, percent.
  void accuracy_row(int64_t task, const std::vector<double>& row);

 private:
  struct Log;
  double seconds_in_task() const;
  double images_per_second() const;
  std::string status() const;
  void draw_bar();

  std::unique_ptr<Log> log_;
  Verbosity verbosity_;
  bool terminal_;
  int64_t task_ = 0, tasks_ = 0, steps_ = 0, first_step_ = 0;
  int64_t done_ = 0, drawn_ = 0;  // steps; `drawn_`: done_ when the status was last shown
  int64_t images_ = 0;            // trained on since begin_task
  double loss_ = 0;
  std::chrono::steady_clock::time_point task_start_, last_draw_;
};

}  // namespace rep
