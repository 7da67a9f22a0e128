#include "engine/text/bpe_model.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <queue>

#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "engine/text/utf8.h"

namespace polyad {

namespace {

constexpr int32_t kNone = -1;
constexpr size_t kNumDirectChars =
    0x400;  // Latin, Greek and the byte alphabet: looked up without hashing

constexpr size_t kMaxScoredTokenBytes = 256;  // its cuts cost the square of its length

struct MergeTarget {
  int32_t rank = 0;
  int32_t id = 0;
};

struct Candidate {
  int32_t rank;
  int32_t position;
  int32_t id;
  // Inverted, because std::priority_queue yields the largest.
  bool operator<(const Candidate& other) const {
    return rank != other.rank ? rank > other.rank : position > other.position;
  }
};

uint64_t PairKey(int32_t left, int32_t right) {
  return (static_cast<uint64_t>(static_cast<uint32_t>(left)) << 32) | static_cast<uint32_t>(right);
}

}  // namespace

struct BpeModel::Symbol {
  int32_t id = kNone;  // kNone once merged into its left neighbour
  int32_t previous = kNone;
  int32_t next = kNone;
};

struct BpeModel::Tables {
  std::vector<std::string> texts;  // owns what `ids` points at
  absl::flat_hash_map<std::string_view, int32_t> ids;
  absl::flat_hash_map<uint64_t, MergeTarget> merges;
  absl::flat_hash_set<int32_t> never_merged;
  std::array<int32_t, kNumDirectChars> direct{};
  std::array<int32_t, 256> byte_ids{};
  int32_t unk_id = kNone;
  bool fuse_unk = false;
  bool byte_fallback = false;
  bool ignore_merges = false;

  int32_t Find(std::string_view text) const {
    const auto found = ids.find(text);
    return found == ids.end() ? kNone : found->second;
  }
  Status AddVocab(std::vector<std::pair<std::string, int32_t>> vocab);
  Status AddMerges(const std::vector<std::pair<std::string, std::string>>& pairs);
  void AddCharacters();
};

BpeModel::BpeModel(std::unique_ptr<const Tables> tables) : tables_(std::move(tables)) {}
BpeModel::~BpeModel() = default;

Status BpeModel::Tables::AddVocab(std::vector<std::pair<std::string, int32_t>> vocab) {
  if (vocab.size() > kMaxVocab)
    return InvalidArgument("vocab: at most %d tokens, got %d", kMaxVocab, vocab.size());
  texts.reserve(vocab.size());
  ids.reserve(vocab.size());
  for (auto& [text, id] : vocab) {
    if (id < 0 || static_cast<size_t>(id) >= kMaxVocab) {
      return InvalidArgument("vocab: token \"%s\": expected an id below %d, got %d", text,
                             kMaxVocab, id);
    }
    if (text.size() > kMaxTokenBytes) {
      return InvalidArgument("vocab: token %d: at most %d bytes, got %d", id, kMaxTokenBytes,
                             text.size());
    }
    texts.push_back(std::move(text));
    ids.insert_or_assign(std::string_view(texts.back()), id);
  }
  return absl::OkStatus();
}

Status BpeModel::Tables::AddMerges(const std::vector<std::pair<std::string, std::string>>& pairs) {
  if (pairs.size() > kMaxMerges)
    return InvalidArgument("merges: at most %d, got %d", kMaxMerges, pairs.size());
  merges.reserve(pairs.size());
  int32_t rank = 0;
  std::string joined;
  for (const auto& [left, right] : pairs) {
    joined.assign(left);
    joined += right;
    const int32_t left_id = Find(left);
    const int32_t right_id = Find(right);
    const int32_t id = Find(joined);
    if (left_id == kNone || right_id == kNone || id == kNone) {
      return InvalidArgument("merge %d: \"%s\" is not in the vocabulary", rank,
                             left_id == kNone    ? left
                             : right_id == kNone ? right
                                                 : joined);
    }
    if (!never_merged.contains(id))
      merges.insert_or_assign(PairKey(left_id, right_id), MergeTarget{rank, id});
    ++rank;
  }
  return absl::OkStatus();
}

void BpeModel::Tables::AddCharacters() {
  for (size_t value = 0; value < kNumDirectChars; ++value) {
    direct[value] = Find(Utf8FromChar(static_cast<char32_t>(value)));
  }
  for (size_t byte = 0; byte < byte_ids.size(); ++byte) {
    byte_ids[byte] = Find(absl::StrFormat("<0x%02X>", byte));
  }
}

StatusOr<std::unique_ptr<BpeModel>> BpeModel::Make(BpeData data) {
  auto tables = std::make_unique<Tables>();
  tables->never_merged.insert(data.never_merged.begin(), data.never_merged.end());
  tables->fuse_unk = data.fuse_unk;
  tables->byte_fallback = data.byte_fallback;
  tables->ignore_merges = data.ignore_merges;
  POLYAD_RETURN_IF_ERROR(tables->AddVocab(std::move(data.vocab)));
  POLYAD_RETURN_IF_ERROR(tables->AddMerges(data.merges));
  tables->AddCharacters();
  if (data.unk_token.has_value()) {
    tables->unk_id = tables->Find(*data.unk_token);
    if (tables->unk_id == kNone) {
      return InvalidArgument("unk_token \"%s\" is not in the vocabulary", *data.unk_token);
    }
  }
  return std::unique_ptr<BpeModel>(new BpeModel(std::move(tables)));
}

std::optional<int32_t> BpeModel::TokenToId(std::string_view token) const {
  const int32_t id = tables_->Find(token);
  return id == kNone ? std::nullopt : std::optional<int32_t>(id);
}

bool BpeModel::AddBytes(std::string_view character, std::vector<Symbol>* symbols) const {
  for (const char c : character) {
    if (tables_->byte_ids[static_cast<unsigned char>(c)] == kNone) return false;
  }
  for (const char c : character)
    symbols->push_back({.id = tables_->byte_ids[static_cast<unsigned char>(c)]});
  return true;
}

// An unknown character becomes bytes, or the unknown token (a run of them one token if fuse_unk),
// or nothing. As in the original, an unknown run is written only when a known character follows, so
// bytes in between come first.
void BpeModel::AddSymbols(std::string_view piece, std::vector<Symbol>* symbols) const {
  bool pending_unk = false;
  for (size_t at = 0; at < piece.size();) {
    const auto length = static_cast<size_t>(Utf8Length(piece[at]));
    const std::string_view character = piece.substr(at, length);
    at += length;
    const char32_t value = length <= 2 ? StepUtf8(character).value : char32_t{kNumDirectChars};
    const int32_t id = value < kNumDirectChars ? tables_->direct[value] : tables_->Find(character);
    if (id != kNone) {
      if (pending_unk) symbols->push_back({.id = tables_->unk_id});
      pending_unk = false;
      symbols->push_back({.id = id});
      continue;
    }
    if (tables_->byte_fallback && AddBytes(character, symbols)) continue;
    if (tables_->unk_id == kNone) continue;
    if (pending_unk && !tables_->fuse_unk) symbols->push_back({.id = tables_->unk_id});
    pending_unk = true;
  }
  if (pending_unk) symbols->push_back({.id = tables_->unk_id});
}

void BpeModel::Merge(std::vector<Symbol>* symbols_out) const {
  std::vector<Symbol>& symbols = *symbols_out;
  const auto at = [&](int32_t index) -> Symbol& { return symbols[static_cast<size_t>(index)]; };
  const auto find = [&](int32_t left, int32_t right) {
    const auto found = tables_->merges.find(PairKey(at(left).id, at(right).id));
    return found == tables_->merges.end() ? nullptr : &found->second;
  };
  const auto count = static_cast<int32_t>(symbols.size());
  std::vector<Candidate> initial;
  for (int32_t i = 0; i < count; ++i) {
    at(i).previous = i - 1;
    at(i).next = i + 1 < count ? i + 1 : kNone;
    if (i + 1 == count) break;
    if (const MergeTarget* target = find(i, i + 1))
      initial.push_back({target->rank, i, target->id});
  }
  std::priority_queue<Candidate> heap(std::less<Candidate>(), std::move(initial));
  while (!heap.empty()) {
    const Candidate top = heap.top();
    heap.pop();
    if (at(top.position).id == kNone || at(top.position).next == kNone) continue;
    const int32_t right = at(top.position).next;
    const MergeTarget* current = find(top.position, right);
    if (current == nullptr || current->id != top.id) continue;  // the pair has changed since
    at(top.position).id = top.id;
    at(top.position).next = at(right).next;
    at(right).id = kNone;
    if (at(right).next != kNone) at(at(right).next).previous = top.position;
    const int32_t left = at(top.position).previous;
    if (left != kNone) {
      if (const MergeTarget* target = find(left, top.position))
        heap.push({target->rank, left, target->id});
    }
    if (at(top.position).next != kNone) {
      if (const MergeTarget* target = find(top.position, at(top.position).next)) {
        heap.push({target->rank, top.position, target->id});
      }
    }
  }
}

void BpeModel::Encode(std::string_view piece, std::vector<int32_t>* ids) const {
  if (tables_->ignore_merges) {
    const int32_t whole = tables_->Find(piece);
    if (whole != kNone && !tables_->never_merged.contains(whole)) {
      ids->push_back(whole);
      return;
    }
  }
  std::vector<Symbol> symbols;
  symbols.reserve(piece.size());
  AddSymbols(piece, &symbols);
  if (symbols.size() > 1) Merge(&symbols);
  for (const Symbol& symbol : symbols) {
    if (symbol.id != kNone) ids->push_back(symbol.id);
  }
}

StatusOr<std::vector<std::pair<std::string, std::string>>> MergesFromScores(
    const std::vector<std::string>& tokens, const std::vector<float>& scores,
    const std::vector<bool>& mergeable) {
  struct Cut {
    float score;
    int32_t left_chars, right_chars;
    std::string_view left, right;
  };
  absl::flat_hash_set<std::string_view> known;
  for (size_t i = 0; i < tokens.size(); ++i) {
    if (mergeable[i]) known.insert(std::string_view(tokens[i]));
  }
  std::vector<Cut> cuts;
  for (size_t i = 0; i < tokens.size(); ++i) {
    const std::string_view token = tokens[i];
    if (!mergeable[i] || token.empty()) continue;
    if (!std::isfinite(scores[i])) return InvalidArgument("token %d: its score is not finite", i);
    if (token.size() > kMaxScoredTokenBytes) {
      return InvalidArgument("token %d: at most %d bytes, got %d", i, kMaxScoredTokenBytes,
                             token.size());
    }
    const auto num_chars = static_cast<int32_t>(CountUtf8Chars(token));
    int32_t left_chars = 1;
    for (auto at = static_cast<size_t>(Utf8Length(token[0])); at < token.size(); ++left_chars) {
      const std::string_view left = token.substr(0, at);
      const std::string_view right = token.substr(at);
      at += static_cast<size_t>(Utf8Length(token[at]));
      if (!known.contains(left) || !known.contains(right)) continue;
      cuts.push_back({scores[i], left_chars, num_chars - left_chars, left, right});
      if (cuts.size() > kMaxMerges)
        return InvalidArgument("vocabulary with scores: over %d merges", kMaxMerges);
    }
  }
  std::stable_sort(cuts.begin(), cuts.end(), [](const Cut& a, const Cut& b) {
    if (a.score != b.score) return a.score > b.score;
    return a.left_chars != b.left_chars ? a.left_chars > b.left_chars
                                        : a.right_chars > b.right_chars;
  });
  std::vector<std::pair<std::string, std::string>> merges;
  merges.reserve(cuts.size());
  for (const Cut& cut : cuts) merges.emplace_back(cut.left, cut.right);
  return merges;
}

}  // namespace polyad
