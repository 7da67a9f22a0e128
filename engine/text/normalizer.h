#pragma once

// The normalizers of tokenizer.json: a list of steps over marked text. Marks follow the bytes; a
// character composed of the server's and a user's parts is the user's. Immutable; any thread; time
// linear in the text (canonical ordering sorts, so that runs of combining marks cost n log n).
// Source: tokenizers 0.2x src/normalizers, UAX #15.

#include <string>
#include <vector>

#include "engine/base/status.h"
#include "engine/text/marked_text.h"
#include "engine/text/split_regex.h"

namespace polyad {

struct NormalizerStep {
  enum class Kind {
    kNfc,
    kNfd,
    kNfkc,
    kNfkd,
    kLowercase,
    kPrepend,
    kReplace,
    kReplaceRegex,
    kStrip
  };
  Kind kind = Kind::kNfc;
  std::string from = {};               // kReplace
  std::string to = {};                 // kReplace*, kPrepend
  std::vector<SplitRegex> regex = {};  // kReplaceRegex: exactly one
  bool left = true, right = true;      // kStrip
};

// An encoded text may grow by this factor at most (a Replace of a space by a page is refused, not
// run).
inline constexpr size_t kMaxNormalizerGrowth = 16;

class Normalizer {
 public:
  Normalizer() = default;
  explicit Normalizer(std::vector<NormalizerStep> steps) : steps_(std::move(steps)) {}
  bool empty() const { return steps_.empty(); }
  StatusOr<MarkedText> Normalize(MarkedText text) const;

 private:
  std::vector<NormalizerStep> steps_;
};

}  // namespace polyad
