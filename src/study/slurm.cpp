#include "study/slurm.h"

#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <filesystem>
#include <set>
#include <sstream>

#include "core/error.h"
#include "core/files.h"
#include "core/json.h"
#include "core/json_file.h"
#include "core/numbers.h"
#include "core/suggest.h"
#include "study/child_process.h"

namespace rep {
namespace {

namespace fs = std::filesystem;

constexpr int kNotFound = 127;  // a shell's exit code for a missing program

/// What a job does. `case` chooses its run, `save_seconds` before the time is up USR1 comes.
constexpr char kScriptHead[] = R"(
# Written by rep sweep --engine slurm. sbatch keeps its own copy.
#
# SLURM stops a job in one of two ways. It sends TERM to every process of the job, so that rep, which
# then saves its state and exits with 130, has it without this shell's doing: a second one would
# keep it from saving. And it sends USR1 to this shell alone, before the time is up.
)";

constexpr char kScriptTail[] = R"(
mkdir -p -- "$folder" || exit 1
exec {lock}>>"$folder/lock"
if ! flock --timeout 10 "$lock"; then
  echo "another process is at work in $folder"
  exit 0
fi
touch -- "$folder/lock"
# A run that goes on keeps its number of threads, whatever this job has.
if [[ -n $threads && ! -e $folder/checkpoint/state.safetensors ]]; then
  arguments+=(--set "threads=$threads")
fi
rm -f -- "$folder/failed"
log=$folder/sweep.log
before=$(cat -- "$log" 2>/dev/null | wc -c)
"$rep" "${arguments[@]}" >>"$log" 2>&1 &
child=$!
out_of_time='' stopped=''
trap 'caught=yes stopped=yes' TERM
trap 'caught=yes stopped=yes out_of_time=yes; kill -TERM "$child"' USR1
while :; do  # a trap ends a wait early
  caught=''
  wait "$child"
  status=$?
  if [[ -z $caught ]]; then break; fi
done
if ((status == 0)); then exit 0; fi

reason=$(tail -c +$((before + 1)) -- "$log" | tail -n 1)
reason=${reason#rep: }
if [[ -n $stopped ]] && ((status == 130 || status == 143)); then
  if [[ -z $out_of_time ]]; then exit "$status"; fi  # preempted: SLURM queues it; or cancelled
  if [[ $folder/checkpoint/state.safetensors -nt $folder/lock ]]; then
    scontrol requeue "${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID"
    exit "$status"
  fi
  reason='the time limit ended it before its first step: give more --time'
fi
printf '%s\n' "${reason:-exit code $status}" >"$folder/failed"
exit "$status"
)";

struct Spoken {
  int exit_code;
  std::string output, errors;
};

/// Runs a program of SLURM's; exit code 127 when it is not installed.
Spoken ask(const std::vector<std::string>& words) {
  std::string line;
  for (const std::string& word : words) line += shell_word(word) + " ";
  // The errors come last, after a mark that no output has.
  line =
      "errors=$({ " + line + ">&3; } 2>&1) 3>&1; code=$?; printf '\\001%s' \"$errors\"; exit $code";
  FILE* pipe = ::popen(line.c_str(), "r");
  if (!pipe) throw Error("cannot start a shell for " + words.front());
  std::string text;
  std::array<char, 4096> buffer{};
  while (const size_t got = std::fread(buffer.data(), 1, buffer.size(), pipe)) {
    text.append(buffer.data(), got);
  }
  const int status = ::pclose(pipe);
  const size_t mark = text.find('\001');
  return {WIFEXITED(status) ? WEXITSTATUS(status) : 128, text.substr(0, mark),
          mark == std::string::npos ? "" : text.substr(mark + 1)};
}

std::string first_line(const std::string& text) { return text.substr(0, text.find('\n')); }

std::vector<std::string> split(const std::string& line, char separator) {
  std::vector<std::string> parts;
  std::istringstream stream(line);
  for (std::string part; std::getline(stream, part, separator);) parts.push_back(part);
  return parts;
}

bool is_job_id(const std::string& text) { return parse_number<uint64_t>(text).has_value(); }

std::string jobs_path(const std::string& output) { return output + "/slurm/jobs.json"; }

/// {"jobs": [{"job": "12", "directories": [..]}]}: task i of an array has the i-th folder.
Json read_jobs(const std::string& output) {
  const std::string path = jobs_path(output);
  if (!fs::exists(path)) return Json::array();
  const Json json = read_json_file(path);
  bool good = json.is_object() && json.contains("jobs") && json["jobs"].is_array();
  for (const Json& job : good ? json["jobs"] : Json::array()) {
    good = good && job.is_object() && job.contains("job") && job["job"].is_string() &&
           is_job_id(job["job"].get<std::string>()) && job.contains("directories") &&
           job["directories"].is_array();
    if (!good) break;
    for (const Json& directory : job["directories"]) good = good && directory.is_string();
  }
  if (!good) throw Error(absolute_path(path) + ": is not rep's list of SLURM jobs; move it away");
  return json["jobs"];
}

/// The latest job of each folder, as "JOB_TASK".
std::map<std::string, std::string> tasks_by_directory(const Json& jobs) {
  std::map<std::string, std::string> tasks;
  for (const Json& job : jobs) {
    size_t index = 0;
    for (const Json& directory : job["directories"]) {
      tasks[directory.get<std::string>()] =
          job["job"].get<std::string>() + "_" + std::to_string(index++);
    }
  }
  return tasks;
}

/// SLURM's job states, as squeue and sacct write them.
RunStanding standing_of_job(const std::string& state, const std::string& reason) {
  static const std::set<std::string> kQueued{"PENDING",      "REQUEUED",      "REQUEUE_FED",
                                             "REQUEUE_HOLD", "RESV_DEL_HOLD", "SPECIAL_EXIT"};
  static const std::set<std::string> kRunning{"RUNNING",   "COMPLETING", "CONFIGURING", "SUSPENDED",
                                              "STAGE_OUT", "SIGNALING",  "STOPPED",     "RESIZING"};
  static const std::set<std::string> kStopped{"CANCELLED", "PREEMPTED", "REVOKED", "COMPLETED"};
  if (kQueued.count(state)) return {RunState::kQueued, reason == "None" ? "" : reason};
  if (kRunning.count(state)) return {RunState::kRunning, ""};
  return {kStopped.count(state) ? RunState::kUnfinished : RunState::kFailed,
          state == "COMPLETED" ? "" : "SLURM says " + state};
}

/// "JOB_TASK" -> standing, of this user's jobs that squeue lists: those that are in the queue or
/// left it a few minutes ago.
std::map<std::string, RunStanding> ask_squeue() {
  const Spoken answer = ask({"squeue", "--noheader", "--array", "--states=all",
                             "--user=" + std::to_string(::getuid()), "--format=%F|%K|%T|%r"});
  if (answer.exit_code != 0) {
    throw Error("squeue: does not say what became of the jobs: " +
                (answer.exit_code == kNotFound ? "it is not installed here"
                                               : quoted(first_line(answer.errors))) +
                "; ask again where SLURM answers");
  }
  std::map<std::string, RunStanding> standings;
  for (const std::string& line : split(answer.output, '\n')) {
    const std::vector<std::string> fields = split(line, '|');
    if (fields.size() < 3) continue;
    standings[fields[0] + "_" + fields[1]] =
        standing_of_job(fields[2], fields.size() > 3 ? fields[3] : "");
  }
  return standings;
}

/// The same of jobs that left the queue long ago; nothing where no accounting is set up.
std::map<std::string, RunStanding> ask_sacct(const Json& jobs) {
  std::string ids;
  for (const Json& job : jobs) ids += (ids.empty() ? "" : ",") + job["job"].get<std::string>();
  const Spoken answer = ask({"sacct", "--noheader", "--parsable2", "--allocations", "--array",
                             "--format=JobID,State", "--jobs=" + ids});
  std::map<std::string, RunStanding> standings;
  if (answer.exit_code != 0) return standings;
  for (const std::string& line : split(answer.output, '\n')) {
    const std::vector<std::string> fields = split(line, '|');
    if (fields.size() != 2) continue;
    standings[fields[0]] = standing_of_job(fields[1].substr(0, fields[1].find(' ')), "");
  }
  return standings;
}

/// Into a line of the script that bash does not read: only what sbatch's own words are made of.
std::string directive(const std::string& option, const std::string& value) {
  if (value.empty()) return "";
  static const std::string kSigns = "._:,=+*/()[]-";
  const bool good = std::all_of(value.begin(), value.end(), [](unsigned char c) {
    return std::isalnum(c) || kSigns.find(static_cast<char>(c)) != std::string::npos;
  });
  if (!good) {
    throw Error("--" + option + ": " + quoted(value) +
                " has signs that no such value has; see man sbatch");
  }
  return "#SBATCH --" + option + "=" + value + "\n";
}

std::string script(const SweepOptions& options, const SlurmOptions& slurm,
                   const std::vector<SweepRun>& runs) {
  int64_t cores = 1;
  for (const SweepRun& run : runs) cores = std::max(cores, run.threads);
  std::string array = "0-" + std::to_string(runs.size() - 1);
  if (options.jobs > 0) array += "%" + std::to_string(options.jobs);
  // sbatch would replace signs of the log's path: the script opens it by itself.
  constexpr char kEver[] =
      "#SBATCH --output=/dev/null\n#SBATCH --requeue\n#SBATCH --signal=B:USR1@60\n";
  std::string text = "#!/bin/bash\n#SBATCH --job-name=rep-sweep\n#SBATCH --array=" + array + "\n" +
                     kEver + directive("cpus-per-task", std::to_string(cores)) +
                     directive("time", slurm.time) + directive("partition", slurm.partition) +
                     directive("gres", slurm.gres) + kScriptHead;
  text += "exec >>" + shell_word(fs::absolute(options.output).string()) +
          "/slurm/\"${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID.log\" 2>&1\n";
  text += "rep=" + shell_word(fs::read_symlink("/proc/self/exe").string()) + "\n";
  text += "cd -- " + shell_word(fs::current_path().string()) + " || exit 1\n";
  text += "case $SLURM_ARRAY_TASK_ID in\n";
  for (size_t i = 0; i < runs.size(); ++i) {
    const std::string folder = fs::absolute(options.output + "/" + runs[i].directory).string();
    const std::vector<std::string> arguments = arguments_of(runs[i], folder);
    text += "  " + std::to_string(i) + ")\n    folder=" + shell_word(folder) +
            "\n    threads=" + (runs[i].threads == 0 ? std::to_string(cores) : "") +
            "\n    arguments=(";
    for (size_t w = 0; w < arguments.size(); ++w) {
      text += (w ? " " : "") + shell_word(arguments[w]);
    }
    text += ")\n    ;;\n";
  }
  return text + "  *) exit 1 ;;\nesac\n" + kScriptTail;
}

std::string submit(const std::string& folder) {
  const Spoken answer = ask({"sbatch", "--parsable", "--", folder + "/sweep.sh"});
  if (answer.exit_code == kNotFound) {
    throw Error(
        "--engine slurm: sbatch is not installed here; submit from a machine of the cluster, or "
        "take --engine local");
  }
  const std::string job = first_line(answer.output);
  const std::string id = job.substr(0, job.find(';'));  // "ID;CLUSTER" where there are several
  if (answer.exit_code == 0 && is_job_id(id)) return id;
  throw Error("sbatch refused " + folder + "/sweep.sh: " + quoted(first_line(answer.errors)));
}

}  // namespace

std::map<std::string, RunStanding> slurm_standings(const std::string& output) {
  const Json jobs = read_jobs(output);
  std::map<std::string, RunStanding> standings;
  if (jobs.empty()) return standings;
  auto known = ask_squeue();
  const auto tasks = tasks_by_directory(jobs);
  const bool all = std::all_of(tasks.begin(), tasks.end(),
                               [&](const auto& task) { return known.count(task.second) > 0; });
  if (!all) known.merge(ask_sacct(jobs));
  for (const auto& [directory, task] : tasks) {
    const auto found = known.find(task);
    if (found != known.end()) standings[directory] = found->second;
  }
  return standings;
}

namespace {

/// The runs that are neither finished nor under way nor queued.
struct Missing {
  std::vector<SweepRun> runs;
  std::vector<std::string> others;  // a line each
  size_t finished = 0;
};

Missing missing_of(const SweepOptions& options, const std::vector<SweepRun>& runs,
                   const std::map<std::string, RunStanding>& in_slurm) {
  Missing missing;
  for (const SweepRun& run : runs) {
    const RunState here = standing_of(options.output + "/" + run.directory).state;
    const auto there = in_slurm.find(run.directory);
    const RunState queue = there == in_slurm.end() ? RunState::kNew : there->second.state;
    if (here == RunState::kFinished) {
      ++missing.finished;
    } else if (here == RunState::kRunning || queue == RunState::kRunning) {
      missing.others.push_back("running  " + run.directory);
    } else if (queue == RunState::kQueued) {
      missing.others.push_back("queued   " + run.directory);
    } else {
      missing.runs.push_back(run);
    }
  }
  return missing;
}

}  // namespace

std::string describe_batch(const SweepOptions& options, const SlurmOptions& slurm,
                           const std::vector<SweepRun>& runs) {
  const Missing missing = missing_of(options, runs, slurm_standings(options.output));
  if (missing.runs.empty()) return "# no run is left to submit\n";
  return script(options, slurm, missing.runs);
}

void submit_sweep(const SweepOptions& options, const SlurmOptions& slurm,
                  const std::vector<SweepRun>& runs, Progress& progress) {
  const std::string folder = fs::absolute(options.output).string() + "/slurm";
  make_directories(folder);
  const FileLock lock = FileLock::take(folder + "/lock");  // two sweeps would submit runs twice
  const auto in_slurm = slurm_standings(options.output);
  const auto [missing, others, finished] = missing_of(options, runs, in_slurm);
  for (const std::string& line : others) progress.info(line);
  if (!missing.empty()) {
    write_file_atomically(folder + "/sweep.sh", script(options, slurm, missing));
    const std::string job = submit(folder);
    Json directories = Json::array();
    for (const SweepRun& run : missing) {
      directories.push_back(run.directory);
      make_directories(options.output + "/" + run.directory);
      progress.info("submitted  " + run.directory + " as " + job + "_" +
                    std::to_string(directories.size() - 1));
    }
    Json jobs = read_jobs(options.output);
    jobs.push_back({{"job", job}, {"directories", directories}});
    write_file_atomically(jobs_path(options.output), to_text(Json{{"jobs", jobs}}, 1) + "\n");
  }
  write_manifest(options.output, runs);
  progress.info(std::to_string(runs.size()) + " runs: " + std::to_string(finished) + " finished, " +
                std::to_string(missing.size()) + " submitted; see rep sweep " + "--status " +
                shell_word(options.output));
}

std::string describe_status(const std::string& output) {
  const std::vector<std::string> directories = read_manifest(output);
  const auto in_slurm = slurm_standings(output);
  std::map<RunState, size_t> counts;
  std::string text;
  for (const std::string& directory : directories) {
    RunStanding standing = standing_of(output + "/" + directory);
    const auto job = in_slurm.find(directory);
    // A folder that is finished or at work says it best. What else it says, a job under way
    // overrules; and how a job ended is of interest where the run itself could not say.
    if (job != in_slurm.end() && standing.state != RunState::kFinished &&
        standing.state != RunState::kRunning) {
      const RunState state = job->second.state;
      const bool under_way = state == RunState::kQueued || state == RunState::kRunning;
      if (under_way || standing.state != RunState::kFailed) standing = job->second;
    }
    ++counts[standing.state];
    const std::string word = word_of(standing.state);
    text += word + std::string(12 - word.size(), ' ') + directory +
            (standing.reason.empty() ? "" : ": " + standing.reason) + "\n";
  }
  std::string sum;
  for (const auto& [state, count] : counts) {
    sum += (sum.empty() ? "" : ", ") + std::to_string(count) + " " + word_of(state);
  }
  return text + std::to_string(directories.size()) + " runs: " + sum + "\n";
}

}  // namespace rep
