#include <grpcpp/generic/generic_stub.h>

#include <chrono>
#include <vector>

#include "engine/io/quote.h"
#include "server/grpc_channel.h"
#include "server/probe.h"

namespace polyad {
namespace {

constexpr size_t kMaxServiceBytes = 127;  // its length is one byte of a message

// grpc.health.v1 by hand: HealthCheckRequest is a string, field 1; HealthCheckResponse an enum,
// field 1, of which 1 is SERVING and 2 NOT_SERVING.
grpc::ByteBuffer HealthRequest(const std::string& service) {
  std::string bytes;
  if (!service.empty()) {
    bytes = {'\x0a', static_cast<char>(service.size())};
    bytes += service;
  }
  const grpc::Slice slice(bytes);
  return grpc::ByteBuffer(&slice, 1);
}

Status JudgeHealth(const grpc::ByteBuffer& answer) {
  std::vector<grpc::Slice> slices;
  if (!answer.Dump(&slices).ok()) return Unavailable("health: no answer");
  std::string bytes;
  for (const grpc::Slice& slice : slices) {
    bytes.append(reinterpret_cast<const char*>(slice.begin()), slice.size());
  }
  if (bytes == "\x08\x01") return absl::OkStatus();
  if (bytes == "\x08\x02") return Unavailable("health: expected SERVING, got NOT_SERVING");
  return Unavailable("health: expected SERVING, got %s", Quote(bytes));
}

}  // namespace

Status ProbeGrpc(const ProbeTarget& target) {
  if (target.service.size() > kMaxServiceBytes) {
    return InvalidArgument("service: expected at most %d bytes, got %d", kMaxServiceBytes,
                           target.service.size());
  }
  POLYAD_ASSIGN_OR_RETURN(const auto channel, OpenChannel(target));
  grpc::GenericStub stub(channel);
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() +
                       std::chrono::milliseconds(target.timeout_ms));
  grpc::CompletionQueue queue;
  const auto call = stub.PrepareUnaryCall(&context, "/grpc.health.v1.Health/Check",
                                          HealthRequest(target.service), &queue);
  call->StartCall();
  grpc::ByteBuffer answer;
  grpc::Status status;
  call->Finish(&answer, &status, nullptr);
  void* tag = nullptr;
  bool is_done = false;
  queue.Next(&tag, &is_done);  // the call's deadline ends it
  if (!status.ok()) {
    return Unavailable("health: %s (code %d)", Quote(status.error_message()),
                       static_cast<int>(status.error_code()));
  }
  return JudgeHealth(answer);
}

}  // namespace polyad
