#pragma once

// The admin API as a client that keeps book: what it may count on after each acknowledgement.

#include <grpcpp/create_channel.h>
#include <gtest/gtest.h>

#include <map>
#include <memory>
#include <optional>
#include <string>

#include "polyad/v1/adapter_admin.grpc.pb.h"

namespace polyad {

// What a client may count on of one name.
struct Known {
  std::string digest;  // empty: no adapter
  bool pinned = false;
  friend bool operator==(const Known&, const Known&) = default;
};
using World = std::map<std::string, Known>;  // adapters by name, and aliases as "alias->target"

class Admin {
 public:
  explicit Admin(const std::string& address)
      : stub_(v1::AdapterAdminService::NewStub(
            grpc::CreateChannel(address, grpc::InsecureChannelCredentials()))) {}

  // The digest where it was loaded and acknowledged.
  std::optional<std::string> Load(const std::string& name, const std::string& uri, bool pinned) {
    v1::LoadAdapterRequest request;
    request.set_name(name);
    request.set_uri(uri);
    request.set_replace(true);
    request.set_pinned(pinned);
    grpc::ClientContext context;
    const auto reader = stub_->LoadAdapter(&context, request);
    std::optional<std::string> digest;
    for (v1::LoadAdapterResponse response; reader->Read(&response);) {
      if (response.has_report()) digest = response.report().digest();
    }
    return reader->Finish().ok() ? digest : std::nullopt;
  }
  bool Unload(const std::string& name) {
    v1::UnloadAdapterRequest request;
    request.set_name(name);
    v1::UnloadAdapterResponse response;
    grpc::ClientContext context;
    return stub_->UnloadAdapter(&context, request, &response).ok();
  }
  bool Pin(const std::string& name, bool pinned) {
    v1::PinAdapterRequest request;
    request.set_name(name);
    request.set_pinned(pinned);
    v1::PinAdapterResponse response;
    grpc::ClientContext context;
    return stub_->PinAdapter(&context, request, &response).ok();
  }
  bool SetAlias(const std::string& alias, const std::string& target) {
    v1::SetAliasRequest request;
    request.set_alias(alias);
    request.set_target(target);
    v1::SetAliasResponse response;
    grpc::ClientContext context;
    return stub_->SetAlias(&context, request, &response).ok();
  }
  World List() {
    v1::ListAdaptersResponse response;
    grpc::ClientContext context;
    const grpc::Status status = stub_->ListAdapters(&context, {}, &response);
    EXPECT_TRUE(status.ok()) << status.error_message();
    World world;
    for (const v1::Adapter& adapter : response.adapters()) {
      if (adapter.retired()) continue;
      world[adapter.report().name()] = {adapter.report().digest(), adapter.pinned()};
      for (const std::string& alias : adapter.aliases()) {
        world[alias + "->" + adapter.report().name()] = {};
      }
    }
    return world;
  }

 private:
  std::unique_ptr<v1::AdapterAdminService::Stub> stub_;
};

}  // namespace polyad
