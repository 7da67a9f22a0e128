// compressed-tensors: w = scale (q - zero_point), one scale for the matrix, a row or a group of a
// row. Codes are signed: bytes as they are, E4M3 floats, or offset by half their range and packed
// in int32 words, the first input in the lowest bits; packed zero points lie along outputs.

#include <cmath>
#include <cstring>

#include "engine/io/quote.h"
#include "engine/spec/quantized_source.h"

namespace polyad {

namespace {

constexpr char kScale[] = ".weight_scale";

int64_t CeilDiv(int64_t a, int64_t b) { return a / b + (a % b != 0 ? 1 : 0); }

// The matrix's shape from its packed form, which also stores it as a tensor.
Status PackedShape(const TensorSource& stored, const QuantizationConfig& config,
                   QuantizedModule& module) {
  const std::string name = module.name + ".weight_packed";
  const std::string shape_name = module.name + ".weight_shape";
  POLYAD_ASSIGN_OR_RETURN(const TensorInfo* packed, NeedTensor(stored, name, {DType::kI32}, {}));
  POLYAD_ASSIGN_OR_RETURN(const TensorInfo* shape,
                          NeedTensor(stored, shape_name, {DType::kI64, DType::kI32}, {2}));
  POLYAD_ASSIGN_OR_RETURN(const OwnedTensor sizes, stored.Read(shape_name));
  int64_t dimensions[2] = {};
  for (int i = 0; i < 2; ++i) {
    int32_t narrow = 0;
    std::memcpy(&narrow, sizes.bytes.data() + i * 4, sizeof(narrow));
    dimensions[i] = narrow;
    if (*shape->dtype == DType::kI64) {
      std::memcpy(&dimensions[i], sizes.bytes.data() + i * 8, sizeof(dimensions[i]));
    }
  }
  module.rows = dimensions[0];
  module.cols = dimensions[1];
  const int64_t per_word = 32 / config.bits;
  const bool fits = packed->shape.size() == 2 && packed->shape[0] == module.rows &&
                    module.cols > 0 && module.cols <= packed->shape[1] * per_word &&
                    CeilDiv(module.cols, per_word) == packed->shape[1];
  if (!fits) {
    return InvalidArgument("model: tensor %s: expected a packed %s, got %s", Quote(name),
                           ShapeToString({module.rows, module.cols}), ShapeToString(packed->shape));
  }
  module.parts = {name, shape_name};
  return absl::OkStatus();
}

Status PlainShape(const TensorSource& stored, const QuantizationConfig& config,
                  QuantizedModule& module) {
  const std::string name = module.name + ".weight";
  const DType type = config.float_codes ? DType::kF8E4M3 : DType::kI8;
  POLYAD_ASSIGN_OR_RETURN(const TensorInfo* weight, NeedTensor(stored, name, {type}, {}));
  if (weight->shape.size() != 2) {
    return InvalidArgument("model: tensor %s: expected two dimensions, got %s", Quote(name),
                           ShapeToString(weight->shape));
  }
  module.rows = weight->shape[0];
  module.cols = weight->shape[1];
  module.parts = {name};
  return absl::OkStatus();
}

struct ScaleShape {
  bool of_matrix = false;  // one number, else [rows, groups]
  int64_t groups = 1;
};

StatusOr<ScaleShape> ShapeOfScales(const TensorSource& stored, const QuantizationConfig& config,
                                   const QuantizedModule& module) {
  const std::string name = module.name + kScale;
  POLYAD_ASSIGN_OR_RETURN(const TensorInfo* scale,
                          NeedTensor(stored, name, {DType::kF32, DType::kBF16, DType::kF16}, {}));
  const int64_t groups = CeilDiv(module.cols, GroupSizeOf(config, module.cols));
  const std::vector<int64_t> of_rows = {module.rows, groups};
  if (scale->shape == of_rows) return ScaleShape{false, groups};
  const bool one = scale->shape.empty() || scale->shape == std::vector<int64_t>{1};
  if (one && config.group_size == -1) return ScaleShape{true, 1};
  return InvalidArgument("model: tensor %s: expected %s, got %s", Quote(name),
                         ShapeToString(of_rows), ShapeToString(scale->shape));
}

// An asymmetric matrix needs zero points; a symmetric one with some contradicts itself.
Status DescribeZeros(const TensorSource& stored, const QuantizationConfig& config,
                     const ScaleShape& scales, QuantizedModule& module) {
  const std::string name = module.name + ".weight_zero_point";
  if (stored.Find(name) == nullptr) {
    if (config.symmetric) return absl::OkStatus();
    return InvalidArgument("model: tensor %s is missing", Quote(name));
  }
  if (config.symmetric) {
    return Unimplemented("model: tensor %s of a symmetric matrix is not supported", Quote(name));
  }
  module.parts.push_back(name);
  if (config.packed) {
    const int64_t words = CeilDiv(module.rows * config.bits, 32);
    return NeedTensor(stored, name, {DType::kI32}, {words, scales.groups}).status();
  }
  const std::vector<int64_t>& shape = stored.Find(module.name + kScale)->shape;
  return NeedTensor(stored, name, {DType::kI8}, shape).status();
}

Status Describe(const TensorSource& stored, const QuantizationConfig& config,
                QuantizedModule& module) {
  POLYAD_RETURN_IF_ERROR(config.packed ? PackedShape(stored, config, module)
                                       : PlainShape(stored, config, module));
  if (module.rows < 1 || module.cols < 1 || module.cols % 32 != 0) {
    return Unimplemented("model: module %s: expected inputs in multiples of 32, got %s",
                         Quote(module.name), ShapeToString({module.rows, module.cols}));
  }
  POLYAD_ASSIGN_OR_RETURN(const ScaleShape scales, ShapeOfScales(stored, config, module));
  module.parts.push_back(module.name + kScale);
  POLYAD_RETURN_IF_ERROR(DescribeZeros(stored, config, scales, module));
  const std::string index = module.name + ".weight_g_idx";
  if (stored.Find(index) == nullptr) return absl::OkStatus();
  POLYAD_RETURN_IF_ERROR(NeedTensor(stored, index, {DType::kI32}, {module.cols}).status());
  module.parts.push_back(index);
  return absl::OkStatus();
}

Status ReadPackedCodes(const TensorSource& stored, const std::string& module, GroupedRows& made) {
  POLYAD_ASSIGN_OR_RETURN(const auto words, ReadWords(stored, module + ".weight_packed"));
  const int64_t per_word = 32 / made.bits;
  const int64_t row_words = CeilDiv(made.cols, per_word);
  const uint32_t mask = (1u << made.bits) - 1;
  for (int64_t row = 0; row < made.rows; ++row) {
    for (int64_t k = 0; k < made.cols; ++k) {
      const uint32_t word = words[static_cast<size_t>(row * row_words + k / per_word)];
      made.codes[static_cast<size_t>(row * made.cols + k)] =
          static_cast<uint8_t>((word >> (k % per_word * made.bits)) & mask);
    }
  }
  return absl::OkStatus();
}

Status ReadPlainCodes(const TensorSource& stored, const std::string& module, GroupedRows& made) {
  const std::string name = module + ".weight";
  POLYAD_ASSIGN_OR_RETURN(const OwnedTensor codes, stored.Read(name));
  const uint8_t flip = made.kind == CodeKind::kFloat8 ? 0 : 0x80;  // signed to offset
  for (size_t i = 0; i < made.codes.size(); ++i) {
    made.codes[i] = static_cast<uint8_t>(codes.bytes.data()[i] ^ flip);
    if (made.kind == CodeKind::kFloat8 && (made.codes[i] & 0x7f) == 0x7f) {
      return InvalidArgument("model: tensor %s: element %d is NaN", Quote(name), i);
    }
  }
  return absl::OkStatus();
}

// Offset as the codes are.
Status ReadZeros(const TensorSource& stored, const QuantizationConfig& config,
                 const std::string& module, GroupedRows& made) {
  const std::string name = module + ".weight_zero_point";
  made.zeros.resize(made.scales.size());
  if (config.packed) {
    POLYAD_ASSIGN_OR_RETURN(const auto words, ReadWords(stored, name));
    const uint32_t mask = (1u << made.bits) - 1;
    const int64_t per_word = 32 / made.bits;
    for (int64_t row = 0; row < made.rows; ++row) {
      for (int64_t group = 0; group < made.num_groups; ++group) {
        const uint32_t word = words[static_cast<size_t>(row / per_word * made.num_groups + group)];
        made.zeros[static_cast<size_t>(row * made.num_groups + group)] =
            static_cast<float>((word >> (row % per_word * made.bits)) & mask);
      }
    }
  } else {
    POLYAD_ASSIGN_OR_RETURN(const OwnedTensor bytes, stored.Read(name));
    const auto count = static_cast<size_t>(bytes.bytes.size());
    for (size_t i = 0; i < made.zeros.size(); ++i) {
      made.zeros[i] = static_cast<float>(bytes.bytes.data()[count == 1 ? 0 : i] ^ 0x80);
    }
  }
  FoldZeros(made);
  return absl::OkStatus();
}

StatusOr<GroupedRows> Read(const TensorSource& stored, const QuantizationConfig& config,
                           const QuantizedModule& module) {
  GroupedRows made = MakeGroupedRows(module.rows, module.cols, GroupSizeOf(config, module.cols));
  made.bits = config.bits;
  made.kind = config.float_codes ? CodeKind::kFloat8 : CodeKind::kInteger;
  made.zero = config.bits == 4 ? 8.0f : 128.0f;
  POLYAD_ASSIGN_OR_RETURN(const auto scales, ReadScales(stored, module.name + kScale));
  for (size_t i = 0; i < made.scales.size(); ++i) {
    made.scales[i] = scales[scales.size() == 1 ? 0 : i];
  }
  POLYAD_RETURN_IF_ERROR(config.packed ? ReadPackedCodes(stored, module.name, made)
                                       : ReadPlainCodes(stored, module.name, made));
  if (!config.symmetric) {
    POLYAD_RETURN_IF_ERROR(ReadZeros(stored, config, module.name, made));
  }
  const std::string index = module.name + ".weight_g_idx";
  if (stored.Find(index) != nullptr) {
    POLYAD_RETURN_IF_ERROR(ReadGroupIndex(stored, index, made));
  }
  return made;
}

}  // namespace

QuantizationScheme CompressedTensorsScheme() { return {kScale, Describe, Read}; }

}  // namespace polyad
