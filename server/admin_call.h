#pragma once

// A call of polyad.v1.AdapterAdminService by its name, its request as JSON, as `polyad admin` makes
// it: what the service can be asked follows from its descriptor (proto/polyad/v1/
// adapter_admin.proto). Any thread; a call blocks until the server has answered or `timeout_ms` has
// passed.
//
// Errors: INVALID_ARGUMENT a method that is not there, a request that is not of its kind or a file
// that cannot be used, before anything was sent; else what the server said, or UNAVAILABLE where it
// was not reached.

#include <functional>
#include <string>

#include "engine/base/status.h"
#include "server/probe.h"

namespace polyad {

struct AdminCall {
  ProbeTarget target;  // timeout_ms 0: no limit
  std::string token;   // empty: none is sent
  std::string method;  // "ListAdapters"
  std::string request = "{}";
};

// Checks method and request alone.
Status CheckAdminCall(const AdminCall& call);
// `answer` gets each message as one line of JSON as it comes.
Status CallAdmin(const AdminCall& call, const std::function<void(const std::string&)>& answer);
// A line for each method: its name and the members of its request.
std::string AdminMethodsHelp();

}  // namespace polyad
