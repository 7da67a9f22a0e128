#pragma once

// Which trace a request is part of (W3C Trace Context): 32 and 16 lower-case hex digits. Plain
// values, for logs.

#include <string>

namespace polyad {

struct TraceContext {
  std::string trace_id;   // empty: none was made
  std::string parent_id;  // the caller's span; empty: the trace begins here
  std::string span_id;    // the request's own
  bool sampled = true;    // as the caller says; a trace that begins here is
};

}  // namespace polyad
