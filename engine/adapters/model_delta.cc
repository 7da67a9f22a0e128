#include "engine/adapters/model_delta.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <utility>

#include "engine/io/float_bits.h"
#include "engine/io/quote.h"
#include "engine/spec/rope_frequencies.h"

namespace polyad {
namespace {

bool IsBias(WeightKind kind) { return kind >= WeightKind::kQBias; }

// Whether `value` is `base` as a tensor of that type stores it.
bool IsRounded(float base, float value, DType dtype) {
  if (dtype == DType::kBF16) return BFloat16ToFloat(FloatToBFloat16(base)) == value;
  if (dtype == DType::kF16) return HalfToFloat(FloatToHalf(base)) == value;
  return base == value;
}

Status Differ(const std::string& setting, const std::string& expected, const std::string& got) {
  return FailedPrecondition("fine-tuned: %s: expected the base's %s, got %s", setting, expected,
                            got);
}

// Settings that two files may say in different precision.
bool Close(double a, double b) { return std::fabs(a - b) <= 1e-6 * std::fabs(a); }

StatusOr<std::optional<OwnedTensor>> ReadIfThere(const ModelFiles& files, int64_t layer,
                                                 WeightKind kind) {
  if (kind == WeightKind::kHead && files.spec().tie_embeddings) kind = WeightKind::kEmbed;
  if (!files.HasWeight(layer, kind)) return std::optional<OwnedTensor>();
  POLYAD_ASSIGN_OR_RETURN(OwnedTensor tensor, files.ReadWeight(layer, kind));
  return std::optional<OwnedTensor>(std::move(tensor));
}

}  // namespace

void WeightPair::FineTuned(int64_t row, float* out) const {
  if (fine_tuned_) return RowToFloats(*fine_tuned_, row, out);
  std::fill(out, out + cols_, 0.0f);
}

void WeightPair::Change(int64_t row, float* out) const {
  FineTuned(row, out);
  if (!base_) return;
  RowToFloats(*base_, row, scratch_.data());
  const DType dtype = fine_tuned_ ? fine_tuned_->dtype : DType::kF32;
  for (size_t i = 0; i < scratch_.size(); ++i) {
    out[i] = IsRounded(scratch_[i], out[i], dtype) ? 0.0f : out[i] - scratch_[i];
  }
}

bool WeightPair::IsChanged(int64_t row) const {
  std::vector<float> change(static_cast<size_t>(cols_));
  Change(row, change.data());
  return std::any_of(change.begin(), change.end(), [](float value) { return value != 0; });
}

StatusOr<ModelDelta> ModelDelta::Open(const std::string& base, const std::string& fine_tuned) {
  auto base_files = OpenModel(base);
  if (!base_files.ok()) return Annotate(base_files.status(), "base");
  auto fine_tuned_files = OpenModel(fine_tuned);
  if (!fine_tuned_files.ok()) return Annotate(fine_tuned_files.status(), "fine-tuned");
  return Of(*std::move(base_files), *std::move(fine_tuned_files));
}

StatusOr<ModelDelta> ModelDelta::Of(ModelFiles base, ModelFiles fine_tuned) {
  ModelDelta delta(std::move(base), std::move(fine_tuned));
  POLYAD_RETURN_IF_ERROR(delta.CheckShapes());
  POLYAD_RETURN_IF_ERROR(delta.CheckSettings());
  return delta;
}

// Every weight of one is a weight of the other, of the same shape. Biases and heads may be missing.
Status ModelDelta::CheckShapes() const {
  std::map<std::pair<int64_t, WeightKind>, const WeightEntry*> expected;
  for (const WeightEntry& entry : base_.weights()) expected[{entry.layer, entry.kind}] = &entry;
  const auto may_lack = [](WeightKind kind) { return IsBias(kind) || kind == WeightKind::kHead; };
  for (const WeightEntry& entry : fine_tuned_.weights()) {
    const auto found = expected.find({entry.layer, entry.kind});
    const std::string name = Quote(entry.tensor_name);
    if (found == expected.end()) {
      if (may_lack(entry.kind)) continue;
      return FailedPrecondition("fine-tuned: tensor %s: the base has no such weight, got %s", name,
                                ShapeToString(entry.shape));
    }
    if (found->second->shape != entry.shape) {
      return FailedPrecondition("fine-tuned: tensor %s: expected %s, got %s", name,
                                ShapeToString(found->second->shape), ShapeToString(entry.shape));
    }
    expected.erase(found);
  }
  for (const auto& [key, entry] : expected) {
    if (may_lack(entry->kind)) continue;
    return FailedPrecondition("fine-tuned: the base's tensor %s: expected %s, got none",
                              Quote(entry->tensor_name), ShapeToString(entry->shape));
  }
  return absl::OkStatus();
}

// What changes the arithmetic and is no weight. GGUF calls Mistral llama.
Status ModelDelta::CheckSettings() const {
  const ModelSpec& a = base_.spec();
  const ModelSpec& b = fine_tuned_.spec();
  const auto family = [](const ModelSpec& spec) {
    return spec.architecture == Architecture::kMistral ? Architecture::kLlama : spec.architecture;
  };
  if (family(a) != family(b)) {
    return Differ("architecture", ArchitectureName(a.architecture),
                  ArchitectureName(b.architecture));
  }
  if (a.activation != b.activation) return Differ("activation", "activation", "another one");
  const std::pair<const char*, std::pair<double, double>> numbers[] = {
      {"attention heads", {a.num_heads, b.num_heads}},
      {"key and value heads", {a.num_kv_heads, b.num_kv_heads}},
      {"head size", {a.head_dim, b.head_dim}},
      {"norm epsilon", {a.norm_eps, b.norm_eps}},
      {"attention scale", {a.attention_scale, b.attention_scale}},
      {"rotary theta", {a.rope.theta, b.rope.theta}},
      {"rotary dimensions", {a.rope.rotary_dim, b.rope.rotary_dim}}};
  for (const auto& [name, values] : numbers) {
    if (Close(values.first, values.second)) continue;
    return Differ(name, absl::StrFormat("%g", values.first), absl::StrFormat("%g", values.second));
  }
  if (!TurnAlike(a.rope, b.rope, std::min(a.max_position, b.max_position))) {
    return Differ("rotary scaling", "scaling", "another one");
  }
  if (a.sliding_window != b.sliding_window) {
    return Differ("sliding window", "window", "another one");
  }
  return absl::OkStatus();
}

bool ModelDelta::Has(int64_t layer, WeightKind kind) const {
  if (kind == WeightKind::kHead) return true;
  return base_.HasWeight(layer, kind) || fine_tuned_.HasWeight(layer, kind);
}

StatusOr<WeightPair> ModelDelta::Read(int64_t layer, WeightKind kind) const {
  WeightPair pair;
  POLYAD_ASSIGN_OR_RETURN(pair.base_, ReadIfThere(base_, layer, kind));
  POLYAD_ASSIGN_OR_RETURN(pair.fine_tuned_, ReadIfThere(fine_tuned_, layer, kind));
  const TensorView view = pair.base_ ? pair.base_->view() : pair.fine_tuned_->view();
  pair.rows_ = view.rows;
  pair.cols_ = view.cols;
  pair.scratch_.resize(static_cast<size_t>(view.cols));
  return pair;
}

}  // namespace polyad
