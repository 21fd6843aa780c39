#pragma once

#include <zip.h>

#include <cstdint>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

namespace rep::testing {

using ZipEntries = std::vector<std::pair<std::string, std::string>>;

/// A zip archive of stored or deflated entries, with right checksums around whatever contents.
/// Packed in memory: libzip would sync every archive to the disk.
inline std::string zip_bytes(const ZipEntries& entries, bool deflate = false) {
  zip_error_t error;
  zip_error_init(&error);
  zip_source_t* memory = zip_source_buffer_create(nullptr, 0, 0, &error);
  zip_source_keep(memory);  // zip_close takes one reference
  zip* archive = zip_open_from_source(memory, ZIP_TRUNCATE, &error);
  for (const auto& [entry, bytes] : entries) {
    zip_source_t* source = zip_source_buffer(archive, bytes.data(), bytes.size(), 0);
    const auto index = static_cast<uint64_t>(zip_file_add(archive, entry.c_str(), source, 0));
    zip_set_file_compression(archive, index, deflate ? ZIP_CM_DEFLATE : ZIP_CM_STORE, 0);
  }
  if (zip_close(archive) != 0) throw std::logic_error("libzip cannot pack the entries");
  zip_stat_t stat;
  zip_source_stat(memory, &stat);
  std::string packed(stat.size, '\0');
  zip_source_open(memory);
  if (zip_source_read(memory, packed.data(), packed.size()) != static_cast<int64_t>(stat.size)) {
    throw std::logic_error("libzip cannot read what it packed");
  }
  zip_source_close(memory);
  zip_source_free(memory);
  zip_error_fini(&error);
  return packed;
}

}  // namespace rep::testing
