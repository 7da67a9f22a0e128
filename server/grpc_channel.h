#pragma once

// How the program's own commands reach a gRPC port: `polyad probe` and `polyad admin`. Connecting
// itself happens with the first call. Any thread. Errors: INVALID_ARGUMENT a PEM file that cannot
// be read.

#include <grpcpp/channel.h>

#include <memory>

#include "engine/base/status.h"
#include "server/probe.h"

namespace polyad {

// Plain or with TLS, never by way of an HTTP proxy that the environment names. Answers of 64 MiB at
// most.
StatusOr<std::shared_ptr<grpc::Channel>> OpenChannel(const ProbeTarget& target);

}  // namespace polyad
