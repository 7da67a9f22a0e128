#pragma once

// polyad.v1.InferenceService on gRPC's callback API: decode, submit, stream. `serving` outlives the service.

#include <memory>

#include <grpcpp/impl/codegen/service_type.h>

#include "server/serving.h"

namespace polyad {

std::unique_ptr<grpc::Service> MakeInferenceService(Serving& serving);

}  // namespace polyad
