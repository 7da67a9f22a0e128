#pragma once

// The one place that names concrete backends. Called once at start-up (server/main.cc, tools,
// tests).

#include <memory>
#include <string_view>

#include "absl/status/statusor.h"
#include "kernels/api/backend.h"

namespace polyad {

inline constexpr int kMaxThreads = 1024;

// `name`: cpu | reference | cuda | auto, which is cuda where that can be had and else cpu.
// With options.num_ranks above 1 they are ranks' (kernels/shard/sharded_backend.h): of the CPU each
// has its share of the threads, of cuda a device; `auto` falls back to the CPU without ranks.
// INVALID_ARGUMENT for another, or for more threads or ranks; options.isa as
// kernels/cpu/cpu_features.h says; errors of cuda as kernels/cuda/plugin_loader.h.
absl::StatusOr<std::unique_ptr<Backend>> MakeBackend(std::string_view name,
                                                     const BackendOptions& options);

}  // namespace polyad
