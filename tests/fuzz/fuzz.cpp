// libFuzzer's entry. REP_FUZZ_TARGET names the reader, REP_FUZZ_SEEDS the folder that gets the
// valid inputs; scripts/fuzz.sh sets both.
#include <cstdio>
#include <cstdlib>

#include "tests/fuzz/targets.h"

namespace {

std::function<void(const std::string&)> read_input;

}  // namespace

extern "C" int LLVMFuzzerInitialize(int*, char***) {
  const char* const name = std::getenv("REP_FUZZ_TARGET");
  const char* const seeds = std::getenv("REP_FUZZ_SEEDS");
  const auto targets = rep::fuzz::targets();
  const auto found = targets.find(name ? name : "");
  if (found == targets.end()) {
    std::fprintf(stderr, "REP_FUZZ_TARGET names none of:");
    for (const auto& [known, target] : targets) std::fprintf(stderr, " %s", known.c_str());
    std::fprintf(stderr, "\n");
    std::exit(2);
  }
  read_input = found->second.read;
  for (size_t i = 0; seeds && i < found->second.valid.size(); ++i) {
    std::ofstream(seeds + ("/valid" + std::to_string(i)), std::ios::binary)
        << found->second.valid[i];
  }
  return 0;
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  try {
    read_input({reinterpret_cast<const char*>(data), size});
  } catch (const rep::Error&) {  // what bad input is answered with; anything else is a finding
  }
  return 0;
}
