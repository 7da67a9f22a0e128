#pragma once

// A tokenizer small enough to know by heart: token 0 is special and ends a text, token i is one
// character. For tests of the engine, which never look inside text.

#include <string>

#include "engine/base/check.h"
#include "engine/text/tokenizer.h"

namespace polyad {

inline constexpr int64_t kFakeVocab = 32;

class FakeTokenizer final : public Tokenizer {
 public:
  FakeTokenizer() {
    plan_.stages.push_back({.kind = DecoderStage::Kind::kFuse});
    StatusOr<DecoderPlan> checked = MakeDecoderPlan(plan_.stages);
    POLYAD_CHECK(checked.ok(), "the fake's decoder is a valid one");
    plan_ = *std::move(checked);
    for (int64_t id = 0; id < kFakeVocab; ++id) {
      texts_.push_back(id == 0 ? "<end>" : std::string(1, static_cast<char>('`' + id)));
    }
  }

  StatusOr<std::vector<int32_t>> Encode(std::string_view text,
                                        const EncodeOptions&) const override {
    std::vector<int32_t> ids;
    for (const char c : text) {
      const int32_t id = c - '`';
      if (id < 1 || id >= kFakeVocab) return InvalidArgument("text: no token for %c", c);
      ids.push_back(id);
    }
    return ids;
  }
  StatusOr<std::vector<int32_t>> EncodeSegments(std::span<const TextSegment> segments,
                                                bool) const override {
    std::string text;
    for (const TextSegment& segment : segments) text += segment.text;
    return Encode(text, {});
  }
  std::string_view TokenText(int32_t id) const override { return texts_[static_cast<size_t>(id)]; }
  std::string_view TokenBytes(int32_t id) const override { return TokenText(id); }
  int64_t vocab_size() const override { return kFakeVocab; }
  bool IsSpecial(int32_t id) const override { return id == 0; }
  std::optional<int32_t> bos() const override { return std::nullopt; }
  std::optional<int32_t> eos() const override { return 0; }
  std::optional<int32_t> TokenToId(std::string_view) const override { return std::nullopt; }
  const DecoderPlan& decoder() const override { return plan_; }

 private:
  DecoderPlan plan_;
  std::vector<std::string> texts_;
};

}  // namespace polyad
