#include "data/content_digests.h"

#include <sys/stat.h>

#include <algorithm>
#include <cstdlib>
#include <ctime>
#include <filesystem>
#include <sstream>
#include <thread>
#include <utility>

#include "core/error.h"
#include "core/files.h"
#include "core/hash.h"
#include "core/parallel.h"

namespace rep {
namespace {

constexpr const char* kMagic = "rep content digests 1";
// A file that changed this short a time ago may change again without another time to show for it:
// clocks of file systems tick in milliseconds to two seconds.
constexpr int64_t kTick = 3;
constexpr size_t kDigest = 64;  // characters

struct Stamp {
  std::string text;
  bool is_settled = false;  // the times are old enough to tell a later change
};

std::optional<Stamp> stamp_of(const std::string& path) {
  struct stat status {};
  if (::stat(path.c_str(), &status) != 0 || !S_ISREG(status.st_mode)) return std::nullopt;
  Stamp stamp;
  for (const auto number :
       {static_cast<int64_t>(status.st_size), static_cast<int64_t>(status.st_mtim.tv_sec),
        static_cast<int64_t>(status.st_mtim.tv_nsec), static_cast<int64_t>(status.st_ctim.tv_sec),
        static_cast<int64_t>(status.st_ctim.tv_nsec), static_cast<int64_t>(status.st_dev),
        static_cast<int64_t>(status.st_ino)}) {
    stamp.text += (stamp.text.empty() ? "" : ":") + std::to_string(number);
  }
  const int64_t latest = std::max<int64_t>(status.st_mtim.tv_sec, status.st_ctim.tv_sec);
  stamp.is_settled = latest + kTick <= static_cast<int64_t>(std::time(nullptr));
  return stamp;
}

std::string cache_folder() {
  const char* const xdg = std::getenv("XDG_CACHE_HOME");
  if (xdg && xdg[0] == '/') return std::string(xdg) + "/rep/digests";
  const char* const home = std::getenv("HOME");
  return home && home[0] == '/' ? std::string(home) + "/.cache/rep/digests" : "";
}

}  // namespace

ContentDigests::ContentDigests(std::string root) : root_(std::move(root)) {
  std::error_code failed;
  const std::string place = std::filesystem::canonical(root_, failed).string();
  const std::string folder = cache_folder();
  if (!failed && !folder.empty()) kept_in_ = folder + "/" + sha256_of_text(place);
}

std::optional<std::string> ContentDigests::of(const std::string& path) {
  const std::string file = root_ + "/" + path;
  const auto before = stamp_of(file);
  if (!before) return std::nullopt;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (!loaded_) load();
    loaded_ = true;
    const auto found = known_.find(path);
    if (found != known_.end() && found->second.stamp == before->text) return found->second.digest;
  }
  std::string digest;
  try {
    digest = sha256_of_text(read_file(file));
  } catch (const Error&) {
    return std::nullopt;
  }
  const auto after = stamp_of(file);
  if (after && before->is_settled && after->text == before->text) {
    const std::lock_guard<std::mutex> lock(mutex_);
    known_[path] = {after->text, digest};
    changed_ = true;
  }
  return digest;
}

std::vector<std::optional<std::string>> ContentDigests::of_all(
    const std::vector<std::string>& paths) {
  constexpr size_t kPart = 64;  // files of a thread's piece of work: many are known already
  std::vector<std::optional<std::string>> digests(paths.size());
  const size_t parts = (paths.size() + kPart - 1) / kPart;
  const auto threads = std::min<int64_t>(8, std::thread::hardware_concurrency());
  parallel_for(static_cast<int64_t>(parts), threads, [&](int64_t part) {
    const size_t first = static_cast<size_t>(part) * kPart;
    const size_t last = std::min(first + kPart, paths.size());
    for (size_t i = first; i < last; ++i) digests[i] = of(paths[i]);
  });
  save();
  return digests;
}

// Lines of "digest stamp path" between a first that names the kind and a last with the SHA-256 of
// what is before it. What is not so is not believed.
void ContentDigests::load() {
  std::error_code none;
  if (kept_in_.empty() || !std::filesystem::is_regular_file(kept_in_, none)) return;
  std::string text;
  try {
    text = read_file(kept_in_);
  } catch (const Error&) {
    return;
  }
  if (text.size() < kDigest) return;
  const std::string seal = text.substr(text.size() - kDigest);
  text.resize(text.size() - kDigest);
  if (sha256_of_text(text) != seal) return;
  std::istringstream lines(text);
  std::string line;
  if (!std::getline(lines, line) || line != kMagic) return;
  while (std::getline(lines, line)) {
    const size_t space = line.find(' ', kDigest + 1);
    if (line.size() <= kDigest || line[kDigest] != ' ' || space == std::string::npos) continue;
    known_.emplace(line.substr(space + 1),
                   Known{line.substr(kDigest + 1, space - kDigest - 1), line.substr(0, kDigest)});
  }
}

void ContentDigests::save() {
  const std::lock_guard<std::mutex> lock(mutex_);
  if (!changed_ || kept_in_.empty()) return;
  changed_ = false;
  load();  // what another process, or the other split, has kept since
  std::string text = std::string(kMagic) + "\n";
  for (const auto& [path, known] : known_) {
    if (path.find('\n') != std::string::npos) continue;
    text += known.digest + " " + known.stamp + " " + path + "\n";
  }
  text += sha256_of_text(text);
  try {
    make_directories(std::filesystem::path(kept_in_).parent_path().string());
    write_file_atomically(kept_in_, text);
  } catch (const Error&) {
    kept_in_ = "";  // a disk that is full or not ours: the files are read again next time
  }
}

}  // namespace rep
