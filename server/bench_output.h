#pragma once

// A load run as text: JSON whose top level has the keys of vLLM's benchmark (so that tools which
// read those read ours), with the same again by tenant and by model beside; a table; and one line
// per request for plots. Pure functions.

#include <string>

#include "server/bench_stats.h"

namespace polyad {

std::string BenchJson(const BenchResult& result);
std::string BenchTable(const BenchResult& result);
// {"at_s":..,"tenant":..,"model":..,"end":"completed",..,"ttft_ms":..}, with a line feed; what
// never came is null.
std::string BenchLogLine(const BenchRequest& request, const BenchOutcome& outcome);

}  // namespace polyad
