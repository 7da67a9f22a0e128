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
  double share = 1;  // of the name's requests
  friend bool operator==(const Known&, const Known&) = default;
};
// Adapters by name, kept versions by name@version, and aliases as "alias->target".
using World = std::map<std::string, Known>;

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
    return Load(request);
  }
  std::optional<std::string> LoadBeside(const std::string& name, const std::string& uri,
                                        double share) {
    v1::LoadAdapterRequest request;
    request.set_name(name);
    request.set_uri(uri);
    request.set_share(share);
    return Load(request);
  }
  std::optional<std::string> Load(const v1::LoadAdapterRequest& request) {
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
  bool UnloadVersion(const std::string& name, int64_t version) {
    v1::UnloadAdapterRequest request;
    request.set_name(name);
    request.set_version(version);
    v1::UnloadAdapterResponse response;
    grpc::ClientContext context;
    return stub_->UnloadAdapter(&context, request, &response).ok();
  }
  bool Shift(const std::string& name, int64_t version, double share) {
    v1::ShiftTrafficRequest request;
    request.set_name(name);
    request.set_version(version);
    request.set_share(share);
    v1::ShiftTrafficResponse response;
    grpc::ClientContext context;
    return stub_->ShiftTraffic(&context, request, &response).ok();
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
      const v1::LoadReport& report = adapter.report();
      const std::string version = "@" + std::to_string(report.version());
      world[report.name() + (adapter.kept() ? version : "")] = {report.digest(), adapter.pinned(),
                                                                adapter.share()};
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
