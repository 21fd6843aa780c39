// Every reader of foreign files, fed a few thousand mutations of valid ones: it parses them or
// throws Error; a crash or another exception is a fault. The mutations are a function of target and
// round, so a failure names what to repeat.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>

#include "core/hash.h"
#include "core/random.h"
#include "tests/fuzz/targets.h"

namespace rep {
namespace {

/// One of the changes that find faults in parsers: bits, bytes that mean something to some format,
/// numbers at the edge of their type, pieces taken out, repeated or cut off.
void mutate_once(std::string& bytes, Random& random) {
  static const std::string kMeaningful =
      fuzz::literal("\0\xff\x7f\x80(t.R}]uesq\"'{[,:-09~*&!|\n\\");
  static constexpr uint64_t kEdges[] = {0,         1,          0x7f,       0xff,     0x7fff,
                                        0xffff,    0x7fffffff, 0xffffffff, 1u << 20, UINT64_MAX / 2,
                                        UINT64_MAX};
  const size_t at = random.below(bytes.size() + 1);
  const size_t length = std::min<size_t>(bytes.size() - at, 1 + random.below(16));
  switch (random.below(8)) {
    case 0: {
      if (length > 0) bytes[at] = static_cast<char>(bytes[at] ^ (1 << random.below(8)));
      break;
    }
    case 1: {
      if (length > 0) bytes[at] = static_cast<char>(random.next());
      break;
    }
    case 2:
    case 3: {
      const char byte = kMeaningful[random.below(kMeaningful.size())];
      if (length > 0 && random.bernoulli(0.7)) {
        bytes[at] = byte;
      } else {
        bytes.insert(at, 1, byte);
      }
      break;
    }
    case 4: {
      const uint64_t edge = kEdges[random.below(std::size(kEdges))];
      const std::string text = std::to_string(edge);
      if (random.bernoulli(0.5)) {
        bytes.replace(at, length, text);
      } else {
        char raw[8];
        std::memcpy(raw, &edge, 8);
        bytes.replace(at, std::min<size_t>(length, 8), raw, std::min<size_t>(length, 8));
      }
      break;
    }
    case 5:
      bytes.erase(at, length);
      break;
    case 6:
      bytes.insert(at, bytes.substr(at, length * (1 + random.below(4))));
      break;
    default:
      if (random.bernoulli(0.2)) bytes.resize(at);
  }
}

class Fuzz : public ::testing::TestWithParam<std::string> {};

TEST_P(Fuzz, EndsInAResultOrAnError) {
  constexpr uint64_t kRounds = 3000;
  const fuzz::Target target = fuzz::targets().at(GetParam());
  uint64_t name = 0;
  for (const char c : GetParam()) name = name * 256 + static_cast<uint8_t>(c);
  uint64_t refused = 0, rounds = 0;
  for (uint64_t round = 0; round < kRounds; ++round) {
    Random random({name, round});
    std::string bytes = target.valid[random.below(target.valid.size())];
    for (uint64_t changes = 1 + random.below(4); changes > 0; --changes) {
      mutate_once(bytes, random);
    }
    ++rounds;
    try {
      target.read(bytes);
    } catch (const Error& error) {
      ++refused;
      EXPECT_EQ(std::string(error.what()).find('\n'), std::string::npos) << error.what();
    } catch (const std::exception& error) {
      FAIL() << "round " << round << ": " << error.what();
    }
  }
  EXPECT_GT(refused, rounds / 20) << "the damage does not reach the reader";
}

TEST_P(Fuzz, BeginsFromFilesThatAreRead) {
  const fuzz::Target target = fuzz::targets().at(GetParam());
  for (size_t i = 0; i < target.valid.size(); ++i) {
    std::string refusal;
    try {
      target.read(target.valid[i]);
    } catch (const Error& error) {
      refusal = error.what();
    }
    // What comes first is whole; the others may be valid of another kind.
    if (i == 0 && GetParam() != "stream51") {
      EXPECT_EQ(refusal, "");
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Targets, Fuzz,
                         ::testing::Values("cifar100", "config", "image", "jpeg", "npy", "npz",
                                           "pickle", "pth", "safetensors", "stream51", "weights"),
                         [](const auto& test) { return test.param; });

}  // namespace
}  // namespace rep
