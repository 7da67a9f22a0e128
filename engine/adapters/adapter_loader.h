#pragma once

// From a directory to a version ready to run: read, lower, measure, pack. One call on a loader
// thread; nothing of it touches the engine. Also what `polyad inspect` does.

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "engine/adapters/adapter_store.h"
#include "engine/adapters/adapter_version.h"
#include "engine/adapters/lowering_context.h"
#include "engine/base/status.h"

namespace polyad {

struct LoadedAdapter {
  std::shared_ptr<AdapterVersion> version;
  LoadReport report;
  int64_t pages = 0;  // of memory that it shares with K/V, which the version holds
};

struct AdapterLocation {
  std::string root;  // empty: `path` is the operator's own
  std::string path;
};

struct LoaderContext {
  LoweringContext lowering;
  Backend& backend;
  int64_t max_file_bytes = int64_t{2} << 30;
};

// `identity.digest` is filled in here; name, version and id are the caller's.
StatusOr<LoadedAdapter> LoadAdapter(const LoaderContext& context, const AdapterLocation& location,
                                    AdapterVersion::Identity identity,
                                    const std::function<void(LoadState)>& progress);

// The same version once more, from files that must hold what they held: FAILED_PRECONDITION where
// they do not. Its report is empty: what a load says and checks of an adapter's size follows from
// its content, and takes a third of the time of one of rank 16, two thirds of that of rank 64.
StatusOr<LoadedAdapter> ReadAdapterAgain(const LoaderContext& context,
                                         const AdapterLocation& location,
                                         const AdapterVersion::Identity& identity);

// The report of an adapter as it would be served by this base: loads it, and lets it go.
StatusOr<LoadReport> InspectAdapter(const std::string& path, const LoaderContext& context);

}  // namespace polyad
