#pragma once

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <functional>
#include <map>
#include <nlohmann/json.hpp>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

#include "component_pools.h"

namespace rep {

struct Finished {
  int exit_code = -1;
  std::string output;  // stdout and stderr together
};

/// What waitpid gave, as a shell would say it.
inline int exit_status(int status) {
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

/// Runs a line of shell.
inline Finished shell_command(const std::string& command) {
  FILE* pipe = popen(("{ " + command + "; } 2>&1").c_str(), "r");
  Finished finished;
  std::array<char, 4096> buffer{};
  while (const size_t got = fread(buffer.data(), 1, buffer.size(), pipe)) {
    finished.output.append(buffer.data(), got);
  }
  const int status = pclose(pipe);
  finished.exit_code = exit_status(status);
  return finished;
}

/// Runs the built executable with these arguments.
inline Finished rep_command(const std::string& arguments) {
  return shell_command(REP_EXECUTABLE " " + arguments);
}

/// Runs `size` processes to their end; the worst exit code, and what all wrote.
inline Finished run_together(int size, const std::string& arguments,
                      const std::vector<std::string>& environments = {}) {
  static int port = 21000 + static_cast<int>(::getpid()) % 20000;
  const std::string where = "WORLD_SIZE=" + std::to_string(size) +
                            " MASTER_PORT=" + std::to_string(++port) + " " REP_EXECUTABLE " ";
  std::string line = "worst=0; processes=";
  for (int rank = 0; rank < size; ++rank) {
    const std::string own = environments.empty() ? "" : environments[static_cast<size_t>(rank)];
    line += "; " + own + "RANK=" + std::to_string(rank) + " " + where + arguments +
            " & processes=\"$processes $!\"";
  }
  return shell_command(line + "; for p in $processes; do wait $p || worst=$?; done; exit $worst");
}

/// Starts a run, or goes on with the one in `output`, and does not wait for it.
inline pid_t start_run(const std::string& config, const std::string& output,
                       const std::vector<std::string>& more = {}) {
  std::vector<std::string> words{REP_EXECUTABLE, "run", config,    "--output",
                                 output,         "-q",  "--resume"};
  words.insert(words.end(), more.begin(), more.end());
  std::vector<char*> pointers;
  for (std::string& word : words) pointers.push_back(word.data());
  pointers.push_back(nullptr);
  const pid_t child = fork();
  if (child == 0) {
    execv(REP_EXECUTABLE, pointers.data());
    _exit(127);
  }
  return child;
}

/// Starts or resumes a run and sends it `signal` as soon as `ready`; the exit status as a shell
/// would say it.
inline int run_and_signal(const std::string& config, const std::string& output, int signal,
                          const std::function<bool()>& ready,
                          const std::vector<std::string>& more = {}) {
  const pid_t child = start_run(config, output, more);
  int status = 0;
  while (waitpid(child, &status, WNOHANG) == 0) {
    if (ready()) {
      kill(child, signal);
      waitpid(child, &status, 0);
      break;
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
  }
  return exit_status(status);
}

inline int64_t lines_of(const std::string& path) {
  std::ifstream file(path);
  return std::count(std::istreambuf_iterator<char>(file), {}, '\n');
}

/// The same, when its metrics.jsonl has `lines` lines.
inline int signal_at_line(const std::string& config, const std::string& output, int64_t lines,
                          int signal, const std::vector<std::string>& more = {}) {
  return run_and_signal(
      config, output, signal, [&] { return lines_of(output + "/metrics.jsonl") >= lines; }, more);
}

/// An empty folder of this test's own.
inline std::string fresh_folder(const std::string& name) {
  const std::string path = ::testing::TempDir() + "rep_" + name;
  std::filesystem::remove_all(path);
  std::filesystem::create_directories(path);
  return path;
}

inline std::string write_text(const std::string& path, const std::string& text) {
  std::ofstream(path) << text;
  return path;
}

inline std::string read_text(const std::string& path) {
  std::ifstream file(path);
  return {std::istreambuf_iterator<char>(file), {}};
}

inline std::string edited(std::string text, const std::string& old,
                          const std::string& replacement) {
  return text.replace(text.find(old), old.size(), replacement);
}

inline nlohmann::json read_json(const std::string& path) {
  std::ifstream file(path);
  return nlohmann::json::parse(file);
}

/// A result without what may differ between two runs of one configuration and seed.
inline nlohmann::json comparable(nlohmann::json result) {
  result.erase("started");
  auto& cost = result.at("cost");
  auto& total = cost.at("total");
  for (const char* key :
       {"seconds", "peak_rss_bytes", "energy_joules", "energy_by_phase", "energy_source"}) {
    total.erase(key);
  }
  for (auto& task : cost.at("per_task")) {
    for (const char* key : {"seconds", "energy_joules", "energy_by_phase"}) task.erase(key);
  }
  cost.at("per_iteration").erase("seconds_median");
  return result;
}

/// The bytes of a run's checkpointed tensors by name, as its state.safetensors has them.
inline std::map<std::string, std::string> checkpointed_tensors(const std::string& folder,
                                                               const std::string& type = "") {
  const std::string file = read_text(folder + "/checkpoint/state.safetensors");
  uint64_t length = 0;
  EXPECT_GT(file.size(), sizeof length) << folder;
  if (file.size() <= sizeof length) return {};
  std::memcpy(&length, file.data(), sizeof length);
  const size_t data = sizeof length + length;
  const nlohmann::json header = nlohmann::json::parse(file.substr(sizeof length, length));
  std::map<std::string, std::string> tensors;
  for (const auto& [name, entry] : header.items()) {
    if (name == "__metadata__" || (!type.empty() && entry["dtype"] != type)) continue;
    const size_t begin = entry["data_offsets"][0], end = entry["data_offsets"][1];
    tensors[name] = file.substr(data + begin, end - begin);
  }
  return tensors;
}

/// The values of the float ones whose names begin with `prefix`.
inline std::map<std::string, std::vector<float>> checkpointed_floats(const std::string& folder,
                                                                     const std::string& prefix) {
  std::map<std::string, std::vector<float>> tensors;
  for (const auto& [name, bytes] : checkpointed_tensors(folder, "F32")) {
    if (name.rfind(prefix, 0) != 0) continue;
    std::vector<float>& values = tensors[name];
    values.resize(bytes.size() / sizeof(float));
    std::memcpy(values.data(), bytes.data(), values.size() * sizeof(float));
  }
  return tensors;
}

/// REP on what has prompts to be made cheaper.
inline constexpr char kRepBlock[] =
    "efficiency: {token_merging: {kind: atom, n: 4}, layer_dropping: {kind: ald, decay: 0.05}}\n";

/// A stream of three small tasks that a method finishes in seconds.
inline std::string small_experiment(const std::string& method, const std::string& extra = "") {
  return "name: small\n"
         "dataset: {name: synthetic, classes: 6, train_per_class: 16, test_per_class: 4}\n"
         "stream: {tasks: 3}\n"
         "backbone: {name: vit_nano, weights: random, trainable: " +
         std::string(method == "finetune" || method == "slca" ? "all" : "none") +
         "}\n"
         "method: {name: " +
         method +
         (has_component_pool(method) ? ", pool_size: " + std::to_string(kSmallPool) : "") +
         "}\n"
         "train: {epochs: 3, batch_size: 8, augment: none, checkpoint_seconds: 0}\n"
         "threads: 1\n" +
         extra;
}

}  // namespace rep
