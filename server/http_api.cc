#include "server/http_api.h"

#include <google/protobuf/util/json_util.h>

#include <algorithm>
#include <chrono>
#include <functional>

#include "engine/base/check.h"
#include "engine/io/json.h"
#include "server/adapter_codec.h"
#include "server/adapter_reconciler.h"
#include "server/adapter_visibility.h"
#include "server/field_error.h"
#include "server/json_text.h"
#include "server/openai_error.h"
#include "server/openai_stream.h"
#include "server/openapi_document.h"
#include "server/trace.h"

namespace polyad {
namespace {

constexpr std::string_view kJson = "application/json";
constexpr std::string_view kModelPrefix = "/v1/models/";
constexpr int64_t kDefaultChatTokens = 1024;
constexpr size_t kMaxAdminBytes = 256 << 10;

int64_t UnixSeconds() {
  return std::chrono::duration_cast<std::chrono::seconds>(
             std::chrono::system_clock::now().time_since_epoch())
      .count();
}

void AppendModel(const std::string& name, const std::string& parent, int64_t max_context,
                 std::string& out) {
  out += R"({"id":)";
  AppendJsonString(name, out);
  out += R"(,"object":"model","created":0,"owned_by":"polyad","root":)";
  AppendJsonString(name, out);
  out += R"(,"parent":)";
  if (parent.empty()) {
    out += "null";
  } else {
    AppendJsonString(parent, out);
  }
  out += R"(,"max_model_len":)";
  AppendJsonInt(max_context, out);
  out += '}';
}

using JsonMembers = std::vector<std::pair<std::string, std::function<Status(const Json& value)>>>;

// An admin body; members that nobody reads are refused by name.
Status ReadMembers(std::string_view body, const JsonMembers& members) {
  POLYAD_ASSIGN_OR_RETURN(const Json json, ParseJson(body, "body", {.max_bytes = kMaxAdminBytes}));
  if (!json.is_object()) return FieldError("body", "an object", DescribeJson(json));
  for (const auto& [key, value] : json.items()) {
    if (value.is_null()) continue;
    const auto reader = std::find_if(members.begin(), members.end(),
                                     [&key = key](const auto& one) { return one.first == key; });
    if (reader == members.end()) {
      return FieldError(key, "a field of this endpoint", "an unknown field");
    }
    POLYAD_RETURN_IF_ERROR(reader->second(value));
  }
  return absl::OkStatus();
}

JsonMembers::value_type StringMember(const std::string& name, std::string& out) {
  return {name, [name, &out](const Json& value) {
            if (!value.is_string()) return FieldError(name, "a string", DescribeJson(value));
            out = value.get<std::string>();
            return absl::OkStatus();
          }};
}

// AdapterDefaults as protobuf writes messages in JSON.
JsonMembers::value_type DefaultsMember(v1::LoadAdapterRequest& request) {
  return {"defaults", [&request](const Json& value) {
            const std::string text = value.dump(-1, ' ', false, Json::error_handler_t::replace);
            const auto read =
                google::protobuf::util::JsonStringToMessage(text, request.mutable_defaults());
            if (read.ok()) return absl::OkStatus();
            return FieldError("defaults", "AdapterDefaults in JSON", read.ToString());
          }};
}

}  // namespace

const std::vector<HttpApi::Route>& HttpApi::Routes() {
  static const std::vector<Route>& routes = *new std::vector<Route>{
      {"GET", "/", &HttpApi::Page},
      {"GET", "/health", &HttpApi::Health},
      {"GET", "/ready", &HttpApi::Ready},
      {"GET", "/metrics", &HttpApi::MetricsText},
      {"GET", "/version", &HttpApi::Version},
      {"GET", "/openapi.json", &HttpApi::Document},
      {"GET", "/v1/status", &HttpApi::StatusRoute},
      {"GET", "/v1/models", &HttpApi::ListModels},
      {"GET", "/v1/models/{id}", &HttpApi::GetModel},
      {"POST", "/v1/completions", &HttpApi::Completions},
      {"POST", "/v1/chat/completions", &HttpApi::ChatCompletions},
      {"POST", "/v1/embeddings", &HttpApi::Embeddings},
      {"POST", "/tokenize", &HttpApi::TokenizeRoute},
      {"POST", "/detokenize", &HttpApi::DetokenizeRoute},
      {"POST", "/v1/load_lora_adapter", &HttpApi::LoadAdapterRoute},
      {"POST", "/v1/unload_lora_adapter", &HttpApi::UnloadAdapterRoute},
  };
  return routes;
}

HttpApi::HttpApi(Serving& serving) : serving_(serving) {
  for (const Route& route : Routes()) {
    POLYAD_CHECK(CheckListed(route.method, route.path).ok(), "every route says who may call it");
  }
}

StatusOr<std::string> HttpApi::Authorize(const Route& route, const HttpExchange& exchange) const {
  const HttpRequest& request = exchange.request();
  const std::optional<Access> access = FindAccess(route.method, route.path);
  if (!access.has_value()) return Internal("path: not in the table of access");
  const std::shared_ptr<const PeerIdentity> peer = exchange.peer();
  POLYAD_ASSIGN_OR_RETURN(std::string tenant, serving_.credentials.Authorize(
                                                  *access, serving_.reaches.http,
                                                  request.Field("authorization"), peer.get()));
  // A page in a browser cannot send this type elsewhere without being asked first.
  if (*access == Access::kAdmin && !request.Field("content-type").starts_with(kJson)) {
    return FieldError("content-type", kJson, request.Field("content-type"));
  }
  return tenant;
}

void HttpApi::Handle(const Exchange& exchange) {
  const HttpRequest& request = exchange->request();
  const bool model = request.path.starts_with(kModelPrefix);
  const std::string_view path = model ? std::string_view("/v1/models/{id}") : request.path;
  bool known_path = false;
  for (const Route& route : Routes()) {
    if (route.path != path) continue;
    known_path = true;
    if (route.method != request.method) continue;
    const StatusOr<std::string> tenant = Authorize(route, *exchange);
    if (!tenant.ok()) {
      RespondError(tenant.status(), *exchange);
      return;
    }
    (this->*route.handler)(exchange, *tenant);
    return;
  }
  const Status status = NotFound("path: not served");
  exchange->Respond(known_path ? 405 : 404, kJson, OpenAiErrorBody(status));
}

void HttpApi::Health(const Exchange& exchange, const std::string&) {
  exchange->Respond(200, "text/plain", "ok\n");
}

void HttpApi::Ready(const Exchange& exchange, const std::string&) {
  if (serving_.ready()) {
    exchange->Respond(200, "text/plain", "ready\n");
  } else {
    exchange->Respond(503, "text/plain", serving_.draining.load() ? "draining\n" : "stalled\n");
  }
}

void HttpApi::MetricsText(const Exchange& exchange, const std::string&) {
  MetricsSnapshot snapshot;
  snapshot.load = serving_.engine.load();
  snapshot.adapters = serving_.registry.Summaries();
  snapshot.adapter_bytes = serving_.registry.resident_bytes();
  snapshot.weight_bytes = serving_.engine.model_info().weight_bytes;
  snapshot.adapter_swaps = serving_.registry.swap_counts();
  snapshot.block_size = serving_.kv_block_size;
  snapshot.kv_format = serving_.engine.model_info().kv_format;
  snapshot.kv_bytes_per_token = serving_.engine.model_info().kv_bytes_per_token;
  snapshot.max_adapters = serving_.max_adapters;
  snapshot.now_unix_seconds = UnixSeconds();
  snapshot.gate = serving_.gate.counts();
  snapshot.tenants = serving_.gate.tenant_counts();
  snapshot.registry = serving_.registry.health();
  if (serving_.reconciler != nullptr) snapshot.reconcile = serving_.reconciler->counts();
  snapshot.process = ReadProcessUsage();
  snapshot.version = serving_.version;
  snapshot.stalled = serving_.stalled.load();
  exchange->Respond(200, "text/plain; version=0.0.4; charset=utf-8",
                    serving_.metrics.Render(snapshot));
}

void HttpApi::Version(const Exchange& exchange, const std::string&) {
  std::string body = R"({"version":)";
  AppendJsonString(serving_.version, body);
  body += '}';
  exchange->Respond(200, kJson, body);
}

void HttpApi::Document(const Exchange& exchange, const std::string&) {
  exchange->Respond(200, kJson, OpenApiDocument());
}

void HttpApi::ListModels(const Exchange& exchange, const std::string& tenant) {
  const std::string& base = serving_.limits.model_name;
  std::string body = R"({"object":"list","data":[)";
  AppendModel(base, "", serving_.limits.max_context, body);
  for (const AdapterInfo& adapter : VisibleAdapters(serving_.registry, tenant)) {
    body += ',';
    AppendModel(adapter.report.name, base, ContextOf(adapter.report, serving_.limits.max_context),
                body);
  }
  body += "]}";
  exchange->Respond(200, kJson, body);
}

void HttpApi::GetModel(const Exchange& exchange, const std::string& tenant) {
  const std::string name = exchange->request().path.substr(kModelPrefix.size());
  const std::string& base = serving_.limits.model_name;
  std::string body;
  if (name == base) AppendModel(base, "", serving_.limits.max_context, body);
  for (const AdapterInfo& adapter : VisibleAdapters(serving_.registry, tenant)) {
    if (body.empty() && adapter.report.name == name) {
      AppendModel(name, base, ContextOf(adapter.report, serving_.limits.max_context), body);
    }
  }
  if (body.empty()) {
    RespondError(NotFound("model: not served"), *exchange);
  } else {
    exchange->Respond(200, kJson, body);
  }
}

void HttpApi::Completions(const Exchange& exchange, const std::string& tenant) {
  Generate(OpenAiKind::kCompletion, exchange, tenant);
}

void HttpApi::ChatCompletions(const Exchange& exchange, const std::string& tenant) {
  Generate(OpenAiKind::kChat, exchange, tenant);
}

void HttpApi::Generate(OpenAiKind kind, const Exchange& exchange, const std::string& tenant) {
  StatusOr<OpenAiRequest> ask = ParseOpenAiRequest(kind, exchange->request().body);
  exchange->DropBody();
  const int64_t max_tokens =
      kind == OpenAiKind::kChat ? std::min(kDefaultChatTokens, serving_.limits.max_context) : 0;
  StatusOr<RequestSpec> spec = ask.ok() ? DecodeRequest(serving_, ask->generate, tenant, max_tokens)
                                        : StatusOr<RequestSpec>(ask.status());
  if (!spec.ok()) {
    serving_.metrics.OnRejected(spec.status().code());
    RespondError(spec.status(), *exchange);
    return;
  }
  const std::string engine_id = UniqueRequestId(spec->request_id);
  OpenAiStream::Options options;
  options.kind = kind;
  options.stream = ask->stream;
  options.include_usage = ask->include_usage;
  options.echo = spec->output.echo;
  options.logprobs = spec->output.logprobs.has_value();
  options.num_choices = spec->sampling.num_choices;
  options.max_tool_calls = ask->max_tool_calls;
  options.id = (kind == OpenAiKind::kChat ? "chatcmpl-" : "cmpl-") + engine_id;
  options.model = ask->model.empty() ? serving_.limits.model_name : ask->model;
  options.created_unix_s = UnixSeconds();
  options.token_text = [this](int32_t id) {
    return serving_.engine.Detokenize({id}, false).value_or("");
  };
  if (options.echo && options.logprobs) {
    const auto* ids = std::get_if<TokenPrompt>(&spec->prompt);
    const auto* text = std::get_if<TextPrompt>(&spec->prompt);
    const auto tokens = ids != nullptr    ? StatusOr<std::vector<int32_t>>(ids->ids)
                        : text != nullptr ? serving_.engine.Tokenize(text->text, true)
                                          : StatusOr<std::vector<int32_t>>(Internal("chat"));
    if (tokens.ok() && !tokens->empty()) options.first_prompt_token = tokens->front();
  }
  spec->request_id = engine_id;
  spec->trace = MakeTrace(exchange->request().Field("traceparent"));
  exchange->OnClosed([this, engine_id] { serving_.engine.Cancel(engine_id); });
  const Status submitted = SubmitRequest(
      serving_, *std::move(spec), std::make_shared<OpenAiStream>(std::move(options), exchange));
  if (!submitted.ok()) RespondError(submitted, *exchange);
}

void HttpApi::LoadAdapterRoute(const Exchange& exchange, const std::string&) {
  v1::LoadAdapterRequest request;
  std::string base;
  Status status = ReadMembers(exchange->request().body,
                              {StringMember("lora_name", *request.mutable_name()),
                               StringMember("lora_path", *request.mutable_uri()),
                               StringMember("base_model_name", base), DefaultsMember(request)});
  if (status.ok() && !base.empty() && base != serving_.limits.model_name) {
    status = FieldError("base_model_name", serving_.limits.model_name, base);
  }
  StatusOr<LoadAdapterSpec> spec =
      status.ok() ? DecodeLoadAdapter(request) : StatusOr<LoadAdapterSpec>(status);
  if (!spec.ok()) {
    RespondError(spec.status(), *exchange);
    return;
  }
  const bool queued = serving_.loaders.TryRun([this, exchange, spec = *std::move(spec)] {
    const auto report = LoadWithMetrics(serving_, spec, [](LoadState) {});
    if (report.ok()) {
      exchange->Respond(200, "text/plain",
                        "Success: LoRA adapter '" + spec.name + "' added successfully.");
    } else {
      RespondError(report.status(), *exchange);
    }
  });
  if (!queued) RespondError(ResourceExhausted("loads: too many are waiting"), *exchange);
}

void HttpApi::UnloadAdapterRoute(const Exchange& exchange, const std::string&) {
  std::string name;
  Status status = ReadMembers(exchange->request().body, {StringMember("lora_name", name)});
  if (status.ok()) status = CheckAdapterName("lora_name", name);
  if (!status.ok()) {
    RespondError(status, *exchange);
    return;
  }
  const bool queued = serving_.waiters.TryRun([this, exchange, name] {
    const Status unloaded = serving_.registry.Unload(name, false, kDefaultWaitMs);
    if (unloaded.ok()) {
      exchange->Respond(200, "text/plain",
                        "Success: LoRA adapter '" + name + "' removed successfully.");
    } else {
      RespondError(unloaded, *exchange);
    }
  });
  if (!queued) RespondError(ResourceExhausted("admin: too many calls are waiting"), *exchange);
}

}  // namespace polyad
