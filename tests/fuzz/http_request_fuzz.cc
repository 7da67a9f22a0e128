// Any bytes as HTTP requests, whole and cut in two at a place the input chooses (the answers must
// agree); bodies that parse go on through OpenAI's formats.

#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>

#include "server/http/http_parser.h"
#include "server/openai_request.h"

namespace {

using polyad::HttpParser;

struct Outcome {
  HttpParser::Result result;
  int error_status = 0;
  std::string method;
  std::string body;
  friend bool operator==(const Outcome&, const Outcome&) = default;
};

polyad::HttpLimits SmallLimits() {
  polyad::HttpLimits limits;
  limits.max_head_bytes = 512;
  limits.max_body_bytes = 1024;
  limits.max_fields = 8;
  return limits;
}

Outcome ParseInPieces(std::string_view bytes, size_t cut) {
  HttpParser parser(SmallLimits());
  HttpParser::Result result = HttpParser::Result::kNeedMore;
  for (const std::string_view piece : {bytes.substr(0, cut), bytes.substr(cut)}) {
    if (result != HttpParser::Result::kNeedMore) break;
    parser.Append(piece);
    result = parser.Parse();
  }
  if (parser.buffered_bytes() > bytes.size()) std::abort();
  return {result, result == HttpParser::Result::kError ? parser.error_status() : 0,
          parser.request().method,
          result == HttpParser::Result::kDone ? parser.request().body : std::string()};
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  const std::string_view bytes(reinterpret_cast<const char*>(data) + 1, size - 1);
  const size_t cut = bytes.empty() ? 0 : data[0] % (bytes.size() + 1);
  const Outcome whole = ParseInPieces(bytes, bytes.size());
  const Outcome pieces = ParseInPieces(bytes, cut);
  if (whole.result == HttpParser::Result::kDone && !(whole == pieces)) std::abort();
  (void)polyad::ParseOpenAiRequest(polyad::OpenAiKind::kCompletion, bytes);
  (void)polyad::ParseOpenAiRequest(polyad::OpenAiKind::kChat, bytes);
  return 0;
}
