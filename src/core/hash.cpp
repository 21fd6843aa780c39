#include "core/hash.h"

#include <openssl/evp.h>

#include <stdexcept>

#include "core/files.h"

namespace rep {
namespace {

void expect(bool done) {
  if (!done) throw std::runtime_error("OpenSSL cannot compute a SHA-256");
}

}  // namespace

struct Sha256::Context {
  EVP_MD_CTX* digest = EVP_MD_CTX_new();
  ~Context() { EVP_MD_CTX_free(digest); }
};

Sha256::Sha256() : context_(std::make_unique<Context>()) {
  expect(EVP_DigestInit_ex(context_->digest, EVP_sha256(), nullptr) == 1);
}

Sha256::~Sha256() = default;

void Sha256::update(const void* data, size_t bytes) {
  expect(EVP_DigestUpdate(context_->digest, data, bytes) == 1);
}

std::string Sha256::hex() {
  unsigned char digest[EVP_MAX_MD_SIZE];
  unsigned bytes = 0;
  expect(EVP_DigestFinal_ex(context_->digest, digest, &bytes) == 1);
  std::string text;
  for (unsigned i = 0; i < bytes; ++i) {
    text += "0123456789abcdef"[digest[i] >> 4];
    text += "0123456789abcdef"[digest[i] & 15];
  }
  return text;
}

std::string sha256_of_text(const std::string& text) {
  Sha256 hash;
  hash.update(text);
  return hash.hex();
}

std::string sha256_of_file(const std::string& path) {
  const MappedFile file(path);
  Sha256 hash;
  hash.update(file.data(), file.size());
  return hash.hex();
}

}  // namespace rep
