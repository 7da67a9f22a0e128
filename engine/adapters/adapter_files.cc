#include "engine/adapters/adapter_files.h"

#include <utility>

#include "engine/adapters/base_record.h"
#include "engine/io/gguf.h"

namespace polyad {
namespace {

// More than a router's layers of experts have, each with a matrix pair; a header's entry takes some
// hundreds of bytes of memory before it can be looked at.
constexpr int64_t kMaxTensors = int64_t{1} << 16;
// From here on a header is looked at before its file is read: a gibibyte took seconds, to be
// refused by its first byte. Below, the header is read but once.
constexpr int64_t kHeadFirstBytes = int64_t{64} << 20;

}  // namespace

SafetensorsLimits AdapterTensorLimits() {
  SafetensorsLimits limits;
  limits.max_tensors = kMaxTensors;
  return limits;
}

bool IsAdapterFile(std::string_view name) {
  for (const FormatFiles& files : kFormatFiles) {
    if (name == files.tensors || (files.config != nullptr && name == files.config)) return true;
  }
  return name == kModelConfig || name == kBaseRecord || name == kHubFusionConfig ||
         name == kHubFusionTensors;
}

Status CheckAdapterFile(const Directory& directory, const std::string& name) {
  POLYAD_ASSIGN_OR_RETURN(RandomAccessFile file, directory.OpenFile(name));
  if (name.ends_with(".json")) {
    if (file.size() <= kMaxAdapterConfigBytes) return absl::OkStatus();
    return file.ReadAll(kMaxAdapterConfigBytes).status();
  }
  if (file.size() < kHeadFirstBytes) return absl::OkStatus();
  if (name.ends_with(".gguf")) return GgufFile::FromFile(std::move(file)).status();
  return SafetensorsFile::FromFile(std::move(file), AdapterTensorLimits()).status();
}

}  // namespace polyad
