#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>

struct zip;
struct zip_file;

namespace rep {

/// A zip archive opened for reading, as hostile: entries are stored or deflated, none comes twice
/// or is encrypted, and none claims more bytes than its packed bytes can hold, so that what is
/// reserved for an entry stays in proportion to the file. Through libzip, which checks the
/// checksums.
class ZipFile {
 public:
  struct Entry {
    uint64_t index = 0;
    int64_t bytes = 0;  // unpacked, as the archive says
  };

  /// Throws Error when the file cannot be read or is no such archive.
  explicit ZipFile(const std::string& path);

  const std::string& path() const { return path_; }
  const std::map<std::string, Entry>& entries() const { return entries_; }
  /// Null when there is none of that name.
  const Entry* find(const std::string& name) const;

  /// An entry being read from its beginning. Throws Error on damage.
  class Stream {
   public:
    Stream(const ZipFile& file, const Entry& entry);
    /// Exactly that many bytes.
    void read(void* to, int64_t bytes);
    /// Throws Error unless the entry ends here and its checksum is right.
    void finish();

   private:
    std::string path_;
    std::unique_ptr<zip_file, void (*)(zip_file*)> stream_;
  };

 private:
  std::string path_;
  std::unique_ptr<zip, void (*)(zip*)> archive_;
  std::map<std::string, Entry> entries_;
};

}  // namespace rep
