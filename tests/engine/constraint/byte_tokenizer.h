#pragma once

// A tokenizer whose first 256 tokens are the bytes, then some longer ones, then a special end. For
// tests of constraints, which see nothing of a token but its bytes.

#include <string>
#include <vector>

#include "engine/base/check.h"
#include "engine/constraint/constraint.h"
#include "engine/text/tokenizer.h"

namespace polyad {

class ByteTokenizer final : public Tokenizer {
 public:
  ByteTokenizer() {
    for (int byte = 0; byte < 256; ++byte) tokens_.emplace_back(1, static_cast<char>(byte));
    for (const char* token :
         {"\"}", "\":",  "\",",      "\", \"", "{\"",      "[]",   "],",  "}}",
          "  ",  "\n  ", "true",     "false",  "null",     "12",   "00",  "2024",
          "ab",  "abc",  "\xC3\xA9", "a\xE2",  "\x82\xAC", "name", "age", "<end>"}) {
      tokens_.emplace_back(token);
    }
  }
  int32_t end() const { return static_cast<int32_t>(tokens_.size()) - 1; }

  StatusOr<std::vector<int32_t>> Encode(std::string_view text,
                                        const EncodeOptions&) const override {
    std::vector<int32_t> ids;
    for (const char c : text) ids.push_back(static_cast<uint8_t>(c));
    return ids;
  }
  StatusOr<std::vector<int32_t>> EncodeSegments(std::span<const TextSegment>, bool) const override {
    return Unimplemented("segments");
  }
  std::string_view TokenText(int32_t id) const override { return TokenBytes(id); }
  std::string_view TokenBytes(int32_t id) const override {
    return tokens_[static_cast<size_t>(id)];
  }
  int64_t vocab_size() const override { return static_cast<int64_t>(tokens_.size()); }
  bool IsSpecial(int32_t id) const override { return id == end(); }
  std::optional<int32_t> bos() const override { return std::nullopt; }
  std::optional<int32_t> eos() const override { return end(); }
  std::optional<int32_t> TokenToId(std::string_view) const override { return std::nullopt; }
  const DecoderPlan& decoder() const override { return plan_; }

 private:
  DecoderPlan plan_;
  std::vector<std::string> tokens_;
};

inline std::shared_ptr<const TokenTrie> ByteTrie() {
  static const auto& tokenizer = *new ByteTokenizer();
  static const auto& trie = *new std::shared_ptr<const TokenTrie>(
      std::make_shared<TokenTrie>(tokenizer, tokenizer.vocab_size()));
  return trie;
}

inline StatusOr<std::shared_ptr<Constraint>> CompileText(ConstraintSpec::Kind kind,
                                                         std::string text) {
  ConstraintSpec spec;
  spec.kind = kind;
  spec.text = std::move(text);
  return Constraint::Compile(spec, ByteTrie());
}

// Whether the whole text, byte by byte, is one that the constraint accepts.
inline bool Takes(Constraint& constraint, std::string_view text) {
  ConstraintState state;
  std::vector<int32_t> output;
  for (const char c : text) {
    const StatusOr<std::span<const uint64_t>> mask = constraint.Mask(output, state);
    POLYAD_CHECK(mask.ok(), "a small constraint stays within its limits");
    const auto byte = static_cast<uint8_t>(c);
    if (((*mask)[byte / 64] >> (byte % 64) & 1) == 0) return false;
    output.push_back(byte);
    constraint.Advance(output, state);
  }
  return constraint.Accepts(state);
}

}  // namespace polyad
