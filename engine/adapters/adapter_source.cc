#include "engine/adapters/adapter_source.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <utility>

#include "engine/adapters/adapter_files.h"
#include "engine/adapters/adapterhub_setup.h"
#include "engine/adapters/base_record.h"
#include "engine/adapters/xlora_config.h"
#include "engine/base/check.h"
#include "engine/io/float_bits.h"
#include "engine/io/gguf.h"
#include "kernels/api/give_way.h"

namespace polyad {
namespace {

constexpr int64_t kPieceBytes = 64 * 1024;  // read and hashed before it gives way

// Exponent bits all set means infinity or NaN, in every IEEE format.
template <typename Bits>
bool AllFinite(const uint8_t* data, int64_t count, Bits exponent_mask) {
  Bits bad = 0;  // no wider than the numbers, so that as many as fit are looked at together
  for (int64_t i = 0; i < count; ++i) {
    Bits bits;
    std::memcpy(&bits, data + i * static_cast<int64_t>(sizeof(Bits)), sizeof(Bits));
    bad = static_cast<Bits>(bad | ((bits & exponent_mask) == exponent_mask));
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

// A GGUF file's keys with one value each, as a configuration's members.
OrderedJson ScalarsOf(const GgufMetadata& metadata) {
  OrderedJson config = OrderedJson::object();
  for (const auto& [key, value] : metadata.values()) {
    if (const auto* text = std::get_if<std::string>(&value)) config[key] = *text;
    if (const auto* whole = std::get_if<int64_t>(&value)) config[key] = *whole;
    if (const auto* real = std::get_if<double>(&value)) config[key] = *real;
    if (const auto* flag = std::get_if<bool>(&value)) config[key] = *flag;
  }
  return config;
}

const FormatFiles& FilesOf(AdapterFormat format) {
  for (const FormatFiles& files : kFormatFiles) {
    if (files.format == format) return files;
  }
  POLYAD_CHECK(false, "an adapter format without files");
  return kFormatFiles[0];
}

// PEFT's where there is no tensor file at all: its errors then name what is missing.
const FormatFiles& FormatOf(const Directory& directory) {
  for (const FormatFiles& files : kFormatFiles) {
    if (files.format == AdapterFormat::kAdapterHubSetup) continue;  // told by its config
    if (directory.Contains(files.tensors)) return files;
  }
  return kFormatFiles[0];
}

// Whole, piece by piece, each digested while it is in cache.
StatusOr<OwnedBytes> ReadWhole(const RandomAccessFile& file, Sha256& sha) {
  POLYAD_ASSIGN_OR_RETURN(OwnedBytes bytes, OwnedBytes::Allocate(file.size()));
  for (int64_t at = 0; at < file.size(); at += kPieceBytes) {
    const int64_t piece = std::min(kPieceBytes, file.size() - at);
    POLYAD_RETURN_IF_ERROR(file.ReadAt(at, bytes.data() + at, piece));
    sha.Update(bytes.data() + at, static_cast<size_t>(piece));
    GiveWay();
  }
  return bytes;
}

Status RefusePickle(const Directory& directory) {
  if (directory.Contains("adapter_model.bin")) {
    return Unimplemented(
        "adapter_model.bin: pickle files are never loaded; save the adapter as safetensors");
  }
  if (directory.Contains("pytorch_adapter.bin") ||
      directory.Contains("pytorch_model_adapter_fusion.bin")) {
    return Unimplemented(
        "AdapterHub's .bin: pickle files are never loaded; convert the directory with "
        "tools/export/adapterhub.py");
  }
  return absl::OkStatus();
}

}  // namespace

StatusOr<AdapterSource> AdapterSource::Open(const Directory& directory, int64_t max_file_bytes) {
  POLYAD_ASSIGN_OR_RETURN(std::string base_digest, ReadBaseRecord(directory));
  POLYAD_ASSIGN_OR_RETURN(AdapterSource source, OpenAny(directory, max_file_bytes));
  source.set_base_digest(std::move(base_digest));
  if (directory.Contains(kModelConfig)) {
    POLYAD_ASSIGN_OR_RETURN(const RandomAccessFile config, directory.OpenFile(kModelConfig));
    POLYAD_ASSIGN_OR_RETURN(source.model_config_, config.ReadAll(kMaxAdapterConfigBytes));
  }
  return source;
}

StatusOr<AdapterSource> AdapterSource::OpenAny(const Directory& directory, int64_t max_file_bytes) {
  if (directory.Contains(kHubSetup)) return OpenSetup(directory, max_file_bytes);
  POLYAD_ASSIGN_OR_RETURN(AdapterSource source, OpenFiles(directory, max_file_bytes));
  if (source.format_ != AdapterFormat::kPeft || !IsXlora(source.config_)) return source;
  return OpenXlora(directory, std::move(source), max_file_bytes);
}

// A directory of two files, or one.
StatusOr<AdapterSource> AdapterSource::OpenFiles(const Directory& directory,
                                                 int64_t max_file_bytes) {
  const FormatFiles& files = FormatOf(directory);
  if (!directory.Contains(files.tensors)) POLYAD_RETURN_IF_ERROR(RefusePickle(directory));
  std::string text;
  if (files.config != nullptr) {
    POLYAD_ASSIGN_OR_RETURN(RandomAccessFile config, directory.OpenFile(files.config));
    POLYAD_ASSIGN_OR_RETURN(text, config.ReadAll(kMaxAdapterConfigBytes));
  }
  POLYAD_ASSIGN_OR_RETURN(RandomAccessFile file, directory.OpenFile(files.tensors));
  if (file.size() > max_file_bytes) {
    return ResourceExhausted("%s: %d bytes, the limit is %d", files.tensors, file.size(),
                             max_file_bytes);
  }
  POLYAD_RETURN_IF_ERROR(CheckAdapterFile(directory, files.tensors));
  // Read once, whole: what is hashed is what is parsed, whatever happens to the file meanwhile.
  Sha256 sha;
  sha.UpdateInt(static_cast<int64_t>(text.size()));
  sha.Update(text);
  POLYAD_ASSIGN_OR_RETURN(OwnedBytes bytes, ReadWhole(file, sha));
  POLYAD_ASSIGN_OR_RETURN(
      AdapterSource source,
      Build(files.format, text, RandomAccessFile::FromBytes(std::move(bytes), files.tensors)));
  source.digest_ = sha.Finish();
  source.file_bytes_ = static_cast<int64_t>(text.size()) + file.size();
  return source;
}

StatusOr<AdapterSource> AdapterSource::OpenXlora(const Directory& directory, AdapterSource xlora,
                                                 int64_t max_file_bytes) {
  xlora.format_ = AdapterFormat::kPeftXlora;
  POLYAD_ASSIGN_OR_RETURN(const std::vector<std::string> folders, XloraFolders(xlora.config_));
  Sha256 sha;
  sha.Update(xlora.digest_.data(), xlora.digest_.size());
  for (const std::string& name : folders) {
    POLYAD_ASSIGN_OR_RETURN(const Directory folder, directory.OpenDirectory(name));
    const int64_t left = max_file_bytes - xlora.file_bytes_;
    POLYAD_ASSIGN_OR_RETURN(AdapterSource part, OpenFiles(folder, left));
    if (part.format_ != AdapterFormat::kPeft) {
      return Unimplemented("%s: expected a LoRA as PEFT saves one", name);
    }
    part.folder_ = name + "/";
    xlora.file_bytes_ += part.file_bytes_;
    sha.Update(part.digest_.data(), part.digest_.size());
    xlora.parts_.push_back(std::move(part));
  }
  xlora.digest_ = sha.Finish();
  return xlora;
}

// Each folder's tensors into a source of its own.
StatusOr<AdapterSource> AdapterSource::BuildXlora(AdapterSource flat) {
  AdapterSource xlora;
  xlora.format_ = AdapterFormat::kPeftXlora;
  const auto own = flat.config_.find("xlora");
  if (own == flat.config_.end()) return InvalidArgument("xlora: expected a configuration");
  xlora.config_ = *own;
  POLYAD_ASSIGN_OR_RETURN(const std::vector<std::string> folders, XloraFolders(xlora.config_));
  const auto add = [](Entry entry, const std::string& name, AdapterSource& to) {
    entry.name = name;
    to.index_.emplace(name, to.tensors_.size());
    to.tensors_.push_back(std::move(entry));
  };
  for (const std::string& name : folders) {
    AdapterSource part;
    const auto& parts = flat.config_["parts"];
    if (!parts.is_object() || !parts.contains(name)) return NotFound("%s: not found", name);
    part.config_ = parts[name];
    part.folder_ = name + "/";
    for (Entry& entry : flat.tensors_) {
      if (!entry.name.starts_with(part.folder_)) continue;
      const std::string rest = entry.name.substr(part.folder_.size());
      add(std::exchange(entry, {}), rest, part);
    }
    xlora.parts_.push_back(std::move(part));
  }
  for (Entry& entry : flat.tensors_) {
    const std::string name = entry.name;
    if (!name.empty()) add(std::move(entry), name, xlora);
  }
  return xlora;
}

StatusOr<AdapterSource> AdapterSource::OpenSetup(const Directory& directory,
                                                 int64_t max_file_bytes) {
  AdapterSource source;
  source.format_ = AdapterFormat::kAdapterHubSetup;
  Sha256 sha;
  const auto keep = [&](const std::string& bytes) {
    sha.UpdateInt(static_cast<int64_t>(bytes.size()));
    sha.Update(bytes);
    source.file_bytes_ += static_cast<int64_t>(bytes.size());
  };
  POLYAD_ASSIGN_OR_RETURN(const RandomAccessFile file, directory.OpenFile(kHubSetup));
  POLYAD_ASSIGN_OR_RETURN(const std::string setup, file.ReadAll(kMaxAdapterConfigBytes));
  keep(setup);
  POLYAD_ASSIGN_OR_RETURN(source.config_["setup"],
                          ParseOrderedJson(setup, kHubSetup, JsonLimits{}));
  POLYAD_ASSIGN_OR_RETURN(const HubSetup parsed, ParseHubSetup(source.config_["setup"]));
  for (const std::string& folder : parsed.Folders()) {
    POLYAD_ASSIGN_OR_RETURN(const Directory part, directory.OpenDirectory(folder));
    const bool fuses =
        std::find(parsed.fusions.begin(), parsed.fusions.end(), folder) != parsed.fusions.end();
    const char* config_name = fuses ? kHubFusionConfig : kAdapterConfig;
    const char* tensors_name = fuses ? kHubFusionTensors : kHubTensors;
    if (!part.Contains(tensors_name)) POLYAD_RETURN_IF_ERROR(RefusePickle(part));
    POLYAD_ASSIGN_OR_RETURN(const RandomAccessFile config, part.OpenFile(config_name));
    POLYAD_ASSIGN_OR_RETURN(const std::string text, config.ReadAll(kMaxAdapterConfigBytes));
    keep(text);
    POLYAD_ASSIGN_OR_RETURN(source.config_["parts"][folder],
                            ParseOrderedJson(text, config_name, JsonLimits{}));
    POLYAD_ASSIGN_OR_RETURN(const RandomAccessFile tensors, part.OpenFile(tensors_name));
    const int64_t left = max_file_bytes - source.file_bytes_;
    if (tensors.size() > left) {
      return ResourceExhausted("%s/%s: %d bytes, the limit leaves %d", folder, tensors_name,
                               tensors.size(), left);
    }
    POLYAD_RETURN_IF_ERROR(CheckAdapterFile(part, tensors_name));
    POLYAD_ASSIGN_OR_RETURN(std::string bytes, tensors.ReadAll(left));
    keep(bytes);
    POLYAD_ASSIGN_OR_RETURN(
        const SafetensorsFile read,
        SafetensorsFile::FromFile(RandomAccessFile::FromBytes(std::move(bytes), tensors_name),
                                  AdapterTensorLimits()));
    POLYAD_RETURN_IF_ERROR(source.ReadAll(read, folder + "/"));
  }
  source.digest_ = sha.Finish();
  return source;
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
      Build(format, config,
            RandomAccessFile::FromBytes(std::move(tensors), FilesOf(format).tensors)));
  source.digest_ = sha.Finish();
  source.file_bytes_ = file_bytes;
  return source;
}

StatusOr<AdapterSource> AdapterSource::Build(AdapterFormat format, const std::string& config,
                                             RandomAccessFile tensors) {
  AdapterSource source;
  source.format_ = format;
  if (format == AdapterFormat::kGguf) {
    POLYAD_ASSIGN_OR_RETURN(const GgufFile file, GgufFile::FromFile(std::move(tensors)));
    source.config_ = ScalarsOf(file.metadata());
    POLYAD_RETURN_IF_ERROR(source.ReadAll(file));
    return source;
  }
  POLYAD_ASSIGN_OR_RETURN(source.config_,
                          ParseOrderedJson(config, FilesOf(format).config, JsonLimits{}));
  POLYAD_ASSIGN_OR_RETURN(const SafetensorsFile file,
                          SafetensorsFile::FromFile(std::move(tensors), AdapterTensorLimits()));
  POLYAD_RETURN_IF_ERROR(source.ReadAll(file));
  if (format == AdapterFormat::kPeftXlora) return BuildXlora(std::move(source));
  return source;
}

int64_t AdapterSource::num_tensors() const {
  auto count = static_cast<int64_t>(tensors_.size());
  for (const AdapterSource& part : parts_) count += part.num_tensors();
  return count;
}

Status AdapterSource::ReadAll(const TensorSource& file, const std::string& prefix) {
  tensors_.reserve(tensors_.size() + file.tensors().size());
  for (const TensorInfo& info : file.tensors()) {
    POLYAD_ASSIGN_OR_RETURN(OwnedTensor tensor, file.Read(info.name));
    tensors_.push_back({prefix + info.name, std::move(tensor)});
    index_.emplace(prefix + info.name, tensors_.size() - 1);
    GiveWay();
  }
  return absl::OkStatus();
}

const char* AdapterSource::tensor_file() const { return FilesOf(format_).tensors; }

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
    return InvalidArgument("tensor %s%s: expected 2 dimensions, got %s", folder_, name,
                           ShapeToString(tensors_[found->second].tensor.shape));
  }
  POLYAD_ASSIGN_OR_RETURN(const OwnedTensor* tensor, TakeTensor(name));
  return tensor->view();
}

StatusOr<const OwnedTensor*> AdapterSource::TakeTensor(const std::string& name) {
  const auto found = index_.find(name);
  if (found == index_.end()) {
    return InvalidArgument("tensor %s%s: missing from the file", folder_, name);
  }
  Entry& entry = tensors_[found->second];
  POLYAD_RETURN_IF_ERROR(CheckFinite(folder_ + name, entry.tensor));
  GiveWay();
  entry.taken = true;
  return &entry.tensor;
}

StatusOr<const OwnedTensor*> AdapterSource::TakeIntegers(const std::string& name) {
  const auto found = index_.find(name);
  if (found == index_.end()) {
    return InvalidArgument("tensor %s%s: missing from the file", folder_, name);
  }
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
      return InvalidArgument("tensor %s%s: expected integers, got %s", folder_, name,
                             InfoOf(entry.tensor.dtype).name);
  }
}

Status AdapterSource::CheckAllTaken() const {
  for (const Entry& entry : tensors_) {
    if (!entry.taken) {
      return InvalidArgument(
          "tensor %s%s: this family has no use for it, so the adapter would be served "
          "incompletely",
          folder_, entry.name);
    }
  }
  for (const AdapterSource& part : parts_) POLYAD_RETURN_IF_ERROR(part.CheckAllTaken());
  return absl::OkStatus();
}

}  // namespace polyad
