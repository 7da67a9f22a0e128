#include "engine/adapters/adapterhub_tensors.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cstring>
#include <optional>

namespace polyad {
namespace {

constexpr int64_t kMaxSize = int64_t{1} << 20;
constexpr std::array<std::string_view, 8> kKinds = {
    "adapters",          "loras", "prefix_tunings",      "prefix_gates",
    "shared_parameters", "refts", "invertible_adapters", "adapter_fusion_layer"};

struct OldName {
  std::string_view before;
  std::string_view after;
};
constexpr OldName kOldNames[] = {{"attention_text_task_adapters", "adapters"},
                                 {"attention_text_lang_adapters", "adapters"},
                                 {"layer_text_task_adapters", "adapters"},
                                 {"layer_text_lang_adapters", "adapters"},
                                 {"invertible_lang_adapters", "invertible_adapters"}};

std::vector<std::string> SplitAtDots(std::string_view name) {
  std::vector<std::string> parts;
  size_t begin = 0;
  while (begin <= name.size()) {
    const size_t end = std::min(name.find('.', begin), name.size());
    std::string part(name.substr(begin, end - begin));
    for (const OldName& old : kOldNames) {
      if (part == old.before) part = std::string(old.after);
    }
    parts.push_back(std::move(part));
    begin = end + 1;
  }
  return parts;
}

std::string Join(const std::vector<std::string>& parts, size_t begin, size_t end) {
  std::string joined;
  for (size_t i = begin; i < end; ++i) joined += (i > begin ? "." : "") + parts[i];
  return joined;
}

std::optional<int64_t> LayerNumber(const std::string& text) {
  int64_t layer = -1;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), layer);
  if (error != std::errc() || end != text.data() + text.size() || layer < 0 || layer > 9999) {
    return std::nullopt;
  }
  return layer;
}

// nullopt: not a tensor of this adapter.
std::optional<HubPlace> PlaceOf(std::string_view name, const std::string& adapter) {
  const std::vector<std::string> parts = SplitAtDots(name);
  size_t at = 0;
  while (at + 1 < parts.size() &&
         !(parts[at + 1] == adapter &&
           std::find(kKinds.begin(), kKinds.end(), parts[at]) != kKinds.end())) {
    ++at;
  }
  if (at + 2 > parts.size() || at + 1 >= parts.size()) return std::nullopt;
  HubPlace place;
  place.kind = parts[at];
  place.leaf = Join(parts, at + 2, parts.size());
  for (size_t i = 0; i + 1 < at; ++i) {
    if (parts[i] != "layers" && parts[i] != "h") continue;
    const std::optional<int64_t> layer = LayerNumber(parts[i + 1]);
    if (!layer) return std::nullopt;
    place.layer = *layer;
    place.module = Join(parts, i + 2, at);
    break;
  }
  // A prefix is one for all layers; each layer's module repeats it.
  if (place.kind == "prefix_tunings") {
    place.layer = -1;
    place.module.clear();
  }
  return place;
}

bool SameBytes(const OwnedTensor& a, const OwnedTensor& b) {
  return a.dtype == b.dtype && a.shape == b.shape && a.bytes.size() == b.bytes.size() &&
         std::memcmp(a.bytes.data(), b.bytes.data(), static_cast<size_t>(a.bytes.size())) == 0;
}

}  // namespace

StatusOr<HubTensors> HubTensors::Of(AdapterSource& source, const std::string& adapter,
                                    const std::string& folder) {
  HubTensors tensors;
  tensors.source_ = &source;
  for (const std::string& name : source.RemainingNames()) {
    if (!name.starts_with(folder)) continue;
    const std::optional<HubPlace> place =
        PlaceOf(std::string_view(name).substr(folder.size()), adapter);
    if (!place) continue;
    std::vector<std::string>& names = tensors.names_[*place];
    names.push_back(name);
    if (names.size() > 1 && place->kind != "prefix_tunings") {
      return InvalidArgument("tensor %s: the same place as tensor %s", name, names[0]);
    }
  }
  return tensors;
}

std::vector<HubPlace> HubTensors::PlacesOf(const std::string& kind) const {
  std::vector<HubPlace> places;
  for (const auto& [place, names] : names_) {
    if (place.kind != kind) continue;
    HubPlace module = place;
    module.leaf.clear();
    if (places.empty() || places.back() != module) places.push_back(std::move(module));
  }
  return places;
}

std::string HubTensors::NameOf(const HubPlace& place) const {
  const auto found = names_.find(place);
  if (found != names_.end()) return found->second.front();
  const std::string layer = place.layer < 0 ? "" : "layer " + std::to_string(place.layer) + " ";
  return layer + place.module + (place.module.empty() ? "" : ".") + place.kind + "." + place.leaf;
}

std::vector<int64_t> HubTensors::ShapeOf(const HubPlace& place) const {
  const auto found = names_.find(place);
  if (found == names_.end()) return {};
  return source_->ShapeOf(found->second.front());
}

StatusOr<const OwnedTensor*> HubTensors::TakeShaped(const HubPlace& place,
                                                    const std::vector<int64_t>& shape) {
  const auto found = names_.find(place);
  if (found == names_.end()) {
    return InvalidArgument("tensor %s: missing from the file", NameOf(place));
  }
  POLYAD_ASSIGN_OR_RETURN(const OwnedTensor* tensor, source_->TakeTensor(found->second.front()));
  bool fits = tensor->shape.size() == shape.size();
  for (size_t i = 0; fits && i < shape.size(); ++i) {
    const int64_t size = tensor->shape[i];
    fits = shape[i] == -1 ? size >= 1 && size <= kMaxSize : size == shape[i];
  }
  if (!fits) {
    return InvalidArgument("tensor %s: expected %s, got %s", found->second.front(),
                           ShapeToString(shape), ShapeToString(tensor->shape));
  }
  for (size_t copy = 1; copy < found->second.size(); ++copy) {
    POLYAD_ASSIGN_OR_RETURN(const OwnedTensor* other, source_->TakeTensor(found->second[copy]));
    if (!SameBytes(*tensor, *other)) {
      return InvalidArgument("tensor %s: expected a copy of tensor %s, got other values",
                             found->second[copy], found->second.front());
    }
  }
  return tensor;
}

StatusOr<std::vector<float>> HubTensors::Take(const HubPlace& place,
                                              const std::vector<int64_t>& shape) {
  POLYAD_ASSIGN_OR_RETURN(const OwnedTensor* tensor, TakeShaped(place, shape));
  return ToFloats(*tensor);
}

StatusOr<TensorView> HubTensors::TakeMatrix(const HubPlace& place, int64_t rows, int64_t cols) {
  POLYAD_ASSIGN_OR_RETURN(const OwnedTensor* tensor, TakeShaped(place, {rows, cols}));
  return tensor->view();
}

}  // namespace polyad
