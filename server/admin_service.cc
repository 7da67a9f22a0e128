#include "server/admin_service.h"

#include "polyad/v1/adapter_admin.grpc.pb.h"
#include "server/adapter_codec.h"
#include "server/adapter_reconciler.h"
#include "server/field_error.h"
#include "server/grpc_call.h"

namespace polyad {
namespace {

using Api = v1::AdapterAdminService;
using Raw1 = Api::WithRawCallbackMethod_LoadAdapter<Api::WithRawCallbackMethod_UnloadAdapter<
    Api::WithRawCallbackMethod_ListAdapters<Api::WithRawCallbackMethod_GetAdapter<Api::Service>>>>;
using Raw2 = Api::WithRawCallbackMethod_WatchAdapters<
    Api::WithRawCallbackMethod_PinAdapter<Api::WithRawCallbackMethod_SetAlias<Raw1>>>;
using RawApi = Api::WithRawCallbackMethod_GetServerInfo<Api::WithRawCallbackMethod_GetLoad<
    Api::WithRawCallbackMethod_Drain<Api::WithRawCallbackMethod_ShiftTraffic<Raw2>>>>;
using Context = grpc::CallbackServerContext;
using Bytes = grpc::ByteBuffer;
using UnaryReactor = grpc::ServerUnaryReactor;
using WriteReactor = grpc::ServerWriteReactor<Bytes>;

const std::string& kService = *new std::string("/polyad.v1.AdapterAdminService/");
constexpr size_t kMaxLoadStreamBytes = 8 << 20;

void EncodeAdaptersFile(const AdapterReconciler* from, v1::GetLoadResponse& to) {
  if (from == nullptr) return;
  v1::AdaptersFile& file = *to.mutable_adapters_file();
  const ReconcileCounts counts = from->counts();
  file.set_num_declared(counts.declared);
  file.set_num_in_place(counts.in_place);
  file.set_num_failing(counts.failing);
  file.set_stale(counts.is_stale);
  file.set_error(counts.file_error);
  for (const ReconcileFailure& failure : from->failures()) {
    v1::AdaptersFile::Failure& shown = *file.add_failures();
    shown.set_name(failure.name);
    shown.set_error(failure.error);
    shown.set_num_tries(failure.tries);
    shown.set_retry_in_ms(failure.retry_in_ms);
  }
}

Status TooManyWaiting() { return ResourceExhausted("admin: too many calls are waiting"); }

class AdminServiceImpl final : public RawApi {
 public:
  AdminServiceImpl(Serving& serving, AdapterWatch& watch) : serving_(serving), watch_(watch) {}

  WriteReactor* LoadAdapter(Context* context, const Bytes* in) override {
    StatusOr<LoadAdapterSpec> spec = DecodeLoad(*context, *in);
    if (!spec.ok()) return RefuseStream(spec.status());
    using LoadStream = MessageStream<v1::LoadAdapterResponse>;
    auto stream = std::make_shared<LoadStream>(kMaxLoadStreamBytes);
    const bool queued = serving_.loaders.TryRun([this, stream, spec = *std::move(spec)] {
      // RESIDENT is sent below, with the report.
      const auto report = LoadWithMetrics(serving_, spec, [&](LoadState state) {
        if (state == LoadState::kResident) return;
        v1::LoadAdapterResponse response;
        response.set_state(EncodeLoadState(state));
        stream->Send(std::move(response));
      });
      if (report.ok()) {
        v1::LoadAdapterResponse response;
        response.set_state(v1::LoadAdapterResponse::RESIDENT);
        EncodeLoadReport(*report, *response.mutable_report());
        stream->Send(std::move(response));
      }
      stream->Close(report.status());
    });
    if (!queued) return RefuseStream(ResourceExhausted("loads: too many are waiting"));
    return StartStream(std::move(stream));
  }

  UnaryReactor* UnloadAdapter(Context* context, const Bytes* in, Bytes* out) override {
    return HandleWaiting<v1::UnloadAdapterRequest, v1::UnloadAdapterResponse>(
        "UnloadAdapter", context, in, out,
        [](const auto& request) -> Status {
          POLYAD_RETURN_IF_ERROR(CheckAdapterName("name", request.name()));
          if (request.has_version()) {
            POLYAD_RETURN_IF_ERROR(CheckRange("version", request.version(), 1, INT64_MAX));
          }
          return CheckRange("wait_ms", request.wait_ms(), 0, kMaxWaitMs);
        },
        [this](const auto& request, auto&) -> Status {
          const int64_t wait_ms = request.has_wait_ms() ? request.wait_ms() : kDefaultWaitMs;
          if (request.has_version()) {
            return serving_.registry.UnloadVersion(request.name(), request.version(),
                                                   request.force(), wait_ms);
          }
          return serving_.registry.Unload(request.name(), request.force(), wait_ms);
        });
  }

  UnaryReactor* ListAdapters(Context* context, const Bytes* in, Bytes* out) override {
    return Handle<v1::ListAdaptersRequest, v1::ListAdaptersResponse>(
        "ListAdapters", context, in, out, [this](const auto&, auto& response) -> Status {
          for (AdapterInfo& adapter : serving_.registry.List()) {
            adapter.defaults.reset();  // hundreds of KiB each
            EncodeAdapter(adapter, *response.add_adapters());
          }
          return absl::OkStatus();
        });
  }

  UnaryReactor* GetAdapter(Context* context, const Bytes* in, Bytes* out) override {
    return Handle<v1::GetAdapterRequest, v1::GetAdapterResponse>(
        "GetAdapter", context, in, out, [this](const auto& request, auto& response) -> Status {
          POLYAD_RETURN_IF_ERROR(CheckAdapterName("name", request.name()));
          POLYAD_ASSIGN_OR_RETURN(const AdapterInfo info, serving_.registry.Get(request.name()));
          EncodeAdapter(info, *response.mutable_adapter());
          return absl::OkStatus();
        });
  }

  WriteReactor* WatchAdapters(Context* context, const Bytes* in) override {
    v1::WatchAdaptersRequest request;
    Status status = CheckAdmin("WatchAdapters", *context);
    if (status.ok()) status = ParseMessage(*in, request);
    if (!status.ok()) return RefuseStream(status);
    auto stream = watch_.Add();
    return stream.ok() ? StartStream(*std::move(stream)) : RefuseStream(stream.status());
  }

  UnaryReactor* PinAdapter(Context* context, const Bytes* in, Bytes* out) override {
    return Handle<v1::PinAdapterRequest, v1::PinAdapterResponse>(
        "PinAdapter", context, in, out, [this](const auto& request, auto&) -> Status {
          POLYAD_RETURN_IF_ERROR(CheckAdapterName("name", request.name()));
          return serving_.registry.Pin(request.name(), request.pinned());
        });
  }

  UnaryReactor* ShiftTraffic(Context* context, const Bytes* in, Bytes* out) override {
    return HandleWaiting<v1::ShiftTrafficRequest, v1::ShiftTrafficResponse>(
        "ShiftTraffic", context, in, out,
        [](const auto& request) { return DecodeShift(request).status(); },
        [this](const auto& request, auto&) -> Status {
          POLYAD_ASSIGN_OR_RETURN(const TrafficShift shift, DecodeShift(request));
          return serving_.registry.ShiftTraffic(shift);
        });
  }

  UnaryReactor* SetAlias(Context* context, const Bytes* in, Bytes* out) override {
    return Handle<v1::SetAliasRequest, v1::SetAliasResponse>(
        "SetAlias", context, in, out, [this](const auto& request, auto&) -> Status {
          POLYAD_RETURN_IF_ERROR(CheckAdapterName("alias", request.alias()));
          if (!request.target().empty()) {
            POLYAD_RETURN_IF_ERROR(CheckAdapterName("target", request.target()));
          }
          return serving_.registry.SetAlias(request.alias(), request.target());
        });
  }

  UnaryReactor* GetServerInfo(Context* context, const Bytes* in, Bytes* out) override {
    return Handle<v1::GetServerInfoRequest, v1::GetServerInfoResponse>(
        "GetServerInfo", context, in, out, [this](const auto&, auto& response) -> Status {
          EncodeServerInfo(serving_.engine.model_info(), serving_.version, response);
          return absl::OkStatus();
        });
  }

  UnaryReactor* GetLoad(Context* context, const Bytes* in, Bytes* out) override {
    return Handle<v1::GetLoadRequest, v1::GetLoadResponse>(
        "GetLoad", context, in, out, [this](const auto&, auto& response) -> Status {
          EncodeLoad(serving_.engine.load(), response);
          EncodeAdapterBytes(serving_.registry.resident_bytes(), response);
          EncodeAdaptersFile(serving_.reconciler, response);
          return absl::OkStatus();
        });
  }

  UnaryReactor* Drain(Context* context, const Bytes* in, Bytes* out) override {
    return HandleWaiting<v1::DrainRequest, v1::DrainResponse>(
        "Drain", context, in, out,
        [](const auto& request) { return CheckRange("wait_ms", request.wait_ms(), 0, kMaxWaitMs); },
        [this](const auto& request, auto& response) -> Status {
          response.set_drained(
              DrainServing(serving_, request.has_wait_ms() ? request.wait_ms() : kDefaultWaitMs));
          return absl::OkStatus();
        });
  }

 private:
  Status CheckAdmin(const std::string& method, const Context& context) const {
    return AuthorizeCall(serving_.credentials, serving_.reaches.admin, kService + method, context)
        .status();
  }

  StatusOr<LoadAdapterSpec> DecodeLoad(const Context& context, const Bytes& in) const {
    POLYAD_RETURN_IF_ERROR(CheckAdmin("LoadAdapter", context));
    v1::LoadAdapterRequest request;
    POLYAD_RETURN_IF_ERROR(ParseMessage(in, request));
    return DecodeLoadAdapter(request);
  }

  template <typename Request, typename Response, typename Handler>
  UnaryReactor* Handle(const char* method, Context* context, const Bytes* in, Bytes* out,
                       Handler handler) {
    return HandleUnary<Request, Response>(context, in, out,
                                          [&](const Request& request, Response& response) {
                                            Status status = CheckAdmin(method, *context);
                                            if (status.ok()) status = handler(request, response);
                                            return status;
                                          });
  }

  // Like Handle, with `handler` on a waiter thread once `check` has passed.
  template <typename Request, typename Response, typename Check, typename Handler>
  UnaryReactor* HandleWaiting(const char* method, Context* context, const Bytes* in, Bytes* out,
                              const Check& check, Handler handler) {
    UnaryReactor* reactor = context->DefaultReactor();
    Request request;
    Status status = CheckAdmin(method, *context);
    if (status.ok()) status = ParseMessage(*in, request);
    if (status.ok()) status = check(request);
    if (status.ok() && !serving_.waiters.TryRun([=] {
          Response response;
          Status result = handler(request, response);
          if (result.ok()) result = SerializeMessage(response, *out);
          reactor->Finish(ToGrpcStatus(result));
        })) {
      status = TooManyWaiting();
    }
    if (!status.ok()) reactor->Finish(ToGrpcStatus(status));
    return reactor;
  }

  Serving& serving_;
  AdapterWatch& watch_;
};

}  // namespace

std::unique_ptr<grpc::Service> MakeAdminService(Serving& serving, AdapterWatch& watch) {
  return std::make_unique<AdminServiceImpl>(serving, watch);
}

}  // namespace polyad
