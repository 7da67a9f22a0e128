// bitsandbytes' 4-bit linears: w = quant_map[code] * absmax[block], blocks of 64 or so elements of
// the matrix written as one row, the even element of a byte in its high bits. With double
// quantisation absmax is itself quantised in bytes: nested_quant_map[byte] *
// nested_absmax[block of blocks] + nested_offset, an fp32 rounding after each. The sizes stand in a
// JSON text kept as a tensor.

#include <algorithm>
#include <numeric>
#include <string_view>

#include "engine/io/json.h"
#include "engine/io/quote.h"
#include "engine/spec/model_spec.h"
#include "engine/spec/quantized_source.h"

namespace polyad {

namespace {

constexpr char kAbsmax[] = ".weight.absmax";
constexpr int64_t kMaxStateBytes = 65536;
constexpr int64_t kLargestBlock = 1 << 20;

struct BlockState {
  int64_t rows = 0;
  int64_t cols = 0;
  int64_t block = 0;
  int64_t num_blocks = 0;
  int64_t nested_block = 0;  // 0: absmax is fp32
  float nested_offset = 0.0f;
};

std::string StateName(const TensorSource& stored, const std::string& module) {
  const std::string prefix = module + ".weight.quant_state.bitsandbytes__";
  return stored.Find(prefix + "fp4") != nullptr ? prefix + "fp4" : prefix + "nf4";
}

Status ReadNested(const JsonFields& fields, BlockState& state) {
  if (!fields.Has("nested_blocksize")) return absl::OkStatus();
  POLYAD_ASSIGN_OR_RETURN(state.nested_block, fields.Int("nested_blocksize", 1, kLargestBlock));
  POLYAD_ASSIGN_OR_RETURN(const double offset, fields.Number("nested_offset", -1e30, 1e30));
  state.nested_offset = static_cast<float>(offset);
  POLYAD_ASSIGN_OR_RETURN(const std::string dtype, fields.StringOr("nested_dtype", "float32"));
  if (dtype == "float32") return absl::OkStatus();
  return Unimplemented("%s: key 'nested_dtype': %s is not supported", fields.where(), Quote(dtype));
}

StatusOr<BlockState> ReadState(const TensorSource& stored, const std::string& module) {
  const std::string name = StateName(stored, module);
  POLYAD_ASSIGN_OR_RETURN(const TensorInfo* info, NeedTensor(stored, name, {DType::kU8}, {}));
  if (info->bytes > kMaxStateBytes) {
    return InvalidArgument("model: tensor %s: expected at most %d bytes, got %d", Quote(name),
                           kMaxStateBytes, info->bytes);
  }
  POLYAD_ASSIGN_OR_RETURN(const OwnedTensor tensor, stored.Read(name));
  const std::string_view text(reinterpret_cast<const char*>(tensor.bytes.data()),
                              static_cast<size_t>(info->bytes));
  const std::string where = "model: tensor " + Quote(name);
  POLYAD_ASSIGN_OR_RETURN(const Json json, ParseJson(text, where, JsonLimits{}));
  POLYAD_ASSIGN_OR_RETURN(const JsonFields fields, JsonFields::Of(json, where));
  for (const auto& [key, value] : json.items()) {
    const bool known = key == "quant_type" || key == "blocksize" || key == "dtype" ||
                       key == "shape" || key.starts_with("nested_");
    if (!known) return Unimplemented("%s: key %s is not supported", where, Quote(key));
  }
  BlockState state;
  POLYAD_ASSIGN_OR_RETURN(state.block, fields.Int("blocksize", 32, kLargestBlock));
  const Json* shape = fields.Find("shape");
  const bool matrix = shape != nullptr && shape->is_array() && shape->size() == 2 &&
                      (*shape)[0].is_number_unsigned() && (*shape)[1].is_number_unsigned();
  if (!matrix) return fields.WrongType("shape", "two sizes");
  const auto rows = (*shape)[0].get<uint64_t>();
  const auto cols = (*shape)[1].get<uint64_t>();
  constexpr auto kMost = static_cast<uint64_t>(SpecLimits::kVocab);
  if (rows < 1 || rows > kMost || cols < 1 || cols > kMost) {
    return fields.WrongType("shape", "sizes of a matrix");
  }
  state.rows = static_cast<int64_t>(rows);
  state.cols = static_cast<int64_t>(cols);
  state.num_blocks = (state.rows * state.cols + state.block - 1) / state.block;
  POLYAD_RETURN_IF_ERROR(ReadNested(fields, state));
  if (state.cols % 32 != 0 || state.block % 32 != 0) {
    return Unimplemented("%s: expected inputs and blocksize in multiples of 32, got %d and %d",
                         where, state.cols, state.block);
  }
  return state;
}

Status DescribeNested(const TensorSource& stored, const BlockState& state,
                      QuantizedModule& module) {
  const std::string weight = module.name + ".weight";
  const int64_t nested = (state.num_blocks + state.nested_block - 1) / state.nested_block;
  POLYAD_RETURN_IF_ERROR(
      NeedTensor(stored, weight + ".nested_absmax", {DType::kF32}, {nested}).status());
  POLYAD_RETURN_IF_ERROR(
      NeedTensor(stored, weight + ".nested_quant_map", {DType::kF32}, {256}).status());
  module.parts.push_back(weight + ".nested_absmax");
  module.parts.push_back(weight + ".nested_quant_map");
  return absl::OkStatus();
}

Status Describe(const TensorSource& stored, const QuantizationConfig&, QuantizedModule& module) {
  POLYAD_ASSIGN_OR_RETURN(const BlockState state, ReadState(stored, module.name));
  const std::string weight = module.name + ".weight";
  const TensorInfo* codes = stored.Find(weight);
  if (codes == nullptr) return InvalidArgument("model: tensor %s is missing", Quote(weight));
  // Other storage types are a view of the same bytes.
  if (!codes->dtype.has_value() || codes->bytes != state.rows * state.cols / 2) {
    return InvalidArgument("model: tensor %s: expected %d bytes for %d x %d, got %d", Quote(weight),
                           state.rows * state.cols / 2, state.rows, state.cols, codes->bytes);
  }
  const DType absmax = state.nested_block > 0 ? DType::kU8 : DType::kF32;
  POLYAD_RETURN_IF_ERROR(
      NeedTensor(stored, module.name + kAbsmax, {absmax}, {state.num_blocks}).status());
  POLYAD_RETURN_IF_ERROR(NeedTensor(stored, weight + ".quant_map", {DType::kF32}, {16}).status());
  module.rows = state.rows;
  module.cols = state.cols;
  module.parts = {weight, module.name + kAbsmax, weight + ".quant_map",
                  StateName(stored, module.name)};
  return state.nested_block > 0 ? DescribeNested(stored, state, module) : absl::OkStatus();
}

StatusOr<std::vector<float>> ReadAbsmax(const TensorSource& stored, const BlockState& state,
                                        const std::string& module) {
  if (state.nested_block == 0) return ReadScales(stored, module + kAbsmax);
  POLYAD_ASSIGN_OR_RETURN(const auto scales, ReadScales(stored, module + ".weight.nested_absmax"));
  POLYAD_ASSIGN_OR_RETURN(const auto map, ReadScales(stored, module + ".weight.nested_quant_map"));
  POLYAD_ASSIGN_OR_RETURN(const OwnedTensor bytes, stored.Read(module + kAbsmax));
  std::vector<float> absmax(static_cast<size_t>(state.num_blocks));
  for (int64_t block = 0; block < state.num_blocks; ++block) {
    const float level = map[bytes.bytes.data()[block]];
    const float product = level * scales[static_cast<size_t>(block / state.nested_block)];
    absmax[static_cast<size_t>(block)] = product + state.nested_offset;
  }
  return absmax;
}

StatusOr<GroupedRows> Read(const TensorSource& stored, const QuantizationConfig&,
                           const QuantizedModule& module) {
  POLYAD_ASSIGN_OR_RETURN(const BlockState state, ReadState(stored, module.name));
  POLYAD_ASSIGN_OR_RETURN(const auto absmax, ReadAbsmax(stored, state, module.name));
  POLYAD_ASSIGN_OR_RETURN(const auto levels, ReadScales(stored, module.name + ".weight.quant_map"));
  POLYAD_ASSIGN_OR_RETURN(const OwnedTensor codes, stored.Read(module.name + ".weight"));
  // Blocks run across the ends of rows: a group is what no block boundary divides.
  GroupedRows made = MakeGroupedRows(state.rows, state.cols, std::gcd(state.cols, state.block));
  made.kind = CodeKind::kLevels;
  made.bits = 4;
  std::copy(levels.begin(), levels.end(), made.levels.begin());
  for (size_t i = 0; i < made.codes.size(); ++i) {
    const uint8_t byte = codes.bytes.data()[i / 2];
    made.codes[i] = static_cast<uint8_t>(i % 2 == 0 ? byte >> 4 : byte & 15);
  }
  for (size_t i = 0; i < made.scales.size(); ++i) {
    made.scales[i] = absmax[i * static_cast<size_t>(made.group) / static_cast<size_t>(state.block)];
  }
  return made;
}

}  // namespace

QuantizationScheme BitsAndBytesScheme() { return {kAbsmax, Describe, Read}; }

}  // namespace polyad
