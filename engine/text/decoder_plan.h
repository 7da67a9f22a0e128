#pragma once

// How token texts become text, as data: the stages of a tokenizer.json "decoder", in order. The
// plan is checked when it is made; detokenizer.h runs it token by token. Immutable after creation.
// Source: tokenizers 0.2x, src/decoders.

#include <string>
#include <vector>

#include "engine/base/status.h"

namespace polyad {

struct DecoderStage {
  enum class Kind {
    kByteLevel,     // every character is a byte of the GPT-2 alphabet; the bytes are read as UTF-8
    kByteFallback,  // tokens <0xHH> are bytes; a run of them is UTF-8 or one U+FFFD each
    kFuse,          // the tokens so far become one
    kStrip,      // up to `start` leading and `stop` trailing characters equal to `from` are dropped
    kReplace,    // `from` becomes `to`
    kMetaspace,  // `from` becomes a space, or nothing in the first token if `drop_first`
    kJoinSpace,  // no decoder at all: the tokens are joined by spaces
  };
  Kind kind = Kind::kFuse;
  std::string from = {};
  std::string to = {};
  int start = 0;
  int stop = 0;
  bool drop_first = false;
  // Set by MakeDecoderPlan: the stage sees pieces of one token, not tokens.
  bool fused = false;
};

struct DecoderPlan {
  std::vector<DecoderStage> stages;
};

// Fills in `fused` and refuses orders of stages that cannot run token by token.
StatusOr<DecoderPlan> MakeDecoderPlan(std::vector<DecoderStage> stages);

}  // namespace polyad
