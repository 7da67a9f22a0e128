#pragma once

// How the requests of one adapter's name are shared between two of its versions. One version serves
// the name; others may be kept beside it, each under name@version, and one of those may have a
// share of the name's requests (a canary). Pure functions; any thread.

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace polyad {

// What a name's requests do: `share`, in (0, 1), of them go to the kept `version`.
struct TrafficSplit {
  int64_t version = 0;
  double share = 0;
};

// A change to it. 1: `version` serves from now on, and what served before is kept; 0: `version` has
// none any more; between: a split, instead of the one there may be.
struct TrafficShift {
  std::string name;
  int64_t version = 0;
  double share = 0;
  std::optional<int64_t> expected_version;  // compare-and-swap on the version now serving
};

// name@version; no name has an '@'.
std::string KeptKey(std::string_view name, int64_t version);

// In [0, 1): a request goes to the split's version where it is below the share, so that a session
// which has gone there stays there while the share grows. Even over sessions; says nothing of
// them.
double DrawOfSession(std::string_view name, std::string_view tenant, std::string_view session);
// The same for the `count`-th request without a session: any n of them in a row split as the share
// says, to within a few requests (steps of the golden ratio).
double DrawOfCount(uint64_t count);

}  // namespace polyad
