#include "engine/text/pipeline_tokenizer.h"

#include <utility>

#include "absl/container/flat_hash_map.h"
#include "engine/text/byte_alphabet.h"
#include "engine/text/utf8.h"

namespace polyad {

namespace {

using Part = AddedTokenMatcher::Part;

class PipelineTokenizer final : public Tokenizer {
 public:
  explicit PipelineTokenizer(TokenizerParts parts) : parts_(std::move(parts)) {}

  Status Init() {
    is_special_.assign(parts_.token_texts.size(), false);
    std::vector<AddedToken> raw, normalized;
    for (const AddedToken& token : parts_.added_tokens) {
      if (token.id < 0 || static_cast<size_t>(token.id) >= parts_.token_texts.size()) {
        return InvalidArgument("added token \"%s\": no id %d", token.content, token.id);
      }
      if (token.special) is_special_[static_cast<size_t>(token.id)] = true;
      (token.normalized ? normalized : raw).push_back(token);
    }
    for (AddedToken& token : normalized) {
      POLYAD_ASSIGN_OR_RETURN(MarkedText content,
                              parts_.normalizer.Normalize({.text = token.content}));
      token.content = std::move(content.text);
      parts_.token_texts[static_cast<size_t>(token.id)] =
          token.content;  // and decodes to it, as the original does
    }
    POLYAD_ASSIGN_OR_RETURN(raw_matcher_, AddedTokenMatcher::Make(std::move(raw)));
    POLYAD_ASSIGN_OR_RETURN(normalized_matcher_, AddedTokenMatcher::Make(std::move(normalized)));
    token_bytes_.reserve(parts_.token_texts.size());
    for (size_t id = 0; id < parts_.token_texts.size(); ++id) {
      token_bytes_.push_back(BytesOfToken(parts_.token_texts[id], parts_.decoder));
      if (!parts_.token_texts[id].empty())
        ids_.emplace(parts_.token_texts[id], static_cast<int32_t>(id));
    }
    return CheckIds();
  }

  StatusOr<std::vector<int32_t>> Encode(std::string_view text,
                                        const EncodeOptions& options) const override {
    if (text.size() > kMaxEncodeBytes) return TooLong(text.size());
    return EncodeMarked({.text = SanitizeUtf8(text), .marks = {}, .user = !options.parse_special},
                        options.add_special);
  }

  StatusOr<std::vector<int32_t>> EncodeSegments(std::span<const TextSegment> segments,
                                                bool add_special) const override {
    size_t total = 0;
    MarkedText joined;
    for (const TextSegment& segment : segments) {
      total += segment.text.size();
      if (total > kMaxEncodeBytes) return TooLong(total);
      joined.Append(SanitizeUtf8(segment.text), segment.from_user);
    }
    return EncodeMarked(joined, add_special);
  }

  std::string_view TokenText(int32_t id) const override {
    return Known(id) ? std::string_view(parts_.token_texts[static_cast<size_t>(id)])
                     : std::string_view();
  }
  std::string_view TokenBytes(int32_t id) const override {
    return Known(id) ? std::string_view(token_bytes_[static_cast<size_t>(id)]) : std::string_view();
  }
  int64_t vocab_size() const override { return static_cast<int64_t>(parts_.token_texts.size()); }
  bool IsSpecial(int32_t id) const override {
    return Known(id) && is_special_[static_cast<size_t>(id)];
  }
  std::optional<int32_t> bos() const override { return parts_.bos; }
  std::optional<int32_t> eos() const override { return parts_.eos; }
  const DecoderPlan& decoder() const override { return parts_.decoder; }
  std::optional<int32_t> TokenToId(std::string_view token) const override {
    const auto found = ids_.find(token);
    return found == ids_.end() ? std::nullopt : std::optional<int32_t>(found->second);
  }

 private:
  static Status TooLong(size_t size) {
    return InvalidArgument("text: at most %d bytes, got %d", kMaxEncodeBytes, size);
  }
  bool Known(int32_t id) const {
    return id >= 0 && static_cast<size_t>(id) < parts_.token_texts.size();
  }

  Status CheckIds() const {
    const auto check = [&](std::optional<int32_t> id, const char* what) -> Status {
      if (!id.has_value() || Known(*id)) return absl::OkStatus();
      return InvalidArgument("%s: no token has the id %d", what, *id);
    };
    POLYAD_RETURN_IF_ERROR(check(parts_.bos, "bos token"));
    POLYAD_RETURN_IF_ERROR(check(parts_.eos, "eos token"));
    for (const int32_t id : parts_.prefix) POLYAD_RETURN_IF_ERROR(check(id, "post-processor"));
    for (const int32_t id : parts_.suffix) POLYAD_RETURN_IF_ERROR(check(id, "post-processor"));
    return absl::OkStatus();
  }

  StatusOr<std::vector<int32_t>> EncodeMarked(const MarkedText& text, bool add_special) const {
    std::vector<int32_t> ids;
    if (add_special) ids = parts_.prefix;
    for (const Part& part : raw_matcher_.Split(text)) {
      if (part.id >= 0) {
        ids.push_back(part.id);
      } else {
        POLYAD_RETURN_IF_ERROR(
            EncodeBetween(text.Slice(part.begin, part.end), part.begin == 0, &ids));
      }
    }
    if (add_special) ids.insert(ids.end(), parts_.suffix.begin(), parts_.suffix.end());
    return ids;
  }

  // Text between the added tokens that match as written: normalised, and searched for those that
  // match normalised.
  Status EncodeBetween(MarkedText raw, bool at_start, std::vector<int32_t>* ids) const {
    POLYAD_ASSIGN_OR_RETURN(MarkedText text, parts_.normalizer.Normalize(std::move(raw)));
    for (const Part& part : normalized_matcher_.Split(text)) {
      if (part.id >= 0) {
        ids->push_back(part.id);
        continue;
      }
      POLYAD_ASSIGN_OR_RETURN(
          const Pieces pieces,
          parts_.pre_tokenizer.Split(text.text.substr(part.begin, part.end - part.begin),
                                     at_start && part.begin == 0));
      for (const Pieces::Piece& piece : pieces.pieces) {
        parts_.model->Encode(
            std::string_view(pieces.text).substr(piece.begin, piece.end - piece.begin), ids);
      }
    }
    return absl::OkStatus();
  }

  TokenizerParts parts_;
  std::vector<bool> is_special_;
  std::vector<std::string> token_bytes_;
  absl::flat_hash_map<std::string_view, int32_t> ids_;  // views of parts_.token_texts
  AddedTokenMatcher raw_matcher_, normalized_matcher_;
};

void ReplaceAll(std::string_view from, std::string_view to, std::string* text) {
  for (size_t at = text->find(from); at != std::string::npos;
       at = text->find(from, at + to.size())) {
    text->replace(at, from.size(), to);
  }
}

std::optional<int> HexValue(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return std::nullopt;
}

}  // namespace

std::optional<unsigned char> ByteOfFallbackToken(std::string_view token) {
  if (token.size() != 6 || !token.starts_with("<0x") || token[5] != '>') return std::nullopt;
  const std::optional<int> high = HexValue(token[3]);
  const std::optional<int> low = HexValue(token[4]);
  if (!high.has_value() || !low.has_value()) return std::nullopt;
  return static_cast<unsigned char>(*high * 16 + *low);
}

std::string BytesOfToken(const std::string& token, const DecoderPlan& decoder) {
  std::string bytes = token;
  for (const DecoderStage& stage : decoder.stages) {
    switch (stage.kind) {
      case DecoderStage::Kind::kByteLevel:
        return AlphabetToBytes(bytes);
      case DecoderStage::Kind::kByteFallback:
        if (const std::optional<unsigned char> byte = ByteOfFallbackToken(bytes)) {
          return std::string(1, static_cast<char>(*byte));
        }
        break;
      case DecoderStage::Kind::kReplace:
        ReplaceAll(stage.from, stage.to, &bytes);
        break;
      case DecoderStage::Kind::kMetaspace:
        ReplaceAll(stage.from, " ", &bytes);
        break;
      case DecoderStage::Kind::kFuse:
      case DecoderStage::Kind::kStrip:
      case DecoderStage::Kind::kJoinSpace:
        break;
    }
  }
  return bytes;
}

StatusOr<std::unique_ptr<Tokenizer>> MakePipelineTokenizer(TokenizerParts parts) {
  if (parts.token_texts.empty()) return InvalidArgument("tokenizer: the vocabulary is empty");
  auto tokenizer = std::make_unique<PipelineTokenizer>(std::move(parts));
  POLYAD_RETURN_IF_ERROR(tokenizer->Init());
  return std::unique_ptr<Tokenizer>(std::move(tokenizer));
}

}  // namespace polyad
