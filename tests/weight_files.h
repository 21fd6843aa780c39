#pragma once

#include <gtest/gtest.h>
#include <torch/types.h>

#include <cstdint>
#include <cstdio>
#include <fstream>
#include <iterator>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "core/error.h"
#include "formats/named_tensors.h"
#include "tests/zip_bytes.h"

// What the tests of the weight readers share: the fixtures' values and hostile files.
namespace rep::testing {

/// A file made by tests/fixtures/make_weights.py.
inline std::string fixture(const std::string& name) {
  return std::string(REP_SOURCE_DIR "/tests/fixtures/") + name;
}

/// The fixtures' values: ((7 i + 13 seed) mod 41 - 20) / 16, i row-major.
inline torch::Tensor formula(int64_t seed, const std::vector<int64_t>& shape,
                             torch::ScalarType dtype = torch::kFloat32) {
  int64_t count = 1;
  for (const int64_t size : shape) count *= size;
  const torch::Tensor i = torch::arange(count);
  const torch::Tensor value = ((7 * i + 13 * seed).remainder(41) - 20).to(torch::kFloat64) / 16;
  return value.reshape(shape).to(dtype);
}

/// Equal in dtype, shape and every value.
inline void expect_same(const torch::Tensor& actual, const torch::Tensor& expected,
                        const std::string& name = "") {
  EXPECT_EQ(describe(actual), describe(expected)) << name;
  EXPECT_TRUE(torch::equal(actual, expected)) << name << "\n" << actual << "\n" << expected;
}

inline const torch::Tensor& at(const NamedTensors& tensors, const std::string& name) {
  for (const auto& [known, tensor] : tensors) {
    if (known == name) return tensor;
  }
  throw std::out_of_range("no tensor " + name);
}

/// Every dtype but the floating-point ones holds 0 1 2 .. plus `first`, and bool is "odd".
inline torch::Tensor counts(const std::vector<int64_t>& shape, int64_t first,
                            torch::ScalarType dtype) {
  int64_t count = 1;
  for (const int64_t size : shape) count *= size;
  const torch::Tensor i = torch::arange(count).reshape(shape);
  return dtype == torch::kBool ? i.remainder(2).to(dtype) : (i + first).to(dtype);
}

inline std::string bytes_of_file(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

inline std::string temporary_file(const std::string& name, const std::string& bytes) {
  const std::string path = ::testing::TempDir() + "/rep_weights_" + name;
  std::remove(path.c_str());  // ext4 flushes a file that is cut and rewritten: 50 times slower
  std::ofstream(path, std::ios::binary) << bytes;
  return path;
}

/// A file of zip_bytes (tests/zip_bytes.h).
inline std::string temporary_zip(const std::string& name, const ZipEntries& entries,
                                 bool deflate = false) {
  return temporary_file(name, zip_bytes(entries, deflate));
}

/// `read` must throw an Error of one line that contains `part`.
template <class Read>
void expect_error(Read&& read, const std::string& part) {
  try {
    read();
    ADD_FAILURE() << "read without complaint; expected an Error with '" << part << "'";
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find(part), std::string::npos) << error.what();
    EXPECT_EQ(std::string(error.what()).find('\n'), std::string::npos) << error.what();
  }
}

/// `read` gets `rounds` damaged copies of `bytes` (one to four bytes changed, or cut short) and
/// must return or throw Error: any other exception fails the test, a crash ends it.
template <class Read>
void fuzz(const std::string& bytes, int rounds, Read&& read) {
  std::mt19937 random(20240607);
  int refused = 0;
  for (int round = 0; round < rounds; ++round) {
    std::string damaged = bytes;
    for (uint32_t flips = 1 + random() % 4; flips > 0; --flips) {
      // As often a bit flip as a byte that means something to one of the formats.
      static constexpr char kBytes[] = "\x00\xff\x7f\x80(t.R}]uesq\"{[,:-09";
      char& byte = damaged[random() % damaged.size()];
      byte = random() % 2 == 0 ? static_cast<char>(byte ^ (1 << random() % 8))
                               : kBytes[random() % (sizeof(kBytes) - 1)];
    }
    if (random() % 16 == 0) damaged.resize(random() % damaged.size());
    try {
      read(damaged);
    } catch (const Error&) {
      ++refused;
    } catch (const std::exception& error) {
      FAIL() << "round " << round << ": " << error.what();
    }
  }
  EXPECT_GT(refused, rounds / 20) << "the damage does not reach the reader";
}

}  // namespace rep::testing
