#pragma once

// Byte-pair encoding of one piece: the characters, then always the pair with the lowest rank,
// leftmost first. A heap over a linked list, so n characters cost n log n whatever they are. Serves
// byte-level vocabularies, SentencePiece's with byte fallback, and SentencePiece scores (turned
// into ranks). Immutable; any thread. Source: Sennrich et al. 2016; ties and unknown characters as
// in tokenizers 0.2x src/models/bpe.

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "engine/base/status.h"

namespace polyad {

inline constexpr size_t kMaxVocab = size_t{1} << 20;
inline constexpr size_t kMaxMerges = size_t{2} << 20;
inline constexpr size_t kMaxTokenBytes = 4096;

struct BpeData {
  std::vector<std::pair<std::string, int32_t>> vocab;
  std::vector<std::pair<std::string, std::string>> merges;  // by rank
  std::vector<int32_t>
      never_merged;  // special tokens: neither a merge nor a whole piece may become one
  std::optional<std::string> unk_token;
  bool fuse_unk = false;
  bool byte_fallback = false;
  bool ignore_merges = false;  // a piece that is a token is that token, whatever the merges say
};

class BpeModel {
 public:
  static StatusOr<std::unique_ptr<BpeModel>> Make(BpeData data);
  ~BpeModel();
  BpeModel(const BpeModel&) = delete;
  BpeModel& operator=(const BpeModel&) = delete;

  // Appends the ids of one piece of valid UTF-8.
  void Encode(std::string_view piece, std::vector<int32_t>* ids) const;

  std::optional<int32_t> TokenToId(std::string_view token) const;

 private:
  struct Tables;
  struct Symbol;
  explicit BpeModel(std::unique_ptr<const Tables> tables);
  void AddSymbols(std::string_view piece, std::vector<Symbol>* symbols) const;
  bool AddBytes(std::string_view character, std::vector<Symbol>* symbols) const;
  void Merge(std::vector<Symbol>* symbols) const;
  std::unique_ptr<const Tables> tables_;
};

// The merges that a vocabulary with scores implies: every way to cut a token into two tokens, best
// score first, then the longer left part (the order of transformers' SentencePiece conversion).
// `mergeable[i]` says which tokens count.
StatusOr<std::vector<std::pair<std::string, std::string>>> MergesFromScores(
    const std::vector<std::string>& tokens, const std::vector<float>& scores,
    const std::vector<bool>& mergeable);

}  // namespace polyad
