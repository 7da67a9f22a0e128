#pragma once

// What the tests of the program ask of it over gRPC: a generation, and the admin's calls.

#include <grpcpp/create_channel.h>
#include <gtest/gtest.h>

#include <chrono>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "polyad/v1/adapter_admin.grpc.pb.h"
#include "polyad/v1/inference.grpc.pb.h"
#include "tests/e2e/server_process.h"

namespace polyad {

struct Answer {
  std::vector<int32_t> tokens;
  grpc::Status status;
};

inline Answer Generate(const std::string& address, const std::string& model,
                       const std::vector<int32_t>& prompt, int64_t max_tokens) {
  const auto stub = v1::InferenceService::NewStub(
      grpc::CreateChannel(address, grpc::InsecureChannelCredentials()));
  v1::GenerateRequest request;
  request.set_model(model);
  request.mutable_token_ids()->mutable_ids()->Add(prompt.begin(), prompt.end());
  request.mutable_sampling()->set_temperature(0);
  request.mutable_stopping()->set_max_tokens(max_tokens);
  request.mutable_stopping()->set_ignore_eos(true);
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(60));
  const auto reader = stub->Generate(&context, request);
  Answer answer;
  for (v1::GenerateResponse response; reader->Read(&response);) {
    for (int32_t id : response.delta().token_ids()) answer.tokens.push_back(id);
  }
  answer.status = reader->Finish();
  return answer;
}

// The admin port, as an operator uses it.
class Admin {
 public:
  explicit Admin(const ServerProcess& server)
      : stub_(v1::AdapterAdminService::NewStub(
            grpc::CreateChannel(server.Address("admin"), grpc::InsecureChannelCredentials()))) {}

  // The last state, which is RESIDENT where all went well.
  v1::LoadAdapterResponse Load(const std::string& name, const std::string& uri) {
    v1::LoadAdapterRequest request;
    request.set_name(name);
    request.set_uri(uri);
    grpc::ClientContext context;
    const auto reader = stub_->LoadAdapter(&context, request);
    v1::LoadAdapterResponse last;
    for (v1::LoadAdapterResponse response; reader->Read(&response);) last = response;
    const grpc::Status status = reader->Finish();
    EXPECT_TRUE(status.ok()) << status.error_message();
    return last;
  }
  grpc::Status Unload(const std::string& name) {
    v1::UnloadAdapterRequest request;
    request.set_name(name);
    v1::UnloadAdapterResponse response;
    grpc::ClientContext context;
    return stub_->UnloadAdapter(&context, request, &response);
  }
  v1::GetServerInfoResponse GetServerInfo() {
    v1::GetServerInfoResponse response;
    grpc::ClientContext context;
    EXPECT_TRUE(stub_->GetServerInfo(&context, {}, &response).ok());
    return response;
  }
  v1::GetLoadResponse GetLoad() {
    v1::GetLoadResponse response;
    grpc::ClientContext context;
    EXPECT_TRUE(stub_->GetLoad(&context, {}, &response).ok());
    return response;
  }

 private:
  std::unique_ptr<v1::AdapterAdminService::Stub> stub_;
};

}  // namespace polyad
