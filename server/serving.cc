#include "server/serving.h"

#include <malloc.h>

#include <algorithm>
#include <utility>

#include "engine/base/log.h"
#include "server/adapter_defaults.h"
#include "server/embed_codec.h"
#include "server/field_error.h"
#include "server/quota_error.h"
#include "server/request_log.h"

namespace polyad {
namespace {

// About how many bytes a token of text has; what a request really cost is settled at its end.
constexpr int64_t kBytesPerToken = 4;
constexpr int64_t kTurnTokens = 8;       // what a template puts around a message
constexpr int64_t kRequestBytes = 4096;  // of a request without its prompt

// Tells the gate of a request's beginning and end, and the log of its end.
class GatedSink final : public ResponseSink {
 public:
  GatedSink(std::unique_ptr<TenantGate::Pass> pass, const RequestSpec& spec,
            std::shared_ptr<ResponseSink> sink, const Serving& serving)
      : pass_(std::move(pass)),
        num_choices_(spec.sampling.num_choices),
        sink_(std::move(sink)),
        metrics_(serving.metrics),
        traces_(serving.traces) {
    ended_.request_id = spec.request_id;
    ended_.tenant = spec.tenant;
    ended_.trace = spec.trace;
    ended_.begin_unix_us = UnixMicros();
  }

  bool OnEvent(TokenEvent event) override {
    if (const auto* prompt = std::get_if<PromptEvent>(&event)) ended_.adapter = prompt->adapter;
    const auto* finish = std::get_if<FinishEvent>(&event);
    if (finish == nullptr) {
      if (pass_ != nullptr) pass_->Begin();
    } else {
      OnFinish(*finish);
    }
    return sink_->OnEvent(std::move(event));
  }

 private:
  void OnFinish(const FinishEvent& finish) {
    const int64_t num_made = ended_.usage.completion_tokens + finish.usage.completion_tokens;
    ended_.usage = finish.usage;
    ended_.usage.completion_tokens = num_made;
    if (++num_finished_ != num_choices_ || pass_ == nullptr) return;
    // Before the client hears of it, who may ask again at once.
    pass_->SetUsed(num_made > 0 ? num_made + finish.usage.prompt_tokens : 0);
    ended_.timings = finish.timings;
    ended_.reason = ReasonText(finish.reason);
    ended_.status = finish.status;
    CountEnd(metrics_, traces_, ended_);
    pass_.reset();
  }

  std::unique_ptr<TenantGate::Pass> pass_;
  const int32_t num_choices_;
  const std::shared_ptr<ResponseSink> sink_;
  Metrics& metrics_;
  TraceExporter* const traces_;
  int32_t num_finished_ = 0;
  EndedRequest ended_;
};

struct PromptSize {
  int64_t tokens = 0;
  int64_t bytes = 0;
};

PromptSize SizeOf(const RequestSpec& spec) {
  PromptSize size;
  if (const auto* ids = std::get_if<TokenPrompt>(&spec.prompt)) {
    size.tokens = static_cast<int64_t>(ids->ids.size());
    size.bytes = size.tokens * static_cast<int64_t>(sizeof(int32_t));
    return size;
  }
  if (const auto* text = std::get_if<TextPrompt>(&spec.prompt)) {
    size.bytes = static_cast<int64_t>(text->text.size());
  } else {
    const auto& chat = std::get<ChatPrompt>(spec.prompt);
    size.bytes = BytesOf(chat);
    size.tokens = kTurnTokens * static_cast<int64_t>(chat.messages.size() + chat.tools.size());
  }
  size.tokens += size.bytes / kBytesPerToken + 1;
  return size;
}

TenantGate::Ask AskOf(std::span<const RequestSpec> specs, const TenantLimits& limits,
                      const DecodeLimits& decode) {
  TenantGate::Ask ask;
  ask.tenant = specs.front().tenant;
  ask.limits = limits;
  ask.deadline_us = specs.front().deadline_us;
  for (const RequestSpec& spec : specs) {
    const PromptSize size = SizeOf(spec);
    ask.num_tokens += size.tokens + spec.sampling.num_choices *
                                        std::min(spec.stopping.max_tokens, decode.most_tokens());
    ask.num_bytes += size.bytes + kRequestBytes;
  }
  return ask;
}

TenantShare ShareOf(const TenantLimits& limits, const Serving& serving) {
  TenantShare share;
  share.weight = limits.weight;
  share.max_sequences = limits.max_sequences;
  const int64_t block_bytes =
      std::max<int64_t>(serving.engine.model_info().kv_bytes_per_token * serving.kv_block_size, 1);
  if (limits.max_kv_mib > 0) {
    share.max_kv_blocks = std::max<int64_t>((limits.max_kv_mib << 20) / block_bytes, 1);
  }
  return share;
}

StatusOr<LoadReport> LoadWithinQuotas(Serving& serving, const LoadAdapterSpec& spec,
                                      const AdapterStore::Progress& progress) {
  if (spec.defaults != nullptr) {
    POLYAD_RETURN_IF_ERROR(CheckAdapterDefaults(*spec.defaults, serving.limits, serving.engine));
  }
  POLYAD_ASSIGN_OR_RETURN(
      const std::unique_ptr<AdapterQuota::Reservation> reservation,
      serving.adapter_quota.Reserve(spec, AdapterFileBytes(spec.path, serving.adapter_roots),
                                    serving.credentials, serving.registry));
  return serving.registry.Load(spec, progress);
}

Status Admit(Serving& serving, RequestSpec spec, std::shared_ptr<ResponseSink> sink) {
  POLYAD_ASSIGN_OR_RETURN(std::unique_ptr<TenantGate::Pass> pass,
                          EnterGate(serving, std::span(&spec, 1)));
  const std::string tenant = spec.tenant;
  auto gated = std::make_shared<GatedSink>(std::move(pass), spec, std::move(sink), serving);
  const auto id = serving.engine.Submit(std::move(spec), std::move(gated));
  if (id.ok()) return absl::OkStatus();
  return WithRetry(id.status(), serving.gate.RetryMillisOf(tenant));
}

// The version that the request would have now. None for the base and for compositions, which take
// no defaults.
template <typename Request>
AdapterStore::Choice ChoiceOf(const Serving& serving, const Request& request,
                              const std::string& tenant) {
  const auto model = DecodeModel(request.model(), serving.limits, "model");
  if (!model.ok() || model->empty() || request.adapters_size() > 0) return {};
  return serving.registry.Choose(*model, tenant, request.session());
}

// A version that is replaced just now still serves the request that has its defaults: the lease
// keeps it. One that is swapped out cannot be kept, and without defaults or a draw among versions
// need not be.
void Bind(const AdapterStore::Choice& choice, RequestSpec& spec) {
  if (choice.lease == nullptr && choice.defaults == nullptr && !choice.is_drawn) return;
  spec.model = absl::StrFormat("%s@%d", choice.name, choice.version);
  spec.lease = choice.lease;
}

}  // namespace

StatusOr<RequestSpec> DecodeRequest(const Serving& serving, v1::GenerateRequest& request,
                                    std::string tenant, int64_t max_tokens) {
  AdapterStore::Choice choice = ChoiceOf(serving, request, tenant);
  if (choice.defaults != nullptr) FillInDefaults(choice.defaults->message, request);
  if (max_tokens > 0 && !request.stopping().has_max_tokens()) {
    request.mutable_stopping()->set_max_tokens(max_tokens);
  }
  POLYAD_ASSIGN_OR_RETURN(RequestSpec spec, DecodeGenerate(request, serving.limits));
  spec.tenant = std::move(tenant);
  if (auto* chat = std::get_if<ChatPrompt>(&spec.prompt); chat != nullptr && choice.defaults) {
    chat->chat_template = choice.defaults->chat_template;
  }
  Bind(choice, spec);
  return spec;
}

StatusOr<std::vector<RequestSpec>> DecodeEmbedRequest(const Serving& serving,
                                                      const v1::EmbedRequest& request,
                                                      std::string tenant) {
  const AdapterStore::Choice choice = ChoiceOf(serving, request, tenant);
  POLYAD_ASSIGN_OR_RETURN(std::vector<RequestSpec> specs, DecodeEmbed(request, serving.limits));
  for (RequestSpec& spec : specs) {
    spec.tenant = tenant;
    Bind(choice, spec);
  }
  return specs;
}

StatusOr<std::unique_ptr<TenantGate::Pass>> EnterGate(Serving& serving,
                                                      std::span<RequestSpec> specs) {
  const std::string& tenant = specs.front().tenant;
  POLYAD_ASSIGN_OR_RETURN(const TenantLimits limits, serving.credentials.LimitsOf(tenant));
  POLYAD_RETURN_IF_ERROR(
      CheckRange("priority", int64_t{specs.front().priority}, -kMaxPriority, limits.max_priority));
  for (RequestSpec& spec : specs) spec.share = ShareOf(limits, serving);
  return serving.gate.Enter(AskOf(specs, limits, serving.limits));
}

StatusOr<LoadReport> LoadWithMetrics(Serving& serving, const LoadAdapterSpec& spec,
                                     const AdapterStore::Progress& progress) {
  const int64_t begin_us = serving.clock.NowMicros();
  StatusOr<LoadReport> report = LoadWithinQuotas(serving, spec, progress);
  const double seconds = static_cast<double>(serving.clock.NowMicros() - begin_us) / 1e6;
  serving.metrics.OnAdapterLoad(report.ok(), seconds);
  if (report.ok()) {
    Log(LogLevel::kInfo, "adapter_loaded",
        {{"name", report->name}, {"version", report->version}, {"seconds", seconds}});
  } else {
    Log(LogLevel::kWarning, "adapter_refused",
        {{"name", spec.name}, {"why", std::string(report.status().message())}});
    // A hostile header leaves a heap full of holes, one in each thread that met it.
    malloc_trim(0);
  }
  return report;
}

std::string UniqueRequestId(const std::string& client_id) {
  static std::atomic<uint64_t> next{1};
  return absl::StrFormat("%s-%x", client_id.empty() ? "request" : client_id,
                         next.fetch_add(1, std::memory_order_relaxed));
}

Status CountRefusal(Metrics& metrics, const std::string& tenant, Status status) {
  metrics.OnRefused(tenant, status.code(), BlamedQuota(status));
  return status;
}

void CountEnd(Metrics& metrics, TraceExporter* traces, EndedRequest& ended) {
  NoteEnd(ended, traces);
  metrics.OnRequestEnded(ended);
}

Status SubmitRequest(Serving& serving, RequestSpec spec, std::shared_ptr<ResponseSink> sink) {
  const std::string tenant = spec.tenant;
  Status status = Admit(serving, std::move(spec), std::move(sink));
  return status.ok() ? status : CountRefusal(serving.metrics, tenant, std::move(status));
}

void TellHealth(Serving& serving) {
  if (serving.on_readiness) serving.on_readiness(serving.ready());
}

bool DrainServing(Serving& serving, int64_t wait_ms) {
  serving.draining.store(true);
  TellHealth(serving);
  Log(LogLevel::kInfo, "draining", {{"wait_ms", wait_ms}});
  return serving.engine.Drain(wait_ms);
}

}  // namespace polyad
