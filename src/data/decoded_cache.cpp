#include "data/decoded_cache.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <charconv>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <optional>
#include <utility>

#include "core/error.h"
#include "core/files.h"
#include "core/hash.h"

namespace rep {
namespace {

namespace fs = std::filesystem;

constexpr const char* kSuffix = ".rgb";

/// What a file begins with; pixels follow.
struct Header {
  char magic[8] = {'r', 'e', 'p', '-', 'r', 'g', 'b', '1'};
  int64_t height = 0, width = 0;
  char name[64] = {};      // the file's own, without the suffix
  char checksum[64] = {};  // SHA-256 of what is before it

  void seal() { std::memcpy(checksum, digest().data(), sizeof checksum); }
  /// For a file of that name and size.
  bool is_valid(const std::string& expected_name, int64_t file_size) const {
    return std::memcmp(magic, Header().magic, sizeof magic) == 0 &&
           expected_name.compare(0, std::string::npos, name, sizeof name) == 0 &&
           digest().compare(0, std::string::npos, checksum, sizeof checksum) == 0 && height > 0 &&
           width > 0 && width <= kMaxPixels / height &&
           file_size == static_cast<int64_t>(sizeof *this) + height * width * 3;
  }

 private:
  std::string digest() const {
    Sha256 hash;
    hash.update(this, offsetof(Header, checksum));
    return hash.hex();
  }
};

/// A descriptor that is closed whatever happens.
struct Opened {
  Opened(const std::string& path, int flags)
      : descriptor(::open(path.c_str(), flags | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, 0666)) {}
  ~Opened() {
    if (descriptor >= 0) ::close(descriptor);
  }
  Opened(const Opened&) = delete;
  Opened& operator=(const Opened&) = delete;

  /// Whether there were that many bytes.
  bool read(void* data, size_t bytes, int64_t offset) const {
    for (auto* next = static_cast<char*>(data); bytes > 0;) {
      const ssize_t got = ::pread(descriptor, next, bytes, offset);
      if (got < 0 && errno == EINTR) continue;
      if (got <= 0) return false;
      next += got;
      offset += got;
      bytes -= static_cast<size_t>(got);
    }
    return true;
  }

  int descriptor;
};

/// The right to change a folder's files, and how many bytes they take together, which its lock file
/// tells. Throws Error.
class CacheLock {
 public:
  explicit CacheLock(const std::string& folder)
      : folder_(folder), lock_(FileLock::take(folder + "/lock")) {}

  int64_t bytes() const {
    char text[24] = {};
    const ssize_t length = ::pread(lock_.descriptor(), text, sizeof text, 0);
    int64_t total = -1;
    if (length > 0) std::from_chars(text, text + length, total);
    return total >= 0 ? total : count();
  }
  void set_bytes(int64_t total) const {
    const std::string text = std::to_string(total) + "\n";
    const auto size = static_cast<ssize_t>(text.size());
    if (::pwrite(lock_.descriptor(), text.data(), text.size(), 0) != size ||
        ::ftruncate(lock_.descriptor(), size) != 0) {
      fail();
    }
  }
  /// What the files take in truth. Who holds the lock is the only one to write, so a temporary file
  /// is a leftover.
  int64_t count() const {
    int64_t total = 0;
    std::error_code failed;
    for (const auto& entry : fs::directory_iterator(folder_, failed)) {
      std::error_code vanished;
      if (entry.path().extension() == ".tmp") fs::remove(entry.path(), vanished);
      if (entry.path().extension() != kSuffix || !entry.is_regular_file(vanished)) continue;
      const auto size = entry.file_size(vanished);
      if (!vanished) total += static_cast<int64_t>(size);
    }
    if (failed) throw Error(folder_ + ": cannot be read: " + failed.message());
    return total;
  }

 private:
  [[noreturn]] void fail() const {
    throw Error("cannot write '" + folder_ + "/lock': " + std::strerror(errno));
  }

  std::string folder_;
  FileLock lock_;
};

/// The header of a file that is as it must be.
std::optional<Header> valid_header(const Opened& file, const std::string& name) {
  struct stat status {};
  Header header;
  if (file.descriptor < 0 || ::fstat(file.descriptor, &status) != 0 || !S_ISREG(status.st_mode) ||
      !file.read(&header, sizeof header, 0) || !header.is_valid(name, status.st_size)) {
    return std::nullopt;
  }
  return header;
}

}  // namespace

DecodedCache::DecodedCache(const std::string& folder, int64_t limit)
    : folder_(folder), limit_(limit) {
  make_directories(folder_);
  const CacheLock lock(folder_);
  lock.set_bytes(lock.count());
}

void DecodedCache::part(const std::string& name, const Wanted& wanted,
                        const std::function<Image()>& decode, ImagePart& out) {
  if (!name.empty() && read(name, wanted, out)) return;
  out = {decode(), 0, 0};
  if (!name.empty() && writable_) {
    try {
      add(name, out.pixels);
    } catch (const Error& error) {
      if (writable_.exchange(false)) {
        std::fprintf(stderr, "warning: dataset.decoded_cache gets no more images: %s\n",
                     error.what());
      }
    }
  }
  wanted(out.pixels.height, out.pixels.width);
}

bool DecodedCache::read(const std::string& name, const Wanted& wanted, ImagePart& out) const {
  const Opened file(folder_ + "/" + name + kSuffix, O_RDONLY);
  const auto header = valid_header(file, name);
  if (!header) return false;
  const Region region = wanted(header->height, header->width);
  out.resize({region.top, 0, region.height, header->width});  // whole rows lie in one stretch
  return file.read(out.pixels.pixels.data(), out.pixels.pixels.size(),
                   static_cast<int64_t>(sizeof *header) + region.top * header->width * 3);
}

void DecodedCache::add(const std::string& name, const Image& image) {
  Header header;
  header.height = image.height;
  header.width = image.width;
  std::memcpy(header.name, name.data(), sizeof header.name);
  header.seal();

  const std::string path = folder_ + "/" + name + kSuffix;
  const CacheLock lock(folder_);
  if (valid_header(Opened(path, O_RDONLY), name)) return;  // another process was quicker
  std::error_code missing;
  const auto damaged = fs::file_size(path, missing);
  const int64_t total = lock.bytes() - (missing ? 0 : static_cast<int64_t>(damaged)) +
                        static_cast<int64_t>(sizeof header + image.pixels.size());
  if (total > limit_) {
    writable_ = false;
    return;
  }
  AtomicFile file(path);
  file.write(&header, sizeof header);
  file.write(image.pixels.data(), image.pixels.size());
  file.commit();
  lock.set_bytes(total);
}

}  // namespace rep
