#pragma once

// An AdapterHub file's tensors by place instead of by name: layer, module, kind of adapter, and
// what remains of the name after the adapter's own. The prefix a model class puts before its layers
// and the names of older versions make no difference. Everything is widened to fp32 and checked
// against the shape asked for. Borrows the AdapterSource; one loader task. Source: zoo sections 4.2
// and 10.2; adapters 1.3.0, loading.py.
//   "model.layers.3.output_adapters.adapters.task.adapter_up.weight"
//     -> {3, "output_adapters", "adapters", "adapter_up.weight"}
//   "transformer.shared_parameters.task.phm_rule" -> {-1, "", "shared_parameters", "phm_rule"}

#include <compare>
#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "engine/adapters/adapter_source.h"
#include "engine/base/status.h"

namespace polyad {

struct HubPlace {
  int64_t layer = -1;  // -1: outside the layers
  std::string module;  // "output_adapters", "self_attn.q_proj"; "" outside the layers
  std::string kind;    // "adapters", "loras", "prefix_tunings", "shared_parameters", ...
  std::string leaf;    // "adapter_down.0.weight"

  friend auto operator<=>(const HubPlace&, const HubPlace&) = default;
};

class HubTensors {
 public:
  // `folder` is "" or "<part>/" of a saved setup, before every name. Tensors of other adapters are
  // left to CheckAllTaken. INVALID_ARGUMENT: two tensors in one place that are not copies.
  static StatusOr<HubTensors> Of(AdapterSource& source, const std::string& adapter,
                                 const std::string& folder = "");

  bool Has(const HubPlace& place) const { return names_.count(place) > 0; }
  // (layer, module) pairs with a tensor of this kind, layer by layer, `leaf` left empty.
  std::vector<HubPlace> PlacesOf(const std::string& kind) const;
  // The shape as stored; empty where there is no such tensor.
  std::vector<int64_t> ShapeOf(const HubPlace& place) const;

  // INVALID_ARGUMENT naming the tensor where it is missing, has another shape, or holds a NaN. A
  // size of -1 in `shape` takes any size from 1 to 2^20.
  StatusOr<std::vector<float>> Take(const HubPlace& place, const std::vector<int64_t>& shape);
  // The same tensor as fp32 [rows, cols] borrowed from the source, with no copy.
  StatusOr<TensorView> TakeMatrix(const HubPlace& place, int64_t rows, int64_t cols);
  std::string NameOf(const HubPlace& place) const;  // for messages

 private:
  StatusOr<const OwnedTensor*> TakeShaped(const HubPlace& place, const std::vector<int64_t>& shape);

  AdapterSource* source_ = nullptr;
  std::map<HubPlace, std::vector<std::string>> names_;  // more than one: copies
};

}  // namespace polyad
