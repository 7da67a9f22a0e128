// Our own files (`polyad quantize`): w = scale (code - 128) in 8 bits, scale code + minimum in 4,
// scales and minima in f16 for each group of a row; 4-bit codes lie two a byte, the even input in
// the low bits.

#include "engine/io/quote.h"
#include "engine/spec/quantized_source.h"

namespace polyad {

namespace {

constexpr char kScales[] = ".weight.scales";

Status Describe(const TensorSource& stored, const QuantizationConfig& config,
                QuantizedModule& module) {
  const std::string codes = module.name + ".weight.codes";
  POLYAD_ASSIGN_OR_RETURN(const TensorInfo* info, NeedTensor(stored, codes, {DType::kU8}, {}));
  if (info->shape.size() != 2) {
    return InvalidArgument("model: tensor %s: expected two dimensions, got %s", Quote(codes),
                           ShapeToString(info->shape));
  }
  module.rows = info->shape[0];
  module.cols = info->shape[1] * (8 / config.bits);
  if (module.rows < 1 || module.cols < 1 || module.cols % 32 != 0) {
    return Unimplemented("model: tensor %s: expected inputs in multiples of 32, got %s",
                         Quote(codes), ShapeToString({module.rows, module.cols}));
  }
  const int64_t group = GroupSizeOf(config, module.cols);
  const std::vector<int64_t> groups = {module.rows, (module.cols + group - 1) / group};
  POLYAD_RETURN_IF_ERROR(NeedTensor(stored, module.name + kScales, {DType::kF16}, groups).status());
  module.parts = {codes, module.name + kScales};
  if (config.bits == 8) return absl::OkStatus();
  module.parts.push_back(module.name + ".weight.minima");
  return NeedTensor(stored, module.parts.back(), {DType::kF16}, groups).status();
}

StatusOr<GroupedRows> Read(const TensorSource& stored, const QuantizationConfig& config,
                           const QuantizedModule& module) {
  GroupedRows made = MakeGroupedRows(module.rows, module.cols, GroupSizeOf(config, module.cols));
  made.bits = config.bits;
  made.zero = config.bits == 8 ? 128.0f : 0.0f;
  POLYAD_ASSIGN_OR_RETURN(made.scales, ReadScales(stored, module.name + kScales));
  POLYAD_ASSIGN_OR_RETURN(const OwnedTensor codes, stored.Read(module.name + ".weight.codes"));
  const uint8_t* bytes = codes.bytes.data();
  for (size_t i = 0; i < made.codes.size(); ++i) {
    made.codes[i] =
        config.bits == 8 ? bytes[i] : static_cast<uint8_t>((bytes[i / 2] >> (i % 2 * 4)) & 15);
  }
  if (config.bits == 4) {
    POLYAD_ASSIGN_OR_RETURN(made.minima, ReadScales(stored, module.name + ".weight.minima"));
  }
  return made;
}

}  // namespace

QuantizationScheme PolyadScheme() { return {kScales, Describe, Read}; }

}  // namespace polyad
