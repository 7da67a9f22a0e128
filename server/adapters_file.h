#pragma once

// What the file of --adapters-from declares: the adapters that are to be there, each as a
// LoadAdapterRequest in JSON with its aliases beside it, and names that are not to be there; or the
// dynamic-LoRA sidecar's `vLLMLoRAConfig` in JSON (Gateway API Inference Extension). Sizes, names,
// unknown and repeated members are checked here and refused by name; the ranges of a request by
// DecodeLoadAdapter. Pure, any thread. Errors: INVALID_ARGUMENT, RESOURCE_EXHAUSTED past a limit.

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "engine/base/status.h"
#include "polyad/v1/adapter_admin.pb.h"

namespace polyad {

inline constexpr int64_t kMaxAdaptersFileBytes = 4 << 20;
inline constexpr size_t kMaxDeclaredAdapters = 4096;  // and as many absent ones
inline constexpr size_t kMaxDeclaredAliases = 16;     // of one adapter

struct DeclaredAdapter {
  v1::LoadAdapterRequest request;
  std::vector<std::string> aliases;
  std::string base;    // that it has to be of; empty: any
  std::string digest;  // hex SHA-256 of all but `pinned` and aliases: another one is another load
};

struct AdaptersFile {
  std::vector<DeclaredAdapter> adapters;  // no name or alias twice
  std::vector<std::string> absent;        // none of those
};

StatusOr<AdaptersFile> ParseAdaptersFile(std::string_view text);

}  // namespace polyad
