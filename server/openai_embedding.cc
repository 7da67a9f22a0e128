#include "server/openai_embedding.h"

#include <cstring>

#include "absl/strings/escaping.h"
#include "server/field_error.h"
#include "server/json_reader.h"
#include "server/json_text.h"
#include "server/openai_served.h"

namespace polyad {
namespace {

// A string, an array of strings, an array of token ids, or an array of such arrays.
Status SetInput(const Json& value, v1::EmbedRequest& out) {
  constexpr std::string_view kExpected =
      "a string, an array of strings, an array of token ids or an array of such arrays";
  if (value.is_string()) {
    out.add_inputs()->set_text(value.get<std::string>());
    return absl::OkStatus();
  }
  if (!value.is_array()) return WrongJsonType("input", kExpected, value);
  if (value.empty()) return FieldError("input", "at least 1 input", "none");
  if (value[0].is_number()) {
    return AddJsonInts("input", value, out.add_inputs()->mutable_token_ids()->mutable_ids());
  }
  POLYAD_RETURN_IF_ERROR(CheckCount("input", value.size(), kMaxEmbedInputs, "inputs"));
  for (const Json& item : value) {
    if (item.is_string()) {
      out.add_inputs()->set_text(item.get<std::string>());
    } else if (item.is_array()) {
      POLYAD_RETURN_IF_ERROR(
          AddJsonInts("input", item, out.add_inputs()->mutable_token_ids()->mutable_ids()));
    } else {
      return WrongJsonType("input", kExpected, item);
    }
  }
  return absl::OkStatus();
}

Status SetOneOf(const std::string& name, const Json& value, std::string_view first,
                std::string_view second, bool& is_second) {
  POLYAD_ASSIGN_OR_RETURN(const std::string text, JsonString(name, value));
  is_second = text == second;
  if (is_second || text == first) return absl::OkStatus();
  return FieldError(name, std::string(first) + " or " + std::string(second), text);
}

Status SetField(const std::string& name, const Json& value, OpenAiEmbedding& out) {
  v1::EmbedRequest& embed = out.embed;
  if (name == "input") return SetInput(value, embed);
  if (name == "encoding_format") return SetOneOf(name, value, "float", "base64", out.base64);
  if (name == "pooling") {
    bool mean = false;
    POLYAD_RETURN_IF_ERROR(SetOneOf(name, value, "last", "mean", mean));
    embed.set_pooling(mean ? v1::MEAN : v1::LAST);
  } else if (name == "model") {
    POLYAD_ASSIGN_OR_RETURN(*embed.mutable_model(), JsonString(name, value));
  } else if (name == "dimensions") {
    POLYAD_ASSIGN_OR_RETURN(const int64_t count, JsonInt(name, value, 1, INT32_MAX));
    embed.set_dimensions(static_cast<int32_t>(count));
  } else if (name == "normalize") {
    POLYAD_ASSIGN_OR_RETURN(const bool normalize, JsonBool(name, value));
    embed.set_normalize(normalize);
  } else if (name == "cache_salt") {
    POLYAD_ASSIGN_OR_RETURN(*embed.mutable_cache()->mutable_salt(), JsonString(name, value));
  } else if (name == "priority") {
    POLYAD_ASSIGN_OR_RETURN(const int32_t priority, JsonInt32(name, value));
    embed.set_priority(priority);
  } else if (name == "request_id") {
    POLYAD_ASSIGN_OR_RETURN(*embed.mutable_request_id(), JsonString(name, value));
  } else if (name == "user") {
    POLYAD_ASSIGN_OR_RETURN(*embed.mutable_session(), JsonString(name, value));
  } else {
    return UnknownJsonField(name);
  }
  return absl::OkStatus();
}

// The values as little-endian fp32, in base64: what OpenAI's clients ask for.
void AppendBase64(const std::vector<float>& values, std::string& out) {
  static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__);
  std::string bytes(values.size() * sizeof(float), '\0');
  std::memcpy(bytes.data(), values.data(), bytes.size());
  out += '"' + absl::Base64Escape(bytes) + '"';
}

void AppendNumbers(const std::vector<float>& values, std::string& out) {
  out += '[';
  for (size_t i = 0; i < values.size(); ++i) {
    if (i > 0) out += ',';
    AppendJsonNumber(values[i], out);
  }
  out += ']';
}

}  // namespace

StatusOr<OpenAiEmbedding> ParseOpenAiEmbedding(std::string_view body) {
  OpenAiEmbedding out;
  POLYAD_RETURN_IF_ERROR(ReadJsonBody(body, [&](const std::string& name, const Json& value) {
    return SetField(name, value, out);
  }));
  if (out.embed.inputs_size() == 0) return FieldError("input", "at least 1 input", "none");
  return out;
}

std::string OpenAiEmbeddingBody(const EmbedResult& result, const std::string& model, bool base64) {
  std::string body = R"({"object":"list","data":[)";
  for (size_t i = 0; i < result.embeddings.size(); ++i) {
    if (i > 0) body += ',';
    body += R"({"object":"embedding","index":)";
    AppendJsonInt(static_cast<int64_t>(i), body);
    body += R"(,"embedding":)";
    if (base64) {
      AppendBase64(result.embeddings[i], body);
    } else {
      AppendNumbers(result.embeddings[i], body);
    }
    body += '}';
  }
  body += R"(],"model":)";
  AppendJsonString(model, body);
  body += R"(,"usage":{"prompt_tokens":)";
  AppendJsonInt(result.usage.prompt_tokens, body);
  body += R"(,"total_tokens":)";
  AppendJsonInt(result.usage.prompt_tokens, body);
  body += R"(,"prompt_tokens_details":{"cached_tokens":)";
  AppendJsonInt(result.usage.cached_tokens, body);
  body += "}}";
  AppendServed(result.adapter, result.timings, body);
  body += '}';
  return body;
}

}  // namespace polyad
