#include "study/sweep_folder.h"

#include <algorithm>
#include <cctype>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <optional>
#include <set>

#include "core/error.h"
#include "core/files.h"
#include "core/json.h"
#include "core/json_file.h"
#include "core/suggest.h"
#include "study/child_process.h"

namespace rep {
namespace {

namespace fs = std::filesystem;

constexpr size_t kMaxFailure = 300;

bool is_finished(const std::string& folder) {
  const std::string result = folder + "/result.json";
  if (!fs::exists(result)) return false;
  const Json json = read_json_file(result);
  return json.is_object() && json.contains("complete") && json["complete"] == true;
}

/// A lock that is free is held for no longer than it takes to see that.
bool is_at_work(const std::string& folder) {
  return fs::exists(folder + "/lock") && !FileLock::try_take(folder + "/lock");
}

std::string first_line_of(const std::string& path) {
  std::string line(kMaxFailure, '\0');
  std::ifstream file(path);
  file.read(line.data(), static_cast<std::streamsize>(line.size()));
  line.resize(static_cast<size_t>(file.gcount()));
  return line.substr(0, line.find('\n'));
}

Json manifest_entry(const SweepRun& run) {
  return {{"directory", run.directory},
          {"config", run.config},
          {"overrides", run.overrides},
          {"seed", run.seed},
          {"key", run.key}};
}

/// The entries of OUTPUT/sweep.json; none when it is not there.
Json manifest_entries(const std::string& output) {
  const std::string path = output + "/sweep.json";
  if (!fs::exists(path)) return Json::array();
  const Json json = read_json_file(path);
  if (!json.is_object() || !json.contains("runs") || !json["runs"].is_array()) {
    throw Error(path + ": is not a sweep's list of runs; move it away");
  }
  return json["runs"];
}

std::string directory_of(const Json& entry) {
  const Json directory = entry.is_object() ? entry.value("directory", Json()) : Json();
  return directory.is_string() ? directory.get<std::string>() : "";
}

}  // namespace

std::string word_of(RunState state) {
  switch (state) {
    case RunState::kNew:
      return "new";
    case RunState::kQueued:
      return "queued";
    case RunState::kRunning:
      return "running";
    case RunState::kUnfinished:
      return "unfinished";
    case RunState::kFailed:
      return "failed";
    case RunState::kFinished:
      return "finished";
  }
  return "";
}

RunStanding standing_of(const std::string& folder) {
  if (is_finished(folder)) return {RunState::kFinished, ""};
  if (!fs::exists(folder)) return {RunState::kNew, ""};
  if (is_at_work(folder)) return {RunState::kRunning, ""};
  if (fs::exists(folder + kFailedFile)) {
    return {RunState::kFailed, first_line_of(folder + kFailedFile)};
  }
  return {RunState::kUnfinished, ""};
}

std::vector<std::string> arguments_of(const SweepRun& run, const std::string& folder) {
  std::vector<std::string> arguments{"run", run.config};
  for (const std::string& text : run.overrides) arguments.insert(arguments.end(), {"--set", text});
  arguments.insert(arguments.end(),
                   {"--seed", std::to_string(run.seed), "--output", folder, "--resume", "-q"});
  return arguments;
}

std::string shell_word(const std::string& text) {
  const auto plain = [](unsigned char c) { return std::isalnum(c) || std::strchr("._=+-/,:", c); };
  if (!text.empty() && std::all_of(text.begin(), text.end(), plain)) return text;
  std::string word = "'";
  for (const char c : text) word += c == '\'' ? "'\\''" : std::string(1, c);
  return word + "'";
}

/// Earlier sweeps' runs stay listed: the folder is theirs too.
void write_manifest(const std::string& output, const std::vector<SweepRun>& runs) {
  make_directories(output);
  const FileLock lock = FileLock::take(output + "/lock");
  Json all = Json::array();
  std::set<std::string> planned;
  for (const SweepRun& run : runs) planned.insert(run.directory);
  for (const Json& entry : manifest_entries(output)) {
    const std::string directory = directory_of(entry);
    if (directory.empty() || planned.count(directory) > 0) continue;
    if (fs::exists(output + "/" + directory)) all.push_back(entry);
  }
  for (const SweepRun& run : runs) all.push_back(manifest_entry(run));
  write_file_atomically(output + "/sweep.json", to_text(Json{{"runs", all}}, 1) + "\n");
}

std::vector<std::string> read_manifest(const std::string& output) {
  const std::string path = output + "/sweep.json";
  if (!fs::exists(path)) {
    throw Error(output + ": no sweep.json there; name the --output of a sweep that was started");
  }
  std::vector<std::string> directories;
  for (const Json& entry : manifest_entries(output)) {
    const std::string directory = directory_of(entry);
    if (directory.empty() || directory == "." || directory == ".." ||
        directory.find('/') != std::string::npos || directory.find('\0') != std::string::npos) {
      throw Error(path + ": " + quoted(directory) + " is not a folder's name; move the file away");
    }
    directories.push_back(directory);
  }
  return directories;
}

}  // namespace rep
