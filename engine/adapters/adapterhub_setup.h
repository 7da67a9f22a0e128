#pragma once

// AdapterHub's adapter_setup.json: how several adapters of one directory act together, as
// save_adapter_setup writes it. Each adapter lies in a folder of its name; a fusion in one named
// after its adapters. Compositions nest as far as the library runs them: averages, fusions and
// choices by task in a stack, stacks in an average. Source: zoo sections 4.2, 5.6 and 10.2;
// adapters 1.3.0, composition.py, methods/adapter_layer_base.py.
//   {"adapter_setup": {"type": "Average", "children": [{"type": "single", "children": ["a"]}, ...],
//    "kwargs": {"weights": [0.25, 0.75]}}, "head_setup": null, "version": "adapters.1.3.0"}

#include <optional>
#include <string>
#include <vector>

#include "engine/base/status.h"
#include "engine/io/json.h"

namespace polyad {

enum class HubComposition { kSingle, kStack, kAverage, kFuse, kMultiTask };

// An adapter, or a composition of nodes.
struct HubNode {
  HubComposition composition = HubComposition::kSingle;
  size_t adapter = 0;  // a single one's place in HubSetup::adapters
  std::vector<HubNode> children;
  std::vector<double> weights;  // of an average, one each, with sum 1
  std::string fusion;           // a fusion's name and folder

  // What an average multiplies child `child` by where `num_present` of its children act: w / K;
  // one alone stands for all of them (the library broadcasts it). UNIMPLEMENTED for other numbers,
  // for which the library fails.
  StatusOr<double> AverageWeight(size_t child, size_t num_present) const;
  bool Names(size_t wanted) const;  // whether the adapter is somewhere below
};

struct HubSetup {
  HubNode root;
  std::vector<std::string> adapters;  // in order, distinct
  std::vector<std::string> fusions;

  std::vector<std::string> Folders() const {
    std::vector<std::string> folders = adapters;
    folders.insert(folders.end(), fusions.begin(), fusions.end());
    return folders;
  }
  // The node of a choice by task, at the root or in its stack; null: there is none.
  const HubNode* MultiTask() const;
};

// UNIMPLEMENTED: compositions of a batch or of positions, two choices by task, heads.
StatusOr<HubSetup> ParseHubSetup(const OrderedJson& json);

}  // namespace polyad
