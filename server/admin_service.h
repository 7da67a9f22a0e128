#pragma once

// polyad.v1.AdapterAdminService: every method needs the admin token. What blocks (a load, an unload
// that waits, a drain) runs on `serving`'s pools, never on gRPC's threads. `serving` and `watch`
// outlive the service.

#include <grpcpp/impl/codegen/service_type.h>

#include <memory>

#include "server/adapter_watch.h"
#include "server/serving.h"

namespace polyad {

std::unique_ptr<grpc::Service> MakeAdminService(Serving& serving, AdapterWatch& watch);

}  // namespace polyad
