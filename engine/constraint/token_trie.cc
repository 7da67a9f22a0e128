#include "engine/constraint/token_trie.h"

#include <algorithm>
#include <string_view>
#include <utility>

namespace polyad {

TokenTrie::TokenTrie(const Tokenizer& tokenizer, int64_t vocab_size)
    : tokenizer_(tokenizer), vocab_size_(vocab_size) {
  std::vector<std::pair<std::string_view, int32_t>> sorted;
  const int64_t end = std::min(vocab_size, tokenizer.vocab_size());
  for (int32_t id = 0; id < end; ++id) {
    const std::string_view bytes = BytesOf(id);
    if (bytes.empty()) continue;
    sorted.emplace_back(bytes, id);
    if (bytes.size() == 1) single_bytes_.set(static_cast<uint8_t>(bytes[0]));
  }
  std::sort(sorted.begin(), sorted.end());
  std::vector<int32_t> path;  // the nodes of the token before, by depth
  std::string_view before;
  const auto close_to = [&](size_t depth) {
    for (; path.size() > depth; path.pop_back()) {
      nodes_[static_cast<size_t>(path.back())].skip_to = static_cast<int32_t>(nodes_.size());
    }
  };
  for (const auto& [bytes, id] : sorted) {
    const size_t shared = static_cast<size_t>(
        std::mismatch(bytes.begin(), bytes.end(), before.begin(), before.end()).first -
        bytes.begin());
    close_to(shared);
    for (size_t i = shared; i < bytes.size(); ++i) {
      path.push_back(static_cast<int32_t>(nodes_.size()));
      nodes_.push_back({static_cast<uint8_t>(bytes[i]), static_cast<int32_t>(i + 1), 0,
                        static_cast<int32_t>(tokens_.size())});
    }
    tokens_.push_back(id);
    nodes_.back().tokens_end = static_cast<int32_t>(tokens_.size());
    max_depth_ = std::max(max_depth_, static_cast<int32_t>(bytes.size()));
    before = bytes;
  }
  close_to(0);
}

std::string_view TokenTrie::BytesOf(int32_t token) const {
  if (token < 0 || token >= std::min(vocab_size_, tokenizer_.vocab_size())) return {};
  return tokenizer_.IsSpecial(token) ? std::string_view() : tokenizer_.TokenBytes(token);
}

}  // namespace polyad
