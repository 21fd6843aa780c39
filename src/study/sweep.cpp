#include "study/sweep.h"

#include <sys/wait.h>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <deque>
#include <filesystem>
#include <fstream>
#include <list>
#include <optional>
#include <set>
#include <thread>

#include "core/error.h"
#include "core/files.h"
#include "core/interrupt.h"
#include "study/child_process.h"
#include "study/sweep_folder.h"

namespace rep {
namespace {

namespace fs = std::filesystem;
using Clock = std::chrono::steady_clock;

constexpr size_t kMaxReason = 300;  // of a log's last line, in a message
constexpr std::streamoff kLogTail = 8192;
constexpr auto kPollEvery = std::chrono::milliseconds(50);

int64_t cores() { return std::max(1U, std::thread::hardware_concurrency()); }

/// The last line that was appended since the log had `from` bytes; "" without one.
std::string last_line(const std::string& path, std::streamoff from) {
  std::ifstream file(path, std::ios::ate);
  file.seekg(std::max<std::streamoff>(from, file.tellg() - std::streampos(kLogTail)));
  std::string last;
  for (std::string line; std::getline(file, line);) {
    if (!line.empty()) last = line;
  }
  const std::string prefix = "rep: ";
  if (last.rfind(prefix, 0) == 0) last.erase(0, prefix.size());
  return last.substr(0, kMaxReason);
}

class Sweep {
 public:
  Sweep(const SweepOptions& options, const std::vector<SweepRun>& runs, Progress& progress)
      : output_(options.output),
        jobs_(options.jobs > 0 ? options.jobs : std::max<int64_t>(1, cores() / 2)),
        threads_(std::max<int64_t>(1, cores() / jobs_)),
        runs_(runs),
        progress_(progress),
        outcomes_(runs.size()) {}

  void run();

 private:
  struct Outcome {
    std::string word;    // done, skipped, failed; "": none yet
    std::string reason;  // of a failure
  };
  struct Active {
    size_t index;
    ChildProcess process;
    std::streamoff log_begin;
    Clock::time_point begin;
  };

  std::string folder(size_t index) const { return output_ + "/" + runs_[index].directory; }
  std::string log(size_t index) const { return folder(index) + "/sweep.log"; }
  size_t count(const char* word) const;
  void start_what_fits();
  bool start(size_t index);
  void collect();
  void end(const Active& active, int status);
  void fail(size_t index, const std::string& reason);
  void stop();
  void summarise();

  std::string output_;
  int64_t jobs_, threads_;  // threads_: of a run
  const std::vector<SweepRun>& runs_;
  Progress& progress_;
  std::vector<Outcome> outcomes_;
  std::deque<size_t> waiting_;
  std::set<size_t> held_;  // of waiting_: those that another process was at work on
  std::list<Active> active_;
};

void Sweep::run() {
  for (size_t i = 0; i < runs_.size(); ++i) {
    if (standing_of(folder(i)).state == RunState::kFinished) {
      outcomes_[i].word = "skipped";
    } else {
      waiting_.push_back(i);
    }
  }
  progress_.info(std::to_string(runs_.size()) + " runs, of which " +
                 std::to_string(count("skipped")) + " are finished; " + std::to_string(jobs_) +
                 " at a time");
  while (!waiting_.empty() || !active_.empty()) {
    if (interrupted()) stop();
    start_what_fits();
    std::this_thread::sleep_for(kPollEvery);
    collect();
  }
  summarise();
}

size_t Sweep::count(const char* word) const {
  return static_cast<size_t>(std::count_if(outcomes_.begin(), outcomes_.end(),
                                           [&](const Outcome& o) { return o.word == word; }));
}

void Sweep::start_what_fits() {
  for (size_t tries = waiting_.size(); tries > 0; --tries) {
    if (static_cast<int64_t>(active_.size()) >= jobs_) return;
    const size_t index = waiting_.front();
    waiting_.pop_front();
    try {
      if (!start(index)) waiting_.push_back(index);
    } catch (const Error& error) {
      fail(index, error.what());
    }
  }
}

/// False when another process is at work there.
bool Sweep::start(size_t index) {
  make_directories(folder(index));
  std::optional<FileLock> lock = FileLock::try_take(folder(index) + "/lock");
  if (!lock) {
    if (held_.insert(index).second) {
      progress_.info("waiting  " + runs_[index].directory + ": another process is at work there");
    }
    return false;
  }
  if (standing_of(folder(index)).state == RunState::kFinished) {  // by that other process
    outcomes_[index].word = "skipped";
    progress_.info("skipped  " + runs_[index].directory + ": another process finished it");
    return true;
  }
  std::error_code none;
  fs::remove(folder(index) + kFailedFile, none);
  std::vector<std::string> arguments = arguments_of(runs_[index], folder(index));
  // A run that goes on keeps its number of threads, whatever --jobs is now.
  if (runs_[index].threads == 0 && !fs::exists(folder(index) + kCheckpointFile)) {
    arguments.insert(arguments.end(), {"--set", "threads=" + std::to_string(threads_)});
  }
  const uintmax_t log_bytes = fs::file_size(log(index), none);
  active_.push_back({index, ChildProcess(arguments, log(index), std::move(*lock)),
                     none ? 0 : static_cast<std::streamoff>(log_bytes), Clock::now()});
  progress_.info("started  " + runs_[index].directory);
  return true;
}

void Sweep::collect() {
  for (auto active = active_.begin(); active != active_.end();) {
    const std::optional<int> status = active->process.status();
    if (status) end(*active, *status);
    active = status ? active_.erase(active) : std::next(active);
  }
}

void Sweep::end(const Active& active, int status) {
  if (WIFEXITED(status) && WEXITSTATUS(status) == static_cast<int>(ExitCode::kDone)) {
    const std::chrono::duration<double> seconds = Clock::now() - active.begin;
    outcomes_[active.index].word = "done";
    progress_.info("done     " + runs_[active.index].directory + " in " +
                   std::to_string(static_cast<int64_t>(seconds.count() + 0.5)) + " s");
    return;
  }
  if (WIFSIGNALED(status)) {
    const int signal = WTERMSIG(status);
    return fail(active.index, "ended by signal " + std::to_string(signal) + " (" +
                                  strsignal(signal) + ")" +
                                  (signal == SIGKILL ? ", perhaps out of memory: fewer --jobs need "
                                                       "less"
                                                     : ""));
  }
  const std::string line = last_line(log(active.index), active.log_begin);
  fail(active.index, line.empty() ? "exit code " + std::to_string(WEXITSTATUS(status)) : line);
}

void Sweep::fail(size_t index, const std::string& reason) {
  outcomes_[index] = {"failed", reason};
  std::ofstream(folder(index) + kFailedFile) << reason << "\n";  // for --status
  progress_.info("failed   " + runs_[index].directory + ": " + reason);
}

/// Every process gets one signal and the time to save.
void Sweep::stop() {
  if (!active_.empty()) {
    progress_.info("stopping: " + std::to_string(active_.size()) + " runs save their state");
  }
  for (Active& active : active_) active.process.terminate();
  size_t finished = count("done") + count("skipped");
  while (!active_.empty()) {
    active_.remove_if([&](Active& active) {
      const std::optional<int> status = active.process.status();
      if (status == static_cast<int>(ExitCode::kDone)) ++finished;
      return status.has_value();
    });
    std::this_thread::sleep_for(kPollEvery);
  }
  throw Interrupted("stopped with " + std::to_string(finished) + " of " +
                    std::to_string(runs_.size()) +
                    " runs finished; the same command goes on from here");
}

void Sweep::summarise() {
  progress_.info("");
  for (size_t i = 0; i < runs_.size(); ++i) {
    const auto& [word, reason] = outcomes_[i];
    progress_.info(word + std::string(9 - word.size(), ' ') + runs_[i].directory +
                   (reason.empty() ? "" : ": " + reason));
  }
  const size_t failed = count("failed");
  progress_.info(std::to_string(count("done")) + " done, " + std::to_string(count("skipped")) +
                 " skipped, " + std::to_string(failed) + " failed; results below " + output_);
  if (failed > 0) {
    throw Error(std::to_string(failed) + " of " + std::to_string(runs_.size()) +
                " runs failed; see the lines above and sweep.log in their folders, and repeat the "
                "command to try them again");
  }
}

}  // namespace

std::string describe_sweep(const SweepOptions& options, const std::vector<SweepRun>& runs) {
  std::string text;
  for (const SweepRun& run : runs) {
    const std::string folder = options.output + "/" + run.directory;
    const std::string state = word_of(standing_of(folder).state);
    text += state + std::string(12 - state.size(), ' ') + "rep";
    for (const std::string& word : arguments_of(run, folder)) text += " " + shell_word(word);
    text += "\n";
  }
  return text;
}

void run_sweep(const SweepOptions& options, const std::vector<SweepRun>& runs, Progress& progress) {
  write_manifest(options.output, runs);
  Sweep(options, runs, progress).run();
}

}  // namespace rep
