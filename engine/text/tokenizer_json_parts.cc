#include "engine/text/tokenizer_json_parts.h"

#include <string>
#include <utility>

#include "engine/text/utf8.h"

namespace polyad {

const std::string_view kGpt2Pattern =
    "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+";

namespace {

using nlohmann::json;

constexpr size_t kMaxSteps = 64;
constexpr size_t kMaxReplacementBytes = 32;  // a whole prompt of matches must not explode
constexpr std::string_view kWhitespacePattern = "\\w+|[^\\w\\s]+";

// Typed access with a default: absent and null are the default; another type is an error that names
// the key.
template <typename T>
Status Read(const json& node, const char* key, T* out) {
  const auto found = node.find(key);
  if (found == node.end() || found->is_null()) return absl::OkStatus();
  bool fits = false;
  if constexpr (std::is_same_v<T, bool>) fits = found->is_boolean();
  if constexpr (std::is_same_v<T, std::string>) fits = found->is_string();
  if constexpr (std::is_same_v<T, int>) {
    fits = found->is_number_integer() && found->get<int64_t>() >= 0 &&
           found->get<int64_t>() <= (1 << 30);
  }
  if (!fits) return InvalidArgument("%s: an unexpected type or value", key);
  *out = found->get<T>();
  return absl::OkStatus();
}

StatusOr<std::string> TypeOf(const json& node, const char* what) {
  std::string type;
  if (!node.is_object()) return InvalidArgument("%s: expected an object", what);
  POLYAD_RETURN_IF_ERROR(Read(node, "type", &type));
  if (type.empty()) return InvalidArgument("%s: no type", what);
  return type;
}

StatusOr<std::string> OneChar(const json& node, const char* key) {
  std::string text;
  POLYAD_RETURN_IF_ERROR(Read(node, key, &text));
  if (CountUtf8Chars(text) != 1)
    return InvalidArgument("%s: expected one character, got \"%s\"", key, text);
  return text;
}

// {"String": "..."} or {"Regex": "..."}; exactly one of the two results is filled.
struct Pattern {
  std::string literal;
  std::vector<SplitRegex> regex;
};

StatusOr<Pattern> ParsePattern(const json& node) {
  const auto found = node.find("pattern");
  if (found == node.end() || !found->is_object())
    return InvalidArgument("pattern: expected String or Regex");
  Pattern pattern;
  std::string regex;
  POLYAD_RETURN_IF_ERROR(Read(*found, "String", &pattern.literal));
  POLYAD_RETURN_IF_ERROR(Read(*found, "Regex", &regex));
  if (pattern.literal.empty() == regex.empty()) {
    return InvalidArgument("pattern: expected one of String and Regex, not empty");
  }
  if (!regex.empty()) {
    POLYAD_ASSIGN_OR_RETURN(SplitRegex compiled, SplitRegex::Compile(regex));
    pattern.regex.push_back(std::move(compiled));
  }
  return pattern;
}

// Runs `parse` on a component, or on each of a Sequence's, in order. Sequences do not nest deeper
// than the JSON may.
Status ForEachComponent(const json& node, const char* list_key, const char* what,
                        const std::function<Status(const json&, const std::string&)>& parse) {
  if (node.is_null()) return absl::OkStatus();
  POLYAD_ASSIGN_OR_RETURN(const std::string type, TypeOf(node, what));
  if (type != "Sequence") return Annotate(parse(node, type), absl::StrFormat("%s %s", what, type));
  const auto list = node.find(list_key);
  if (list == node.end() || !list->is_array() || list->size() > kMaxSteps) {
    return InvalidArgument("%s Sequence: expected \"%s\" with at most %d entries", what, list_key,
                           kMaxSteps);
  }
  for (const json& item : *list)
    POLYAD_RETURN_IF_ERROR(ForEachComponent(item, list_key, what, parse));
  return absl::OkStatus();
}

Status AddNormalizer(const json& node, const std::string& type,
                     std::vector<NormalizerStep>* steps) {
  using Kind = NormalizerStep::Kind;
  NormalizerStep step;
  if (type == "NFC") {
    step.kind = Kind::kNfc;
  } else if (type == "NFD") {
    step.kind = Kind::kNfd;
  } else if (type == "NFKC") {
    step.kind = Kind::kNfkc;
  } else if (type == "NFKD") {
    step.kind = Kind::kNfkd;
  } else if (type == "Lowercase") {
    step.kind = Kind::kLowercase;
  } else if (type == "Prepend") {
    step.kind = Kind::kPrepend;
    POLYAD_RETURN_IF_ERROR(Read(node, "prepend", &step.to));
  } else if (type == "Replace") {
    POLYAD_ASSIGN_OR_RETURN(Pattern pattern, ParsePattern(node));
    step.kind = pattern.regex.empty() ? Kind::kReplace : Kind::kReplaceRegex;
    step.from = std::move(pattern.literal);
    step.regex = std::move(pattern.regex);
    POLYAD_RETURN_IF_ERROR(Read(node, "content", &step.to));
  } else if (type == "Strip") {
    step.kind = Kind::kStrip;
    POLYAD_RETURN_IF_ERROR(Read(node, "strip_left", &step.left));
    POLYAD_RETURN_IF_ERROR(Read(node, "strip_right", &step.right));
  } else {
    return Unimplemented("not known");
  }
  if (step.to.size() > kMaxReplacementBytes) {
    return InvalidArgument("at most %d bytes to insert, got %d", kMaxReplacementBytes,
                           step.to.size());
  }
  steps->push_back(std::move(step));
  return absl::OkStatus();
}

StatusOr<SplitBehavior> ParseBehavior(const json& node) {
  std::string name = "Isolated";
  POLYAD_RETURN_IF_ERROR(Read(node, "behavior", &name));
  if (name == "Isolated") return SplitBehavior::kIsolated;
  if (name == "Removed") return SplitBehavior::kRemoved;
  if (name == "MergedWithPrevious") return SplitBehavior::kMergedWithPrevious;
  if (name == "MergedWithNext") return SplitBehavior::kMergedWithNext;
  if (name == "Contiguous") return SplitBehavior::kContiguous;
  return Unimplemented("behavior %s", name);
}

Status ReadMetaspace(const json& node, PreTokenizerStep* step) {
  using Prepend = PreTokenizerStep::Prepend;
  step->kind = PreTokenizerStep::Kind::kMetaspace;
  step->behavior = SplitBehavior::kMergedWithNext;
  POLYAD_ASSIGN_OR_RETURN(step->literal, OneChar(node, "replacement"));
  bool add_prefix_space = true;
  std::string scheme;
  POLYAD_RETURN_IF_ERROR(Read(node, "add_prefix_space", &add_prefix_space));
  POLYAD_RETURN_IF_ERROR(Read(node, "prepend_scheme", &scheme));
  POLYAD_RETURN_IF_ERROR(Read(node, "split", &step->split));
  if (scheme.empty()) scheme = add_prefix_space ? "always" : "never";
  if (scheme != "always" && scheme != "first" && scheme != "never") {
    return Unimplemented("prepend_scheme %s", scheme);
  }
  step->prepend = scheme == "always"  ? Prepend::kAlways
                  : scheme == "first" ? Prepend::kFirst
                                      : Prepend::kNever;
  return absl::OkStatus();
}

Status ReadSplitter(const json& node, const std::string& type, PreTokenizerStep* step) {
  using Kind = PreTokenizerStep::Kind;
  if (type == "Split") {
    POLYAD_ASSIGN_OR_RETURN(Pattern pattern, ParsePattern(node));
    step->kind = pattern.regex.empty() ? Kind::kLiteral : Kind::kRegex;
    step->literal = std::move(pattern.literal);
    step->regex = std::move(pattern.regex);
    POLYAD_ASSIGN_OR_RETURN(step->behavior, ParseBehavior(node));
    return Read(node, "invert", &step->invert);
  }
  if (type == "CharDelimiterSplit") {
    step->kind = Kind::kLiteral;
    step->behavior = SplitBehavior::kRemoved;
    POLYAD_ASSIGN_OR_RETURN(step->literal, OneChar(node, "delimiter"));
    return absl::OkStatus();
  }
  if (type == "Whitespace") {
    POLYAD_ASSIGN_OR_RETURN(SplitRegex regex, SplitRegex::Compile(kWhitespacePattern));
    step->kind = Kind::kRegex;
    step->regex.push_back(std::move(regex));
    step->behavior = SplitBehavior::kRemoved;
    step->invert = true;
    return absl::OkStatus();
  }
  return Unimplemented("not known");
}

Status AddPreTokenizer(const json& node, const std::string& type,
                       std::vector<PreTokenizerStep>* steps) {
  using Kind = PreTokenizerStep::Kind;
  PreTokenizerStep step;
  if (type == "ByteLevel") {
    bool use_regex = true;
    step.add_prefix_space = true;
    POLYAD_RETURN_IF_ERROR(Read(node, "add_prefix_space", &step.add_prefix_space));
    POLYAD_RETURN_IF_ERROR(Read(node, "use_regex", &use_regex));
    if (use_regex) {
      POLYAD_ASSIGN_OR_RETURN(SplitRegex regex, SplitRegex::Compile(kGpt2Pattern));
      step.regex.push_back(std::move(regex));
    }
  } else if (type == "Digits") {
    bool individual = false;
    step.kind = Kind::kDigits;
    POLYAD_RETURN_IF_ERROR(Read(node, "individual_digits", &individual));
    step.behavior = individual ? SplitBehavior::kIsolated : SplitBehavior::kContiguous;
  } else if (type == "Punctuation") {
    step.kind = Kind::kPunctuation;
    POLYAD_ASSIGN_OR_RETURN(step.behavior, ParseBehavior(node));
  } else if (type == "WhitespaceSplit") {
    step.kind = Kind::kWhitespaceSplit;
    step.behavior = SplitBehavior::kRemoved;
  } else if (type == "Metaspace") {
    POLYAD_RETURN_IF_ERROR(ReadMetaspace(node, &step));
  } else {
    POLYAD_RETURN_IF_ERROR(ReadSplitter(node, type, &step));
  }
  if (step.literal.size() > kMaxReplacementBytes) {
    return InvalidArgument("at most %d bytes to split at, got %d", kMaxReplacementBytes,
                           step.literal.size());
  }
  steps->push_back(std::move(step));
  return absl::OkStatus();
}

Status AddDecoder(const json& node, const std::string& type, std::vector<DecoderStage>* stages) {
  using Kind = DecoderStage::Kind;
  DecoderStage stage;
  if (type == "ByteLevel") {
    stage.kind = Kind::kByteLevel;
  } else if (type == "ByteFallback") {
    stage.kind = Kind::kByteFallback;
  } else if (type == "Fuse") {
    stage.kind = Kind::kFuse;
  } else if (type == "Strip") {
    stage.kind = Kind::kStrip;
    POLYAD_ASSIGN_OR_RETURN(stage.from, OneChar(node, "content"));
    POLYAD_RETURN_IF_ERROR(Read(node, "start", &stage.start));
    POLYAD_RETURN_IF_ERROR(Read(node, "stop", &stage.stop));
  } else if (type == "Replace") {
    stage.kind = Kind::kReplace;
    POLYAD_ASSIGN_OR_RETURN(Pattern pattern, ParsePattern(node));
    if (!pattern.regex.empty()) return Unimplemented("a Regex pattern");
    stage.from = std::move(pattern.literal);
    POLYAD_RETURN_IF_ERROR(Read(node, "content", &stage.to));
    if (stage.to.size() > kMaxReplacementBytes) return InvalidArgument("content is too long");
  } else if (type == "Metaspace") {
    PreTokenizerStep metaspace;
    POLYAD_RETURN_IF_ERROR(ReadMetaspace(node, &metaspace));
    stage.kind = Kind::kMetaspace;
    stage.from = metaspace.literal;
    stage.drop_first = metaspace.prepend != PreTokenizerStep::Prepend::kNever;
  } else {
    return Unimplemented("not known");
  }
  stages->push_back(std::move(stage));
  return absl::OkStatus();
}

// The ids of one {"SpecialToken": {"id": name}} piece of a template.
Status AddTemplateIds(const json& piece, const json& specials, std::vector<int32_t>* ids) {
  std::string name;
  POLYAD_RETURN_IF_ERROR(Read(piece, "id", &name));
  if (!specials.is_object() || !specials.contains(name) || !specials[name].is_object()) {
    return InvalidArgument("no special token \"%s\"", name);
  }
  const auto list = specials[name].find("ids");
  if (list == specials[name].end() || !list->is_array() || list->size() > kMaxSteps) {
    return InvalidArgument("special token \"%s\": expected ids", name);
  }
  for (const json& id : *list) {
    if (!id.is_number_unsigned() || id.get<uint64_t>() > (1u << 30)) {
      return InvalidArgument("special token \"%s\": expected ids", name);
    }
    ids->push_back(id.get<int32_t>());
  }
  return absl::OkStatus();
}

Status AddTemplate(const json& node, PostProcessor* out) {
  const auto single = node.find("single");
  if (single == node.end() || !single->is_array() || single->size() > kMaxSteps) {
    return InvalidArgument("single: expected a list of at most %d", kMaxSteps);
  }
  const json specials = node.value("special_tokens", json::object());
  PostProcessor added;
  int num_sequences = 0;
  for (const json& item : *single) {
    if (!item.is_object()) return InvalidArgument("single: expected objects");
    if (item.contains("Sequence")) {
      ++num_sequences;
    } else if (item.contains("SpecialToken") && item["SpecialToken"].is_object()) {
      POLYAD_RETURN_IF_ERROR(AddTemplateIds(item["SpecialToken"], specials,
                                            num_sequences == 0 ? &added.prefix : &added.suffix));
    } else {
      return InvalidArgument("single: expected Sequence or SpecialToken");
    }
  }
  if (num_sequences != 1) return Unimplemented("a template with %d sequences", num_sequences);
  // A later template wraps what an earlier one made.
  out->prefix.insert(out->prefix.begin(), added.prefix.begin(), added.prefix.end());
  out->suffix.insert(out->suffix.end(), added.suffix.begin(), added.suffix.end());
  return absl::OkStatus();
}

}  // namespace

StatusOr<std::vector<NormalizerStep>> ParseNormalizer(const json& node) {
  std::vector<NormalizerStep> steps;
  POLYAD_RETURN_IF_ERROR(ForEachComponent(node, "normalizers", "normalizer",
                                          [&](const json& item, const std::string& type) {
                                            return AddNormalizer(item, type, &steps);
                                          }));
  return steps;
}

StatusOr<std::vector<PreTokenizerStep>> ParsePreTokenizer(const json& node) {
  std::vector<PreTokenizerStep> steps;
  POLYAD_RETURN_IF_ERROR(ForEachComponent(node, "pretokenizers", "pre_tokenizer",
                                          [&](const json& item, const std::string& type) {
                                            return AddPreTokenizer(item, type, &steps);
                                          }));
  return steps;
}

StatusOr<std::vector<DecoderStage>> ParseDecoder(const json& node) {
  std::vector<DecoderStage> stages;
  if (node.is_null()) stages.push_back({.kind = DecoderStage::Kind::kJoinSpace});
  POLYAD_RETURN_IF_ERROR(ForEachComponent(
      node, "decoders", "decoder",
      [&](const json& item, const std::string& type) { return AddDecoder(item, type, &stages); }));
  return stages;
}

StatusOr<PostProcessor> ParsePostProcessor(const json& node) {
  PostProcessor made;
  POLYAD_RETURN_IF_ERROR(ForEachComponent(node, "processors", "post_processor",
                                          [&](const json& item, const std::string& type) -> Status {
                                            if (type == "ByteLevel")
                                              return absl::OkStatus();  // offsets only
                                            if (type == "TemplateProcessing")
                                              return AddTemplate(item, &made);
                                            return Unimplemented("not known");
                                          }));
  return made;
}

StatusOr<std::vector<AddedToken>> ParseAddedTokens(const json& node) {
  std::vector<AddedToken> tokens;
  if (node.is_null()) return tokens;
  if (!node.is_array() || node.size() > kMaxAddedTokens) {
    return InvalidArgument("added_tokens: expected a list of at most %d", kMaxAddedTokens);
  }
  for (const json& item : node) {
    AddedToken token;
    int id = -1;
    if (!item.is_object()) return InvalidArgument("added_tokens: expected objects");
    POLYAD_RETURN_IF_ERROR(Read(item, "id", &id));
    POLYAD_RETURN_IF_ERROR(Read(item, "content", &token.content));
    POLYAD_RETURN_IF_ERROR(Read(item, "single_word", &token.single_word));
    POLYAD_RETURN_IF_ERROR(Read(item, "lstrip", &token.lstrip));
    POLYAD_RETURN_IF_ERROR(Read(item, "rstrip", &token.rstrip));
    POLYAD_RETURN_IF_ERROR(Read(item, "normalized", &token.normalized));
    POLYAD_RETURN_IF_ERROR(Read(item, "special", &token.special));
    if (id < 0) return InvalidArgument("added token \"%s\": no id", token.content);
    token.id = id;
    tokens.push_back(std::move(token));
  }
  return tokens;
}

}  // namespace polyad
