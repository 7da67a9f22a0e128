#pragma once

// AdapterHub's adapter_config.json: which methods one adapter joins (a bottleneck, LoRA, a prefix,
// or a union of them), each as a complete set of options. A named configuration ("pfeiffer") and
// options that a file leaves out get the library's defaults; names and values of older versions are
// translated. Values are checked where they are read. Source: zoo sections 4.2 and 5.5; adapters
// 1.3.0, configuration/adapter_config.py, loading.py.

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "engine/base/status.h"
#include "engine/io/json.h"

namespace polyad {

enum class HubMethod { kBottleneck, kLora, kPrefix, kReft };

struct HubPart {
  HubMethod method = HubMethod::kBottleneck;
  OrderedJson options;  // the library's defaults under what the file says

  bool LeavesOut(int64_t layer) const;  // whether its leave_out names the layer
};

struct HubConfig {
  std::string name;  // of the adapter, as it stands in the tensors' names
  bool is_union = false;
  std::vector<HubPart> parts;
};

// UNIMPLEMENTED: an architecture, configuration name or option that is not served.
StatusOr<HubConfig> ParseHubConfig(const OrderedJson& json);

// INVALID_ARGUMENT naming the key and the first value that is no layer's number.
Status CheckLayerNumbers(const OrderedJson& list, std::string_view key);

// The family table's name for it: "bottleneck", "lora", "prefix_tuning", "reft" or "union".
StatusOr<std::string> AdapterHubType(const OrderedJson& json);

}  // namespace polyad
