#pragma once

// SHA-256 over bytes fed in pieces: the content digest of adapters and the key of the prefix cache.
// Backed by OpenSSL's EVP interface. Not thread-safe; cheap to create.

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

namespace polyad {

using Digest = std::array<uint8_t, 32>;

class Sha256 {
 public:
  Sha256();
  ~Sha256();
  Sha256(const Sha256&) = delete;
  Sha256& operator=(const Sha256&) = delete;

  void Update(const void* data, size_t bytes);
  void Update(std::string_view text) { Update(text.data(), text.size()); }
  void UpdateInt(int64_t value) { Update(&value, sizeof(value)); }
  Digest Finish();

 private:
  struct Context;
  std::unique_ptr<Context> context_;
};

std::string ToHex(const Digest& digest);                    // 64 lower-case characters
std::optional<Digest> DigestFromHex(std::string_view hex);  // as ToHex writes it; else none

}  // namespace polyad
