#pragma once

// AdapterHub's adapter_setup.json: how several adapters of one directory act together, as
// save_adapter_setup writes it. Each adapter lies in a folder of its name; a fusion in one named
// after its adapters. Source: zoo sections 4.2, 5.6 and 10.2; adapters 1.3.0, composition.py.
//   {"adapter_setup": {"type": "Average", "children": [{"type": "single", "children": ["a"]}, ...],
//    "kwargs": {"weights": [0.25, 0.75]}}, "head_setup": null, "version": "adapters.1.3.0"}

#include <string>
#include <vector>

#include "engine/base/status.h"
#include "engine/io/json.h"

namespace polyad {

enum class HubComposition { kStack, kAverage, kFuse };

struct HubSetup {
  HubComposition composition = HubComposition::kStack;
  std::vector<std::string> adapters;  // in order, distinct
  std::vector<double> weights;        // of an average, one each, with sum 1
  std::string fusion;                 // the fusion's name and folder; empty: none

  // What an average multiplies adapter `child` by where `num_present` of its adapters act: w / K;
  // one alone stands for all of them (the library broadcasts it). UNIMPLEMENTED for other numbers,
  // for which the library fails.
  StatusOr<double> AverageWeight(size_t child, size_t num_present) const;

  std::vector<std::string> Folders() const {
    std::vector<std::string> folders = adapters;
    if (!fusion.empty()) folders.push_back(fusion);
    return folders;
  }
};

// UNIMPLEMENTED: compositions within compositions, those of a batch or of positions, heads.
StatusOr<HubSetup> ParseHubSetup(const OrderedJson& json);

}  // namespace polyad
