#include "formats/zip_file.h"

#include <zip.h>

#include <algorithm>

#include "core/error.h"

namespace rep {

namespace {

// Deflate cannot do better: https://zlib.net/zlib_tech.html, "Maximum Compression Factor".
constexpr uint64_t kMaxRatio = 1032;

[[noreturn]] void fail(const std::string& path, const std::string& problem) {
  throw Error(path + ": " + problem + ": fetch or write the file again");
}

zip* open_archive(const std::string& path) {
  int code = 0;
  zip* archive = zip_open(path.c_str(), ZIP_RDONLY, &code);
  if (archive) return archive;
  zip_error_t error;
  zip_error_init_with_code(&error, code);
  const std::string reason = zip_error_strerror(&error);
  zip_error_fini(&error);
  fail(path, "cannot be opened as a zip archive (" + reason + ")");
}

}  // namespace

ZipFile::ZipFile(const std::string& path)
    : path_(path), archive_(open_archive(path), [](zip* archive) { zip_discard(archive); }) {
  const int64_t count = zip_get_num_entries(archive_.get(), 0);
  for (int64_t i = 0; i < count; ++i) {
    constexpr uint64_t kNeeded = ZIP_STAT_NAME | ZIP_STAT_SIZE | ZIP_STAT_COMP_SIZE |
                                 ZIP_STAT_COMP_METHOD | ZIP_STAT_ENCRYPTION_METHOD;
    const auto index = static_cast<uint64_t>(i);
    zip_stat_t stat;
    if (zip_stat_index(archive_.get(), index, 0, &stat) != 0 || (stat.valid & kNeeded) != kNeeded) {
      fail(path, "the zip archive is damaged");
    }
    const bool stored = stat.comp_method == ZIP_CM_STORE;
    if (stat.encryption_method != ZIP_EM_NONE || (!stored && stat.comp_method != ZIP_CM_DEFLATE)) {
      fail(path, "the zip archive is encrypted or packed by another method than deflate");
    }
    if (stat.comp_size > uint64_t{INT64_MAX} / kMaxRatio ||
        stat.size > stat.comp_size * (stored ? 1 : kMaxRatio)) {
      fail(path, "an entry of the zip archive claims more bytes than it can hold");
    }
    const Entry entry{index, static_cast<int64_t>(stat.size)};
    if (!entries_.emplace(stat.name, entry).second) {
      fail(path, "the zip archive has an entry twice");
    }
  }
}

const ZipFile::Entry* ZipFile::find(const std::string& name) const {
  const auto found = entries_.find(name);
  return found == entries_.end() ? nullptr : &found->second;
}

ZipFile::Stream::Stream(const ZipFile& file, const Entry& entry)
    : path_(file.path_),
      stream_(zip_fopen_index(file.archive_.get(), entry.index, 0),
              [](zip_file* stream) { zip_fclose(stream); }) {
  if (!stream_) fail(path_, "an entry of the zip archive cannot be opened");
}

void ZipFile::Stream::read(void* to, int64_t bytes) {
  auto* next = static_cast<uint8_t*>(to);
  while (bytes > 0) {
    const int64_t got = zip_fread(stream_.get(), next, static_cast<uint64_t>(bytes));
    if (got <= 0) fail(path_, "an entry of the zip archive is damaged or cut short");
    next += got;
    bytes -= got;
  }
}

void ZipFile::Stream::finish() {
  // libzip compares the checksum when it meets the end.
  uint8_t more = 0;
  if (zip_fread(stream_.get(), &more, 1) != 0) {
    fail(path_, "an entry of the zip archive is damaged or longer than it says");
  }
}

}  // namespace rep
