#include "server/admin_call.h"

#include <absl/strings/str_cat.h>
#include <google/protobuf/descriptor.h>
#include <google/protobuf/message.h>
#include <google/protobuf/util/json_util.h>
#include <grpcpp/generic/generic_stub.h>

#include <algorithm>
#include <chrono>
#include <memory>
#include <utility>
#include <vector>

#include "polyad/v1/adapter_admin.pb.h"
#include "server/config.h"
#include "server/grpc_channel.h"

namespace polyad {
namespace {

namespace pb = google::protobuf;

const pb::ServiceDescriptor& Service() {
  return *polyad::v1::LoadAdapterRequest::descriptor()->file()->FindServiceByName(
      "AdapterAdminService");
}

std::unique_ptr<pb::Message> MessageOf(const pb::Descriptor* type) {
  return std::unique_ptr<pb::Message>(
      pb::MessageFactory::generated_factory()->GetPrototype(type)->New());
}

StatusOr<const pb::MethodDescriptor*> MethodNamed(const std::string& name) {
  const pb::MethodDescriptor* method = Service().FindMethodByName(name);
  if (method != nullptr) return method;
  std::vector<std::string> names;
  for (int i = 0; i < Service().method_count(); ++i) names.push_back(Service().method(i)->name());
  const std::string nearest = NearestName(name, names);
  return InvalidArgument("method '%s': unknown%s", name,
                         nearest.empty() ? "" : "; did you mean '" + nearest + "'?");
}

StatusOr<std::unique_ptr<pb::Message>> RequestOf(const AdminCall& call) {
  POLYAD_ASSIGN_OR_RETURN(const pb::MethodDescriptor* method, MethodNamed(call.method));
  std::unique_ptr<pb::Message> request = MessageOf(method->input_type());
  const auto parsed = pb::util::JsonStringToMessage(call.request, request.get());
  if (!parsed.ok()) {
    return InvalidArgument("request: expected JSON of %s, got %s", method->input_type()->name(),
                           std::string(parsed.message()));
  }
  return request;
}

grpc::ByteBuffer BytesOf(const pb::Message& message) {
  const grpc::Slice slice(message.SerializeAsString());
  return grpc::ByteBuffer(&slice, 1);
}

StatusOr<std::string> JsonOf(const grpc::ByteBuffer& bytes, pb::Message& message) {
  std::vector<grpc::Slice> slices;
  std::string text;
  if (bytes.Dump(&slices).ok()) {
    for (const grpc::Slice& slice : slices) {
      text.append(reinterpret_cast<const char*>(slice.begin()), slice.size());
    }
  }
  pb::util::JsonPrintOptions options;
  options.preserve_proto_field_names = true;
  std::string json;
  if (!message.ParseFromString(text) ||
      !pb::util::MessageToJsonString(message, &json, options).ok()) {
    return Unavailable("expected an answer of %s", message.GetDescriptor()->name());
  }
  return json;
}

// What a server says, for a terminal.
Status StatusOf(const grpc::Status& status) {
  std::string text = status.error_message();
  for (char& c : text) {
    if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) c = '?';
  }
  return absl::Status(static_cast<absl::StatusCode>(status.error_code()), text);
}

// The call itself, one event after the other.
class Exchange {
 public:
  Exchange(const AdminCall& call, std::shared_ptr<grpc::Channel> channel)
      : stub_(std::move(channel)) {
    if (call.target.timeout_ms > 0) {
      context_.set_deadline(std::chrono::system_clock::now() +
                            std::chrono::milliseconds(call.target.timeout_ms));
    }
    if (!call.token.empty()) context_.AddMetadata("authorization", "Bearer " + call.token);
    stream_ = stub_.PrepareCall(
        &context_, absl::StrCat("/", Service().full_name(), "/", call.method), &queue_);
  }

  bool Send(const grpc::ByteBuffer& request) {
    stream_->StartCall(this);
    if (!Wait()) return false;
    stream_->WriteLast(request, grpc::WriteOptions(), this);
    return Wait();
  }

  bool Read(grpc::ByteBuffer& answer) {
    stream_->Read(&answer, this);
    return Wait();
  }

  grpc::Status Finish() {
    grpc::Status status;
    stream_->Finish(&status, this);
    Wait();
    return status;
  }

 private:
  bool Wait() {
    void* tag = nullptr;
    bool is_done = false;
    return queue_.Next(&tag, &is_done) && is_done;
  }

  grpc::GenericStub stub_;
  grpc::ClientContext context_;
  grpc::CompletionQueue queue_;
  std::unique_ptr<grpc::GenericClientAsyncReaderWriter> stream_;
};

}  // namespace

Status CheckAdminCall(const AdminCall& call) { return RequestOf(call).status(); }

Status CallAdmin(const AdminCall& call, const std::function<void(const std::string&)>& answer) {
  POLYAD_ASSIGN_OR_RETURN(const std::unique_ptr<pb::Message> request, RequestOf(call));
  POLYAD_ASSIGN_OR_RETURN(std::shared_ptr<grpc::Channel> channel, OpenChannel(call.target));
  Exchange exchange(call, std::move(channel));
  if (exchange.Send(BytesOf(*request))) {
    const auto message = MessageOf(Service().FindMethodByName(call.method)->output_type());
    grpc::ByteBuffer bytes;
    while (exchange.Read(bytes)) {
      POLYAD_ASSIGN_OR_RETURN(const std::string json, JsonOf(bytes, *message));
      answer(json);
    }
  }
  return StatusOf(exchange.Finish());
}

std::string AdminMethodsHelp() {
  std::string help;
  for (int i = 0; i < Service().method_count(); ++i) {
    const pb::MethodDescriptor& method = *Service().method(i);
    absl::StrAppend(&help, "  ", method.name(), " {");
    for (int k = 0; k < method.input_type()->field_count(); ++k) {
      absl::StrAppend(&help, k > 0 ? ", " : "", method.input_type()->field(k)->name());
    }
    absl::StrAppend(&help, "}\n");
  }
  return help;
}

}  // namespace polyad
