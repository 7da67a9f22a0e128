#include "engine/base/digest.h"

#include <openssl/evp.h>

#include "engine/base/check.h"

namespace polyad {

struct Sha256::Context {
  EVP_MD_CTX* handle = EVP_MD_CTX_new();
  ~Context() { EVP_MD_CTX_free(handle); }
};

Sha256::Sha256() : context_(std::make_unique<Context>()) {
  POLYAD_CHECK(EVP_DigestInit_ex(context_->handle, EVP_sha256(), nullptr) == 1, "SHA-256 init");
}

Sha256::~Sha256() = default;

void Sha256::Update(const void* data, size_t bytes) {
  POLYAD_CHECK(EVP_DigestUpdate(context_->handle, data, bytes) == 1, "SHA-256 update");
}

Digest Sha256::Finish() {
  Digest digest{};
  unsigned int length = 0;
  POLYAD_CHECK(EVP_DigestFinal_ex(context_->handle, digest.data(), &length) == 1, "SHA-256 final");
  POLYAD_CHECK(length == digest.size(), "SHA-256 length");
  return digest;
}

std::string ToHex(const Digest& digest) {
  static constexpr char kDigits[] = "0123456789abcdef";
  std::string text;
  text.reserve(digest.size() * 2);
  for (uint8_t byte : digest) {
    text.push_back(kDigits[byte >> 4]);
    text.push_back(kDigits[byte & 15]);
  }
  return text;
}

}  // namespace polyad
