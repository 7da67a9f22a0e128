// A Hugging Face directory: config.json, generation_config.json, safetensors weights, tokenizer
// files, chat template.

#include "engine/io/file.h"
#include "engine/io/json.h"
#include "engine/io/safetensors.h"
#include "engine/spec/hf_config.h"
#include "engine/spec/open_formats.h"
#include "engine/spec/quantization_config.h"
#include "engine/spec/quantized_source.h"

namespace polyad {

namespace {

constexpr int64_t kMaxConfigBytes = int64_t{1} << 20;
constexpr int64_t kMaxTokenizerBytes = int64_t{64} << 20;
constexpr int64_t kMaxTokenizerConfigBytes = int64_t{16} << 20;
constexpr int64_t kMaxTemplateBytes = int64_t{1} << 20;

StatusOr<std::string> ReadOptional(const std::string& path, int64_t max_bytes) {
  if (!FileExists(path)) return std::string();
  return ReadFileLimited(path, max_bytes);
}

// chat_template in tokenizer_config.json: a string, or a list of {name, template} of which
// "default" is ours.
StatusOr<std::string> TemplateFromConfig(const std::string& text) {
  if (text.empty()) return std::string();
  constexpr char kName[] = "tokenizer_config.json";
  JsonLimits limits;
  limits.max_bytes = kMaxTokenizerConfigBytes;
  POLYAD_ASSIGN_OR_RETURN(const Json json, ParseJson(text, kName, limits));
  POLYAD_ASSIGN_OR_RETURN(const JsonFields fields, JsonFields::Of(json, kName));
  const Json* value = fields.Find("chat_template");
  if (value == nullptr) return std::string();
  if (!value->is_array()) return fields.String("chat_template");
  for (const Json& element : *value) {
    POLYAD_ASSIGN_OR_RETURN(const JsonFields entry,
                            JsonFields::Of(element, "tokenizer_config.json: chat_template"));
    POLYAD_ASSIGN_OR_RETURN(const std::string name, entry.String("name"));
    if (name == "default") return entry.String("template");
  }
  return std::string();
}

StatusOr<TokenizerFiles> ReadTokenizerFiles(const std::string& directory) {
  TokenizerFiles files;
  POLYAD_ASSIGN_OR_RETURN(files.tokenizer_json,
                          ReadOptional(directory + "/tokenizer.json", kMaxTokenizerBytes));
  POLYAD_ASSIGN_OR_RETURN(
      files.tokenizer_config_json,
      ReadOptional(directory + "/tokenizer_config.json", kMaxTokenizerConfigBytes));
  POLYAD_ASSIGN_OR_RETURN(files.chat_template,
                          ReadOptional(directory + "/chat_template.jinja", kMaxTemplateBytes));
  if (files.chat_template.empty()) {
    POLYAD_ASSIGN_OR_RETURN(files.chat_template, TemplateFromConfig(files.tokenizer_config_json));
  }
  return files;
}

StatusOr<std::optional<QuantizationConfig>> QuantizationFromConfig(const std::string& text) {
  constexpr char kName[] = "config.json";
  POLYAD_ASSIGN_OR_RETURN(const Json json, ParseJson(text, kName, JsonLimits{}));
  POLYAD_ASSIGN_OR_RETURN(const JsonFields config, JsonFields::Of(json, kName));
  return ReadQuantizationConfig(config);
}

}  // namespace

StatusOr<ModelFiles> OpenHfDirectory(const std::string& directory) {
  POLYAD_ASSIGN_OR_RETURN(const std::string config,
                          ReadFileLimited(directory + "/config.json", kMaxConfigBytes));
  POLYAD_ASSIGN_OR_RETURN(const std::string generation,
                          ReadOptional(directory + "/generation_config.json", kMaxConfigBytes));
  POLYAD_ASSIGN_OR_RETURN(ModelSpec spec, SpecFromHfConfig(config, generation));
  POLYAD_ASSIGN_OR_RETURN(const auto quantization, QuantizationFromConfig(config));
  POLYAD_ASSIGN_OR_RETURN(std::unique_ptr<TensorSource> source,
                          OpenSafetensorsDirectory(directory));
  if (quantization.has_value()) {
    POLYAD_ASSIGN_OR_RETURN(source, OpenQuantizedSource(std::move(source), *quantization));
  }
  POLYAD_ASSIGN_OR_RETURN(
      ModelFiles files,
      ModelFiles::Create(std::move(spec), WeightFormat::kHuggingFace, std::move(source)));
  POLYAD_ASSIGN_OR_RETURN(TokenizerFiles tokenizer, ReadTokenizerFiles(directory));
  files.set_tokenizer(std::move(tokenizer));
  return files;
}

}  // namespace polyad
