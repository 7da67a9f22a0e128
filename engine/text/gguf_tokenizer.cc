#include "engine/text/gguf_tokenizer.h"

#include <algorithm>
#include <array>
#include <utility>

#include "engine/text/pipeline_tokenizer.h"
#include "engine/text/tokenizer_json_parts.h"
#include "engine/text/utf8.h"

namespace polyad {

namespace {

constexpr int32_t kUnknown = 2, kControl = 3, kUserDefined = 4, kByte = 6;
constexpr std::string_view kMetaspaceChar = "\xE2\x96\x81";

// The published patterns, as the models' tokenizer.json have them.
constexpr std::string_view kLlama3Pattern =
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}| "
    "?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|"
    "\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";
constexpr std::string_view kQwen2Pattern =
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}| "
    "?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|"
    "\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";
constexpr std::string_view kTekkenPattern =
    "[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]*[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]+|"
    "[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]+[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]*|\\p{"
    "N}|"
    " ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";

struct PreEntry {
  std::string_view name;
  std::string_view split;  // before the bytes are mapped; empty: GPT-2's own pattern
  bool single_digits;      // every digit apart, before all else
  bool nfc;
  bool ignore_merges;
};
constexpr std::array<PreEntry, 13> kPreEntries = {{
    {"default", "", false, false, false},
    {"gpt-2", "", false, false, false},
    {"mpt", "", false, false, false},
    {"olmo", "", false, false, false},
    {"smollm", "", true, false, false},
    {"starcoder", "", true, false, false},
    {"refact", "", true, false, false},
    {"command-r", "", true, false, false},
    {"llama-bpe", kLlama3Pattern, false, false, true},
    {"llama3", kLlama3Pattern, false, false, true},
    {"qwen2", kQwen2Pattern, false, true, false},
    {"deepseek-r1-qwen", kQwen2Pattern, false, true, false},
    {"tekken", kTekkenPattern, false, false, true},
}};

int32_t TypeOf(const GgufTokenizerData& data, size_t id) {
  return data.token_types.empty() ? 1 : data.token_types[id];
}

Status CheckShape(const GgufTokenizerData& data) {
  const size_t count = data.tokens.size();
  if (count == 0 || count > kMaxVocab)
    return InvalidArgument("tokens: expected 1 to %d, got %d", kMaxVocab, count);
  if (!data.token_types.empty() && data.token_types.size() != count) {
    return InvalidArgument("token_type: expected %d, got %d", count, data.token_types.size());
  }
  for (size_t id = 0; id < count; ++id) {
    if (data.tokens[id].size() > kMaxTokenBytes || !IsValidUtf8(data.tokens[id])) {
      return InvalidArgument("token %d: expected UTF-8 of at most %d bytes", id, kMaxTokenBytes);
    }
  }
  return absl::OkStatus();
}

// Control and user-defined tokens are found in text before all else; only control tokens are
// special.
void AddTokens(const GgufTokenizerData& data, TokenizerParts* parts, BpeData* bpe) {
  for (size_t id = 0; id < data.tokens.size(); ++id) {
    const int32_t type = TypeOf(data, id);
    if (type != kControl && type != kUserDefined && type != kUnknown) continue;
    parts->added_tokens.push_back({.id = static_cast<int32_t>(id),
                                   .content = data.tokens[id],
                                   .special = type != kUserDefined});
    if (type != kUserDefined) bpe->never_merged.push_back(static_cast<int32_t>(id));
  }
}

Status AddByteLevel(const GgufTokenizerData& data, TokenizerParts* parts, BpeData* bpe) {
  const std::string name = data.pre.empty() ? "default" : data.pre;
  const auto* entry =
      std::find_if(kPreEntries.begin(), kPreEntries.end(),
                   [&](const PreEntry& candidate) { return candidate.name == name; });
  if (entry == kPreEntries.end())
    return Unimplemented("tokenizer.ggml.pre \"%s\" is not known", name);
  if (entry->nfc) parts->normalizer = Normalizer({{.kind = NormalizerStep::Kind::kNfc}});
  std::vector<PreTokenizerStep> steps;
  if (entry->single_digits) steps.push_back({.kind = PreTokenizerStep::Kind::kDigits});
  PreTokenizerStep bytes{.kind = PreTokenizerStep::Kind::kByteLevel};
  POLYAD_ASSIGN_OR_RETURN(SplitRegex regex,
                          SplitRegex::Compile(entry->split.empty() ? kGpt2Pattern : entry->split));
  bytes.regex.push_back(std::move(regex));
  steps.push_back(std::move(bytes));
  parts->pre_tokenizer = PreTokenizer(std::move(steps));
  if (data.merges.size() > kMaxMerges) return InvalidArgument("merges: at most %d", kMaxMerges);
  for (const std::string& merge : data.merges) {
    // A token may not hold a space in the byte alphabet, so the one space parts the two sides.
    const size_t space = merge.find(' ', 1);
    if (space == std::string::npos)
      return InvalidArgument("merge \"%s\": expected \"left right\"", merge);
    bpe->merges.emplace_back(merge.substr(0, space), merge.substr(space + 1));
  }
  bpe->ignore_merges = entry->ignore_merges;
  POLYAD_ASSIGN_OR_RETURN(parts->decoder,
                          MakeDecoderPlan({{.kind = DecoderStage::Kind::kByteLevel}}));
  return absl::OkStatus();
}

Status AddSentencePiece(const GgufTokenizerData& data, TokenizerParts* parts, BpeData* bpe) {
  if (data.scores.size() != data.tokens.size()) {
    return InvalidArgument("scores: expected %d, got %d", data.tokens.size(), data.scores.size());
  }
  std::vector<NormalizerStep> normalizer;
  if (data.add_space_prefix) {
    normalizer.push_back(
        {.kind = NormalizerStep::Kind::kPrepend, .to = std::string(kMetaspaceChar)});
  }
  normalizer.push_back(
      {.kind = NormalizerStep::Kind::kReplace, .from = " ", .to = std::string(kMetaspaceChar)});
  parts->normalizer = Normalizer(std::move(normalizer));
  std::vector<bool> mergeable(data.tokens.size());
  for (size_t id = 0; id < data.tokens.size(); ++id) {
    const int32_t type = TypeOf(data, id);
    mergeable[id] = type != kControl && type != kUnknown && type != kByte;
  }
  POLYAD_ASSIGN_OR_RETURN(bpe->merges, MergesFromScores(data.tokens, data.scores, mergeable));
  bpe->byte_fallback = true;
  bpe->fuse_unk = true;
  if (data.unk.has_value() && *data.unk >= 0 &&
      static_cast<size_t>(*data.unk) < data.tokens.size()) {
    bpe->unk_token = data.tokens[static_cast<size_t>(*data.unk)];
  }
  std::vector<DecoderStage> stages = {
      {.kind = DecoderStage::Kind::kReplace, .from = std::string(kMetaspaceChar), .to = " "},
      {.kind = DecoderStage::Kind::kByteFallback},
      {.kind = DecoderStage::Kind::kFuse}};
  if (data.add_space_prefix) {
    stages.push_back({.kind = DecoderStage::Kind::kStrip, .from = " ", .start = 1, .stop = 0});
  }
  POLYAD_ASSIGN_OR_RETURN(parts->decoder, MakeDecoderPlan(std::move(stages)));
  return absl::OkStatus();
}

Status AddEnds(const GgufTokenizerData& data, TokenizerParts* parts) {
  parts->bos = data.bos;
  parts->eos = data.eos;
  if (data.add_bos) {
    if (!data.bos.has_value()) return InvalidArgument("add_bos_token without bos_token_id");
    parts->prefix.push_back(*data.bos);
  }
  if (data.add_eos) {
    if (!data.eos.has_value()) return InvalidArgument("add_eos_token without eos_token_id");
    parts->suffix.push_back(*data.eos);
  }
  return absl::OkStatus();
}

StatusOr<std::unique_ptr<Tokenizer>> Make(GgufTokenizerData data) {
  POLYAD_RETURN_IF_ERROR(CheckShape(data));
  TokenizerParts parts;
  BpeData bpe;
  AddTokens(data, &parts, &bpe);
  if (data.model == "gpt2") {
    POLYAD_RETURN_IF_ERROR(AddByteLevel(data, &parts, &bpe));
  } else if (data.model == "llama") {
    POLYAD_RETURN_IF_ERROR(AddSentencePiece(data, &parts, &bpe));
  } else {
    return Unimplemented("tokenizer.ggml.model \"%s\" is not known", data.model);
  }
  POLYAD_RETURN_IF_ERROR(AddEnds(data, &parts));
  bpe.vocab.reserve(data.tokens.size());
  for (size_t id = 0; id < data.tokens.size(); ++id) {
    bpe.vocab.emplace_back(data.tokens[id], static_cast<int32_t>(id));
  }
  POLYAD_ASSIGN_OR_RETURN(parts.model, BpeModel::Make(std::move(bpe)));
  parts.token_texts = std::move(data.tokens);
  return MakePipelineTokenizer(std::move(parts));
}

}  // namespace

StatusOr<std::unique_ptr<Tokenizer>> MakeGgufTokenizer(GgufTokenizerData data) {
  StatusOr<std::unique_ptr<Tokenizer>> tokenizer = Make(std::move(data));
  if (!tokenizer.ok()) return Annotate(tokenizer.status(), "GGUF tokenizer");
  return tokenizer;
}

}  // namespace polyad
