#include "tensor/resident.h"

#ifdef __linux__
#include <sys/mman.h>

#include <cinttypes>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <string>
#include <vector>
#endif
#ifdef __GLIBC__
#include <malloc.h>
#endif

namespace rep {

#ifdef __linux__

namespace {

struct Mapping {
  uint64_t begin = 0, end = 0;
  bool is_file = false;
  bool is_clean = true;  // no page of it is the process's own
};

// Mappings that cannot be written to, from smaps (proc(5)): a line "begin-end r-xp offset device
// inode path", then lines "Key:  number kB".
std::vector<Mapping> read_only_mappings() {
  std::vector<Mapping> mappings;
  std::ifstream smaps("/proc/self/smaps");
  for (std::string line; std::getline(smaps, line);) {
    Mapping mapping;
    char rights[5] = "";
    uint64_t inode = 0, kilobytes = 0;
    if (std::sscanf(line.c_str(), "%" SCNx64 "-%" SCNx64 " %4s %*x %*x:%*x %" SCNu64,
                    &mapping.begin, &mapping.end, rights, &inode) == 4) {
      mapping.is_file = inode != 0 && std::strchr(rights, 'w') == nullptr;
      mappings.push_back(mapping);
    } else if (!mappings.empty() &&
               (std::sscanf(line.c_str(), "Anonymous: %" SCNu64, &kilobytes) == 1 ||
                std::sscanf(line.c_str(), "Swap: %" SCNu64, &kilobytes) == 1)) {
      mappings.back().is_clean &= kilobytes == 0;
    }
  }
  return mappings;
}

}  // namespace

#endif

void release_freed_heap() {
#ifdef __GLIBC__
  malloc_trim(0);
#endif
}

void release_unused_memory() {
  release_freed_heap();
#ifdef __linux__
  // Pages that relocation wrote to, and then made read-only, are the process's own: dropping them
  // would bring back what the file says.
  for (const Mapping& mapping : read_only_mappings()) {
    if (!mapping.is_file || !mapping.is_clean) continue;
    madvise(reinterpret_cast<void*>(mapping.begin), mapping.end - mapping.begin, MADV_DONTNEED);
  }
#endif
}

}  // namespace rep
