#include "core/files.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <vector>

#include "core/error.h"
#include "core/numbers.h"

namespace rep {
namespace {

[[noreturn]] void fail(const std::string& what, const std::string& path, int error = errno) {
  throw Error("cannot " + what + " '" + absolute_path(path) + "': " + std::strerror(error));
}

/// A descriptor that is closed whatever happens.
struct Descriptor {
  explicit Descriptor(int fd) : value(fd) {}
  ~Descriptor() {
    if (value >= 0) ::close(value);
  }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  int value;
};

/// Makes the rename itself outlast a power cut.
void sync_folder_of(const std::string& path) {
  std::string folder = std::filesystem::path(path).parent_path().string();
  if (folder.empty()) folder = ".";
  const Descriptor descriptor(::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (descriptor.value < 0) fail("open the folder", folder);
  // EINVAL: a file system (some network ones) that does not sync folders.
  if (::fsync(descriptor.value) != 0 && errno != EINVAL) fail("sync the folder", folder);
}

/// The descriptor, locked; -1 when `flags` say not to wait and another process has the lock.
int open_locked(const std::string& path, int flags) {
  const int descriptor = ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0666);
  if (descriptor < 0) fail("open", path);
  int result;
  do {
    result = ::flock(descriptor, LOCK_EX | flags);
  } while (result != 0 && errno == EINTR);
  if (result == 0) return descriptor;
  const int error = errno;
  ::close(descriptor);
  if (error == EWOULDBLOCK) return -1;
  fail("lock", path, error);
}

}  // namespace

AtomicFile::AtomicFile(std::string path) : path_(std::move(path)) {
  // Own name for every process and every file of it; a leftover of a dead process is passed over.
  static std::atomic<uint64_t> count{0};
  do {
    temporary_ = path_ + "." + std::to_string(::getpid()) + "-" + std::to_string(count++) + ".tmp";
    descriptor_ = ::open(temporary_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
  } while (descriptor_ < 0 && errno == EEXIST);
  if (descriptor_ < 0) fail("write", path_);
}

AtomicFile::~AtomicFile() {
  if (descriptor_ >= 0) ::close(descriptor_);
  if (!temporary_.empty()) ::unlink(temporary_.c_str());
}

void AtomicFile::write(const void* data, size_t bytes) {
  const char* next = static_cast<const char*>(data);
  while (bytes > 0) {
    const ssize_t written = ::write(descriptor_, next, bytes);
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) fail("write", path_);
    next += written;
    bytes -= static_cast<size_t>(written);
  }
}

void AtomicFile::commit() {
  if (::fsync(descriptor_) != 0) fail("write", path_);
  const int descriptor = descriptor_;
  descriptor_ = -1;  // closed even when close() complains
  if (::close(descriptor) != 0) fail("write", path_);
  if (::rename(temporary_.c_str(), path_.c_str()) != 0) fail("write", path_);
  temporary_.clear();
  sync_folder_of(path_);
}

void write_file_atomically(const std::string& path, const std::string& text) {
  AtomicFile file(path);
  file.write(text);
  file.commit();
}

void remove_leftovers(const std::string& path) {
  namespace fs = std::filesystem;
  const fs::path whole(path);
  const std::string prefix = whole.filename().string() + ".", ending = ".tmp";
  const fs::path folder = whole.has_parent_path() ? whole.parent_path() : fs::path(".");
  std::vector<fs::path> leftovers;
  std::error_code failed;
  for (fs::directory_iterator entry(folder, failed), end; !failed && entry != end;
       entry.increment(failed)) {
    const std::string name = entry->path().filename().string();
    if (name.size() <= prefix.size() + ending.size() || name.rfind(prefix, 0) != 0) continue;
    const size_t digits = name.size() - prefix.size() - ending.size();
    const std::string middle = name.substr(prefix.size(), digits);  // PROCESS-COUNT
    if (name.compare(name.size() - ending.size(), ending.size(), ending) == 0 &&
        middle.find_first_not_of("0123456789-") == std::string::npos) {
      leftovers.push_back(entry->path());
    }
  }
  for (const fs::path& leftover : leftovers) fs::remove(leftover, failed);
}

std::string read_file(const std::string& path, size_t limit) {
  const Descriptor descriptor(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (descriptor.value < 0) fail("read", path);
  // Read to the end rather than the size that stat tells: pipes and /proc have none, and a file may
  // grow.
  std::string text;
  size_t used = 0;
  for (;;) {
    // One byte more than the limit tells a file that is exactly as large from a larger one.
    if (used == text.size()) text.resize(std::min(limit + 1, std::max<size_t>(4096, 2 * used)));
    const ssize_t got = ::read(descriptor.value, &text[used], text.size() - used);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) fail("read", path);
    if (got == 0) break;
    used += static_cast<size_t>(got);
    if (used > limit) {
      throw Error("'" + absolute_path(path) + "' is larger than the " + std::to_string(limit) +
                  " bytes that such a file may have");
    }
  }
  text.resize(used);
  return text;
}

MappedFile::MappedFile(const std::string& path) : path_(path) {
  const Descriptor descriptor(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (descriptor.value < 0) fail("read", path);
  struct stat status {};
  if (::fstat(descriptor.value, &status) != 0) fail("read", path);
  if (S_ISDIR(status.st_mode)) fail("read", path, EISDIR);
  if (!S_ISREG(status.st_mode)) {
    throw Error("cannot read '" + absolute_path(path) + "': not a regular file");
  }
  size_ = static_cast<size_t>(status.st_size);
  if (size_ == 0) return;  // mmap refuses an empty range
  void* mapped = ::mmap(nullptr, size_, PROT_READ, MAP_PRIVATE, descriptor.value, 0);
  if (mapped == MAP_FAILED) fail("map", path);
  data_ = static_cast<const uint8_t*>(mapped);
}

MappedFile::~MappedFile() {
  if (data_) ::munmap(const_cast<uint8_t*>(data_), size_);
}

std::optional<FileLock> FileLock::try_take(const std::string& path) {
  const int descriptor = open_locked(path, LOCK_NB);
  if (descriptor < 0) return std::nullopt;
  return FileLock(descriptor);
}

std::optional<FileLock> FileLock::inherited(const std::string& path) {
  struct stat wanted {};
  if (::stat(path.c_str(), &wanted) != 0) return std::nullopt;
  std::error_code failed;
  for (const auto& entry : std::filesystem::directory_iterator("/proc/self/fd", failed)) {
    const auto number = parse_number<int>(entry.path().filename().string());
    struct stat open {};
    if (!number || ::fstat(*number, &open) != 0) continue;
    if (open.st_dev != wanted.st_dev || open.st_ino != wanted.st_ino) continue;
    if (::flock(*number, LOCK_EX | LOCK_NB) == 0) return FileLock(*number);
  }
  return std::nullopt;
}

FileLock FileLock::take(const std::string& path) { return FileLock(open_locked(path, 0)); }

FileLock::FileLock(FileLock&& other) noexcept : descriptor_(other.descriptor_) {
  other.descriptor_ = -1;
}

FileLock::~FileLock() {
  if (descriptor_ >= 0) ::close(descriptor_);
}

std::string expand_home(const std::string& path) {
  const char* const home = std::getenv("HOME");
  const size_t at = path.rfind("~/", 0) == 0 ? 0 : path.find(":~/") + 1;
  if (!home || (at == 0 && path.rfind("~/", 0) != 0)) return path;
  return path.substr(0, at) + home + path.substr(at + 1);
}

std::string absolute_path(const std::string& path) {
  std::error_code failed;
  const std::filesystem::path whole = std::filesystem::absolute(path, failed);
  return failed || path.empty() ? path : whole.lexically_normal().string();
}

void make_directories(const std::string& path) {
  std::error_code error;
  std::filesystem::create_directories(path, error);
  if (error) fail("make the folder", path, error.value());
  if (!std::filesystem::is_directory(path, error)) fail("make the folder", path, ENOTDIR);
}

}  // namespace rep
