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

std::optional<Digest> DigestFromHex(std::string_view hex) {
  Digest digest{};
  if (hex.size() != 2 * digest.size()) return std::nullopt;
  for (size_t i = 0; i < hex.size(); ++i) {
    const char c = hex[i];
    const bool is_digit = c >= '0' && c <= '9';
    if (!is_digit && (c < 'a' || c > 'f')) return std::nullopt;
    const int nibble = is_digit ? c - '0' : c - 'a' + 10;
    digest[i / 2] = static_cast<uint8_t>(digest[i / 2] << 4 | nibble);
  }
  return digest;
}

}  // namespace polyad
