// Every numeric field of every request, over gRPC and HTTP: below, at and above its limits, not a
// number, of another type. What is refused is INVALID_ARGUMENT or 400; nothing is the server's
// fault. The fields are those of the protos' descriptors and of the document that HTTP serves, so
// that one more of them without a row here is a failure.

#include <google/protobuf/descriptor.h>
#include <google/protobuf/dynamic_message.h>
#include <grpcpp/create_channel.h>
#include <grpcpp/generic/generic_stub.h>
#include <gtest/gtest.h>

#include <limits>
#include <map>
#include <nlohmann/json.hpp>
#include <set>

#include "polyad/v1/adapter_admin.pb.h"
#include "polyad/v1/inference.pb.h"
#include "server/adapter_watch.h"
#include "server/admin_service.h"
#include "server/grpc_server.h"
#include "server/grpc_service.h"
#include "server/http/http_server.h"
#include "server/http_api.h"
#include "server/openapi_document.h"
#include "tests/server/raw_client.h"
#include "tests/server/serving_fixture.h"

namespace polyad {
namespace {

using google::protobuf::Descriptor;
using google::protobuf::FieldDescriptor;
using google::protobuf::Message;
using nlohmann::json;

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();
constexpr double kInf = std::numeric_limits<double>::infinity();

struct Values {
  std::vector<double> accepted;
  std::vector<double> refused;
};

// By the field's full name: of the fake engine's vocabulary (1000), context (512) and width (4).
const std::map<std::string, Values>& Rows() {
  static const auto& rows = *new std::map<std::string, Values>{
      {"AdapterUse.scale", {{-100, 0, 100}, {-100.1, 100.1, kNan, kInf, -kInf}}},
      {"TokenIds.ids", {{0, 999}, {-1, 1000, 2147483647, -2147483648.0}}},
      {"Sampling.temperature", {{0, 1, 100}, {-0.001, 100.1, kNan, kInf, -kInf}}},
      {"Sampling.top_k", {{0, 1073741824}, {-1, 1073741825, -2147483648.0}}},
      {"Sampling.top_p", {{0.001, 1}, {0, -1, 1.001, kNan, kInf}}},
      {"Sampling.min_p", {{0, 1}, {-0.001, 1.001, kNan, kInf}}},
      {"Sampling.seed", {{0, 1e18}, {}}},
      {"Sampling.repetition_penalty", {{0.001, 10}, {0, 0.0009, 10.1, kNan, kInf}}},
      {"Sampling.presence_penalty", {{-2, 2}, {-2.01, 2.01, kNan, kInf}}},
      {"Sampling.frequency_penalty", {{-2, 2}, {-2.01, 2.01, kNan, kInf}}},
      {"Sampling.LogitBiasEntry.key", {{0, 999}, {-1, 1000, 2147483647}}},
      {"Sampling.LogitBiasEntry.value", {{-100, 100}, {-100.1, 100.1, kNan, kInf}}},
      {"Sampling.allowed_token_ids", {{0, 999}, {-1, 1000, 2147483647}}},
      {"Sampling.n", {{1, 16}, {0, -1, 17, 2147483647}}},
      {"Stopping.max_tokens", {{0, 512}, {-1, 513, 9e18, -9e18}}},
      {"Stopping.min_tokens", {{0, 16}, {-1, 17, 9e18}}},  // the default max_tokens is 16
      {"Stopping.stop_token_ids", {{0, 999}, {-1, 1000}}},
      {"Output.prompt_logprobs", {{0, 20}, {-1, 21, 2147483647}}},
      {"Output.logprobs", {{0, 20}, {-1, 21, 2147483647}}},
      {"GenerateRequest.priority", {{-100, 0}, {-101, 101, 2147483647}}},
      {"GenerateRequest.max_adapter_wait_ms", {{0, 600000}, {-1, 600001, 9e18}}},
      {"EmbedRequest.dimensions", {{0, 4}, {-1, 5, 2147483647}}},
      {"EmbedRequest.priority", {{-100, 0}, {-101, 101}}},
      {"EmbedRequest.max_adapter_wait_ms", {{0, 600000}, {-1, 600001}}},
      {"DetokenizeRequest.token_ids", {{0, 999}, {-1, 1000, 2147483647}}},
      {"LoadAdapterRequest.expected_version", {{0, 9e18}, {-1, -9e18}}},
      {"LoadAdapterRequest.OptionsEntry.value", {{0, 9e18}, {}}},
      {"LoadAdapterRequest.share", {{0, 0.5}, {-0.001, 1, kNan, kInf}}},
      {"ShiftTrafficRequest.version", {{1, 9e18}, {0, -1}}},
      {"ShiftTrafficRequest.share", {{0, 1}, {-0.001, 1.001, kNan, kInf}}},
      {"ShiftTrafficRequest.expected_version", {{1, 9e18}, {0, -1}}},
      {"UnloadAdapterRequest.version", {{1, 9e18}, {-1, -9e18}}},
      {"UnloadAdapterRequest.wait_ms", {{0, 600000}, {-1, 600001, 9e18}}},
      {"DrainRequest.wait_ms", {{0, 600000}, {-1, 600001, 9e18}}}};
  return rows;
}

struct Field {
  std::string method;
  const Descriptor* request = nullptr;
  std::vector<const FieldDescriptor*> path;

  std::string name() const {
    return std::string(path.back()->full_name()).substr(std::string("polyad.v1.").size());
  }
};

bool IsNumber(const FieldDescriptor& field) {
  return field.cpp_type() != FieldDescriptor::CPPTYPE_STRING &&
         field.cpp_type() != FieldDescriptor::CPPTYPE_BOOL &&
         field.cpp_type() != FieldDescriptor::CPPTYPE_ENUM &&
         field.cpp_type() != FieldDescriptor::CPPTYPE_MESSAGE;
}

void Collect(const Descriptor& message, Field at, std::vector<Field>& out) {
  for (int i = 0; i < message.field_count(); ++i) {
    Field next = at;
    next.path.push_back(message.field(i));
    if (message.field(i)->cpp_type() == FieldDescriptor::CPPTYPE_MESSAGE) {
      Collect(*message.field(i)->message_type(), next, out);
    } else if (IsNumber(*message.field(i))) {
      out.push_back(next);
    }
  }
}

std::vector<Field> AllFields() {
  std::vector<Field> fields;
  const auto* pool = google::protobuf::DescriptorPool::generated_pool();
  for (const char* name : {"polyad.v1.InferenceService", "polyad.v1.AdapterAdminService"}) {
    const auto* service = pool->FindServiceByName(name);
    for (int i = 0; i < service->method_count(); ++i) {
      const auto* method = service->method(i);
      Field root;
      root.method = "/" + std::string(name) + "/" + std::string(method->name());
      root.request = method->input_type();
      Collect(*method->input_type(), root, fields);
    }
  }
  return fields;
}

void SetNumber(Message& message, const FieldDescriptor& field, double value) {
  const auto* to = message.GetReflection();
  const bool many = field.is_repeated();
  switch (field.cpp_type()) {
    case FieldDescriptor::CPPTYPE_INT32:
      return many ? to->AddInt32(&message, &field, static_cast<int32_t>(value))
                  : to->SetInt32(&message, &field, static_cast<int32_t>(value));
    case FieldDescriptor::CPPTYPE_INT64:
      return to->SetInt64(&message, &field, static_cast<int64_t>(value));
    case FieldDescriptor::CPPTYPE_UINT64:
      return to->SetUInt64(&message, &field, static_cast<uint64_t>(value));
    case FieldDescriptor::CPPTYPE_DOUBLE:
      return to->SetDouble(&message, &field, value);
    case FieldDescriptor::CPPTYPE_FLOAT:
      return to->SetFloat(&message, &field, static_cast<float>(value));
    default:
      FAIL() << field.full_name() << ": a type without a setter here";
  }
}

// A request that is well but for what is set later.
std::unique_ptr<Message> BaseOf(const Field& field) {
  std::unique_ptr<Message> request(
      google::protobuf::MessageFactory::generated_factory()->GetPrototype(field.request)->New());
  const bool sets_prompt = field.path.front()->containing_oneof() != nullptr;
  if (auto* generate = dynamic_cast<v1::GenerateRequest*>(request.get())) {
    if (!sets_prompt) generate->set_text("hello");
  } else if (auto* embed = dynamic_cast<v1::EmbedRequest*>(request.get())) {
    if (field.path.front()->name() != "inputs") embed->add_inputs()->set_text("hello");
  } else if (auto* shift = dynamic_cast<v1::ShiftTrafficRequest*>(request.get())) {
    shift->set_name("support");
    shift->set_version(1);
    shift->set_share(0.5);
  } else if (auto* load = dynamic_cast<v1::LoadAdapterRequest*>(request.get())) {
    load->set_name("pirate");
    load->set_uri("pirate");
  } else if (auto* unload = dynamic_cast<v1::UnloadAdapterRequest*>(request.get())) {
    unload->set_name("pirate");
  }
  return request;
}

std::unique_ptr<Message> RequestWith(const Field& field, double value) {
  std::unique_ptr<Message> request = BaseOf(field);
  Message* at = request.get();
  for (size_t i = 0; i + 1 < field.path.size(); ++i) {
    const FieldDescriptor* step = field.path[i];
    at = step->is_repeated() ? at->GetReflection()->AddMessage(at, step)
                             : at->GetReflection()->MutableMessage(at, step);
    if (auto* use = dynamic_cast<v1::AdapterUse*>(at)) use->set_name("pirate");
  }
  SetNumber(*at, *field.path.back(), value);
  return request;
}

// The same with bytes where the number belongs.
std::string WithAnotherType(const Field& field) {
  std::string inner = "\x02no";
  for (size_t i = field.path.size(); i-- > 0;) {
    const auto tag = static_cast<uint32_t>(field.path[i]->number()) << 3 | 2;
    EXPECT_LT(tag, 0x80u * 0x80u);
    std::string encoded;
    if (tag >= 0x80) encoded += static_cast<char>((tag & 0x7f) | 0x80);
    encoded += static_cast<char>(tag >= 0x80 ? tag >> 7 : tag);
    inner = encoded + inner;
    if (i > 0) inner = static_cast<char>(inner.size()) + inner;
  }
  return BaseOf(field)->SerializeAsString() + inner;
}

struct Servers {
  Servers()
      : watch(fixture.registry),
        inference(MakeInferenceService(fixture.serving)),
        admin(MakeAdminService(fixture.serving, watch)),
        data_server(
            GrpcServer::Start("127.0.0.1:0", "polyad.v1.InferenceService", *inference, {}).value()),
        admin_server(
            GrpcServer::Start("127.0.0.1:0", "polyad.v1.AdapterAdminService", *admin, {}).value()),
        data(grpc::CreateChannel(data_server->address(), grpc::InsecureChannelCredentials())),
        control(grpc::CreateChannel(admin_server->address(), grpc::InsecureChannelCredentials())) {
    LoadAdapterSpec spec;
    spec.name = "pirate";
    EXPECT_TRUE(fixture.registry.Load(spec, [](LoadState) {}).ok());
  }

  grpc::Status Call(const Field& field, const std::string& bytes) {
    const bool is_admin = field.method.find("Admin") != std::string::npos;
    grpc::GenericStub stub(is_admin ? control : data);
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(60));
    grpc::CompletionQueue queue;
    void* tag = nullptr;
    bool ok = false;
    const auto call = stub.PrepareCall(&context, field.method, &queue);
    call->StartCall(nullptr);
    queue.Next(&tag, &ok);
    grpc::Slice slice(bytes);
    if (ok) {
      call->WriteLast(grpc::ByteBuffer(&slice, 1), {}, nullptr);
      queue.Next(&tag, &ok);
    }
    do {
      grpc::ByteBuffer response;
      call->Read(&response, nullptr);
      queue.Next(&tag, &ok);
    } while (ok);
    grpc::Status status;
    call->Finish(&status, nullptr);
    queue.Next(&tag, &ok);
    return status;
  }

  ServingFixture fixture;
  AdapterWatch watch;
  std::unique_ptr<grpc::Service> inference;
  std::unique_ptr<grpc::Service> admin;
  std::unique_ptr<GrpcServer> data_server;
  std::unique_ptr<GrpcServer> admin_server;
  std::shared_ptr<grpc::Channel> data;
  std::shared_ptr<grpc::Channel> control;
};

TEST(LimitsTest, EveryNumberOfEveryRpcIsHeldToItsLimits) {
  Servers servers;
  std::set<std::string> seen;
  int num_calls = 0;
  for (const Field& field : AllFields()) {
    const std::string what = field.method + " " + field.name();
    const auto row = Rows().find(field.name());
    ASSERT_NE(row, Rows().end()) << what << " has no row";
    seen.insert(row->first);
    for (const double value : row->second.accepted) {
      ++num_calls;
      const auto status = servers.Call(field, RequestWith(field, value)->SerializeAsString());
      const bool is_state = status.error_code() == grpc::StatusCode::NOT_FOUND ||
                            status.error_code() == grpc::StatusCode::FAILED_PRECONDITION;
      // How many choices there are is each request's to say: no adapter's default says it.
      if (field.path.front()->name() == "defaults" && field.name() == "Sampling.n") {
        EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT) << what;
        continue;
      }
      EXPECT_TRUE(status.ok() || is_state)
          << what << " = " << value << ": " << status.error_message();
    }
    for (const double value : row->second.refused) {
      ++num_calls;
      const auto status = servers.Call(field, RequestWith(field, value)->SerializeAsString());
      EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT)
          << what << " = " << value << ": " << status.error_message();
      EXPECT_NE(status.error_message().find("expected"), std::string::npos) << what;
    }
    ++num_calls;  // bytes are an unknown field, or a message that does not parse
    const auto odd = servers.Call(field, WithAnotherType(field));
    EXPECT_TRUE(odd.ok() || odd.error_code() == grpc::StatusCode::INVALID_ARGUMENT ||
                odd.error_code() == grpc::StatusCode::NOT_FOUND)
        << what << " as bytes: " << odd.error_code() << " " << odd.error_message();
  }
  EXPECT_EQ(seen.size(), Rows().size()) << "a row has no field";
  EXPECT_GT(num_calls, 300);
}

// ---- HTTP ----

struct HttpServers {
  HttpServers()
      : api(fixture.serving),
        server(HttpServer::Start({.listen = "127.0.0.1:0", .limits = {}}, fixture.clock,
                                 [this](const auto& exchange) { api.Handle(exchange); })
                   .value()) {}
  std::string Ask(const std::string& path, const std::string& body) {
    return polyad::Ask(server->address(), Post(path, body));
  }
  ServingFixture fixture;
  HttpApi api;
  std::unique_ptr<HttpServer> server;
};

json Resolve(const json& document, const json& schema) {
  if (!schema.contains("$ref")) return schema;
  const std::string reference = schema["$ref"];
  return document.at(json::json_pointer(reference.substr(1)));
}

bool HasType(const json& schema, const std::string& type) {
  if (!schema.contains("type")) return false;
  const json& types = schema["type"];
  return types == type ||
         (types.is_array() && std::find(types.begin(), types.end(), type) != types.end());
}

// The least that a body of the path needs, and its numbers that only the model bounds.
const std::map<std::string, json>& Bodies() {
  static const auto& bodies = *new std::map<std::string, json>{
      {"/v1/completions", json::parse(R"({"prompt": "hi"})")},
      {"/v1/chat/completions", json::parse(R"({"messages": [{"role": "user", "content": "hi"}]})")},
      {"/v1/embeddings", json::parse(R"({"input": "hi"})")},
      {"/tokenize", json::parse(R"({"prompt": "hi"})")},
      {"/detokenize", json::parse(R"({"tokens": [1]})")}};
  return bodies;
}

// JSON texts that are no number of the field.
std::vector<std::string> WrongNumbers(bool is_integer) {
  std::vector<std::string> wrong = {"NaN",    "Infinity", "\"1\"", "true", "[1]", "{}",     "1e999",
                                    "-1e999", "0x1",      "+1",    "01",   "1.",  "\"NaN\""};
  if (is_integer) wrong.insert(wrong.end(), {"0.5", "1e400", "99999999999999999999999"});
  return wrong;
}

TEST(LimitsTest, EveryNumberOfEveryHttpBodyIsHeldToItsLimits) {
  HttpServers servers;
  const json document = json::parse(OpenApiDocument());
  int num_fields = 0;
  int num_refused = 0;
  for (const auto& [path, body] : Bodies()) {
    const json content = document["paths"][path]["post"]["requestBody"]["content"];
    const json schema = Resolve(document, content["application/json"]["schema"]);
    for (const auto& [name, property] : schema["properties"].items()) {
      const json field = Resolve(document, property);
      const bool is_integer = HasType(field, "integer");
      if (!is_integer && !HasType(field, "number")) continue;
      ++num_fields;
      const auto status = [&, name = name](const std::string& value) {
        json with = body;
        with.erase(name);
        std::string text = with.dump();
        text.back() = ',';
        return StatusOf(servers.Ask(path, text + '"' + name + "\": " + value + "}"));
      };
      for (const std::string& wrong : WrongNumbers(is_integer)) {
        if (name == "seed" && wrong == "99999999999999999999999") continue;
        EXPECT_EQ(status(wrong), 400) << path << " " << name << " = " << wrong;
        ++num_refused;
      }
      EXPECT_EQ(status("null"), 200) << path << " " << name;
      for (const char* bound : {"minimum", "maximum", "exclusiveMinimum"}) {
        if (!field.contains(bound)) continue;
        const double at = field[bound];
        const double step = is_integer ? 1 : 1e-4;
        const bool is_maximum = std::string(bound) == "maximum";
        const bool is_exclusive = std::string(bound) == "exclusiveMinimum";
        const json beyond = is_maximum ? at + step : is_exclusive ? at : at - step;
        const auto text = [&](const json& value) {
          return is_integer ? std::to_string(value.get<int64_t>()) : value.dump();
        };
        EXPECT_EQ(status(text(beyond)), 400) << path << " " << name << " = " << beyond;
        ++num_refused;
        if (is_exclusive) continue;
        // The model's own bounds may be narrower.
        const int got = status(text(json(at)));
        EXPECT_TRUE(got == 200 || got == 400) << path << " " << name << " = " << at << ": " << got;
        const bool is_models = name == "max_tokens" || name == "min_tokens" ||
                               name == "max_completion_tokens" || name == "priority";
        if (is_models && is_maximum) continue;
        EXPECT_EQ(got, 200) << path << " " << name << " = " << at;
      }
    }
  }
  EXPECT_GE(num_fields, 29);
  EXPECT_GE(num_refused, 400);
}

}  // namespace
}  // namespace polyad
