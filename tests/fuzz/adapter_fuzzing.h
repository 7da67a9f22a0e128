#pragma once

// What the adapter readers' fuzz targets share. An input that is all mutations of a real file
// hardly gets past its offsets, so PEFT's, AdapterHub's and the container's targets read a text
// instead and build a well-formed tensor file from it:
//
//   the configuration, up to a NUL; then lines
//   name dtype dims...     a tensor, its numbers from the line's place ("x.lora_A.weight F32 8 64")
//   option name value      a choice for the load
//
// tests/fuzz/adapter_seeds.py writes every golden adapter of the tiny llama so.

#include <cstdint>
#include <optional>
#include <string>

#include "engine/adapters/adapter_source.h"
#include "engine/adapters/lowering_context.h"

namespace polyad {

struct AdapterText {
  std::string config;
  std::string tensors;  // a safetensors file
  AdapterOptions options;
};

// nullopt where it asks for more than a megabyte of tensors.
std::optional<AdapterText> BuildAdapter(const uint8_t* data, size_t size);

// From bytes to the packed version and its report, against a tiny llama; statuses are fine.
void LoadAdapterBytes(std::string config, std::string tensors, AdapterFormat format,
                      const AdapterOptions& options);

}  // namespace polyad
