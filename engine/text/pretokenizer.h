#pragma once

// Pre-tokenisation: cutting normalised text into the pieces that merges never cross. A list of
// steps, each of which cuts or rewrites every piece of the step before. Immutable; any thread; time
// linear in the text for the published patterns. Source: tokenizers 0.2x src/pre_tokenizers and
// NormalizedString::split.

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "engine/base/status.h"
#include "engine/text/split_regex.h"

namespace polyad {

enum class SplitBehavior { kRemoved, kIsolated, kMergedWithPrevious, kMergedWithNext, kContiguous };

struct PreTokenizerStep {
  enum class Kind {
    kRegex,
    kLiteral,
    kDigits,
    kPunctuation,
    kWhitespaceSplit,
    kByteLevel,
    kMetaspace
  };
  enum class Prepend { kAlways, kFirst, kNever };
  Kind kind = Kind::kByteLevel;
  SplitBehavior behavior = SplitBehavior::kIsolated;
  bool invert = false;  // kRegex, kLiteral: what lies between the matches counts as the match
  std::vector<SplitRegex> regex =
      {};                    // kRegex: one; kByteLevel: one, or none to map bytes without cutting
  std::string literal = {};  // kLiteral; kMetaspace: the character that replaces a space
  bool add_prefix_space = false;       // kByteLevel
  Prepend prepend = Prepend::kAlways;  // kMetaspace
  bool split = true;                   // kMetaspace
};

// The pieces are ranges of one text. A piece is `at_start` if it begins where the whole request's
// text begins.
struct Pieces {
  struct Piece {
    uint32_t begin = 0;
    uint32_t end = 0;
    bool at_start = false;
  };
  std::string text;
  std::vector<Piece> pieces;
};

class PreTokenizer {
 public:
  PreTokenizer() = default;
  explicit PreTokenizer(std::vector<PreTokenizerStep> steps) : steps_(std::move(steps)) {}

  // `text` must be valid UTF-8. Empty pieces are dropped.
  StatusOr<Pieces> Split(std::string text, bool at_start) const;

 private:
  std::vector<PreTokenizerStep> steps_;
};

}  // namespace polyad
