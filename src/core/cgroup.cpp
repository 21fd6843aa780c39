#include "core/cgroup.h"

#include <algorithm>
#include <fstream>
#include <vector>

#include "core/numbers.h"

namespace rep {

namespace {

constexpr int64_t kNoLimit = int64_t{1} << 60;  // version 1 says 2^63 less a page

// `path` and what is above it: "/a/b", "/a", "".
std::vector<std::string> with_parents(std::string path) {
  std::vector<std::string> paths;
  while (!path.empty()) {
    if (path.back() != '/') paths.push_back(path);
    path.resize(path.rfind('/') == std::string::npos ? 0 : path.rfind('/'));
  }
  paths.emplace_back();
  return paths;
}

void lower(std::optional<CgroupLimit>& least, const std::string& file) {
  std::string text;
  if (!(std::ifstream(file) >> text)) return;
  const auto bytes = parse_number<int64_t>(text);  // or "max"
  if (!bytes || *bytes <= 0 || *bytes >= kNoLimit) return;
  if (!least || *bytes < least->bytes) least = CgroupLimit{*bytes, file};
}

}  // namespace

std::optional<CgroupLimit> cgroup_memory_limit(const std::string& groups, const std::string& root) {
  std::optional<CgroupLimit> least;
  std::ifstream lines(groups);
  for (std::string line; std::getline(lines, line);) {  // "4:cpu,memory:/a/b", "0::/a/b"
    const size_t first = line.find(':'), second = line.find(':', first + 1);
    if (first == std::string::npos || second == std::string::npos) continue;
    const std::string controllers = "," + line.substr(first + 1, second - first - 1) + ",";
    for (const std::string& path : with_parents(line.substr(second + 1))) {
      if (controllers == ",,") {
        for (const char* mount : {"", "/unified"})
          lower(least, root + mount + path + "/memory.max");
      } else if (controllers.find(",memory,") != std::string::npos) {
        lower(least, root + "/memory" + path + "/memory.limit_in_bytes");
      }
    }
  }
  return least;
}

}  // namespace rep
