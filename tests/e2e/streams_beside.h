#pragma once

// Clients that stream from an adapter and from the base while something else is tried on the
// server, and find every token as it was before: what goes wrong elsewhere is no trouble of theirs.

#include <grpcpp/create_channel.h>
#include <gtest/gtest.h>

#include <array>
#include <atomic>
#include <chrono>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "polyad/v1/inference.grpc.pb.h"
#include "tests/e2e/server_process.h"

namespace polyad {

class StreamsBeside {
 public:
  // Of `adapter` and the base, two of each.
  StreamsBeside(const ServerProcess& server, const std::string& adapter)
      : stub_(v1::InferenceService::NewStub(
            grpc::CreateChannel(server.Address("grpc"), grpc::InsecureChannelCredentials()))) {
    for (const std::string& model : {adapter, std::string()}) {
      const std::vector<int32_t> expected = Ask(model);
      EXPECT_EQ(expected.size(), 48u);
      for (int i = 0; i < 2; ++i) {
        threads_.emplace_back([this, model, expected] {
          while (!done_) {
            if (Ask(model) != expected) ++num_wrong_;
            ++num_streams_;
          }
        });
      }
    }
  }
  ~StreamsBeside() { Stop(); }

  // Waits for those under way; every one has to have been right.
  void Stop() {
    if (threads_.empty()) return;
    done_ = true;
    for (std::thread& thread : threads_) thread.join();
    threads_.clear();
    EXPECT_EQ(num_wrong_, 0) << "of " << num_streams_;
    EXPECT_GT(num_streams_, 0);
  }
  int num_streams() const { return num_streams_; }

 private:
  std::vector<int32_t> Ask(const std::string& model) {
    v1::GenerateRequest request;
    request.set_model(model);
    for (int32_t id = 20; id < 40; ++id) request.mutable_token_ids()->add_ids(id);
    request.mutable_sampling()->set_temperature(0);
    request.mutable_stopping()->set_max_tokens(48);
    request.mutable_stopping()->set_ignore_eos(true);
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + std::chrono::minutes(10));
    const auto reader = stub_->Generate(&context, request);
    std::vector<int32_t> tokens;
    for (v1::GenerateResponse response; reader->Read(&response);) {
      for (const int32_t id : response.delta().token_ids()) tokens.push_back(id);
    }
    return reader->Finish().ok() ? tokens : std::vector<int32_t>();
  }

  std::unique_ptr<v1::InferenceService::Stub> stub_;
  std::atomic<bool> done_{false};
  std::atomic<int> num_wrong_{0};
  std::atomic<int> num_streams_{0};
  std::vector<std::thread> threads_;
};

}  // namespace polyad
