#include "engine/spec/model_files.h"

#include <set>

#include "engine/io/quote.h"
#include "engine/io/safetensors.h"
#include "engine/spec/open_formats.h"
#include "engine/spec/weight_layout.h"

namespace polyad {

namespace {

// Files of the bare decoder lack the prefix of the model that wraps it ("h.0.ln_1.weight" for
// "transformer.h.0.ln_1.weight").
std::string WithoutWrapper(const std::string& name) {
  for (const std::string_view prefix : {"transformer.", "model."}) {
    if (name.starts_with(prefix)) return name.substr(prefix.size());
  }
  return name;
}

bool IsWeightType(DType dtype) {
  switch (dtype) {
    case DType::kF32:
    case DType::kF16:
    case DType::kBF16:
    case DType::kQ8_0:
    case DType::kQ4_0:
    case DType::kQ4_1:
    case DType::kGrouped:
      return true;
    case DType::kI8:
    case DType::kU8:
    case DType::kI16:
    case DType::kI32:
    case DType::kI64:
    case DType::kF64:
    case DType::kBool:
    case DType::kF8E4M3:
      return false;
  }
  return false;
}

Status CheckEntry(const WeightEntry& entry, const TensorInfo* info) {
  const std::string name = Quote(entry.tensor_name);
  if (info == nullptr) return InvalidArgument("model: tensor %s is missing", name);
  std::vector<int64_t> expected = entry.shape;
  if (entry.layout == WeightLayout::kTransposed) std::swap(expected[0], expected[1]);
  if (info->shape != expected) {
    return InvalidArgument("model: tensor %s: expected %s, got %s", name, ShapeToString(expected),
                           ShapeToString(info->shape));
  }
  if (!info->dtype.has_value() || !IsWeightType(*info->dtype)) {
    return Unimplemented("model: tensor %s: weights of type %s are not supported", name,
                         Quote(info->stored_type));
  }
  return absl::OkStatus();
}

}  // namespace

StatusOr<ModelFiles> ModelFiles::Create(ModelSpec spec, WeightFormat format,
                                        std::unique_ptr<TensorSource> source) {
  ModelFiles files;
  files.spec_ = std::move(spec);
  files.format_ = format;
  files.source_ = std::move(source);
  files.plan_ = WeightPlan(files.spec_, format);
  POLYAD_RETURN_IF_ERROR(files.CheckPlan());
  return files;
}

Status ModelFiles::CheckPlan() {
  std::set<std::string> used;
  for (size_t i = 0; i < plan_.size(); ++i) {
    WeightEntry& entry = plan_[i];
    const std::string bare = WithoutWrapper(entry.tensor_name);
    if (source_->Find(entry.tensor_name) == nullptr && source_->Find(bare) != nullptr) {
      entry.tensor_name = bare;
    }
    POLYAD_RETURN_IF_ERROR(CheckEntry(entry, source_->Find(entry.tensor_name)));
    used.insert(entry.tensor_name);
    index_[{entry.layer, entry.kind}] = i;
  }
  for (const TensorInfo& info : source_->tensors()) {
    if (used.contains(info.name)) continue;
    if (IsIgnorableTensor(spec_, info.name)) continue;
    return Unimplemented("model: tensor %s is no part of a %s model with this configuration",
                         Quote(info.name), ArchitectureName(spec_.architecture));
  }
  return absl::OkStatus();
}

bool ModelFiles::HasWeight(int64_t layer, WeightKind kind) const {
  return index_.contains({layer, kind});
}

StatusOr<OwnedTensor> ModelFiles::ReadWeight(int64_t layer, WeightKind kind) const {
  const auto it = index_.find({layer, kind});
  if (it == index_.end()) {
    return NotFound("model: no weight of kind %d in layer %d", static_cast<int>(kind), layer);
  }
  const WeightEntry& entry = plan_[it->second];
  POLYAD_ASSIGN_OR_RETURN(OwnedTensor stored, source_->Read(entry.tensor_name));
  return ToLogicalLayout(std::move(stored), entry);
}

StatusOr<ModelFiles> OpenModel(const std::string& path) {
  if (IsDirectory(path)) return OpenHfDirectory(path);
  if (path.ends_with(".gguf")) return OpenGgufModel(path);
  if (!FileExists(path)) return NotFound("model: %s does not exist", Quote(path));
  return InvalidArgument("model: expected a directory or a .gguf file");
}

}  // namespace polyad
