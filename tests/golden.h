#pragma once

#include <gtest/gtest.h>

#include <cstdint>
#include <cstdlib>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

namespace rep::golden {

/// Added to every seed that the reference files name: a second set of them has another.
constexpr uint32_t kSeedOffset = 0;

/// The reference numbers' input generator (32-bit wrap-around arithmetic).
inline int32_t k16(uint32_t seed, uint32_t i) {
  uint32_t x = i * 0x9E3779B1u + (seed + kSeedOffset) * 0x85EBCA77u;
  x ^= x >> 16;
  x *= 0x7FEB352Du;
  x ^= x >> 15;
  x *= 0x846CA68Bu;
  x ^= x >> 16;
  return static_cast<int32_t>(x >> 16) - 32768;
}

/// A file of reference numbers: part of the repository (tests/golden/README.md says how each was
/// made). REP_GOLDEN_FOLDER names another folder, of numbers from other seeds: with
/// REP_GOLDEN_SEEDS=N inputs have the seeds here plus N.
inline std::string golden_path(const std::string& name) {
  const char* folder = std::getenv("REP_GOLDEN_FOLDER");
  return (folder ? std::string(folder) : REP_SOURCE_DIR "/tests/golden") + "/" + name;
}
inline uint32_t seed_shift() {
  const char* shift = std::getenv("REP_GOLDEN_SEEDS");
  return shift ? static_cast<uint32_t>(std::stoul(shift)) : 0;
}

inline nlohmann::json load(const std::string& name) {
  std::ifstream file(golden_path(name));
  return nlohmann::json::parse(file);
}

/// Real data and weights, which are not in the repository.
inline std::string shared(const std::string& path) {
  const std::string golden = "golden/";
  if (path.rfind(golden, 0) == 0) return golden_path(path.substr(golden.size()));
  return std::string(REP_SHARED_DIR "/") + path;
}
inline bool have(const std::string& path) { return std::ifstream(shared(path)).good(); }

/// Skips the calling test, with the reason, where the shared folder is missing.
#define SKIP_WITHOUT_SHARED(path) \
  if (!::rep::golden::have(path)) \
  GTEST_SKIP() << "needs " << ::rep::golden::shared(path) << ", which is not there"

}  // namespace rep::golden
