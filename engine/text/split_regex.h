#pragma once

// A pre-tokeniser's regular expression: PCRE2 with its JIT, made to read patterns as Oniguruma
// (which tokenizers uses) does. User text meets a backtracking engine here, so every match has
// match, depth and heap limits. Immutable after Compile; FindAll may be called from any thread.
// Offsets are bytes of valid UTF-8.

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "engine/base/status.h"

namespace polyad {

struct ByteRange {
  uint32_t begin = 0;
  uint32_t end = 0;
};

class SplitRegex {
 public:
  // INVALID_ARGUMENT if the pattern does not compile, UNIMPLEMENTED for syntax that means different
  // things in the two engines and that no published tokenizer needs.
  static StatusOr<SplitRegex> Compile(std::string_view pattern);

  // Appends every leftmost non-overlapping match, in order; empty matches separate but match
  // nothing. RESOURCE_EXHAUSTED if the text drives the pattern past its limits.
  Status FindAll(std::string_view subject, std::vector<ByteRange>* matches) const;

 private:
  struct Code;
  explicit SplitRegex(std::shared_ptr<const Code> code) : code_(std::move(code)) {}
  std::shared_ptr<const Code> code_;
};

}  // namespace polyad
