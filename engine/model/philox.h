#pragma once

// Philox4x32-10, a counter-based generator: a pure function from (key, counter) to 128 random bits,
// so that a draw depends on what it is for and never on what was drawn before. Source: Salmon et
// al., "Parallel Random Numbers: As Easy as 1, 2, 3" (SC 2011), section 4.3, ten rounds.

#include <array>
#include <cstdint>

namespace polyad {

using PhiloxCounter = std::array<uint32_t, 4>;
using PhiloxKey = std::array<uint32_t, 2>;

constexpr PhiloxCounter Philox4x32(PhiloxCounter counter, PhiloxKey key) {
  for (int round = 0; round < 10; ++round) {
    const uint64_t product0 = uint64_t{0xD2511F53} * counter[0];
    const uint64_t product1 = uint64_t{0xCD9E8D57} * counter[2];
    counter = {static_cast<uint32_t>(product1 >> 32) ^ counter[1] ^ key[0],
               static_cast<uint32_t>(product1),
               static_cast<uint32_t>(product0 >> 32) ^ counter[3] ^ key[1],
               static_cast<uint32_t>(product0)};
    key[0] += 0x9E3779B9;
    key[1] += 0xBB67AE85;
  }
  return counter;
}

// Uniform in [0, 1) with 53 bits, for the token at `position` of choice `choice` under `seed`.
constexpr double UniformAt(uint64_t seed, int32_t choice, int64_t position) {
  const auto place = static_cast<uint64_t>(position);
  const PhiloxCounter bits =
      Philox4x32({static_cast<uint32_t>(place), static_cast<uint32_t>(place >> 32),
                  static_cast<uint32_t>(choice), 0},
                 {static_cast<uint32_t>(seed), static_cast<uint32_t>(seed >> 32)});
  const uint64_t mantissa = (uint64_t{bits[0]} << 21) ^ (bits[1] >> 11);
  return static_cast<double>(mantissa) * 0x1.0p-53;
}

}  // namespace polyad
