#pragma once

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>
#include <string>

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

/// Starts a run, or goes on with the one in `output`, and does not wait for it.
inline pid_t start_run(const std::string& config, const std::string& output) {
  const pid_t child = fork();
  if (child == 0) {
    execl(REP_EXECUTABLE, REP_EXECUTABLE, "run", config.c_str(), "--output", output.c_str(), "-q",
          "--resume", static_cast<char*>(nullptr));
    _exit(127);
  }
  return child;
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

/// A stream of three small tasks that a method finishes in seconds.
inline std::string small_experiment(const std::string& method, const std::string& extra = "") {
  return "name: small\n"
         "dataset: {name: synthetic, classes: 6, train_per_class: 16, test_per_class: 4}\n"
         "stream: {tasks: 3}\n"
         "backbone: {name: vit_nano, weights: random, trainable: " +
         std::string(method == "finetune" || method == "slca" ? "all" : "none") +
         "}\n"
         "method: {name: " +
         method + (method == "coda_prompt" ? ", pool_size: 30" : "") +  // a width of 96 holds 96
         "}\n"
         "train: {epochs: 3, batch_size: 8, augment: none, checkpoint_seconds: 0}\n"
         "threads: 1\n" +
         extra;
}

}  // namespace rep
