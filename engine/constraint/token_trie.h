#pragma once

// A tokenizer's vocabulary as a trie of the tokens' bytes, flat and in preorder, so that walking it
// reads memory forwards and skips a subtree by one jump. Control tokens and tokens without bytes
// are left out: no text can bring them. Made once for a tokenizer, immutable, any thread.

#include <cstdint>
#include <span>
#include <vector>

#include "engine/constraint/grammar.h"
#include "engine/text/tokenizer.h"

namespace polyad {

class TokenTrie {
 public:
  struct Node {
    uint8_t byte = 0;
    int32_t depth = 0;       // 1: the first byte of a token
    int32_t skip_to = 0;     // the node behind its subtree
    int32_t tokens_end = 0;  // its tokens end there in tokens(), the node before's begin it
  };

  // Ids from `vocab_size` (of the logits) on are left out.
  TokenTrie(const Tokenizer& tokenizer, int64_t vocab_size);

  std::span<const Node> nodes() const { return nodes_; }
  std::span<const int32_t> tokens() const { return tokens_; }
  int32_t max_depth() const { return max_depth_; }
  int64_t vocab_size() const { return vocab_size_; }
  // Bytes that are a token by themselves.
  const ByteSet& single_bytes() const { return single_bytes_; }
  // The bytes of a token in the trie; empty for others.
  std::string_view BytesOf(int32_t token) const;

 private:
  const Tokenizer& tokenizer_;
  const int64_t vocab_size_;
  std::vector<Node> nodes_;
  std::vector<int32_t> tokens_;
  ByteSet single_bytes_;
  int32_t max_depth_ = 0;
};

}  // namespace polyad
