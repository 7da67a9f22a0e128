#pragma once

// The files that an adapter's directory may have of each format, and what can be told of them
// before they are read whole. Pure functions; any thread.

#include <cstdint>
#include <string>
#include <string_view>

#include "engine/adapters/adapter_source.h"
#include "engine/base/status.h"
#include "engine/io/file.h"
#include "engine/io/safetensors.h"

namespace polyad {

inline constexpr char kAdapterConfig[] = "adapter_config.json";
inline constexpr char kModelConfig[] = "config.json";
inline constexpr char kHubSetup[] = "adapter_setup.json";
inline constexpr char kHubTensors[] = "adapter.safetensors";
inline constexpr char kHubFusionConfig[] = "adapter_fusion_config.json";
inline constexpr char kHubFusionTensors[] = "model_adapter_fusion.safetensors";
inline constexpr int64_t kMaxAdapterConfigBytes = int64_t{1} << 20;

struct FormatFiles {
  AdapterFormat format;
  const char* config;  // null: its keys are in the tensors' file
  const char* tensors;
};
// In the order they are looked for.
inline constexpr FormatFiles kFormatFiles[] = {
    {AdapterFormat::kPeft, kAdapterConfig, "adapter_model.safetensors"},
    {AdapterFormat::kPeftXlora, kAdapterConfig, "adapter_model.safetensors"},
    {AdapterFormat::kAdapterHub, kAdapterConfig, kHubTensors},
    {AdapterFormat::kAdapterHubSetup, kHubSetup, kHubTensors},
    {AdapterFormat::kContainer, "zoo.json", "zoo.safetensors"},
    {AdapterFormat::kGguf, nullptr, "adapter.gguf"}};

SafetensorsLimits AdapterTensorLimits();

// Whether AdapterSource::Open may read a file of this name, in the directory or those within.
bool IsAdapterFile(std::string_view name);
// What Open would say of such a file's size and, where reading it whole would take long, of its
// header: before anybody copies or reads it.
Status CheckAdapterFile(const Directory& directory, const std::string& name);

}  // namespace polyad
