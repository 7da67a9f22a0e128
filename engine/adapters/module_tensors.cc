#include "engine/adapters/module_tensors.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <unordered_set>

#include "engine/base/check.h"
#include "kernels/api/give_way.h"

namespace polyad {
namespace {

std::string Expected(std::span<const int64_t> sizes) {
  std::string text = "[";
  for (const int64_t size : sizes) {
    if (text.size() > 1) text += ", ";
    text += size == kAnySize ? "any" : std::to_string(size);
  }
  return text + "]";
}

template <typename T>
std::vector<int64_t> Integers(const OwnedTensor& tensor) {
  std::vector<int64_t> values(static_cast<size_t>(tensor.bytes.size()) / sizeof(T));
  for (size_t i = 0; i < values.size(); ++i) {
    T value;
    std::memcpy(&value, tensor.bytes.data() + i * sizeof(T), sizeof(T));
    values[i] = static_cast<int64_t>(value);
  }
  return values;
}

std::vector<int64_t> WidenedIntegers(const OwnedTensor& tensor) {
  switch (tensor.dtype) {
    case DType::kI8:
      return Integers<int8_t>(tensor);
    case DType::kU8:
      return Integers<uint8_t>(tensor);
    case DType::kI16:
      return Integers<int16_t>(tensor);
    case DType::kI32:
      return Integers<int32_t>(tensor);
    default:
      return Integers<int64_t>(tensor);
  }
}

}  // namespace

Status CheckShape(const std::string& name, std::span<const int64_t> expected,
                  const std::vector<int64_t>& got) {
  bool fits = expected.size() == got.size();
  for (size_t i = 0; fits && i < got.size(); ++i)
    fits = expected[i] == kAnySize || expected[i] == got[i];
  if (fits) return absl::OkStatus();
  return FailedPrecondition(
      "tensor %s: expected %s, got %s: the configuration or the base model is another one", name,
      Expected(expected), ShapeToString(got));
}

Matrix FloatTensor::AsMatrix() && {
  const int64_t cols = shape.empty() ? 1 : shape.back();
  int64_t rows = 1;
  for (size_t i = 0; i + 1 < shape.size(); ++i) rows *= shape[i];
  return Matrix(rows, cols, std::move(values));
}

StatusOr<FloatTensor> TakeFloats(AdapterSource& source, const std::string& name,
                                 std::span<const int64_t> expected) {
  POLYAD_ASSIGN_OR_RETURN(const OwnedTensor* tensor, source.TakeTensor(name));
  POLYAD_RETURN_IF_ERROR(CheckShape(name, expected, tensor->shape));
  POLYAD_ASSIGN_OR_RETURN(std::vector<float> values, ToFloats(*tensor));
  return FloatTensor{name, tensor->shape, std::move(values)};
}

StatusOr<FloatTensor> TakeFloats(AdapterSource& source, const std::string& name,
                                 std::initializer_list<int64_t> expected) {
  return TakeFloats(source, name, std::span<const int64_t>(expected.begin(), expected.size()));
}

StatusOr<IndexTensor> TakeIndices(AdapterSource& source, const std::string& name, int64_t limit,
                                  std::initializer_list<int64_t> expected) {
  POLYAD_ASSIGN_OR_RETURN(const OwnedTensor* tensor, source.TakeIntegers(name));
  POLYAD_RETURN_IF_ERROR(CheckShape(name, {expected.begin(), expected.size()}, tensor->shape));
  IndexTensor result{tensor->shape, WidenedIntegers(*tensor)};
  for (const int64_t value : result.values) {
    if (value < 0 || value >= limit) {
      return InvalidArgument("tensor %s: expected indices in [0, %d), got %d", name, limit, value);
    }
  }
  return result;
}

std::string ModuleTensors::NameOf(std::string_view leaf) const {
  std::string name(kPeftPrefix);
  return name.append(path_).append(".").append(leaf);
}

StatusOr<FloatTensor> ModuleTensors::Floats(std::string_view leaf,
                                            std::initializer_list<int64_t> expected) const {
  return TakeFloats(*source_, NameOf(leaf), expected);
}

StatusOr<Matrix> ModuleTensors::Take(std::string_view leaf, int64_t rows, int64_t cols) const {
  POLYAD_ASSIGN_OR_RETURN(FloatTensor tensor, Floats(leaf, {rows, cols}));
  return std::move(tensor).AsMatrix();
}

StatusOr<std::vector<float>> ModuleTensors::TakeVector(std::string_view leaf, int64_t size) const {
  POLYAD_ASSIGN_OR_RETURN(FloatTensor tensor, Floats(leaf, {size}));
  return std::move(tensor.values);
}

StatusOr<TensorView> ModuleTensors::View(std::string_view leaf, int64_t rows, int64_t cols) const {
  const std::string name = NameOf(leaf);
  POLYAD_ASSIGN_OR_RETURN(const TensorView view, source_->TakeMatrix(name));
  const int64_t expected[] = {rows, cols};
  POLYAD_RETURN_IF_ERROR(CheckShape(name, expected, {view.rows, view.cols}));
  return view;
}

StatusOr<std::vector<ModuleTensors>> ModulesWith(AdapterSource& source, const ModelSpec& spec,
                                                 const ModuleQuery& query) {
  std::vector<ModuleTensors> modules;
  std::unordered_set<std::string> seen;
  for (const std::string& name : source.RemainingNames()) {
    GiveWay();
    std::string_view rest = name;
    if (!rest.starts_with(kPeftPrefix)) continue;
    rest.remove_prefix(kPeftPrefix.size());
    for (const std::string_view leaf : query.leaves) {
      if (!rest.ends_with(leaf) || rest.size() <= leaf.size() ||
          rest[rest.size() - leaf.size() - 1] != '.')
        continue;
      std::string path(rest.substr(0, rest.size() - leaf.size() - 1));
      const StatusOr<SiteRef> site = ResolveModulePath(spec, path);
      if (!site.ok()) {
        return FailedPrecondition("tensor %s: the base model has no linear module of this name",
                                  name);
      }
      if ((site->site == Site::kEmbed && !query.with_embedding) ||
          (site->site == Site::kHead && !query.with_head)) {
        return Unimplemented("tensor %s: this family is not served on embeddings and heads", name);
      }
      if (seen.insert(path).second)
        modules.emplace_back(source, path, *site, ShapeOf(spec, site->site));
      break;
    }
  }
  return modules;
}

StatusOr<std::vector<ModuleTensors>> ModulesWith(AdapterSource& source, const ModelSpec& spec,
                                                 std::initializer_list<std::string_view> leaves) {
  return ModulesWith(source, spec, ModuleQuery{{leaves.begin(), leaves.size()}});
}

void SortByModelOrder(std::vector<ModuleTensors>& modules) {
  std::stable_sort(
      modules.begin(), modules.end(),
      [](const ModuleTensors& a, const ModuleTensors& b) { return a.site() < b.site(); });
}

StatusOr<std::string> SharedTensorName(const AdapterSource& source, const std::string& name) {
  if (source.Has(name)) return name;
  const std::string prefix = name + ".";
  for (const std::string& candidate : source.RemainingNames()) {
    if (candidate.starts_with(prefix) && candidate.find('.', prefix.size()) == std::string::npos)
      return candidate;
  }
  return InvalidArgument("tensor %s: missing from the file", name);
}

StatusOr<int64_t> CheckRank(const std::string& path, double rank) {
  if (rank < 1 || rank > static_cast<double>(kMaxRank) || rank != std::floor(rank)) {
    return InvalidArgument("module %s: expected a rank in [1, %d], got %g", path, kMaxRank, rank);
  }
  return static_cast<int64_t>(rank);
}

}  // namespace polyad
