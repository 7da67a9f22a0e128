#include "engine/spec/quantized_source.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <set>
#include <unordered_map>
#include <utility>

#include "engine/io/quote.h"

namespace polyad {

namespace {

class QuantizedSource final : public TensorSource {
 public:
  QuantizedSource(std::unique_ptr<TensorSource> stored, const QuantizationConfig& config,
                  QuantizationScheme scheme)
      : stored_(std::move(stored)), config_(config), scheme_(std::move(scheme)) {}

  Status List() {
    std::set<std::string> used;
    for (const TensorInfo& info : stored_->tensors()) {
      if (!info.name.ends_with(scheme_.suffix)) continue;
      QuantizedModule module;
      module.name = info.name.substr(0, info.name.size() - scheme_.suffix.size());
      POLYAD_RETURN_IF_ERROR(scheme_.describe(*stored_, config_, module));
      used.insert(module.parts.begin(), module.parts.end());
      modules_.emplace(module.name + ".weight", std::move(module));
    }
    for (const TensorInfo& info : stored_->tensors()) {
      if (used.contains(info.name)) continue;
      if (modules_.contains(info.name)) {
        return InvalidArgument("model: tensor %s is there both quantised and plain",
                               Quote(info.name));
      }
      Add(info);
    }
    for (const auto& [name, module] : modules_) {
      TensorInfo info;
      info.name = name;
      info.stored_type = "quantised";
      info.dtype = DType::kGrouped;
      info.shape = {module.rows, module.cols};
      for (const std::string& part : module.parts) info.bytes += stored_->Find(part)->bytes;
      Add(info);
    }
    return absl::OkStatus();
  }

  const std::vector<TensorInfo>& tensors() const override { return tensors_; }
  const TensorInfo* Find(const std::string& name) const override {
    const auto it = index_.find(name);
    return it == index_.end() ? nullptr : &tensors_[it->second];
  }
  StatusOr<OwnedTensor> Read(const std::string& name) const override {
    if (Find(name) == nullptr) return NotFound("model: no tensor %s", Quote(name));
    const auto it = modules_.find(name);
    if (it == modules_.end()) return stored_->Read(name);
    POLYAD_ASSIGN_OR_RETURN(GroupedRows rows, scheme_.read(*stored_, config_, it->second));
    OwnedTensor tensor;
    tensor.dtype = DType::kGrouped;
    tensor.shape = {rows.rows, rows.cols};
    tensor.grouped = std::make_shared<const GroupedRows>(std::move(rows));
    return tensor;
  }

 private:
  void Add(const TensorInfo& info) {
    index_.emplace(info.name, tensors_.size());
    tensors_.push_back(info);
  }

  const std::unique_ptr<TensorSource> stored_;
  const QuantizationConfig config_;
  const QuantizationScheme scheme_;
  std::unordered_map<std::string, QuantizedModule> modules_;  // by the weight's name
  std::vector<TensorInfo> tensors_;
  std::unordered_map<std::string, size_t> index_;
};

QuantizationScheme SchemeOf(QuantizationMethod method) {
  switch (method) {
    case QuantizationMethod::kBitsAndBytes:
      return BitsAndBytesScheme();
    case QuantizationMethod::kGptq:
      return GptqScheme();
    case QuantizationMethod::kAwq:
      return AwqScheme();
    case QuantizationMethod::kCompressedTensors:
      return CompressedTensorsScheme();
    case QuantizationMethod::kPolyad:
      break;
  }
  return PolyadScheme();
}

}  // namespace

StatusOr<std::unique_ptr<TensorSource>> OpenQuantizedSource(std::unique_ptr<TensorSource> stored,
                                                            const QuantizationConfig& config) {
  auto source =
      std::make_unique<QuantizedSource>(std::move(stored), config, SchemeOf(config.method));
  POLYAD_RETURN_IF_ERROR(source->List());
  return source;
}

StatusOr<const TensorInfo*> NeedTensor(const TensorSource& stored, const std::string& name,
                                       std::initializer_list<DType> types,
                                       const std::vector<int64_t>& shape) {
  const TensorInfo* info = stored.Find(name);
  if (info == nullptr) return InvalidArgument("model: tensor %s is missing", Quote(name));
  if (!shape.empty() && info->shape != shape) {
    return InvalidArgument("model: tensor %s: expected %s, got %s", Quote(name),
                           ShapeToString(shape), ShapeToString(info->shape));
  }
  const bool known =
      info->dtype.has_value() && std::find(types.begin(), types.end(), *info->dtype) != types.end();
  if (!known) {
    return InvalidArgument("model: tensor %s: expected type %s, got %s", Quote(name),
                           InfoOf(*types.begin()).name, Quote(info->stored_type));
  }
  return info;
}

StatusOr<std::vector<float>> ReadScales(const TensorSource& stored, const std::string& name) {
  POLYAD_ASSIGN_OR_RETURN(const OwnedTensor tensor, stored.Read(name));
  POLYAD_ASSIGN_OR_RETURN(std::vector<float> values, ToFloats(tensor));
  for (const float value : values) {
    if (!std::isfinite(value)) {
      return InvalidArgument("model: tensor %s: expected finite numbers, got %f", Quote(name),
                             value);
    }
  }
  return values;
}

StatusOr<std::vector<uint32_t>> ReadWords(const TensorSource& stored, const std::string& name) {
  POLYAD_ASSIGN_OR_RETURN(const OwnedTensor tensor, stored.Read(name));
  std::vector<uint32_t> words(static_cast<size_t>(tensor.bytes.size()) / 4);
  if (!words.empty()) std::memcpy(words.data(), tensor.bytes.data(), words.size() * 4);
  return words;
}

Status ReadGroupIndex(const TensorSource& stored, const std::string& name, GroupedRows& made) {
  POLYAD_ASSIGN_OR_RETURN(const std::vector<uint32_t> groups, ReadWords(stored, name));
  bool runs = true;
  for (size_t i = 0; i < groups.size(); ++i) {
    if (groups[i] >= static_cast<uint32_t>(std::min<int64_t>(made.num_groups, 65536))) {
      return InvalidArgument("model: tensor %s: element %d: expected a group below %d, got %d",
                             Quote(name), i, made.num_groups, static_cast<int32_t>(groups[i]));
    }
    runs = runs && static_cast<int64_t>(groups[i]) == static_cast<int64_t>(i) / made.group;
  }
  if (!runs) made.group_of.assign(groups.begin(), groups.end());
  return absl::OkStatus();
}

std::vector<float> Transposed(const std::vector<float>& stored, int64_t groups, int64_t rows) {
  std::vector<float> made(stored.size());
  for (int64_t group = 0; group < groups; ++group) {
    for (int64_t row = 0; row < rows; ++row) {
      made[static_cast<size_t>(row * groups + group)] =
          stored[static_cast<size_t>(group * rows + row)];
    }
  }
  return made;
}

void FoldZeros(GroupedRows& made) {
  if (made.zeros.empty()) return;
  const float first = made.zeros[0];
  if (std::any_of(made.zeros.begin(), made.zeros.end(), [&](float zero) { return zero != first; }))
    return;
  made.zero = first;
  made.zeros.clear();
}

int64_t GroupSizeOf(const QuantizationConfig& config, int64_t cols) {
  return config.group_size == -1 ? cols : config.group_size;
}

}  // namespace polyad
