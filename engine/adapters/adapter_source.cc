#include "engine/adapters/adapter_source.h"

#include <cmath>
#include <cstring>

#include "engine/io/float_bits.h"

namespace polyad {
namespace {

constexpr char kConfigFile[] = "adapter_config.json";
constexpr char kPeftFile[] = "adapter_model.safetensors";
constexpr char kAdapterHubFile[] = "adapter.safetensors";
constexpr int64_t kMaxConfigBytes = int64_t{1} << 20;

// Exponent bits all set means infinity or NaN, in every IEEE format.
template <typename Bits>
bool AllFinite(const uint8_t* data, int64_t count, Bits exponent_mask) {
  int bad = 0;
  for (int64_t i = 0; i < count; ++i) {
    Bits bits;
    std::memcpy(&bits, data + i * static_cast<int64_t>(sizeof(Bits)), sizeof(Bits));
    bad |= (bits & exponent_mask) == exponent_mask;
  }
  return bad == 0;
}

Status CheckFinite(const std::string& name, const OwnedTensor& tensor) {
  const TensorView view = tensor.view();
  const int64_t count = view.rows * view.cols;
  const uint8_t* data = tensor.bytes.data();
  bool finite = false;
  switch (tensor.dtype) {
    case DType::kF32:
      finite = AllFinite<uint32_t>(data, count, 0x7f800000u);
      break;
    case DType::kF16:
      finite = AllFinite<uint16_t>(data, count, 0x7c00u);
      break;
    case DType::kBF16:
      finite = AllFinite<uint16_t>(data, count, 0x7f80u);
      break;
    default:
      return InvalidArgument("tensor %s: expected f32, f16 or bf16, got %s", name,
                             std::string(InfoOf(tensor.dtype).name));
  }
  if (!finite) return InvalidArgument("tensor %s: holds a NaN or an infinity", name);
  return absl::OkStatus();
}

Status RefusePickle(const Directory& directory) {
  if (directory.Contains("adapter_model.bin")) {
    return Unimplemented(
        "adapter_model.bin: pickle files are never loaded; save the adapter as safetensors");
  }
  if (directory.Contains("pytorch_adapter.bin")) {
    return Unimplemented(
        "pytorch_adapter.bin: pickle files are never loaded; convert the directory with "
        "tools/export/adapterhub.py");
  }
  return absl::OkStatus();
}

}  // namespace

StatusOr<AdapterSource> AdapterSource::Open(const Directory& directory, int64_t max_file_bytes) {
  const bool is_hub = !directory.Contains(kPeftFile) && directory.Contains(kAdapterHubFile);
  const char* tensor_file = is_hub ? kAdapterHubFile : kPeftFile;
  if (!directory.Contains(tensor_file)) POLYAD_RETURN_IF_ERROR(RefusePickle(directory));
  POLYAD_ASSIGN_OR_RETURN(RandomAccessFile config, directory.OpenFile(kConfigFile));
  POLYAD_ASSIGN_OR_RETURN(const std::string text, config.ReadAll(kMaxConfigBytes));
  POLYAD_ASSIGN_OR_RETURN(RandomAccessFile file, directory.OpenFile(tensor_file));
  if (file.size() > max_file_bytes) {
    return ResourceExhausted("%s: %d bytes, the limit is %d", tensor_file, file.size(),
                             max_file_bytes);
  }
  // Read once, whole: what is hashed is what is parsed, whatever happens to the file meanwhile.
  POLYAD_ASSIGN_OR_RETURN(std::string bytes, file.ReadAll(max_file_bytes));
  return FromBytes(text, std::move(bytes),
                   is_hub ? AdapterFormat::kAdapterHub : AdapterFormat::kPeft);
}

StatusOr<AdapterSource> AdapterSource::FromBytes(std::string config, std::string tensors,
                                                 AdapterFormat format) {
  Sha256 sha;
  sha.UpdateInt(static_cast<int64_t>(config.size()));
  sha.Update(config);
  sha.Update(tensors);
  const auto file_bytes = static_cast<int64_t>(config.size() + tensors.size());
  POLYAD_ASSIGN_OR_RETURN(
      AdapterSource source,
      Build(config, RandomAccessFile::FromBytes(
                        std::move(tensors),
                        format == AdapterFormat::kAdapterHub ? kAdapterHubFile : kPeftFile)));
  source.format_ = format;
  source.digest_ = sha.Finish();
  source.file_bytes_ = file_bytes;
  return source;
}

StatusOr<AdapterSource> AdapterSource::Build(const std::string& config, RandomAccessFile tensors) {
  AdapterSource source;
  POLYAD_ASSIGN_OR_RETURN(source.config_, ParseOrderedJson(config, kConfigFile, JsonLimits{}));
  POLYAD_ASSIGN_OR_RETURN(const SafetensorsFile file,
                          SafetensorsFile::FromFile(std::move(tensors)));
  source.tensors_.reserve(file.tensors().size());
  for (const TensorInfo& info : file.tensors()) {
    POLYAD_ASSIGN_OR_RETURN(OwnedTensor tensor, file.Read(info.name));
    source.tensors_.push_back({info.name, std::move(tensor)});
    source.index_.emplace(info.name, source.tensors_.size() - 1);
  }
  return source;
}

const char* AdapterSource::tensor_file() const {
  return format_ == AdapterFormat::kAdapterHub ? kAdapterHubFile : kPeftFile;
}

std::vector<std::string> AdapterSource::RemainingNames() const {
  std::vector<std::string> names;
  for (const Entry& entry : tensors_) {
    if (!entry.taken) names.push_back(entry.name);
  }
  return names;
}

bool AdapterSource::Has(const std::string& name) const { return index_.count(name) > 0; }

std::vector<int64_t> AdapterSource::ShapeOf(const std::string& name) const {
  const auto found = index_.find(name);
  return found == index_.end() ? std::vector<int64_t>() : tensors_[found->second].tensor.shape;
}

StatusOr<TensorView> AdapterSource::TakeMatrix(const std::string& name) {
  const auto found = index_.find(name);
  if (found != index_.end() && tensors_[found->second].tensor.shape.size() != 2) {
    return InvalidArgument("tensor %s: expected 2 dimensions, got %s", name,
                           ShapeToString(tensors_[found->second].tensor.shape));
  }
  POLYAD_ASSIGN_OR_RETURN(const OwnedTensor* tensor, TakeTensor(name));
  return tensor->view();
}

StatusOr<const OwnedTensor*> AdapterSource::TakeTensor(const std::string& name) {
  const auto found = index_.find(name);
  if (found == index_.end()) return InvalidArgument("tensor %s: missing from the file", name);
  Entry& entry = tensors_[found->second];
  POLYAD_RETURN_IF_ERROR(CheckFinite(name, entry.tensor));
  entry.taken = true;
  return &entry.tensor;
}

StatusOr<const OwnedTensor*> AdapterSource::TakeIntegers(const std::string& name) {
  const auto found = index_.find(name);
  if (found == index_.end()) return InvalidArgument("tensor %s: missing from the file", name);
  Entry& entry = tensors_[found->second];
  switch (entry.tensor.dtype) {
    case DType::kI8:
    case DType::kU8:
    case DType::kI16:
    case DType::kI32:
    case DType::kI64:
      entry.taken = true;
      return &entry.tensor;
    default:
      return InvalidArgument("tensor %s: expected integers, got %s", name,
                             InfoOf(entry.tensor.dtype).name);
  }
}

Status AdapterSource::CheckAllTaken() const {
  for (const Entry& entry : tensors_) {
    if (!entry.taken) {
      return InvalidArgument(
          "tensor %s: this family has no use for it, so the adapter would be served incompletely",
          entry.name);
    }
  }
  return absl::OkStatus();
}

}  // namespace polyad
