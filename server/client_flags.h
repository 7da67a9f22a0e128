#pragma once

// The flags by which `polyad probe` and `polyad admin` say how a server is reached. Errors:
// INVALID_ARGUMENT naming the flag.

#include <string>

#include "engine/base/status.h"
#include "server/command.h"
#include "server/probe.h"

namespace polyad {

// --tls, --ca, --server-name, --client-cert and --client-key.
Status TakeTlsFlags(OwnFlags& flags, ProbeTarget& target);
// "HOST:PORT" of a listener; one that takes every address is reached on its own machine.
Status SetAddress(const std::string& address, ProbeTarget& target);

}  // namespace polyad
