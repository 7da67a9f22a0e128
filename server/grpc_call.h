#pragma once

// The few lines that every gRPC method shares: credentials of a call, Status to grpc::Status with
// its details, messages to and from raw bytes (so that a message that does not parse is
// INVALID_ARGUMENT, not INTERNAL), and the reactor that drives a StreamSource. Methods are
// registered as raw callbacks; nothing here blocks.

#include <grpcpp/impl/codegen/proto_utils.h>
#include <grpcpp/server_context.h>
#include <grpcpp/support/byte_buffer.h>
#include <grpcpp/support/server_callback.h>

#include <memory>
#include <string>
#include <string_view>

#include "engine/base/status.h"
#include "server/auth.h"
#include "server/stream_queue.h"

namespace polyad {

// Whether the call may be made, by the table of access, on a listener of that reach. `method` is
// the RPC's path ("/package.Service/Method"). -> the tenant, where that is a tenant's.
StatusOr<std::string> AuthorizeCall(const Credentials& credentials, Reach reach,
                                    std::string_view method,
                                    const grpc::CallbackServerContext& context);
// The value of a key of the call's metadata, or empty.
std::string_view MetadataOf(const grpc::CallbackServerContext& context, std::string_view key);
// Codes are the same numbers; payloads become google.rpc.Status details, and what may be tried
// again says when.
grpc::Status ToGrpcStatus(const Status& status);
// The call's deadline on the engine's clock, given its reading now; 0 where it has none.
int64_t DeadlineMicros(const grpc::CallbackServerContext& context, int64_t now_us);

Status ParseMessage(const grpc::ByteBuffer& bytes, google::protobuf::MessageLite& message);
Status SerializeMessage(const google::protobuf::MessageLite& message, grpc::ByteBuffer& bytes);

// Starts `source` on a new reactor, which owns itself and a share of it.
grpc::ServerWriteReactor<grpc::ByteBuffer>* StartStream(std::shared_ptr<StreamSource> source);
// A stream that ends at once.
grpc::ServerWriteReactor<grpc::ByteBuffer>* RefuseStream(const Status& status);

// A unary method: parse, `handler(request, response) -> Status`, serialise.
template <typename Request, typename Response, typename Handler>
grpc::ServerUnaryReactor* HandleUnary(grpc::CallbackServerContext* context,
                                      const grpc::ByteBuffer* in, grpc::ByteBuffer* out,
                                      Handler handler) {
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  Request request;
  Response response;
  Status status = ParseMessage(*in, request);
  if (status.ok()) status = handler(request, response);
  if (status.ok()) status = SerializeMessage(response, *out);
  reactor->Finish(ToGrpcStatus(status));
  return reactor;
}

}  // namespace polyad
