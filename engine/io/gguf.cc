#include "engine/io/gguf.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <limits>
#include <span>
#include <type_traits>

#include "engine/io/checked_math.h"
#include "engine/io/float_bits.h"
#include "engine/io/gguf_groups.h"
#include "engine/io/gguf_types.h"
#include "engine/io/quote.h"

namespace polyad {

static_assert(std::endian::native == std::endian::little, "the container is little-endian");

// Parses the header of one file into a GgufFile; lives as long as FromFile.
class GgufParser {
 public:
  GgufParser(GgufFile& file, const GgufLimits& limits)
      : out_(file), name_(file.file_.name()), limits_(limits) {
    end_ = std::min(file.file_.size(), limits.max_header_bytes);
  }

  Status Parse() {
    POLYAD_RETURN_IF_ERROR(ReadPreamble());
    out_.metadata_ = GgufMetadata(name_);
    for (int64_t i = 0; i < num_pairs_; ++i) POLYAD_RETURN_IF_ERROR(ReadPair());
    POLYAD_RETURN_IF_ERROR(ReadAlignment());
    for (int64_t i = 0; i < num_tensors_; ++i) POLYAD_RETURN_IF_ERROR(ReadTensorInfo());
    return PlaceTensors();
  }

 private:
  static constexpr int64_t kBufferBytes = int64_t{1} << 18;

  Status Truncated() const {
    if (end_ < out_.file_.size()) {
      return ResourceExhausted("%s: header: expected at most %d bytes", name_, end_);
    }
    return InvalidArgument("%s: the file ends inside its header (at byte %d)", name_, end_);
  }

  // Copies the next bytes of the header, through a buffer where they are few.
  Status Take(void* destination, int64_t bytes) {
    if (bytes > end_ - position_) return Truncated();
    if (bytes > kBufferBytes) {
      POLYAD_RETURN_IF_ERROR(out_.file_.ReadAt(position_, destination, bytes));
      position_ += bytes;
      return absl::OkStatus();
    }
    const auto buffered = static_cast<int64_t>(buffer_.size());
    if (position_ < buffer_begin_ || position_ + bytes > buffer_begin_ + buffered) {
      buffer_.resize(static_cast<size_t>(std::min(kBufferBytes, end_ - position_)));
      buffer_begin_ = position_;
      POLYAD_RETURN_IF_ERROR(
          out_.file_.ReadAt(position_, buffer_.data(), static_cast<int64_t>(buffer_.size())));
    }
    if (bytes > 0) {
      std::memcpy(destination, buffer_.data() + (position_ - buffer_begin_),
                  static_cast<size_t>(bytes));
    }
    position_ += bytes;
    return absl::OkStatus();
  }

  template <typename Number>
  StatusOr<Number> TakeNumber() {
    Number number{};
    POLYAD_RETURN_IF_ERROR(Take(&number, static_cast<int64_t>(sizeof(number))));
    return number;
  }

  StatusOr<std::string> TakeString(const char* what, int64_t max_bytes) {
    POLYAD_ASSIGN_OR_RETURN(const auto length, TakeNumber<uint64_t>());
    if (length > static_cast<uint64_t>(max_bytes)) {
      return ResourceExhausted("%s: %s: expected at most %d bytes, got %d", name_, what, max_bytes,
                               length);
    }
    if (static_cast<int64_t>(length) > end_ - position_) return Truncated();
    std::string text(static_cast<size_t>(length), '\0');
    POLYAD_RETURN_IF_ERROR(Take(text.data(), static_cast<int64_t>(length)));
    return text;
  }

  StatusOr<int64_t> TakeCount(const char* what, int64_t max_count) {
    POLYAD_ASSIGN_OR_RETURN(const auto count, TakeNumber<uint64_t>());
    if (count > static_cast<uint64_t>(max_count)) {
      return ResourceExhausted("%s: expected at most %d %s, got %d", name_, max_count, what, count);
    }
    return static_cast<int64_t>(count);
  }

  Status ReadPreamble() {
    char magic[4];
    POLYAD_RETURN_IF_ERROR(Take(magic, sizeof(magic)));
    if (std::memcmp(magic, "GGUF", 4) != 0) {
      return InvalidArgument("%s: expected the magic 'GGUF', got %s", name_,
                             Quote(std::string_view(magic, 4)));
    }
    POLYAD_ASSIGN_OR_RETURN(const auto version, TakeNumber<uint32_t>());
    if (__builtin_bswap32(version) <= 0xffff && version > 0xffff) {
      return Unimplemented("%s: big-endian GGUF is not supported", name_);
    }
    if (version != 2 && version != 3) {
      return Unimplemented("%s: GGUF version: expected 2 or 3, got %d", name_, version);
    }
    POLYAD_ASSIGN_OR_RETURN(num_tensors_, TakeCount("tensors", limits_.max_tensors));
    POLYAD_ASSIGN_OR_RETURN(num_pairs_, TakeCount("key/value pairs", limits_.max_pairs));
    return absl::OkStatus();
  }

  Status ReadPair() {
    POLYAD_ASSIGN_OR_RETURN(std::string key, TakeString("a key", limits_.max_key_bytes));
    POLYAD_ASSIGN_OR_RETURN(const auto type, TakeNumber<uint32_t>());
    POLYAD_ASSIGN_OR_RETURN(GgufValue value, TakeValue(key, type));
    const std::string quoted = Quote(key);
    if (!out_.metadata_.Insert(std::move(key), std::move(value))) {
      return InvalidArgument("%s: duplicate key %s", name_, quoted);
    }
    return absl::OkStatus();
  }

  template <typename Number>
  StatusOr<GgufValue> TakeScalar() {
    POLYAD_ASSIGN_OR_RETURN(const Number number, TakeNumber<Number>());
    if constexpr (std::is_floating_point_v<Number>) {
      return GgufValue(static_cast<double>(number));
    } else {
      if (std::is_unsigned_v<Number> && sizeof(Number) == 8 &&
          static_cast<uint64_t>(number) >
              static_cast<uint64_t>(std::numeric_limits<int64_t>::max())) {
        return GgufValue();
      }
      return GgufValue(static_cast<int64_t>(number));
    }
  }

  StatusOr<GgufValue> TakeBool(const std::string& key) {
    POLYAD_ASSIGN_OR_RETURN(const auto byte, TakeNumber<uint8_t>());
    if (byte > 1) {
      return InvalidArgument("%s: key %s: expected a bool of 0 or 1, got %d", name_, Quote(key),
                             byte);
    }
    return GgufValue(byte == 1);
  }

  StatusOr<GgufValue> TakeValue(const std::string& key, uint32_t type) {
    switch (static_cast<GgufType>(type)) {
      case GgufType::kU8:
        return TakeScalar<uint8_t>();
      case GgufType::kI8:
        return TakeScalar<int8_t>();
      case GgufType::kU16:
        return TakeScalar<uint16_t>();
      case GgufType::kI16:
        return TakeScalar<int16_t>();
      case GgufType::kU32:
        return TakeScalar<uint32_t>();
      case GgufType::kI32:
        return TakeScalar<int32_t>();
      case GgufType::kU64:
        return TakeScalar<uint64_t>();
      case GgufType::kI64:
        return TakeScalar<int64_t>();
      case GgufType::kF32:
        return TakeScalar<float>();
      case GgufType::kF64:
        return TakeScalar<double>();
      case GgufType::kBool:
        return TakeBool(key);
      case GgufType::kArray:
        return TakeArray(key);
      case GgufType::kString: {
        POLYAD_ASSIGN_OR_RETURN(std::string text, TakeString("a string", limits_.max_string_bytes));
        return GgufValue(std::move(text));
      }
    }
    return InvalidArgument("%s: key %s: %d is no value type", name_, Quote(key), type);
  }

  // Every element takes at least a byte of the file, so a count past the file's end is refused
  // before reserving.
  StatusOr<GgufValue> TakeArray(const std::string& key) {
    POLYAD_ASSIGN_OR_RETURN(const auto type, TakeNumber<uint32_t>());
    if (static_cast<GgufType>(type) == GgufType::kArray) {
      return Unimplemented("%s: key %s: lists of lists are not supported", name_, Quote(key));
    }
    POLYAD_ASSIGN_OR_RETURN(
        const int64_t count,
        TakeCount("list elements", limits_.max_array_elements - num_array_elements_));
    if (count > end_ - position_) return Truncated();
    num_array_elements_ += count;
    const auto kind = static_cast<GgufType>(type);
    if (kind == GgufType::kString) return TakeElements<std::string>(key, type, count);
    if (kind == GgufType::kF32 || kind == GgufType::kF64) {
      return TakeElements<double>(key, type, count);
    }
    return TakeElements<int64_t>(key, type, count);
  }

  template <typename Element>
  StatusOr<GgufValue> TakeElements(const std::string& key, uint32_t type, int64_t count) {
    std::vector<Element> elements;
    elements.reserve(static_cast<size_t>(std::min<int64_t>(count, 1 << 16)));
    for (int64_t i = 0; i < count; ++i) {
      POLYAD_ASSIGN_OR_RETURN(GgufValue value, TakeValue(key, type));
      if (const auto* boolean = std::get_if<bool>(&value)) value = static_cast<int64_t>(*boolean);
      auto* element = std::get_if<Element>(&value);
      if (element == nullptr) {
        return InvalidArgument("%s: key %s: element %d is out of range", name_, Quote(key), i);
      }
      elements.push_back(std::move(*element));
    }
    return GgufValue(std::move(elements));
  }

  Status ReadAlignment() {
    POLYAD_ASSIGN_OR_RETURN(alignment_, out_.metadata_.IntOr("general.alignment", 32, 8, 1 << 16));
    if (!std::has_single_bit(static_cast<uint64_t>(alignment_))) {
      return InvalidArgument("%s: general.alignment: expected a power of two, got %d", name_,
                             alignment_);
    }
    return absl::OkStatus();
  }

  // Reads dimensions, innermost first in the file, into info.shape, outermost first.
  Status ReadShape(const std::string& where, TensorInfo& info) {
    POLYAD_ASSIGN_OR_RETURN(const auto num_dimensions, TakeNumber<uint32_t>());
    if (num_dimensions < 1 || num_dimensions > 4) {
      return InvalidArgument("%s: expected 1 to 4 dimensions, got %d", where, num_dimensions);
    }
    for (uint32_t i = 0; i < num_dimensions; ++i) {
      POLYAD_ASSIGN_OR_RETURN(const auto dimension, TakeNumber<uint64_t>());
      if (dimension < 1 || dimension > static_cast<uint64_t>(int64_t{1} << 40)) {
        return InvalidArgument("%s: dimension %d: expected 1 to 2^40, got %d", where, i, dimension);
      }
      info.shape.insert(info.shape.begin(), static_cast<int64_t>(dimension));
    }
    return absl::OkStatus();
  }

  // Sizes from shape and type: stored, and as Read gives it.
  Status SizeTensor(const std::string& where, uint32_t type_number, TensorInfo& info,
                    GgufFile::Stored& stored) {
    const GgufTensorType* type = FindGgufTensorType(type_number);
    if (type == nullptr) {
      return Unimplemented("%s: tensor type %d is not known", where, type_number);
    }
    const std::optional<int64_t> num_elements = NumElements(info.shape);
    if (!num_elements.has_value() || info.shape.back() % type->block_elements != 0) {
      return InvalidArgument("%s: %s does not hold rows of %s blocks of %d", where,
                             ShapeToString(info.shape), type->name, type->block_elements);
    }
    const std::optional<int64_t> bytes =
        CheckedMul(*num_elements / type->block_elements, type->block_bytes);
    if (!bytes.has_value()) {
      return InvalidArgument("%s: %s is too large", where, ShapeToString(info.shape));
    }
    stored.type = type_number;
    stored.bytes = *bytes;
    info.stored_type = std::string(type->name);
    info.dtype = type->decodable ? DType::kGrouped : type->dtype;
    info.bytes = *bytes;
    return absl::OkStatus();
  }

  Status ReadTensorInfo() {
    TensorInfo info;
    GgufFile::Stored stored;
    POLYAD_ASSIGN_OR_RETURN(info.name, TakeString("a tensor name", limits_.max_name_bytes));
    const std::string where = absl::StrCat(name_, ": tensor ", Quote(info.name));
    POLYAD_RETURN_IF_ERROR(ReadShape(where, info));
    POLYAD_ASSIGN_OR_RETURN(const auto type_number, TakeNumber<uint32_t>());
    POLYAD_ASSIGN_OR_RETURN(const auto offset, TakeNumber<uint64_t>());
    POLYAD_RETURN_IF_ERROR(SizeTensor(where, type_number, info, stored));
    if (offset > static_cast<uint64_t>(out_.file_.size()) ||
        offset % static_cast<uint64_t>(alignment_) != 0) {
      return InvalidArgument("%s: offset %d: expected a multiple of %d inside the file", where,
                             offset, alignment_);
    }
    stored.offset = static_cast<int64_t>(offset);
    if (!out_.index_.emplace(info.name, out_.tensors_.size()).second) {
      return InvalidArgument("%s: listed twice", where);
    }
    out_.tensors_.push_back(std::move(info));
    out_.stored_.push_back(stored);
    return absl::OkStatus();
  }

  // Turns offsets into file positions and checks that tensors end inside the file and do not
  // overlap.
  Status PlaceTensors() {
    const int64_t data_begin = (position_ + alignment_ - 1) / alignment_ * alignment_;
    std::vector<size_t> order(out_.tensors_.size());
    for (size_t i = 0; i < order.size(); ++i) {
      order[i] = i;
      GgufFile::Stored& stored = out_.stored_[i];
      const std::optional<int64_t> begin = CheckedAdd(data_begin, stored.offset);
      const std::optional<int64_t> end =
          begin.has_value() ? CheckedAdd(*begin, stored.bytes) : std::nullopt;
      if (!end.has_value() || *end > out_.file_.size()) {
        return InvalidArgument("%s: tensor %s: %d bytes at offset %d end past the file", name_,
                               Quote(out_.tensors_[i].name), stored.bytes, stored.offset);
      }
      stored.offset = *begin;
    }
    std::sort(order.begin(), order.end(), [this](size_t a, size_t b) {
      return out_.stored_[a].offset < out_.stored_[b].offset;
    });
    for (size_t i = 1; i < order.size(); ++i) {
      const GgufFile::Stored& before = out_.stored_[order[i - 1]];
      if (before.offset + before.bytes > out_.stored_[order[i]].offset) {
        return InvalidArgument("%s: tensors %s and %s overlap", name_,
                               Quote(out_.tensors_[order[i - 1]].name),
                               Quote(out_.tensors_[order[i]].name));
      }
    }
    return absl::OkStatus();
  }

  GgufFile& out_;
  const std::string name_;
  const GgufLimits limits_;
  int64_t end_ = 0;  // of what may be header
  int64_t position_ = 0;
  int64_t buffer_begin_ = 0;
  std::vector<char> buffer_;
  int64_t num_tensors_ = 0;
  int64_t num_pairs_ = 0;
  int64_t num_array_elements_ = 0;
  int64_t alignment_ = 32;
};

StatusOr<GgufFile> GgufFile::Open(const std::string& path, const GgufLimits& limits) {
  POLYAD_ASSIGN_OR_RETURN(RandomAccessFile file, RandomAccessFile::Open(path));
  return FromFile(std::move(file), limits);
}

StatusOr<GgufFile> GgufFile::FromFile(RandomAccessFile file, const GgufLimits& limits) {
  GgufFile opened(std::move(file));
  POLYAD_RETURN_IF_ERROR(GgufParser(opened, limits).Parse());
  return opened;
}

const TensorInfo* GgufFile::Find(const std::string& name) const {
  const auto it = index_.find(name);
  return it == index_.end() ? nullptr : &tensors_[it->second];
}

StatusOr<OwnedTensor> GgufFile::Read(const std::string& name) const {
  const auto it = index_.find(name);
  if (it == index_.end()) return NotFound("%s: no tensor %s", file_.name(), Quote(name));
  const TensorInfo& info = tensors_[it->second];
  const Stored& stored = stored_[it->second];
  if (!info.dtype.has_value()) {
    return Unimplemented("%s: tensor %s: type %s is not supported", file_.name(), Quote(name),
                         info.stored_type);
  }
  OwnedTensor tensor;
  tensor.dtype = *info.dtype;
  tensor.shape = info.shape;
  POLYAD_ASSIGN_OR_RETURN(OwnedBytes bytes, OwnedBytes::Allocate(stored.bytes));
  POLYAD_RETURN_IF_ERROR(file_.ReadAt(stored.offset, bytes.data(), stored.bytes));
  if (tensor.dtype == DType::kGrouped) {
    const TensorView view = tensor.view();
    tensor.grouped = std::make_shared<const GroupedRows>(
        ReadGgufGroups(stored.type, bytes.data(), view.rows, view.cols));
  } else {
    tensor.bytes = std::move(bytes);
  }
  return tensor;
}

}  // namespace polyad
