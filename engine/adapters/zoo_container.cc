#include "engine/adapters/zoo_container.h"

#include <algorithm>
#include <charconv>
#include <map>
#include <optional>
#include <span>

#include "engine/adapters/peft_config.h"
#include "engine/io/quote.h"

namespace polyad {
namespace {

constexpr char kWhere[] = "zoo.json";
constexpr std::string_view kShared = "shared.";
constexpr std::string_view kScale = ".scale";  // behind the name of a tensor of codes
constexpr std::string_view kModelPlaces[] = {"embed", "head", "normf"};
constexpr std::string_view kMembers[] = {"zoo_version", "family", "base", "dtype",
                                         "flags",       "sites",  "hooks"};
constexpr std::string_view kNumberOptions[] = {"scale",    "group",  "pos_shift",
                                               "task",     "expert", "temperature",
                                               "absolute", "top_k",  "threshold"};
constexpr std::string_view kWordOptions[] = {"tap", "act", "as"};
constexpr size_t kMaxFamilyBytes = 64;
constexpr size_t kDigestCharacters = 64;

bool Contains(std::span<const std::string_view> words, std::string_view word) {
  return std::find(words.begin(), words.end(), word) != words.end();
}

std::optional<int64_t> ParseIndex(std::string_view text) {
  int64_t value = 0;
  const auto [stop, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  const bool whole = error == std::errc() && stop == text.data() + text.size();
  if (!whole || value < 0 || value > 1'000'000) return std::nullopt;
  if (text.size() > 1 && text[0] == '0') return std::nullopt;
  return value;
}

std::string_view TakePart(std::string_view& text) {
  const size_t dot = text.find('.');
  const std::string_view part = text.substr(0, dot);
  text = dot == std::string_view::npos ? std::string_view() : text.substr(dot + 1);
  return part;
}

struct OpName {
  ContainerPlace place;
  std::string kind;
  int64_t index = 0;

  friend auto operator<=>(const OpName&, const OpName&) = default;
};

// "L0.q.lr.0" and what may follow it, which stays in `text`.
std::optional<OpName> TakeOpName(std::string_view& text) {
  OpName name;
  std::string_view part = TakePart(text);
  if (!Contains(kModelPlaces, part)) {
    if (part.size() < 2 || part[0] != 'L') return std::nullopt;
    const std::optional<int64_t> layer = ParseIndex(part.substr(1));
    if (!layer.has_value()) return std::nullopt;
    name.place.layer = *layer;
    part = TakePart(text);
  }
  name.place.site = std::string(part);
  name.kind = std::string(TakePart(text));
  const std::optional<int64_t> index = ParseIndex(TakePart(text));
  if (name.place.site.empty() || name.kind.empty() || !index.has_value()) return std::nullopt;
  name.index = *index;
  return name;
}

std::string Spelled(const OpName& name) {
  const std::string layer =
      name.place.layer < 0 ? "" : "L" + std::to_string(name.place.layer) + ".";
  return layer + name.place.site + "." + name.kind + "." + std::to_string(name.index);
}

}  // namespace

std::string ContainerOp::NameOf(const std::string& tensor) const {
  asked_.insert(tensor);
  for (const auto& [key, shared] : references_) {
    if (key == tensor) return shared;
  }
  return name_ + "." + tensor;
}

bool ContainerOp::Has(const std::string& tensor) const { return source_->Has(NameOf(tensor)); }

StatusOr<FloatTensor> ContainerOp::Floats(const std::string& tensor,
                                          std::initializer_list<int64_t> expected) const {
  POLYAD_ASSIGN_OR_RETURN(FloatTensor found, AnyFloats(tensor));
  POLYAD_RETURN_IF_ERROR(CheckShape(found.name, {expected.begin(), expected.size()}, found.shape));
  return found;
}

StatusOr<FloatTensor> ContainerOp::AnyFloats(const std::string& tensor) const {
  const std::string name = NameOf(tensor);
  if (source_->Has(name + std::string(kScale))) return Scaled(name);
  POLYAD_ASSIGN_OR_RETURN(const OwnedTensor* found, source_->TakeTensor(name));
  POLYAD_ASSIGN_OR_RETURN(std::vector<float> values, ToFloats(*found));
  return FloatTensor{name, found->shape, std::move(values)};
}

StatusOr<FloatTensor> ContainerOp::Scaled(const std::string& name) const {
  POLYAD_ASSIGN_OR_RETURN(const OwnedTensor* codes, source_->TakeIntegers(name));
  if (codes->dtype != DType::kI8 || codes->shape.empty()) {
    return InvalidArgument("tensor %s: expected i8 rows to go with its scale, got %s %s", name,
                           std::string(InfoOf(codes->dtype).name), ShapeToString(codes->shape));
  }
  const int64_t rows = codes->shape.front();
  POLYAD_ASSIGN_OR_RETURN(const FloatTensor scale,
                          TakeFloats(*source_, name + std::string(kScale), {rows}));
  FloatTensor scaled{name, codes->shape, {}};
  const auto count = static_cast<size_t>(codes->bytes.size());
  scaled.values.reserve(count);
  for (size_t i = 0; i < count; ++i) {
    const auto code = static_cast<float>(static_cast<int8_t>(codes->bytes.data()[i]));
    scaled.values.push_back(code * scale.values[i / (count / static_cast<size_t>(rows))]);
  }
  return scaled;
}

StatusOr<std::vector<float>> ContainerOp::Vector(const std::string& tensor, int64_t size) const {
  POLYAD_ASSIGN_OR_RETURN(FloatTensor found, Floats(tensor, {size}));
  return std::move(found.values);
}

StatusOr<Matrix> ContainerOp::Take(const std::string& tensor, int64_t rows, int64_t cols) const {
  POLYAD_ASSIGN_OR_RETURN(FloatTensor found, Floats(tensor, {rows, cols}));
  return std::move(found).AsMatrix();
}

StatusOr<IndexTensor> ContainerOp::Indices(const std::string& tensor, int64_t limit,
                                           std::initializer_list<int64_t> expected) const {
  return TakeIndices(*source_, NameOf(tensor), limit, expected);
}

StatusOr<const OwnedTensor*> ContainerOp::Integers(const std::string& tensor) const {
  return source_->TakeIntegers(NameOf(tensor));
}

StatusOr<double> ContainerOp::Number(const std::string& key, double absent) const {
  asked_.insert(key);
  for (const auto& [name, value] : numbers_) {
    if (name == key) return value;
  }
  return absent;
}

StatusOr<int64_t> ContainerOp::Int(const std::string& key, int64_t absent, int64_t min,
                                   int64_t max) const {
  POLYAD_ASSIGN_OR_RETURN(const std::optional<int64_t> found, IntIfAny(key, min, max));
  return found.value_or(absent);
}

StatusOr<std::optional<int64_t>> ContainerOp::IntIfAny(const std::string& key, int64_t min,
                                                       int64_t max) const {
  asked_.insert(key);
  for (const auto& [name, value] : numbers_) {
    if (name != key) continue;
    const bool fits = value >= static_cast<double>(min) && value <= static_cast<double>(max);
    if (!fits || value != static_cast<double>(static_cast<int64_t>(value))) {
      return InvalidArgument("%s: %s: key '%s': expected a whole number in [%d, %d], got %g",
                             kWhere, name_, key, min, max, value);
    }
    return std::optional(static_cast<int64_t>(value));
  }
  return std::optional<int64_t>();
}

std::string ContainerOp::Word(const std::string& key, const std::string& absent) const {
  asked_.insert(key);
  for (const auto& [name, word] : words_) {
    if (name == key) return word;
  }
  return absent;
}

Status ContainerOp::CheckOptionsTaken() const {
  const auto check = [this](const auto& options) -> Status {
    for (const auto& [key, value] : options) {
      if (asked_.count(key) > 0) continue;
      return Unimplemented("%s: sites: %s: option %s is not understood", kWhere, name_, Quote(key));
    }
    return absl::OkStatus();
  };
  POLYAD_RETURN_IF_ERROR(check(references_));
  POLYAD_RETURN_IF_ERROR(check(numbers_));
  return check(words_);
}

StatusOr<ZooContainer> ZooContainer::Parse(AdapterSource& source) {
  ZooContainer container;
  POLYAD_RETURN_IF_ERROR(container.ReadConfig(source.config()));
  POLYAD_RETURN_IF_ERROR(container.CollectOps(source));
  POLYAD_RETURN_IF_ERROR(container.ReadOptions(source.config()));
  return container;
}

Status ZooContainer::ReadConfig(const OrderedJson& json) {
  POLYAD_ASSIGN_OR_RETURN(const OrderedJsonFields config, OrderedJsonFields::Of(json, kWhere));
  POLYAD_ASSIGN_OR_RETURN(const int64_t version, config.Int("zoo_version", 0, 1'000'000));
  if (version != 1) {
    return Unimplemented("%s: key 'zoo_version': expected 1, got %d", kWhere, version);
  }
  for (const auto& [key, value] : json.items()) {
    if (!Contains(kMembers, key)) {
      return Unimplemented("%s: key %s is not understood", kWhere, Quote(key));
    }
  }
  const OrderedJson* flags = config.Find("flags");
  if (flags != nullptr && !flags->empty()) {
    return Unimplemented("%s: key 'flags' is not understood", kWhere);
  }
  POLYAD_ASSIGN_OR_RETURN(family_, config.String("family"));
  if (family_.empty() || family_.size() > kMaxFamilyBytes) {
    return InvalidArgument("%s: key 'family': expected 1 to %d bytes, got %d", kWhere,
                           kMaxFamilyBytes, family_.size());
  }
  POLYAD_RETURN_IF_ERROR(ReadBase(config));
  if (const OrderedJson* hooks = config.Find("hooks"); hooks != nullptr) {
    if (!hooks->is_array()) return config.WrongType("hooks", "an array");
    hooks_ = *hooks;
  }
  return absl::OkStatus();
}

Status ZooContainer::ReadBase(const OrderedJsonFields& config) {
  POLYAD_ASSIGN_OR_RETURN(const std::optional<OrderedJsonFields> base, config.Object("base"));
  if (!base) return absl::OkStatus();
  for (const auto& [key, value] : base->object().items()) {
    if (key != "name" && key != "weights_sha256") {
      return Unimplemented("%s: base: key %s is not understood", kWhere, Quote(key));
    }
  }
  POLYAD_ASSIGN_OR_RETURN(base_digest_, base->StringOr("weights_sha256", ""));
  if (base_digest_.empty() || base_digest_.size() == kDigestCharacters) return absl::OkStatus();
  return InvalidArgument("%s: base: key 'weights_sha256': expected %d characters, got %d", kWhere,
                         kDigestCharacters, base_digest_.size());
}

Status ZooContainer::CollectOps(AdapterSource& source) {
  std::map<OpName, std::string> names;  // sorted as the ops run
  for (const std::string& tensor : source.RemainingNames()) {
    if (tensor.starts_with(kShared)) continue;
    std::string_view rest = tensor;
    const std::optional<OpName> name = TakeOpName(rest);
    if (!name.has_value() || rest.empty()) {
      return InvalidArgument("tensor %s: expected <place>.<op>.<i>.<tensor>", Quote(tensor));
    }
    names.emplace(*name, Spelled(*name));
  }
  const OrderedJson& json = source.config();
  if (const auto sites = json.find("sites"); sites != json.end() && sites->is_object()) {
    for (const auto& [key, value] : sites->items()) {
      std::string_view rest = key;
      const std::optional<OpName> name = TakeOpName(rest);
      if (!name.has_value() || Spelled(*name) != key) {
        return InvalidArgument("%s: sites: %s: expected <place>.<op>.<i>", kWhere, Quote(key));
      }
      names.emplace(*name, Spelled(*name));
    }
  }
  for (auto& [name, spelled] : names) ops_.emplace_back(source, name.place, name.kind, spelled);
  return absl::OkStatus();
}

Status ZooContainer::ReadOptions(const OrderedJson& json) {
  const auto sites = json.find("sites");
  if (sites == json.end() || sites->is_null()) return absl::OkStatus();
  if (!sites->is_object()) return InvalidArgument("%s: key 'sites': expected an object", kWhere);
  std::map<std::string, ContainerOp*> by_name;
  for (ContainerOp& op : ops_) by_name.emplace(op.name(), &op);
  for (const auto& [name, options] : sites->items()) {
    ContainerOp& op = *by_name.at(name);
    if (!options.is_object()) {
      return InvalidArgument("%s: sites: %s: expected an object", kWhere, name);
    }
    for (const auto& [key, value] : options.items()) {
      const bool is_shared = value.is_string() && value.get<std::string>().starts_with(kShared);
      if (is_shared) {
        op.references_.emplace_back(key, value.get<std::string>());
      } else if (value.is_number() && Contains(kNumberOptions, key)) {
        op.numbers_.emplace_back(key, value.get<double>());
      } else if (value.is_string() && Contains(kWordOptions, key)) {
        op.words_.emplace_back(key, value.get<std::string>());
      } else {
        return Unimplemented("%s: sites: %s: option %s is not understood", kWhere, name,
                             Quote(key));
      }
    }
  }
  return absl::OkStatus();
}

}  // namespace polyad
