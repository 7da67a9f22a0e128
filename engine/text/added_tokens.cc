#include "engine/text/added_tokens.h"

#include <algorithm>
#include <utility>

#include "engine/text/utf8.h"

namespace polyad {

namespace {

bool IsAllSpace(std::string_view text) {
  for (size_t at = 0; at < text.size();) {
    const Utf8Step step = StepUtf8(text.substr(at));
    if (!IsUnicodeSpace(step.value)) return false;
    at += static_cast<size_t>(step.length);
  }
  return true;
}

// A token that must be a single word may touch no word character.
bool StandsAlone(std::string_view text, size_t begin, size_t end) {
  const bool word_before =
      begin > 0 && IsWordChar(StepUtf8(text.substr(PreviousUtf8(text, begin))).value);
  const bool word_after = end < text.size() && IsWordChar(StepUtf8(text.substr(end)).value);
  return !word_before && !word_after;
}

size_t SpacesBefore(std::string_view text, size_t begin, size_t floor) {
  while (begin > floor) {
    const size_t previous = PreviousUtf8(text, begin);
    if (!IsUnicodeSpace(StepUtf8(text.substr(previous)).value)) break;
    begin = previous;
  }
  return std::max(begin, floor);
}

size_t SpacesAfter(std::string_view text, size_t end) {
  while (end < text.size()) {
    const Utf8Step step = StepUtf8(text.substr(end));
    if (!IsUnicodeSpace(step.value)) break;
    end += static_cast<size_t>(step.length);
  }
  return end;
}

}  // namespace

StatusOr<AddedTokenMatcher> AddedTokenMatcher::Make(std::vector<AddedToken> tokens) {
  if (tokens.size() > kMaxAddedTokens) {
    return InvalidArgument("added tokens: at most %d, got %d", kMaxAddedTokens, tokens.size());
  }
  AddedTokenMatcher matcher;
  matcher.nodes_.emplace_back();
  size_t total = 0;
  for (const AddedToken& token : tokens) {
    total += token.content.size();
    if (token.content.size() > kMaxAddedTokenBytes || total > kMaxAddedTokensBytes) {
      return InvalidArgument("added token %d: at most %d bytes each and %d in all", token.id,
                             kMaxAddedTokenBytes, kMaxAddedTokensBytes);
    }
    matcher.is_space_.push_back(!token.special && IsAllSpace(token.content));
  }
  matcher.tokens_ = std::move(tokens);
  for (size_t i = 0; i < matcher.tokens_.size(); ++i) {
    matcher.Insert(matcher.tokens_[i], static_cast<int32_t>(i));
  }
  return matcher;
}

void AddedTokenMatcher::Insert(const AddedToken& token, int32_t index) {
  if (token.content.empty()) return;
  first_bytes_.set(static_cast<unsigned char>(token.content[0]));
  uint32_t node = 0;
  for (const char byte : token.content) {
    uint32_t child = FindChild(node, byte);
    if (child == 0) {
      child = static_cast<uint32_t>(nodes_.size());
      nodes_.push_back({.next_sibling = nodes_[node].first_child, .byte = byte});
      nodes_[node].first_child = child;
    }
    node = child;
  }
  if (nodes_[node].token < 0) nodes_[node].token = index;  // of two with one text, the first stands
}

uint32_t AddedTokenMatcher::FindChild(uint32_t node, char byte) const {
  uint32_t child = nodes_[node].first_child;
  while (child != 0 && nodes_[child].byte != byte)
    child = nodes_[child].next_sibling;  // at most 256 siblings
  return child;
}

bool AddedTokenMatcher::MayMatch(const AddedToken& token, const MarkedText& text,
                                 size_t begin) const {
  return !text.AnyUser(begin, begin + token.content.size());
}

int32_t AddedTokenMatcher::LongestMatch(const MarkedText& text, size_t begin) const {
  int32_t best = -1;
  uint32_t node = 0;
  for (size_t at = begin; at < text.text.size(); ++at) {
    node = FindChild(node, text.text[at]);
    if (node == 0) break;
    const int32_t token = nodes_[node].token;
    if (token < 0) continue;
    const auto index = static_cast<size_t>(token);
    if (is_space_[index] || MayMatch(tokens_[index], text, begin)) best = token;
  }
  return best;
}

std::vector<AddedTokenMatcher::Part> AddedTokenMatcher::Split(const MarkedText& text) const {
  std::vector<Part> parts;
  size_t covered = 0;  // everything before is in a part
  size_t at = 0;
  while (at < text.text.size()) {
    const int32_t match =
        first_bytes_.test(static_cast<unsigned char>(text.text[at])) ? LongestMatch(text, at) : -1;
    if (match < 0) {
      ++at;
      continue;
    }
    const AddedToken& token = tokens_[static_cast<size_t>(match)];
    size_t begin = at;
    size_t end = at + token.content.size();
    at = end;
    if (token.single_word && !StandsAlone(text.text, begin, end)) continue;
    if (token.lstrip) begin = SpacesBefore(text.text, begin, covered);
    if (token.rstrip) end = SpacesAfter(text.text, end);
    if (covered < begin) parts.push_back({covered, begin, -1});
    parts.push_back({begin, end, token.id});
    covered = end;
  }
  if (covered < text.text.size()) parts.push_back({covered, text.text.size(), -1});
  return parts;
}

}  // namespace polyad
