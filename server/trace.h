#pragma once

// The trace that a call is part of: what its traceparent says, or a new one. Source: W3C Trace
// Context (version 00; later versions are read as far as that goes). Any thread.

#include <string_view>

#include "engine/request/trace_context.h"

namespace polyad {

// `traceparent`: the header's or metadata's value. One that is not well formed begins a new trace,
// as the standard asks.
TraceContext MakeTrace(std::string_view traceparent);

}  // namespace polyad
