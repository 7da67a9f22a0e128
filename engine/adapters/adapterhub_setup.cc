#include "engine/adapters/adapterhub_setup.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "engine/io/file.h"

namespace polyad {
namespace {

constexpr char kWhere[] = "adapter_setup.json";
constexpr size_t kMaxAdapters = 16;

StatusOr<std::string> ReadChild(const OrderedJson& json) {
  POLYAD_ASSIGN_OR_RETURN(const OrderedJsonFields fields, OrderedJsonFields::Of(json, kWhere));
  POLYAD_ASSIGN_OR_RETURN(const std::string type, fields.String("type"));
  if (type != "single") {
    return Unimplemented("%s: a %s within another composition is not served", kWhere,
                         type.substr(0, 40));
  }
  POLYAD_ASSIGN_OR_RETURN(const std::vector<std::string> names, fields.StringsOr("children", {}));
  if (names.size() != 1 || !IsPlainFileName(names[0])) {
    return InvalidArgument("%s: children: expected the name of one adapter", kWhere);
  }
  return names[0];
}

StatusOr<HubComposition> ReadType(const std::string& type) {
  if (type == "Stack") return HubComposition::kStack;
  if (type == "Average") return HubComposition::kAverage;
  if (type == "Fuse") return HubComposition::kFuse;
  return Unimplemented("%s: type '%s' is not served", kWhere, type.substr(0, 40));
}

Status ReadWeights(const OrderedJsonFields& fields, HubSetup& setup) {
  const OrderedJson* arguments = fields.Find("kwargs");
  const auto count = setup.adapters.size();
  setup.weights.assign(count, 1.0 / static_cast<double>(count));
  if (arguments == nullptr || !arguments->contains("weights")) return absl::OkStatus();
  const OrderedJson& weights = (*arguments)["weights"];
  const bool numbers = weights.is_array() && weights.size() == count &&
                       std::all_of(weights.begin(), weights.end(), [](const OrderedJson& v) {
                         return v.is_number() && std::abs(v.get<double>()) < 1e9;
                       });
  if (!numbers) {
    return InvalidArgument("%s: weights: expected %d numbers", kWhere, count);
  }
  setup.weights = weights.get<std::vector<double>>();
  const double sum = std::accumulate(setup.weights.begin(), setup.weights.end(), 0.0);
  if (!(std::abs(sum) > 1e-9)) {
    return InvalidArgument("%s: weights: expected a sum other than zero", kWhere);
  }
  for (double& weight : setup.weights) weight /= sum;
  return absl::OkStatus();
}

Status CheckKeys(const OrderedJson& json, std::initializer_list<std::string_view> known) {
  for (const auto& [key, value] : json.items()) {
    if (value.is_null() || std::find(known.begin(), known.end(), key) != known.end()) continue;
    return Unimplemented("%s: key '%s' is not understood", kWhere, key.substr(0, 60));
  }
  return absl::OkStatus();
}

}  // namespace

StatusOr<double> HubSetup::AverageWeight(size_t child, size_t num_present) const {
  const auto count = static_cast<double>(weights.size());
  if (num_present == weights.size()) return weights[child] / count;
  if (num_present == 1) return 1.0 / count;
  return Unimplemented("%s: an average of %d adapters of which %d act at one place is not served",
                       kWhere, weights.size(), num_present);
}

StatusOr<HubSetup> ParseHubSetup(const OrderedJson& json) {
  POLYAD_ASSIGN_OR_RETURN(const OrderedJsonFields top, OrderedJsonFields::Of(json, kWhere));
  POLYAD_RETURN_IF_ERROR(CheckKeys(json, {"adapter_setup", "version"}));
  const OrderedJson* tree = top.Find("adapter_setup");
  if (tree == nullptr) return InvalidArgument("%s: adapter_setup: expected an object", kWhere);
  POLYAD_ASSIGN_OR_RETURN(const OrderedJsonFields fields, OrderedJsonFields::Of(*tree, kWhere));
  POLYAD_RETURN_IF_ERROR(CheckKeys(*tree, {"type", "children", "kwargs"}));
  HubSetup setup;
  POLYAD_ASSIGN_OR_RETURN(const std::string type, fields.String("type"));
  POLYAD_ASSIGN_OR_RETURN(setup.composition, ReadType(type));
  const OrderedJson* children = fields.Find("children");
  if (children == nullptr || !children->is_array() || children->empty() ||
      children->size() > kMaxAdapters) {
    return InvalidArgument("%s: children: expected a list of 1 to %d", kWhere, kMaxAdapters);
  }
  for (const OrderedJson& child : *children) {
    POLYAD_ASSIGN_OR_RETURN(std::string name, ReadChild(child));
    const auto& names = setup.adapters;
    if (std::find(names.begin(), names.end(), name) != names.end()) {
      return Unimplemented("%s: adapter '%s' twice is not served", kWhere, name.substr(0, 60));
    }
    setup.adapters.push_back(std::move(name));
  }
  if (setup.composition == HubComposition::kAverage) {
    POLYAD_RETURN_IF_ERROR(ReadWeights(fields, setup));
  } else if (fields.Has("kwargs") && !fields.Find("kwargs")->empty()) {
    return Unimplemented("%s: kwargs of a %s are not understood", kWhere, type);
  }
  if (setup.composition == HubComposition::kFuse) {
    for (const std::string& name : setup.adapters) {
      setup.fusion += (setup.fusion.empty() ? "" : ",") + name;
    }
    if (setup.adapters.size() < 2) {
      return Unimplemented("%s: children: a fusion of one adapter is not served", kWhere);
    }
    if (!IsPlainFileName(setup.fusion)) {
      return InvalidArgument("%s: children: names too long for a folder", kWhere);
    }
  }
  return setup;
}

}  // namespace polyad
