#pragma once

// HTTP/2 as bytes (RFC 9113, RFC 7541): frames as no library would write them. Nothing here reads.

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace polyad::http2 {

enum Type : uint8_t {
  kData = 0,
  kHeaders = 1,
  kPriority = 2,
  kRstStream = 3,
  kSettings = 4,
  kPing = 6,
  kGoaway = 7,
  kWindowUpdate = 8,
  kContinuation = 9,
};
inline constexpr uint8_t kNoFlags = 0;
inline constexpr uint8_t kEndStream = 1;
inline constexpr uint8_t kEndHeaders = 4;
inline constexpr uint8_t kPadded = 8;

inline std::string BigEndian(uint64_t value, int bytes) {
  std::string out;
  for (int i = bytes - 1; i >= 0; --i) out.push_back(static_cast<char>(value >> (8 * i)));
  return out;
}

inline std::string Frame(Type type, uint8_t flags, uint32_t stream, std::string_view payload) {
  std::string out = BigEndian(payload.size(), 3);
  out.push_back(static_cast<char>(type));
  out.push_back(static_cast<char>(flags));
  out += BigEndian(stream, 4);
  out += payload;
  return out;
}

using Settings = std::vector<std::pair<uint16_t, uint32_t>>;
inline constexpr uint16_t kInitialWindowSize = 4;

inline std::string SettingsFrame(const Settings& settings) {
  std::string payload;
  for (const auto& [id, value] : settings) payload += BigEndian(id, 2) + BigEndian(value, 4);
  return Frame(kSettings, kNoFlags, 0, payload);
}
inline std::string Preface(const Settings& settings = {}) {
  return "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + SettingsFrame(settings);
}
inline std::string ResetFrame(uint32_t stream) {
  return Frame(kRstStream, kNoFlags, stream, BigEndian(8, 4));  // CANCEL
}

// An HPACK integer under a prefix of `bits` bits, the rest of whose byte is `high`.
inline std::string HpackInteger(uint8_t high, int bits, uint64_t value) {
  const uint64_t most = (uint64_t{1} << bits) - 1;
  if (value < most) return std::string(1, static_cast<char>(high | value));
  std::string out(1, static_cast<char>(high | most));
  for (value -= most; value >= 128; value >>= 7) {
    out.push_back(static_cast<char>(0x80 | (value & 127)));
  }
  out.push_back(static_cast<char>(value));
  return out;
}
inline std::string HpackString(std::string_view text) {
  return HpackInteger(0, 7, text.size()) + std::string(text);
}
// A literal field: not indexed, or into the dynamic table.
inline std::string Literal(std::string_view name, std::string_view value) {
  return std::string(1, '\0') + HpackString(name) + HpackString(value);
}
inline std::string IndexedLiteral(std::string_view name, std::string_view value) {
  return "\x40" + HpackString(name) + HpackString(value);
}

// The fields of a call of `path`, a tenant's key with it where there is one.
inline std::string CallFields(std::string_view path, std::string_view key = {}) {
  std::string fields = Literal(":method", "POST") + Literal(":scheme", "https") +
                       Literal(":path", path) + Literal(":authority", "localhost") +
                       Literal("content-type", "application/grpc") + Literal("te", "trailers");
  if (!key.empty()) fields += Literal("authorization", "Bearer " + std::string(key));
  return fields;
}
// A message as gRPC frames it.
inline std::string GrpcMessage(std::string_view bytes) {
  return std::string(1, '\0') + BigEndian(bytes.size(), 4) + std::string(bytes);
}

}  // namespace polyad::http2
