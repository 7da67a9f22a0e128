#include "engine/text/detokenizer.h"

#include <utility>

#include "engine/text/byte_alphabet.h"
#include "engine/text/pipeline_tokenizer.h"
#include "engine/text/utf8.h"

namespace polyad {

namespace {

using Kind = DecoderStage::Kind;

// Drops up to `start` leading and `stop` trailing characters equal to `character`.
std::string_view StripToken(std::string_view token, std::string_view character, int start,
                            int stop) {
  while (start-- > 0 && token.starts_with(character)) token.remove_prefix(character.size());
  while (stop-- > 0 && token.ends_with(character)) token.remove_suffix(character.size());
  return token;
}

std::string ReplaceIn(std::string_view text, std::string_view from, std::string_view to) {
  std::string out;
  size_t at = 0;
  for (size_t found = text.find(from); found != std::string_view::npos;
       found = text.find(from, at)) {
    out += text.substr(at, found - at);
    out += to;
    at = found + from.size();
  }
  out += text.substr(at);
  return out;
}

}  // namespace

StreamDetokenizer::StreamDetokenizer(const Tokenizer& tokenizer, bool skip_special_tokens)
    : tokenizer_(tokenizer),
      plan_(tokenizer.decoder()),
      skip_special_tokens_(skip_special_tokens),
      states_(plan_.stages.size()) {}

std::string StreamDetokenizer::Push(int32_t id) {
  const std::string_view token = tokenizer_.TokenText(id);
  if (!token.empty() && !(skip_special_tokens_ && tokenizer_.IsSpecial(id))) Feed(0, token);
  return std::exchange(ready_, {});
}

std::string StreamDetokenizer::Flush() {
  for (size_t i = 0; i < plan_.stages.size(); ++i) FlushStage(i);
  return std::exchange(ready_, {});
}

void StreamDetokenizer::Feed(size_t stage_index, std::string_view token) {
  if (stage_index == plan_.stages.size()) {
    ready_ += token;
    return;
  }
  const DecoderStage& stage = plan_.stages[stage_index];
  switch (stage.kind) {
    case Kind::kByteLevel:
      return FeedBytes(stage_index, token);
    case Kind::kByteFallback:
      return FeedFallback(stage_index, token);
    case Kind::kFuse:
      return Feed(stage_index + 1, token);
    case Kind::kStrip:
      return FeedStrip(stage_index, token);
    case Kind::kReplace:
      return Feed(stage_index + 1, ReplaceIn(token, stage.from, stage.to));
    case Kind::kMetaspace:
      return FeedMetaspace(stage_index, token);
    case Kind::kJoinSpace:
      if (std::exchange(states_[stage_index].started, true)) Feed(stage_index + 1, " ");
      return Feed(stage_index + 1, token);
  }
}

// The bytes so far, as far as they are whole characters or can never become one.
void StreamDetokenizer::FeedBytes(size_t stage_index, std::string_view token) {
  std::string& held = states_[stage_index].held;
  held += AlphabetToBytes(token);
  std::string text;
  std::string_view rest = held;
  while (!rest.empty()) {
    const Utf8Step step = StepUtf8(rest);
    if (step.incomplete) break;
    text += step.valid ? rest.substr(0, static_cast<size_t>(step.length)) : kReplacementUtf8;
    rest.remove_prefix(static_cast<size_t>(step.length));
  }
  held = std::string(rest);
  if (!text.empty()) Feed(stage_index + 1, text);
}

void StreamDetokenizer::FeedFallback(size_t stage_index, std::string_view token) {
  if (const std::optional<unsigned char> byte = ByteOfFallbackToken(token)) {
    states_[stage_index].held.push_back(static_cast<char>(*byte));
    return;
  }
  FlushFallback(stage_index);
  Feed(stage_index + 1, token);
}

void StreamDetokenizer::FlushFallback(size_t stage_index) {
  const std::string bytes = std::exchange(states_[stage_index].held, {});
  if (bytes.empty()) return;
  if (IsValidUtf8(bytes)) return Feed(stage_index + 1, bytes);
  for (size_t i = 0; i < bytes.size(); ++i) Feed(stage_index + 1, kReplacementUtf8);
}

void StreamDetokenizer::FeedStrip(size_t stage_index, std::string_view token) {
  const DecoderStage& stage = plan_.stages[stage_index];
  if (!stage.fused)
    return Feed(stage_index + 1, StripToken(token, stage.from, stage.start, stage.stop));
  StageState& state = states_[stage_index];
  while (!state.done_stripping && !token.empty()) {
    state.done_stripping = state.stripped == stage.start || !token.starts_with(stage.from);
    if (state.done_stripping) break;
    token.remove_prefix(stage.from.size());
    ++state.stripped;
  }
  // The last `stop` characters go if nothing follows them.
  std::string text = std::exchange(state.held, {});
  text += token;
  const std::string_view certain = StripToken(text, stage.from, 0, stage.stop);
  state.held = text.substr(certain.size());
  if (!certain.empty()) Feed(stage_index + 1, certain);
}

void StreamDetokenizer::FeedMetaspace(size_t stage_index, std::string_view token) {
  const DecoderStage& stage = plan_.stages[stage_index];
  StageState& state = states_[stage_index];
  const bool first = stage.fused || !state.started;
  state.started = true;
  Feed(stage_index + 1, ReplaceIn(token, stage.from, first && stage.drop_first ? "" : " "));
}

void StreamDetokenizer::FlushStage(size_t stage_index) {
  const Kind kind = plan_.stages[stage_index].kind;
  if (kind == Kind::kByteFallback) FlushFallback(stage_index);
  if (kind == Kind::kByteLevel && !states_[stage_index].held.empty()) {
    states_[stage_index].held.clear();
    Feed(stage_index + 1, kReplacementUtf8);  // a sequence cut short is one maximal subpart
  }
}

std::string Decode(const Tokenizer& tokenizer, std::span<const int32_t> ids,
                   bool skip_special_tokens) {
  StreamDetokenizer stream(tokenizer, skip_special_tokens);
  std::string text;
  for (const int32_t id : ids) text += stream.Push(id);
  return text + stream.Flush();
}

}  // namespace polyad
