#include "engine/text/tokenizer_json.h"

#include <nlohmann/json.hpp>
#include <utility>

#include "engine/text/pipeline_tokenizer.h"
#include "engine/text/tokenizer_json_parts.h"
#include "engine/text/tokenizer_json_reader.h"

namespace polyad {

namespace {

using nlohmann::json;

const json& Member(const json& node, const char* key) {
  static const json null;
  const auto found = node.find(key);
  return found == node.end() ? null : *found;
}

bool Flag(const json& node, const char* key) {
  const json& value = Member(node, key);
  return value.is_boolean() && value.get<bool>();
}

bool IsEmptyText(const json& value) {
  return value.is_null() || (value.is_string() && value.get_ref<const std::string&>().empty());
}

// The options of a BPE model; what would change the result and is not done here is refused.
StatusOr<BpeData> ReadModel(const json& model) {
  const json& type = Member(model, "type");
  if (!type.is_null() && type != "BPE") return Unimplemented("model type %s", type.dump());
  for (const char* key : {"continuing_subword_prefix", "end_of_word_suffix"}) {
    if (!IsEmptyText(Member(model, key))) return Unimplemented("model: %s", key);
  }
  const json& dropout = Member(model, "dropout");
  if (!dropout.is_null() && !(dropout.is_number() && dropout.get<double>() == 0)) {
    return Unimplemented("model: dropout");
  }
  BpeData data;
  const json& unk = Member(model, "unk_token");
  if (unk.is_string()) data.unk_token = unk.get<std::string>();
  data.fuse_unk = Flag(model, "fuse_unk");
  data.byte_fallback = Flag(model, "byte_fallback");
  data.ignore_merges = Flag(model, "ignore_merges");
  return data;
}

Status PlaceToken(const std::string& text, int32_t id, std::vector<std::string>* texts) {
  if (id < 0 || static_cast<size_t>(id) >= kMaxVocab) {
    return InvalidArgument("token \"%s\": expected an id below %d, got %d", text, kMaxVocab, id);
  }
  const auto index = static_cast<size_t>(id);
  if (index >= texts->size()) texts->resize(index + 1);
  std::string& slot = (*texts)[index];
  if (!slot.empty() && slot != text)
    return DataLoss("id %d is both \"%s\" and \"%s\"", id, slot, text);
  slot = text;
  return absl::OkStatus();
}

// "bos_token" of a config: a string, or an object with "content".
std::optional<std::string> TokenOfConfig(const json& config, const char* key) {
  const json& value = Member(config, key);
  const json& text = value.is_object() ? Member(value, "content") : value;
  if (!text.is_string()) return std::nullopt;
  return text.get<std::string>();
}

StatusOr<TokenizerParts> BuildParts(TokenizerFile file) {
  const json& root = file.root;
  const json& model = Member(root, "model");
  if (!model.is_object()) return InvalidArgument("no model");
  POLYAD_ASSIGN_OR_RETURN(BpeData data, ReadModel(model));
  if (!file.has_vocab || file.vocab.empty()) return InvalidArgument("model: no vocab");
  TokenizerParts parts;
  for (const auto& [text, id] : file.vocab)
    POLYAD_RETURN_IF_ERROR(PlaceToken(text, id, &parts.token_texts));
  POLYAD_ASSIGN_OR_RETURN(parts.added_tokens, ParseAddedTokens(Member(root, "added_tokens")));
  for (const AddedToken& token : parts.added_tokens) {
    POLYAD_RETURN_IF_ERROR(PlaceToken(token.content, token.id, &parts.token_texts));
    if (token.special) data.never_merged.push_back(token.id);
  }
  POLYAD_ASSIGN_OR_RETURN(std::vector<NormalizerStep> normalizer,
                          ParseNormalizer(Member(root, "normalizer")));
  parts.normalizer = Normalizer(std::move(normalizer));
  POLYAD_ASSIGN_OR_RETURN(std::vector<PreTokenizerStep> steps,
                          ParsePreTokenizer(Member(root, "pre_tokenizer")));
  parts.pre_tokenizer = PreTokenizer(std::move(steps));
  POLYAD_ASSIGN_OR_RETURN(PostProcessor post, ParsePostProcessor(Member(root, "post_processor")));
  parts.prefix = std::move(post.prefix);
  parts.suffix = std::move(post.suffix);
  POLYAD_ASSIGN_OR_RETURN(std::vector<DecoderStage> stages, ParseDecoder(Member(root, "decoder")));
  POLYAD_ASSIGN_OR_RETURN(parts.decoder, MakeDecoderPlan(std::move(stages)));
  data.vocab = std::move(file.vocab);
  data.merges = std::move(file.merges);
  POLYAD_ASSIGN_OR_RETURN(parts.model, BpeModel::Make(std::move(data)));
  return parts;
}

std::optional<int32_t> FindToken(const TokenizerParts& parts,
                                 const std::optional<std::string>& text) {
  if (!text.has_value()) return std::nullopt;
  for (const AddedToken& token : parts.added_tokens) {
    if (token.content == *text) return token.id;
  }
  return parts.model->TokenToId(*text);
}

StatusOr<std::unique_ptr<Tokenizer>> Load(std::string_view tokenizer_text,
                                          std::string_view config_text) {
  if (tokenizer_text.size() > kMaxTokenizerJsonBytes) {
    return InvalidArgument("at most %d bytes, got %d", kMaxTokenizerJsonBytes,
                           tokenizer_text.size());
  }
  POLYAD_ASSIGN_OR_RETURN(TokenizerFile file, ReadTokenizerFile(tokenizer_text));
  POLYAD_ASSIGN_OR_RETURN(TokenizerParts parts, BuildParts(std::move(file)));
  if (!config_text.empty()) {
    POLYAD_ASSIGN_OR_RETURN(const json config,
                            ReadJsonObject(config_text, "tokenizer_config.json"));
    parts.bos = FindToken(parts, TokenOfConfig(config, "bos_token"));
    parts.eos = FindToken(parts, TokenOfConfig(config, "eos_token"));
  }
  return MakePipelineTokenizer(std::move(parts));
}

}  // namespace

StatusOr<std::unique_ptr<Tokenizer>> LoadTokenizerJson(
    std::string_view tokenizer_json_text, std::string_view tokenizer_config_json_text) {
  StatusOr<std::unique_ptr<Tokenizer>> tokenizer =
      Load(tokenizer_json_text, tokenizer_config_json_text);
  if (!tokenizer.ok()) return Annotate(tokenizer.status(), "tokenizer.json");
  return tokenizer;
}

StatusOr<std::optional<std::string>> ChatTemplateFromConfig(
    std::string_view tokenizer_config_json_text) {
  POLYAD_ASSIGN_OR_RETURN(const json config,
                          ReadJsonObject(tokenizer_config_json_text, "tokenizer_config.json"));
  const json& value = Member(config, "chat_template");
  if (value.is_string()) return std::optional<std::string>(value.get<std::string>());
  if (!value.is_array()) return std::optional<std::string>();
  for (const json& item : value) {
    if (item.is_object() && Member(item, "name") == "default" &&
        Member(item, "template").is_string()) {
      return std::optional<std::string>(Member(item, "template").get<std::string>());
    }
  }
  return std::optional<std::string>();
}

}  // namespace polyad
