#pragma once

// Text to token ids and back, as Hugging Face `tokenizers` 0.2x defines it (the files it writes are
// the format). A Tokenizer is const and thread-safe once made; requests call it on their own
// threads. Text is UTF-8; bytes that are not are read as U+FFFD. Errors: INVALID_ARGUMENT for text
// over kMaxEncodeBytes, UNIMPLEMENTED for a component that we do not know, by its name. A merge
// never yields a special token: only the server's own text can.

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "engine/base/status.h"
#include "engine/text/decoder_plan.h"

namespace polyad {

// One call's text at most: four bytes for each of a million positions.
inline constexpr size_t kMaxEncodeBytes = size_t{4} << 20;

// A run of text and whose it is. Only text that is not from_user may name control tokens.
struct TextSegment {
  std::string text;
  bool from_user = true;
  bool operator==(const TextSegment&) const = default;
};

class Tokenizer {
 public:
  virtual ~Tokenizer() = default;

  // add_special: BOS/EOS as the model's post-processor says. parse_special: whether the texts of
  // added and special tokens inside `text` are those tokens; only for text that the server made.
  // Without it, an added token is recognised only when it is a run of white space and not special
  // (such a token controls nothing).
  struct EncodeOptions {
    bool add_special = true;
    bool parse_special = false;
  };
  virtual StatusOr<std::vector<int32_t>> Encode(std::string_view text,
                                                const EncodeOptions& options) const = 0;

  // Encodes the segments as the one text they make together (a word may straddle a border), but
  // recognises control tokens only where every byte is the server's own.
  virtual StatusOr<std::vector<int32_t>> EncodeSegments(std::span<const TextSegment> segments,
                                                        bool add_special) const = 0;

  // The token as the vocabulary spells it, and the bytes it stands for; empty for an id without a
  // token.
  virtual std::string_view TokenText(int32_t id) const = 0;
  virtual std::string_view TokenBytes(int32_t id) const = 0;

  // One past the largest id.
  virtual int64_t vocab_size() const = 0;
  virtual bool IsSpecial(int32_t id) const = 0;
  virtual std::optional<int32_t> bos() const = 0;
  virtual std::optional<int32_t> eos() const = 0;
  virtual std::optional<int32_t> TokenToId(std::string_view token) const = 0;

  // How a sequence of token texts becomes text (detokenizer.h runs it).
  virtual const DecoderPlan& decoder() const = 0;
};

}  // namespace polyad
