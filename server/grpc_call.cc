#include "server/grpc_call.h"

#include <grpc/grpc_security_constants.h>
#include <grpcpp/support/proto_buffer_reader.h>
#include <grpcpp/support/proto_buffer_writer.h>

#include <algorithm>
#include <chrono>
#include <utility>

#include "google/rpc/status_details.pb.h"
#include "server/quota_error.h"

namespace polyad {
namespace {

constexpr int64_t kMaxMessageText = 2048;  // trailing metadata has a limit of its own

// Drives one StreamSource; deletes itself when gRPC is done with it.
class CallReactor final : public grpc::ServerWriteReactor<grpc::ByteBuffer>, public MessageChannel {
 public:
  explicit CallReactor(std::shared_ptr<StreamSource> source) : source_(std::move(source)) {}

  void Begin() { source_->Start(*this); }

  void StartWrite(const google::protobuf::MessageLite& message) override {
    bytes_.Clear();
    const Status status = SerializeMessage(message, bytes_);
    if (status.ok()) {
      grpc::ServerWriteReactor<grpc::ByteBuffer>::StartWrite(&bytes_);
    } else {
      source_->OnWritten(false);
    }
  }
  void Finish(const Status& status) override {
    grpc::ServerWriteReactor<grpc::ByteBuffer>::Finish(ToGrpcStatus(status));
  }

  void OnWriteDone(bool ok) override { source_->OnWritten(ok); }
  void OnCancel() override { source_->OnCancelled(); }
  void OnDone() override { delete this; }

 private:
  const std::shared_ptr<StreamSource> source_;
  grpc::ByteBuffer bytes_;
};

class RefusedReactor final : public grpc::ServerWriteReactor<grpc::ByteBuffer> {
 public:
  explicit RefusedReactor(const grpc::Status& status) { Finish(status); }
  void OnDone() override { delete this; }
};

// Of the certificate that the handshake has verified; none where the client showed none.
std::optional<PeerIdentity> PeerOf(const grpc::CallbackServerContext& context) {
  const auto connection = context.auth_context();
  if (connection == nullptr) return std::nullopt;
  const auto certificate = connection->FindPropertyValues(GRPC_X509_PEM_CERT_PROPERTY_NAME);
  if (certificate.size() != 1) return std::nullopt;
  return IdentityOfPem({certificate.front().data(), certificate.front().size()});
}

}  // namespace

StatusOr<std::string> AuthorizeCall(const Credentials& credentials, Reach reach,
                                    std::string_view method,
                                    const grpc::CallbackServerContext& context) {
  const std::optional<Access> access = FindAccess(kRpc, method);
  if (!access.has_value()) return Internal("%s: not in the table of access", method);
  const std::string_view authorization = MetadataOf(context, "authorization");
  if (!authorization.empty()) return credentials.Authorize(*access, reach, authorization);
  const std::optional<PeerIdentity> peer = PeerOf(context);
  return credentials.Authorize(*access, reach, "", peer.has_value() ? &*peer : nullptr);
}

std::string_view MetadataOf(const grpc::CallbackServerContext& context, std::string_view key) {
  const auto& metadata = context.client_metadata();
  const auto found = metadata.find(grpc::string_ref(key.data(), key.size()));
  if (found == metadata.end()) return "";
  return {found->second.data(), found->second.size()};
}

grpc::Status ToGrpcStatus(const Status& status) {
  if (status.ok()) return grpc::Status::OK;
  google::rpc::Status details;
  details.set_code(static_cast<int>(status.code()));
  details.set_message(std::string(status.message()).substr(0, kMaxMessageText));
  WithRetry(status, kDefaultRetryMs)
      .ForEachPayload([&](absl::string_view url, const absl::Cord& payload) {
        google::protobuf::Any* any = details.add_details();
        any->set_type_url(std::string(url));
        any->set_value(std::string(payload));
      });
  return grpc::Status(static_cast<grpc::StatusCode>(status.code()), details.message(),
                      details.SerializeAsString());
}

int64_t DeadlineMicros(const grpc::CallbackServerContext& context, int64_t now_us) {
  const auto deadline = context.deadline();
  if (deadline == std::chrono::system_clock::time_point::max()) return 0;
  const auto left = std::chrono::duration_cast<std::chrono::microseconds>(
                        deadline - std::chrono::system_clock::now())
                        .count();
  constexpr int64_t kFarMicros = int64_t{365} * 86'400 * 1'000'000;
  if (left > kFarMicros) return 0;
  return std::max<int64_t>(now_us + left, 1);
}

Status ParseMessage(const grpc::ByteBuffer& bytes, google::protobuf::MessageLite& message) {
  grpc::ByteBuffer copy(bytes);  // shares the slices; the reader wants a mutable one
  grpc::ProtoBufferReader reader(&copy);
  if (reader.status().ok() && message.ParseFromZeroCopyStream(&reader)) return absl::OkStatus();
  return InvalidArgument(
      "%s: expected a valid message, got malformed bytes or a string that is "
      "not UTF-8",
      message.GetTypeName());
}

Status SerializeMessage(const google::protobuf::MessageLite& message, grpc::ByteBuffer& bytes) {
  bool own_buffer = false;
  const grpc::Status status =
      grpc::GenericSerialize<grpc::ProtoBufferWriter, google::protobuf::MessageLite>(
          message, &bytes, &own_buffer);
  if (status.ok()) return absl::OkStatus();
  return Internal("%s: cannot be serialised", message.GetTypeName());
}

grpc::ServerWriteReactor<grpc::ByteBuffer>* StartStream(std::shared_ptr<StreamSource> source) {
  auto* reactor = new CallReactor(std::move(source));
  reactor->Begin();
  return reactor;
}

grpc::ServerWriteReactor<grpc::ByteBuffer>* RefuseStream(const Status& status) {
  return new RefusedReactor(ToGrpcStatus(status));
}

}  // namespace polyad
