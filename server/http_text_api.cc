// The HTTP routes that generate nothing: embeddings, and vLLM's tokenize and detokenize.

#include <optional>
#include <utility>

#include "server/embed_call.h"
#include "server/field_error.h"
#include "server/http_api.h"
#include "server/json_reader.h"
#include "server/json_text.h"
#include "server/openai_embedding.h"
#include "server/openai_error.h"
#include "server/trace.h"

namespace polyad {
namespace {

constexpr std::string_view kJson = "application/json";

void AppendIds(const std::vector<int32_t>& ids, std::string& out) {
  out += '[';
  for (size_t i = 0; i < ids.size(); ++i) {
    if (i > 0) out += ',';
    AppendJsonInt(ids[i], out);
  }
  out += ']';
}

}  // namespace

void HttpApi::Embeddings(const Exchange& exchange, const std::string& tenant) {
  auto ask = ParseOpenAiEmbedding(exchange->request().body);
  exchange->DropBody();
  auto specs = ask.ok() ? DecodeEmbedRequest(serving_, ask->embed, tenant)
                        : StatusOr<std::vector<RequestSpec>>(ask.status());
  if (!specs.ok()) {
    serving_.metrics.OnRejected(specs.status().code());
    RespondError(specs.status(), *exchange);
    return;
  }
  const TraceContext trace = MakeTrace(exchange->request().Field("traceparent"));
  for (RequestSpec& spec : *specs) spec.trace = trace;
  const std::string& named = ask->embed.model();
  const std::string model = named.empty() ? serving_.limits.model_name : named;
  const auto call = std::make_shared<EmbedCall>(serving_, *std::move(specs));
  exchange->OnClosed([weak = std::weak_ptr<EmbedCall>(call)] {
    if (const auto running = weak.lock()) running->Cancel();
  });
  call->Run(serving_, [exchange, model, base64 = ask->base64](const StatusOr<EmbedResult>& result) {
    if (result.ok()) {
      exchange->Respond(200, kJson, OpenAiEmbeddingBody(*result, model, base64));
    } else {
      RespondError(result.status(), *exchange);
    }
  });
}

// Whether the tenant may name it; all of them share the base's tokenizer.
Status HttpApi::CheckModel(const std::string& model, const std::string& tenant) const {
  POLYAD_ASSIGN_OR_RETURN(const std::string reference,
                          DecodeModel(model, serving_.limits, "model"));
  // With a session, so that requests without one are dealt out as if nobody had asked.
  if (reference.empty() || !serving_.registry.Choose(reference, tenant, "text").name.empty()) {
    return absl::OkStatus();
  }
  return NotFound("model: no adapter '%s'", reference);
}

void HttpApi::TokenizeRoute(const Exchange& exchange, const std::string& tenant) {
  const StatusOr<std::string> body = Tokenize(exchange->request().body, tenant);
  if (body.ok()) {
    exchange->Respond(200, kJson, *body);
  } else {
    RespondError(body.status(), *exchange);
  }
}

StatusOr<std::string> HttpApi::Tokenize(std::string_view request, const std::string& tenant) const {
  std::string model;
  std::optional<std::string> prompt;
  bool add_special = true;
  bool wants_strings = false;
  const auto read = [&](const std::string& name, const Json& value) -> Status {
    if (name == "model") {
      POLYAD_ASSIGN_OR_RETURN(model, JsonString(name, value));
    } else if (name == "prompt") {
      POLYAD_ASSIGN_OR_RETURN(prompt, JsonString(name, value));
    } else if (name == "add_special_tokens") {
      POLYAD_ASSIGN_OR_RETURN(add_special, JsonBool(name, value));
    } else if (name == "return_token_strs") {
      POLYAD_ASSIGN_OR_RETURN(wants_strings, JsonBool(name, value));
    } else {
      return UnknownJsonField(name);
    }
    return absl::OkStatus();
  };
  POLYAD_RETURN_IF_ERROR(ReadJsonBody(request, read));
  if (!prompt.has_value()) return FieldError("prompt", "a string", "none");
  POLYAD_RETURN_IF_ERROR(CheckModel(model, tenant));
  POLYAD_ASSIGN_OR_RETURN(const std::vector<int32_t> ids,
                          serving_.engine.Tokenize(*prompt, add_special));
  std::string body = R"({"count":)";
  AppendJsonInt(static_cast<int64_t>(ids.size()), body);
  body += R"(,"max_model_len":)";
  AppendJsonInt(serving_.limits.max_context, body);
  body += R"(,"tokens":)";
  AppendIds(ids, body);
  body += R"(,"token_strs":)";
  if (!wants_strings) return body + "null}";
  for (size_t i = 0; i < ids.size(); ++i) {
    body += i == 0 ? '[' : ',';
    POLYAD_ASSIGN_OR_RETURN(const std::string text, serving_.engine.Detokenize({ids[i]}, false));
    AppendJsonString(text, body);
  }
  return body + (ids.empty() ? "[]}" : "]}");
}

void HttpApi::DetokenizeRoute(const Exchange& exchange, const std::string& tenant) {
  const StatusOr<std::string> body = Detokenize(exchange->request().body, tenant);
  if (body.ok()) {
    exchange->Respond(200, kJson, *body);
  } else {
    RespondError(body.status(), *exchange);
  }
}

StatusOr<std::string> HttpApi::Detokenize(std::string_view request,
                                          const std::string& tenant) const {
  std::string model;
  std::optional<google::protobuf::RepeatedField<int32_t>> tokens;
  bool skip_special = false;
  const auto read = [&](const std::string& name, const Json& value) -> Status {
    if (name == "model") {
      POLYAD_ASSIGN_OR_RETURN(model, JsonString(name, value));
    } else if (name == "tokens") {
      return AddJsonInts(name, value, &tokens.emplace());
    } else if (name == "skip_special_tokens") {
      POLYAD_ASSIGN_OR_RETURN(skip_special, JsonBool(name, value));
    } else {
      return UnknownJsonField(name);
    }
    return absl::OkStatus();
  };
  POLYAD_RETURN_IF_ERROR(ReadJsonBody(request, read));
  if (!tokens.has_value()) return FieldError("tokens", "an array of token ids", "none");
  POLYAD_RETURN_IF_ERROR(CheckModel(model, tenant));
  POLYAD_ASSIGN_OR_RETURN(
      const std::vector<int32_t> ids,
      DecodeTokenIds("tokens", *tokens, kMaxDetokenizeIds, serving_.limits.vocab_size));
  POLYAD_ASSIGN_OR_RETURN(const std::string text, serving_.engine.Detokenize(ids, skip_special));
  std::string body = R"({"prompt":)";
  AppendJsonString(text, body);
  return body + '}';
}

}  // namespace polyad
