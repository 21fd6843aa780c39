#pragma once

#include <cstddef>
#include <memory>
#include <string>

namespace rep {

/// SHA-256 (FIPS 180-4), fed piece by piece; OpenSSL's, which has an instruction for it.
class Sha256 {
 public:
  Sha256();
  ~Sha256();
  void update(const void* data, size_t bytes);
  void update(const std::string& text) { update(text.data(), text.size()); }
  /// Lower-case hexadecimal, 64 characters; nothing may be fed after it.
  std::string hex();

 private:
  struct Context;
  std::unique_ptr<Context> context_;
};

std::string sha256_of_text(const std::string& text);
/// Throws Error when the file cannot be read.
std::string sha256_of_file(const std::string& path);

}  // namespace rep
