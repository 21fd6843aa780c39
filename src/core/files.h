#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>

namespace rep {

/// A file that is there whole or not at all: written under a temporary name beside `path`, synced,
/// renamed over it, and the folder synced. Until commit() (or when it throws: disk full, no
/// permission) the old file stays as it was and the temporary one is removed. Throws Error.
class AtomicFile {
 public:
  explicit AtomicFile(std::string path);
  ~AtomicFile();
  AtomicFile(const AtomicFile&) = delete;
  AtomicFile& operator=(const AtomicFile&) = delete;
  void write(const void* data, size_t bytes);
  void write(const std::string& text) { write(text.data(), text.size()); }
  void commit();

 private:
  std::string path_, temporary_;
  int descriptor_ = -1;
};

void write_file_atomically(const std::string& path, const std::string& text);

/// Removes what AtomicFiles of `path` in processes that were killed have left beside it. Only for a
/// process that holds the lock without which nobody writes that file.
void remove_leftovers(const std::string& path);

/// The whole file. Throws Error when it cannot be read or is larger than `limit` bytes.
std::string read_file(const std::string& path, size_t limit = size_t{1} << 30);

/// A file mapped read-only into memory. Throws Error when it cannot be.
class MappedFile {
 public:
  explicit MappedFile(const std::string& path);
  ~MappedFile();
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;
  const uint8_t* data() const { return data_; }
  size_t size() const { return size_; }
  const std::string& path() const { return path_; }

 private:
  std::string path_;
  const uint8_t* data_ = nullptr;
  size_t size_ = 0;
};

/// An exclusive lock on a file (flock), which is made when it is not there and stays when the lock
/// goes. The kernel gives it back when the last process that has it open ends, however it ends.
class FileLock {
 public:
  /// Nothing when another process holds it. Throws Error where nothing can be locked.
  static std::optional<FileLock> try_take(const std::string& path);
  /// The lock that whoever started this process handed on to it with an open descriptor (a sweep, a
  /// batch job), if there is one on this file.
  static std::optional<FileLock> inherited(const std::string& path);
  /// Waits for it.
  static FileLock take(const std::string& path);
  FileLock(FileLock&& other) noexcept;
  FileLock& operator=(FileLock&&) = delete;
  ~FileLock();
  int descriptor() const { return descriptor_; }

 private:
  explicit FileLock(int descriptor) : descriptor_(descriptor) {}
  int descriptor_;
};

/// The user's home in the place of a leading ~ ("~/data", "pretrain:~/c.yaml"), as shells do it.
std::string expand_home(const std::string& path);
/// From the root on, for messages: a path that is not depends on the current folder.
std::string absolute_path(const std::string& path);

/// mkdir -p. Throws Error.
void make_directories(const std::string& path);

}  // namespace rep
