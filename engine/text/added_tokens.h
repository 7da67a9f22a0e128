#pragma once

// Added tokens: texts that are one token wherever they stand, found before anything else looks at
// the text. This is the one place where control tokens can come from text, so it is here that
// provenance decides: a match needs all its bytes to be the server's own, unless the token is a run
// of white space that is not special. Leftmost, then longest. Immutable; any thread; time linear in
// the text (a trie). Source: tokenizers 0.2x src/tokenizer/added_vocabulary.rs.

#include <bitset>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "engine/base/status.h"
#include "engine/text/marked_text.h"

namespace polyad {

struct AddedToken {
  int32_t id = 0;
  std::string content = {};
  bool single_word = false;
  bool lstrip = false;
  bool rstrip = false;
  bool normalized = false;
  bool special = false;
};

inline constexpr size_t kMaxAddedTokens = 100'000;
inline constexpr size_t kMaxAddedTokenBytes = 512;
inline constexpr size_t kMaxAddedTokensBytes = size_t{4} << 20;

class AddedTokenMatcher {
 public:
  // A part of the text: a token (id >= 0), or text between tokens.
  struct Part {
    size_t begin = 0;
    size_t end = 0;
    int32_t id = -1;
  };

  // Takes the tokens' `content` as the texts to find; an empty one never matches.
  static StatusOr<AddedTokenMatcher> Make(std::vector<AddedToken> tokens);
  bool empty() const { return tokens_.empty(); }

  std::vector<Part> Split(const MarkedText& text) const;

 private:
  struct Node {
    uint32_t first_child = 0;  // 0: none, the root is no child
    uint32_t next_sibling = 0;
    int32_t token = -1;
    char byte = 0;
  };

  void Insert(const AddedToken& token, int32_t index);
  uint32_t FindChild(uint32_t node, char byte) const;
  int32_t LongestMatch(const MarkedText& text, size_t begin) const;
  bool MayMatch(const AddedToken& token, const MarkedText& text, size_t begin) const;

  std::vector<AddedToken> tokens_;
  std::vector<bool> is_space_;  // per token: recognised in a user's text too
  std::vector<Node> nodes_;
  std::bitset<256> first_bytes_;
};

}  // namespace polyad
