#pragma once

// polyad.v1.InferenceService on gRPC's callback API: decode, submit, stream. `serving` outlives the
// service.

#include <grpcpp/impl/codegen/service_type.h>

#include <memory>

#include "server/serving.h"

namespace polyad {

std::unique_ptr<grpc::Service> MakeInferenceService(Serving& serving);

}  // namespace polyad
