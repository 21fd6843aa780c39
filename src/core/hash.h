#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

namespace rep {

/// SHA-256 (FIPS 180-4), fed piece by piece.
class Sha256 {
 public:
  Sha256();
  void update(const void* data, size_t bytes);
  void update(const std::string& text) { update(text.data(), text.size()); }
  /// Lower-case hexadecimal, 64 characters; nothing may be fed after it.
  std::string hex();

 private:
  void block(const uint8_t* data);
  uint32_t state_[8];
  uint8_t pending_[64];
  size_t pending_bytes_ = 0;
  uint64_t total_bytes_ = 0;
};

std::string sha256_of_text(const std::string& text);
/// Throws Error when the file cannot be read.
std::string sha256_of_file(const std::string& path);

}  // namespace rep
