#include "engine/io/safetensors.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <limits>
#include <utility>

#include "engine/io/checked_math.h"
#include "engine/io/json.h"
#include "engine/io/quote.h"
#include "kernels/api/give_way.h"

namespace polyad {

namespace {

static_assert(std::endian::native == std::endian::little, "the container is little-endian");

constexpr int64_t kLengthBytes = 8;
constexpr int64_t kHeaderDepth = 4;  // {name: {shape: [..]}}

struct SafetensorsType {
  const char* name;
  int64_t bits;
  std::optional<DType> dtype;
};

// Every type name of the format; those without a DType are known only for their size.
constexpr SafetensorsType kTypes[] = {
    {"F64", 64, DType::kF64},     {"F32", 32, DType::kF32},       {"F16", 16, DType::kF16},
    {"BF16", 16, DType::kBF16},   {"I64", 64, DType::kI64},       {"I32", 32, DType::kI32},
    {"I16", 16, DType::kI16},     {"I8", 8, DType::kI8},          {"U8", 8, DType::kU8},
    {"BOOL", 8, DType::kBool},    {"U16", 16, std::nullopt},      {"U32", 32, std::nullopt},
    {"U64", 64, std::nullopt},    {"F8_E4M3", 8, DType::kF8E4M3}, {"F8_E5M2", 8, std::nullopt},
    {"F8_E8M0", 8, std::nullopt}, {"F6_E2M3", 6, std::nullopt},   {"F6_E3M2", 6, std::nullopt},
    {"F4", 4, std::nullopt},      {"C64", 64, std::nullopt},
};

struct ParsedTensor {
  TensorInfo info;
  int64_t begin = 0;
  int64_t end = 0;
};

// A non-negative integer written as one: not 1.0, not "1", not -1.
std::optional<int64_t> AsSize(const Json& value) {
  if (!value.is_number_unsigned()) return std::nullopt;
  const auto raw = value.get<uint64_t>();
  if (raw > static_cast<uint64_t>(std::numeric_limits<int64_t>::max())) return std::nullopt;
  return static_cast<int64_t>(raw);
}

StatusOr<std::vector<int64_t>> ParseShape(const JsonFields& fields, int64_t max_dimensions) {
  const Json* shape = fields.Find("shape");
  if (shape == nullptr || !shape->is_array()) return fields.WrongType("shape", "an array");
  if (static_cast<int64_t>(shape->size()) > max_dimensions) {
    return InvalidArgument("%s: expected at most %d dimensions, got %d", fields.where(),
                           max_dimensions, shape->size());
  }
  std::vector<int64_t> dimensions;
  for (const Json& dimension : *shape) {
    const std::optional<int64_t> size = AsSize(dimension);
    if (!size.has_value()) {
      return InvalidArgument("%s: dimension %d: expected a non-negative integer, got %s",
                             fields.where(), dimensions.size(), DescribeJson(dimension));
    }
    dimensions.push_back(*size);
  }
  return dimensions;
}

// Checks that shape x dtype is what the offsets say, and fills the info's type and size.
Status CheckSize(const std::string& where, const std::string& type_name, ParsedTensor& tensor) {
  const std::optional<int64_t> num_elements = NumElements(tensor.info.shape);
  if (!num_elements.has_value()) {
    return InvalidArgument("%s: shape %s has too many elements", where,
                           ShapeToString(tensor.info.shape));
  }
  tensor.info.stored_type = type_name;
  tensor.info.bytes = tensor.end - tensor.begin;
  for (const SafetensorsType& type : kTypes) {
    if (type_name != type.name) continue;
    tensor.info.dtype = type.dtype;
    const std::optional<int64_t> bits = CheckedMul(*num_elements, type.bits);
    if (!bits.has_value() || *bits % 8 != 0 || *bits / 8 != tensor.info.bytes) {
      return InvalidArgument("%s: %s %s does not fit its %d bytes", where, type_name,
                             ShapeToString(tensor.info.shape), tensor.info.bytes);
    }
  }
  return absl::OkStatus();
}

StatusOr<ParsedTensor> ParseTensor(const std::string& name, const Json& entry,
                                   const std::string& file, const SafetensorsLimits& limits) {
  const std::string where = absl::StrCat(file, ": tensor ", Quote(name));
  if (name.empty() || static_cast<int64_t>(name.size()) > limits.max_name_bytes) {
    return InvalidArgument("%s: expected a name of 1 to %d bytes, got %d", where,
                           limits.max_name_bytes, name.size());
  }
  POLYAD_ASSIGN_OR_RETURN(const JsonFields fields, JsonFields::Of(entry, where));
  if (entry.size() != 3) {
    return InvalidArgument("%s: expected exactly dtype, shape and data_offsets, got %d keys", where,
                           entry.size());
  }
  ParsedTensor tensor;
  tensor.info.name = name;
  POLYAD_ASSIGN_OR_RETURN(const std::string type_name, fields.String("dtype"));
  if (type_name.empty() || type_name.size() > 16) {
    return InvalidArgument("%s: dtype %s is not a type name", where, Quote(type_name));
  }
  POLYAD_ASSIGN_OR_RETURN(tensor.info.shape, ParseShape(fields, limits.max_dimensions));
  const Json* offsets = fields.Find("data_offsets");
  if (offsets == nullptr || !offsets->is_array() || offsets->size() != 2) {
    return fields.WrongType("data_offsets", "[begin, end]");
  }
  const std::optional<int64_t> begin = AsSize((*offsets)[0]);
  const std::optional<int64_t> end = AsSize((*offsets)[1]);
  if (!begin.has_value() || !end.has_value() || *begin > *end) {
    return InvalidArgument("%s: data_offsets: expected 0 <= begin <= end, got [%s, %s]", where,
                           DescribeJson((*offsets)[0]), DescribeJson((*offsets)[1]));
  }
  tensor.begin = *begin;
  tensor.end = *end;
  POLYAD_RETURN_IF_ERROR(CheckSize(where, type_name, tensor));
  return tensor;
}

StatusOr<std::map<std::string, std::string>> ParseMetadata(const std::string& file,
                                                           const Json& value) {
  const std::string where = file + ": __metadata__";
  if (!value.is_object()) {
    return InvalidArgument("%s: expected an object, got %s", where, DescribeJson(value));
  }
  std::map<std::string, std::string> metadata;
  for (const auto& [key, member] : value.items()) {
    if (!member.is_string()) {
      return InvalidArgument("%s: key %s: expected a string, got %s", where, Quote(key),
                             DescribeJson(member));
    }
    metadata.emplace(key, member.get_ref<const std::string&>());
  }
  return metadata;
}

// Sorted by offset, each tensor begins where the one before ended, and the last ends with the file.
Status CheckCoverage(const std::string& file, std::vector<ParsedTensor>& tensors,
                     int64_t data_bytes) {
  std::sort(tensors.begin(), tensors.end(), [](const ParsedTensor& a, const ParsedTensor& b) {
    return std::pair(a.begin, a.end) < std::pair(b.begin, b.end);
  });
  int64_t covered = 0;
  for (const ParsedTensor& tensor : tensors) {
    if (tensor.begin != covered) {
      return InvalidArgument("%s: tensor %s: expected its bytes to begin at %d, got %d (%s)", file,
                             Quote(tensor.info.name), covered, tensor.begin,
                             tensor.begin < covered ? "overlap" : "hole");
    }
    covered = tensor.end;
  }
  if (covered != data_bytes) {
    return InvalidArgument("%s: tensors cover %d bytes, the file holds %d (%s)", file, covered,
                           data_bytes, covered > data_bytes ? "truncated" : "trailing bytes");
  }
  return absl::OkStatus();
}

StatusOr<std::string> ReadHeader(const RandomAccessFile& file, const SafetensorsLimits& limits) {
  if (file.size() < kLengthBytes) {
    return InvalidArgument("%s: %d bytes are too few for a safetensors file", file.name(),
                           file.size());
  }
  if (file.size() > limits.max_file_bytes) {
    return ResourceExhausted("%s: expected at most %d bytes, got %d", file.name(),
                             limits.max_file_bytes, file.size());
  }
  uint64_t length = 0;
  POLYAD_RETURN_IF_ERROR(file.ReadAt(0, &length, kLengthBytes));
  if (length > static_cast<uint64_t>(limits.max_header_bytes)) {
    return ResourceExhausted("%s: header: expected at most %d bytes, got %d", file.name(),
                             limits.max_header_bytes, length);
  }
  if (static_cast<int64_t>(length) > file.size() - kLengthBytes) {
    return InvalidArgument("%s: header of %d bytes is longer than the file (%d bytes)", file.name(),
                           length, file.size());
  }
  std::string header(static_cast<size_t>(length), '\0');
  POLYAD_RETURN_IF_ERROR(file.ReadAt(kLengthBytes, header.data(), static_cast<int64_t>(length)));
  if (header.empty() || header[0] != '{') {
    return InvalidArgument("%s: header: expected to start with '{'", file.name());
  }
  return header;
}

}  // namespace

StatusOr<SafetensorsFile> SafetensorsFile::Open(const std::string& path,
                                                const SafetensorsLimits& limits) {
  POLYAD_ASSIGN_OR_RETURN(RandomAccessFile file, RandomAccessFile::Open(path));
  return FromFile(std::move(file), limits);
}

StatusOr<SafetensorsFile> SafetensorsFile::FromFile(RandomAccessFile file,
                                                    const SafetensorsLimits& limits) {
  SafetensorsFile opened(std::move(file));
  const std::string name = opened.file_.name();
  POLYAD_ASSIGN_OR_RETURN(const std::string text, ReadHeader(opened.file_, limits));
  JsonLimits json_limits;
  json_limits.max_bytes = limits.max_header_bytes;
  json_limits.max_depth = kHeaderDepth;
  json_limits.max_members = limits.max_tensors + 1;
  json_limits.max_values = (limits.max_tensors + 1) * (6 + limits.max_dimensions);
  json_limits.gives_way = true;
  POLYAD_ASSIGN_OR_RETURN(const Json header, ParseJson(text, name + ": header", json_limits));

  std::vector<ParsedTensor> parsed;
  for (const auto& [key, value] : header.items()) {
    GiveWay();
    if (key == "__metadata__") {
      POLYAD_ASSIGN_OR_RETURN(opened.metadata_, ParseMetadata(name, value));
      continue;
    }
    POLYAD_ASSIGN_OR_RETURN(ParsedTensor tensor, ParseTensor(key, value, name, limits));
    parsed.push_back(std::move(tensor));
  }
  const int64_t data_start = kLengthBytes + static_cast<int64_t>(text.size());
  POLYAD_RETURN_IF_ERROR(CheckCoverage(name, parsed, opened.file_.size() - data_start));
  for (ParsedTensor& tensor : parsed) {
    GiveWay();
    opened.index_.emplace(tensor.info.name, opened.tensors_.size());
    opened.offsets_.push_back(data_start + tensor.begin);
    opened.tensors_.push_back(std::move(tensor.info));
  }
  return opened;
}

const TensorInfo* SafetensorsFile::Find(const std::string& name) const {
  const auto it = index_.find(name);
  return it == index_.end() ? nullptr : &tensors_[it->second];
}

StatusOr<OwnedTensor> SafetensorsFile::Read(const std::string& name) const {
  const auto it = index_.find(name);
  if (it == index_.end()) return NotFound("%s: no tensor %s", file_.name(), Quote(name));
  const TensorInfo& info = tensors_[it->second];
  if (!info.dtype.has_value()) {
    return Unimplemented("%s: tensor %s: dtype %s is not supported", file_.name(), Quote(name),
                         Quote(info.stored_type));
  }
  OwnedTensor tensor;
  tensor.dtype = *info.dtype;
  tensor.shape = info.shape;
  POLYAD_ASSIGN_OR_RETURN(tensor.bytes, file_.ReadBytes(offsets_[it->second], info.bytes));
  return tensor;
}

}  // namespace polyad
