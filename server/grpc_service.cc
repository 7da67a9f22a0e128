#include "server/grpc_service.h"

#include "polyad/v1/inference.grpc.pb.h"
#include "server/adapter_codec.h"
#include "server/adapter_visibility.h"
#include "server/embed_call.h"
#include "server/grpc_call.h"
#include "server/token_stream.h"
#include "server/trace.h"

namespace polyad {
namespace {

using Api = v1::InferenceService;
using RawApi = Api::WithRawCallbackMethod_Generate<Api::WithRawCallbackMethod_Embed<
    Api::WithRawCallbackMethod_Tokenize<Api::WithRawCallbackMethod_Detokenize<
        Api::WithRawCallbackMethod_ListModels<Api::Service>>>>>;
using WriteReactor = grpc::ServerWriteReactor<grpc::ByteBuffer>;

const std::string& kService = *new std::string("/polyad.v1.InferenceService/");

// Drives one EmbedCall; deletes itself when gRPC is done with it.
class EmbedReactor final : public grpc::ServerUnaryReactor {
 public:
  explicit EmbedReactor(std::shared_ptr<EmbedCall> call) : call_(std::move(call)) {}

  void OnCancel() override { call_->Cancel(); }
  void OnDone() override { delete this; }

 private:
  const std::shared_ptr<EmbedCall> call_;
};

class InferenceServiceImpl final : public RawApi {
 public:
  explicit InferenceServiceImpl(Serving& serving) : serving_(serving) {}

  WriteReactor* Generate(grpc::CallbackServerContext* context,
                         const grpc::ByteBuffer* in) override {
    StatusOr<RequestSpec> spec = Decode(*context, *in);
    if (!spec.ok()) {
      serving_.metrics.OnRejected(spec.status().code());
      return RefuseStream(spec.status());
    }
    TokenStream::Options options;
    const std::string engine_id = UniqueRequestId(spec->request_id);
    options.request_id = spec->request_id.empty() ? engine_id : spec->request_id;
    options.num_choices = spec->sampling.num_choices;
    options.max_buffer_bytes = static_cast<size_t>(serving_.stream_buffer_bytes);
    options.cancel = [this, engine_id] { serving_.engine.Cancel(engine_id); };
    spec->request_id = engine_id;
    auto stream = std::make_shared<TokenStream>(std::move(options));
    const Status submitted = SubmitRequest(serving_, *std::move(spec), stream);
    if (!submitted.ok()) stream->Refuse(submitted);
    return StartStream(std::move(stream));
  }

  grpc::ServerUnaryReactor* Embed(grpc::CallbackServerContext* context, const grpc::ByteBuffer* in,
                                  grpc::ByteBuffer* out) override {
    auto specs = DecodeInputs(*context, *in);
    if (!specs.ok()) {
      serving_.metrics.OnRejected(specs.status().code());
      grpc::ServerUnaryReactor* refused = context->DefaultReactor();
      refused->Finish(ToGrpcStatus(specs.status()));
      return refused;
    }
    const std::string& client_id = specs->front().request_id;
    const std::string request_id = client_id.empty() ? UniqueRequestId("") : client_id;
    const auto call = std::make_shared<EmbedCall>(serving_, *std::move(specs));
    auto* reactor = new EmbedReactor(call);
    call->Run(serving_, [reactor, out, request_id](const StatusOr<EmbedResult>& result) {
      Status status = result.status();
      if (status.ok()) {
        v1::EmbedResponse response;
        EncodeEmbed(*result, request_id, response);
        status = SerializeMessage(response, *out);
      }
      reactor->Finish(ToGrpcStatus(status));
    });
    return reactor;
  }

  grpc::ServerUnaryReactor* Tokenize(grpc::CallbackServerContext* context,
                                     const grpc::ByteBuffer* in, grpc::ByteBuffer* out) override {
    return HandleUnary<v1::TokenizeRequest, v1::TokenizeResponse>(
        context, in, out, [&](const auto& request, auto& response) -> Status {
          POLYAD_RETURN_IF_ERROR(TenantOf(*context, "Tokenize").status());
          POLYAD_RETURN_IF_ERROR(CheckTokenize(request, serving_.limits));
          POLYAD_ASSIGN_OR_RETURN(
              const std::vector<int32_t> ids,
              serving_.engine.Tokenize(request.text(), !request.has_add_special_tokens() ||
                                                           request.add_special_tokens()));
          response.mutable_token_ids()->Add(ids.begin(), ids.end());
          return absl::OkStatus();
        });
  }

  grpc::ServerUnaryReactor* Detokenize(grpc::CallbackServerContext* context,
                                       const grpc::ByteBuffer* in, grpc::ByteBuffer* out) override {
    return HandleUnary<v1::DetokenizeRequest, v1::DetokenizeResponse>(
        context, in, out, [&](const auto& request, auto& response) -> Status {
          POLYAD_RETURN_IF_ERROR(TenantOf(*context, "Detokenize").status());
          POLYAD_ASSIGN_OR_RETURN(const std::vector<int32_t> ids,
                                  DecodeTokenIds("token_ids", request.token_ids(),
                                                 kMaxDetokenizeIds, serving_.limits.vocab_size));
          POLYAD_ASSIGN_OR_RETURN(
              *response.mutable_text(),
              serving_.engine.Detokenize(
                  ids, !request.has_skip_special_tokens() || request.skip_special_tokens()));
          return absl::OkStatus();
        });
  }

  grpc::ServerUnaryReactor* ListModels(grpc::CallbackServerContext* context,
                                       const grpc::ByteBuffer* in, grpc::ByteBuffer* out) override {
    return HandleUnary<v1::ListModelsRequest, v1::ListModelsResponse>(
        context, in, out, [&](const auto&, auto& response) -> Status {
          POLYAD_ASSIGN_OR_RETURN(const std::string tenant, TenantOf(*context, "ListModels"));
          const ModelInfo& base = serving_.engine.model_info();
          AddModel(base.name, "", 0, response);
          for (const AdapterInfo& adapter : VisibleAdapters(serving_.registry, tenant)) {
            v1::ServedModel& model =
                AddModel(adapter.report.name, base.name, adapter.report.version, response);
            model.set_max_context(ContextOf(adapter.report, serving_.limits.max_context));
            for (const std::string& alias : adapter.aliases) model.add_aliases(alias);
          }
          return absl::OkStatus();
        });
  }

 private:
  StatusOr<std::string> TenantOf(const grpc::CallbackServerContext& context,
                                 const std::string& method) const {
    return AuthorizeCall(serving_.credentials, serving_.reaches.data, kService + method, context);
  }

  StatusOr<RequestSpec> Decode(const grpc::CallbackServerContext& context,
                               const grpc::ByteBuffer& in) const {
    POLYAD_ASSIGN_OR_RETURN(std::string tenant, TenantOf(context, "Generate"));
    v1::GenerateRequest request;
    POLYAD_RETURN_IF_ERROR(ParseMessage(in, request));
    POLYAD_ASSIGN_OR_RETURN(RequestSpec spec, DecodeRequest(serving_, request, std::move(tenant)));
    spec.deadline_us = DeadlineMicros(context, serving_.clock.NowMicros());
    spec.trace = MakeTrace(MetadataOf(context, "traceparent"));
    return spec;
  }

  StatusOr<std::vector<RequestSpec>> DecodeInputs(const grpc::CallbackServerContext& context,
                                                  const grpc::ByteBuffer& in) const {
    POLYAD_ASSIGN_OR_RETURN(std::string tenant, TenantOf(context, "Embed"));
    v1::EmbedRequest request;
    POLYAD_RETURN_IF_ERROR(ParseMessage(in, request));
    POLYAD_ASSIGN_OR_RETURN(std::vector<RequestSpec> specs,
                            DecodeEmbedRequest(serving_, request, std::move(tenant)));
    const int64_t deadline_us = DeadlineMicros(context, serving_.clock.NowMicros());
    const TraceContext trace = MakeTrace(MetadataOf(context, "traceparent"));
    for (RequestSpec& spec : specs) {
      spec.deadline_us = deadline_us;
      spec.trace = trace;
    }
    return specs;
  }

  v1::ServedModel& AddModel(const std::string& name, const std::string& parent, int64_t version,
                            v1::ListModelsResponse& response) const {
    v1::ServedModel* model = response.add_models();
    model->set_name(name);
    model->set_parent(parent);
    model->set_version(version);
    model->set_max_context(serving_.limits.max_context);
    return *model;
  }

  Serving& serving_;
};

}  // namespace

std::unique_ptr<grpc::Service> MakeInferenceService(Serving& serving) {
  return std::make_unique<InferenceServiceImpl>(serving);
}

}  // namespace polyad
