#include "core/progress.h"

#include <spdlog/fmt/fmt.h>
#include <spdlog/sinks/basic_file_sink.h>
#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/spdlog.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdio>

#include "core/error.h"

namespace rep {
namespace {

using Clock = std::chrono::steady_clock;

// How seldom the status is shown, in seconds. A bar is redrawn; a plain line, which stays, also
// waits for another tenth of the task, but not for ever.
constexpr double kBarEvery = 0.1;
constexpr double kLineEvery = 10;
constexpr double kMaxSilence = 60;

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

/// 4.5s, 45s, 1m20s, 2h05m, 3d04h
std::string duration(double seconds) {
  if (seconds < 9.95) return fmt::format("{:.1f}s", std::max(seconds, 0.0));
  const auto s = static_cast<int64_t>(std::clamp(seconds, 0.0, 1e9) + 0.5);
  if (s < 60) return fmt::format("{}s", s);
  if (s < 3600) return fmt::format("{}m{:02}s", s / 60, s % 60);
  if (s < 86400) return fmt::format("{}h{:02}m", s / 3600, s / 60 % 60);
  return fmt::format("{}d{:02}h", s / 86400, s / 3600 % 24);
}

std::shared_ptr<spdlog::logger> make_logger(spdlog::sink_ptr sink, const char* pattern) {
  auto logger = std::make_shared<spdlog::logger>("", std::move(sink));
  logger->set_pattern(pattern);
  logger->flush_on(spdlog::level::trace);
  return logger;
}

}  // namespace

struct Progress::Log {
  std::shared_ptr<spdlog::logger> screen, file;  // file: null without a log
  bool bar_shown = false;                        // on the terminal's last line

  void clear_bar() {
    if (bar_shown) std::fputs("\r\x1b[K", stderr);
    bar_shown = false;
  }
  void line(const std::string& text, bool on_screen) {
    if (file) file->info(text);
    if (!on_screen) return;
    clear_bar();
    screen->info(text);
  }
};

Progress::Progress(Verbosity verbosity, const std::string& log_path)
    : log_(std::make_unique<Log>()),
      verbosity_(verbosity),
      terminal_(::isatty(STDERR_FILENO) == 1) {
  log_->screen = make_logger(std::make_shared<spdlog::sinks::stderr_sink_st>(), "%v");
  if (log_path.empty()) return;
  try {
    log_->file = make_logger(std::make_shared<spdlog::sinks::basic_file_sink_st>(log_path),
                             "%Y-%m-%d %H:%M:%S %v");
  } catch (const spdlog::spdlog_ex& e) {
    throw Error("cannot write the log '" + log_path + "': " + e.what());
  }
}

Progress::~Progress() { log_->clear_bar(); }

void Progress::info(const std::string& line) { log_->line(line, verbosity_ != Verbosity::kQuiet); }

void Progress::detail(const std::string& line) {
  if (verbosity_ == Verbosity::kVerbose) log_->line(line, true);
}

void Progress::warn(const std::string& line) { log_->line("warning: " + line, true); }

void Progress::begin_task(int64_t task, int64_t tasks, int64_t steps, int64_t done) {
  task_ = task;
  tasks_ = tasks;
  steps_ = steps;
  first_step_ = done_ = drawn_ = done;
  images_ = 0;
  loss_ = 0;
  task_start_ = last_draw_ = Clock::now();
}

void Progress::step(int64_t done, int64_t images, double loss) {
  done_ = done;
  images_ += images;
  loss_ = loss;
  if (verbosity_ == Verbosity::kQuiet) return;
  const double silence = seconds_since(last_draw_);
  if (terminal_) {
    if (silence < kBarEvery && done < steps_) return;
    draw_bar();
  } else {
    const bool tenth = (done - drawn_) * 10 >= steps_;
    if (done >= steps_ || silence < kLineEvery || (!tenth && silence < kMaxSilence)) return;
    info(fmt::format("task {}/{}: {}", task_ + 1, tasks_, status()));
  }
  last_draw_ = Clock::now();
  drawn_ = done;
}

void Progress::end_task() {
  if (done_ == first_step_) return;  // resumed at its very end
  info(fmt::format("task {}/{}: {} steps in {}, {:.1f} images/s, loss {:.4f}", task_ + 1, tasks_,
                   done_ - first_step_, duration(seconds_in_task()), images_per_second(), loss_));
}

void Progress::accuracy_row(int64_t task, const std::vector<double>& row) {
  std::string text = fmt::format("accuracy after task {}:", task + 1);
  double sum = 0;
  int64_t tested = 0;
  for (const double accuracy : row) {
    text += std::isnan(accuracy) ? " -" : fmt::format(" {:.2f}", accuracy);  // no test images
    if (std::isnan(accuracy)) continue;
    sum += accuracy;
    ++tested;
  }
  if (tested > 1) text += fmt::format(" | mean {:.2f}", sum / static_cast<double>(tested));
  info(text);
}

double Progress::seconds_in_task() const { return seconds_since(task_start_); }

double Progress::images_per_second() const {
  return static_cast<double>(images_) / std::max(seconds_in_task(), 1e-9);
}

std::string Progress::status() const {
  std::string text = fmt::format("{:3}%  {}/{} steps  {:.1f} images/s  loss {:.4f}",
                                 100 * done_ / std::max<int64_t>(steps_, 1), done_, steps_,
                                 images_per_second(), loss_);
  if (done_ > first_step_ && done_ < steps_) {
    const double seconds_a_step = seconds_in_task() / static_cast<double>(done_ - first_step_);
    text += "  ETA " + duration(seconds_a_step * static_cast<double>(steps_ - done_));
  }
  return text;
}

void Progress::draw_bar() {
  constexpr int64_t kWidth = 20;
  const int64_t full =
      std::clamp<int64_t>(kWidth * done_ / std::max<int64_t>(steps_, 1), 0, kWidth);
  const std::string bar = std::string(static_cast<size_t>(full), '=') +
                          std::string(static_cast<size_t>(kWidth - full), ' ');
  const std::string line =
      fmt::format("\r\x1b[Ktask {}/{} [{}] {}", task_ + 1, tasks_, bar, status());
  std::fputs(line.c_str(), stderr);
  std::fflush(stderr);
  log_->bar_shown = true;
}

}  // namespace rep
