#pragma once

#include <cstdint>
#include <map>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

namespace rep {

/// The SHA-256 of files' contents. A file is read again only when its size, times, or place on the
/// disk are others than when it was read; what was read before is kept below the user's cache
/// folder ($XDG_CACHE_HOME or ~/.cache, there rep/digests), one file a data set. Where nothing can
/// be kept, everything is read again.
class ContentDigests {
 public:
  /// `root`: the folder that paths are below. May be called from several threads at once.
  explicit ContentDigests(std::string root);
  /// Of the file at ROOT/path; none when it cannot be read.
  std::optional<std::string> of(const std::string& path);
  /// Of them all, by several threads, and kept for other processes.
  std::vector<std::optional<std::string>> of_all(const std::vector<std::string>& paths);

 private:
  struct Known {
    std::string stamp;  // size, times and place when it was read
    std::string digest;
  };
  void load();
  void save();

  std::string root_, kept_in_;  // kept_in_: "" for nowhere
  std::mutex mutex_;            // guards what follows
  std::map<std::string, Known> known_;
  bool loaded_ = false, changed_ = false;
};

}  // namespace rep
