// GPTQ and AWQ: w[o, k] = scale[g, o] (q[k, o] - z[g, o]), g = g_idx[k] or k / group_size, codes in
// the 32-bit words of qweight and qzeros. GPTQ packs runs of inputs, the first in the lowest bits,
// and its zero points along outputs; its first layout stores them less one, taken word by word. AWQ
// ("gemm") packs outputs for both, nibble i of a word holding output 0 2 4 6 1 3 5 7 of its eight.

#include "engine/io/quote.h"
#include "engine/spec/quantized_source.h"

namespace polyad {

namespace {

constexpr int kAwqOutput[8] = {0, 2, 4, 6, 1, 3, 5, 7};

int64_t CeilDiv(int64_t a, int64_t b) { return a / b + (a % b != 0 ? 1 : 0); }

Status CheckInputs(const std::string& name, int64_t cols) {
  if (cols > 0 && cols % 32 == 0) return absl::OkStatus();
  return Unimplemented("model: tensor %s: expected inputs in multiples of 32, got %d", Quote(name),
                       cols);
}

// Scales and zero points of `groups`; outputs a multiple of the codes in a word.
Status DescribeGroups(const TensorSource& stored, const QuantizationConfig& config,
                      QuantizedModule& module) {
  const int64_t per_word = 32 / config.bits;
  const int64_t groups = CeilDiv(module.cols, GroupSizeOf(config, module.cols));
  if (module.rows < 1 || module.rows % per_word != 0) {
    return Unimplemented("model: module %s: expected outputs in multiples of %d, got %d",
                         Quote(module.name), per_word, module.rows);
  }
  const std::string scales = module.name + ".scales";
  const std::string zeros = module.name + ".qzeros";
  POLYAD_RETURN_IF_ERROR(
      NeedTensor(stored, scales, {DType::kF16, DType::kBF16, DType::kF32}, {groups, module.rows})
          .status());
  POLYAD_RETURN_IF_ERROR(
      NeedTensor(stored, zeros, {DType::kI32}, {groups, module.rows / per_word}).status());
  module.parts = {module.name + ".qweight", scales, zeros};
  return absl::OkStatus();
}

// [a, b] words of 32 bits.
StatusOr<const TensorInfo*> NeedWords(const TensorSource& stored, const std::string& name) {
  POLYAD_ASSIGN_OR_RETURN(const TensorInfo* packed, NeedTensor(stored, name, {DType::kI32}, {}));
  if (packed->shape.size() == 2) return packed;
  return InvalidArgument("model: tensor %s: expected two dimensions, got %s", Quote(name),
                         ShapeToString(packed->shape));
}

Status DescribeGptq(const TensorSource& stored, const QuantizationConfig& config,
                    QuantizedModule& module) {
  const std::string name = module.name + ".qweight";
  POLYAD_ASSIGN_OR_RETURN(const TensorInfo* packed, NeedWords(stored, name));
  module.cols = packed->shape[0] * (32 / config.bits);
  module.rows = packed->shape[1];
  POLYAD_RETURN_IF_ERROR(CheckInputs(name, module.cols));
  POLYAD_RETURN_IF_ERROR(DescribeGroups(stored, config, module));
  const std::string index = module.name + ".g_idx";
  if (stored.Find(index) == nullptr) return absl::OkStatus();
  POLYAD_RETURN_IF_ERROR(NeedTensor(stored, index, {DType::kI32}, {module.cols}).status());
  module.parts.push_back(index);
  return absl::OkStatus();
}

StatusOr<GroupedRows> StartRows(const TensorSource& stored, const QuantizationConfig& config,
                                const QuantizedModule& module) {
  GroupedRows made = MakeGroupedRows(module.rows, module.cols, GroupSizeOf(config, module.cols));
  made.bits = config.bits;
  POLYAD_ASSIGN_OR_RETURN(const std::vector<float> scales,
                          ReadScales(stored, module.name + ".scales"));
  made.scales = Transposed(scales, made.num_groups, made.rows);
  made.zeros.resize(made.scales.size());
  return made;
}

StatusOr<GroupedRows> ReadGptq(const TensorSource& stored, const QuantizationConfig& config,
                               const QuantizedModule& module) {
  POLYAD_ASSIGN_OR_RETURN(GroupedRows made, StartRows(stored, config, module));
  const int64_t per_word = 32 / config.bits;
  const uint32_t mask = (1u << config.bits) - 1;
  const uint32_t one_each = !config.zeros_less_one ? 0
                            : config.bits == 4     ? 0x11111111u
                                                   : 0x01010101u;
  POLYAD_ASSIGN_OR_RETURN(const auto packed, ReadWords(stored, module.name + ".qweight"));
  for (int64_t k = 0; k < made.cols; ++k) {
    const int64_t shift = k % per_word * config.bits;
    for (int64_t row = 0; row < made.rows; ++row) {
      const uint32_t word = packed[static_cast<size_t>(k / per_word * made.rows + row)];
      made.codes[static_cast<size_t>(row * made.cols + k)] =
          static_cast<uint8_t>((word >> shift) & mask);
    }
  }
  POLYAD_ASSIGN_OR_RETURN(const auto zeros, ReadWords(stored, module.name + ".qzeros"));
  for (int64_t group = 0; group < made.num_groups; ++group) {
    for (int64_t row = 0; row < made.rows; ++row) {
      const uint32_t word =
          zeros[static_cast<size_t>(group * (made.rows / per_word) + row / per_word)] + one_each;
      made.zeros[static_cast<size_t>(row * made.num_groups + group)] =
          static_cast<float>((word >> (row % per_word * config.bits)) & mask);
    }
  }
  FoldZeros(made);
  const std::string index = module.name + ".g_idx";
  if (stored.Find(index) != nullptr) {
    POLYAD_RETURN_IF_ERROR(ReadGroupIndex(stored, index, made));
  }
  return made;
}

Status DescribeAwq(const TensorSource& stored, const QuantizationConfig& config,
                   QuantizedModule& module) {
  const std::string name = module.name + ".qweight";
  POLYAD_ASSIGN_OR_RETURN(const TensorInfo* packed, NeedWords(stored, name));
  module.cols = packed->shape[0];
  module.rows = packed->shape[1] * 8;
  POLYAD_RETURN_IF_ERROR(CheckInputs(name, module.cols));
  return DescribeGroups(stored, config, module);
}

StatusOr<GroupedRows> ReadAwq(const TensorSource& stored, const QuantizationConfig& config,
                              const QuantizedModule& module) {
  POLYAD_ASSIGN_OR_RETURN(GroupedRows made, StartRows(stored, config, module));
  POLYAD_ASSIGN_OR_RETURN(const auto packed, ReadWords(stored, module.name + ".qweight"));
  POLYAD_ASSIGN_OR_RETURN(const auto zeros, ReadWords(stored, module.name + ".qzeros"));
  const int64_t words = made.rows / 8;
  for (int64_t word = 0; word < words; ++word) {
    for (int nibble = 0; nibble < 8; ++nibble) {
      const int64_t row = word * 8 + kAwqOutput[nibble];
      for (int64_t k = 0; k < made.cols; ++k) {
        const uint32_t bits = packed[static_cast<size_t>(k * words + word)];
        made.codes[static_cast<size_t>(row * made.cols + k)] =
            static_cast<uint8_t>((bits >> (nibble * 4)) & 15u);
      }
      for (int64_t group = 0; group < made.num_groups; ++group) {
        const uint32_t bits = zeros[static_cast<size_t>(group * words + word)];
        made.zeros[static_cast<size_t>(row * made.num_groups + group)] =
            static_cast<float>((bits >> (nibble * 4)) & 15u);
      }
    }
  }
  FoldZeros(made);
  return made;
}

}  // namespace

QuantizationScheme GptqScheme() { return {".qweight", DescribeGptq, ReadGptq}; }
QuantizationScheme AwqScheme() { return {".qweight", DescribeAwq, ReadAwq}; }

}  // namespace polyad
