#include "engine/spec/quantization_config.h"

#include <algorithm>
#include <span>
#include <string_view>

#include "engine/io/quote.h"

namespace polyad {

namespace {

constexpr int64_t kLargestGroup = int64_t{1} << 20;

// Keys that say nothing about the numbers, or that are read here; any other is refused.
Status CheckKeys(const JsonFields& fields, std::span<const std::string_view> known) {
  for (const auto& [key, value] : fields.object().items()) {
    if (value.is_null()) continue;
    if (std::find(known.begin(), known.end(), key) == known.end()) {
      return Unimplemented("%s: key %s is not supported", fields.where(), Quote(key));
    }
  }
  return absl::OkStatus();
}

Status RefuseUnless(bool holds, const JsonFields& fields, std::string_view what) {
  if (holds) return absl::OkStatus();
  return Unimplemented("%s: %s is not supported", fields.where(), what);
}

StatusOr<int> ReadBits(const JsonFields& fields) {
  POLYAD_ASSIGN_OR_RETURN(const int64_t bits, fields.Int("bits", 1, 8));
  POLYAD_RETURN_IF_ERROR(RefuseUnless(bits == 4 || bits == 8, fields, "bits other than 4 and 8"));
  return static_cast<int>(bits);
}

// Groups of whole half-blocks, or whole rows.
Status CheckGroup(const JsonFields& fields, int64_t group) {
  if (group == -1 || (group >= 16 && group % 16 == 0)) return absl::OkStatus();
  return Unimplemented("%s: key 'group_size': expected -1 or a multiple of 16, got %d",
                       fields.where(), group);
}

StatusOr<QuantizationConfig> ReadBitsAndBytes(const JsonFields& fields) {
  static constexpr std::string_view kKeys[] = {"quant_method",
                                               "load_in_4bit",
                                               "load_in_8bit",
                                               "_load_in_4bit",
                                               "_load_in_8bit",
                                               "bnb_4bit_quant_type",
                                               "bnb_4bit_use_double_quant",
                                               "bnb_4bit_compute_dtype",
                                               "bnb_4bit_quant_storage",
                                               "llm_int8_enable_fp32_cpu_offload",
                                               "llm_int8_has_fp16_weight",
                                               "llm_int8_skip_modules",
                                               "llm_int8_threshold"};
  POLYAD_RETURN_IF_ERROR(CheckKeys(fields, kKeys));
  POLYAD_ASSIGN_OR_RETURN(const bool four, fields.BoolOr("load_in_4bit", false));
  POLYAD_ASSIGN_OR_RETURN(const bool eight, fields.BoolOr("load_in_8bit", false));
  POLYAD_RETURN_IF_ERROR(RefuseUnless(four && !eight, fields, "other than load_in_4bit"));
  POLYAD_ASSIGN_OR_RETURN(const std::string type, fields.StringOr("bnb_4bit_quant_type", "fp4"));
  POLYAD_RETURN_IF_ERROR(
      RefuseUnless(type == "nf4" || type == "fp4", fields, "bnb_4bit_quant_type " + Quote(type)));
  QuantizationConfig made;
  made.method = QuantizationMethod::kBitsAndBytes;
  return made;
}

StatusOr<QuantizationConfig> ReadGptq(const JsonFields& fields) {
  static constexpr std::string_view kKeys[] = {"quant_method",
                                               "bits",
                                               "group_size",
                                               "desc_act",
                                               "sym",
                                               "checkpoint_format",
                                               "format",
                                               "lm_head",
                                               "meta",
                                               "damp_percent",
                                               "damp_auto_increment",
                                               "true_sequential",
                                               "static_groups",
                                               "act_group_aware",
                                               "mse",
                                               "dataset",
                                               "tokenizer",
                                               "model_seqlen",
                                               "block_name_to_quantize",
                                               "module_name_preceding_first_block",
                                               "batch_size",
                                               "pad_token_id",
                                               "use_cuda_fp16",
                                               "max_input_length",
                                               "cache_block_outputs",
                                               "modules_in_block_to_quantize",
                                               "backend",
                                               "use_exllama",
                                               "disable_exllama",
                                               "exllama_config",
                                               "pack_dtype",
                                               "model_name_or_path",
                                               "model_file_base_name",
                                               "is_marlin_format",
                                               "quant_path",
                                               "offload_to_disk"};
  POLYAD_RETURN_IF_ERROR(CheckKeys(fields, kKeys));
  QuantizationConfig made;
  made.method = QuantizationMethod::kGptq;
  POLYAD_ASSIGN_OR_RETURN(made.bits, ReadBits(fields));
  POLYAD_ASSIGN_OR_RETURN(made.group_size, fields.IntOr("group_size", 128, -1, kLargestGroup));
  POLYAD_RETURN_IF_ERROR(CheckGroup(fields, made.group_size));
  POLYAD_ASSIGN_OR_RETURN(made.symmetric, fields.BoolOr("sym", true));
  POLYAD_ASSIGN_OR_RETURN(const bool marlin, fields.BoolOr("is_marlin_format", false));
  POLYAD_RETURN_IF_ERROR(RefuseUnless(!marlin, fields, "is_marlin_format"));
  POLYAD_ASSIGN_OR_RETURN(const std::string pack, fields.StringOr("pack_dtype", "int32"));
  POLYAD_RETURN_IF_ERROR(RefuseUnless(pack == "int32", fields, "pack_dtype " + Quote(pack)));
  POLYAD_ASSIGN_OR_RETURN(const std::string old_key, fields.StringOr("checkpoint_format", "gptq"));
  POLYAD_ASSIGN_OR_RETURN(const std::string format, fields.StringOr("format", old_key));
  POLYAD_RETURN_IF_ERROR(RefuseUnless(format == "gptq" || format == "gptq_v2", fields,
                                      "checkpoint_format " + Quote(format)));
  made.zeros_less_one = format == "gptq";
  return made;
}

StatusOr<QuantizationConfig> ReadAwq(const JsonFields& fields) {
  static constexpr std::string_view kKeys[] = {"quant_method",
                                               "bits",
                                               "w_bit",
                                               "group_size",
                                               "q_group_size",
                                               "zero_point",
                                               "version",
                                               "modules_to_not_convert",
                                               "backend",
                                               "do_fuse",
                                               "fuse_max_seq_len",
                                               "exllama_config"};
  POLYAD_RETURN_IF_ERROR(CheckKeys(fields, kKeys));
  QuantizationConfig made;
  made.method = QuantizationMethod::kAwq;
  POLYAD_ASSIGN_OR_RETURN(const int64_t w_bit, fields.IntOr("w_bit", 4, 1, 8));
  POLYAD_ASSIGN_OR_RETURN(const int64_t bits, fields.IntOr("bits", w_bit, 1, 8));
  POLYAD_RETURN_IF_ERROR(RefuseUnless(bits == 4, fields, "bits other than 4"));
  POLYAD_ASSIGN_OR_RETURN(const int64_t old_key,
                          fields.IntOr("q_group_size", 128, -1, kLargestGroup));
  POLYAD_ASSIGN_OR_RETURN(made.group_size, fields.IntOr("group_size", old_key, -1, kLargestGroup));
  POLYAD_RETURN_IF_ERROR(CheckGroup(fields, made.group_size));
  POLYAD_ASSIGN_OR_RETURN(const std::string version, fields.StringOr("version", "gemm"));
  POLYAD_RETURN_IF_ERROR(
      RefuseUnless(version == "gemm" || version == "GEMM", fields, "version " + Quote(version)));
  POLYAD_ASSIGN_OR_RETURN(const bool zero_point, fields.BoolOr("zero_point", true));
  POLYAD_RETURN_IF_ERROR(RefuseUnless(zero_point, fields, "zero_point false"));
  made.symmetric = false;
  return made;
}

Status ReadWeightArgs(const JsonFields& weights, QuantizationConfig& made) {
  static constexpr std::string_view kKeys[] = {
      "num_bits", "type",     "symmetric",       "strategy",    "group_size", "dynamic",
      "actorder", "observer", "observer_kwargs", "scale_dtype", "zp_dtype",   "block_structure"};
  POLYAD_RETURN_IF_ERROR(CheckKeys(weights, kKeys));
  POLYAD_ASSIGN_OR_RETURN(const int64_t bits, weights.IntOr("num_bits", 8, 1, 16));
  POLYAD_RETURN_IF_ERROR(
      RefuseUnless(bits == 4 || bits == 8, weights, "num_bits other than 4 and 8"));
  made.bits = static_cast<int>(bits);
  POLYAD_ASSIGN_OR_RETURN(const std::string type, weights.StringOr("type", "int"));
  POLYAD_RETURN_IF_ERROR(RefuseUnless(type == "int" || (type == "float" && bits == 8), weights,
                                      "type " + Quote(type) + " of these bits"));
  made.float_codes = type == "float";
  POLYAD_ASSIGN_OR_RETURN(made.symmetric, weights.BoolOr("symmetric", true));
  POLYAD_ASSIGN_OR_RETURN(const bool dynamic, weights.BoolOr("dynamic", false));
  POLYAD_RETURN_IF_ERROR(RefuseUnless(!dynamic, weights, "dynamic scales of weights"));
  POLYAD_RETURN_IF_ERROR(RefuseUnless(!weights.Has("block_structure"), weights, "block_structure"));
  POLYAD_ASSIGN_OR_RETURN(const int64_t group, weights.IntOr("group_size", -1, -1, kLargestGroup));
  POLYAD_ASSIGN_OR_RETURN(const std::string strategy,
                          weights.StringOr("strategy", group > 0 ? "group" : "tensor"));
  POLYAD_RETURN_IF_ERROR(
      RefuseUnless(strategy == "tensor" || strategy == "channel" || strategy == "group", weights,
                   "strategy " + Quote(strategy)));
  made.group_size = strategy == "group" ? group : -1;
  return CheckGroup(weights, made.group_size);
}

StatusOr<QuantizationConfig> ReadCompressedTensors(const JsonFields& fields) {
  static constexpr std::string_view kKeys[] = {"quant_method",
                                               "format",
                                               "quantization_status",
                                               "global_compression_ratio",
                                               "ignore",
                                               "config_groups",
                                               "version",
                                               "sparsity_config",
                                               "transform_config",
                                               "run_compressed"};
  static constexpr std::string_view kGroupKeys[] = {"targets", "weights", "format"};
  POLYAD_RETURN_IF_ERROR(CheckKeys(fields, kKeys));
  QuantizationConfig made;
  made.method = QuantizationMethod::kCompressedTensors;
  for (const char* key : {"sparsity_config", "transform_config"}) {
    const Json* value = fields.Find(key);
    POLYAD_RETURN_IF_ERROR(RefuseUnless(value == nullptr || value->empty(), fields, key));
  }
  POLYAD_ASSIGN_OR_RETURN(const std::string status,
                          fields.StringOr("quantization_status", "compressed"));
  POLYAD_RETURN_IF_ERROR(
      RefuseUnless(status == "compressed", fields, "quantization_status " + Quote(status)));
  POLYAD_ASSIGN_OR_RETURN(const auto groups, fields.Object("config_groups"));
  if (!groups.has_value() || groups->object().size() != 1) {
    return Unimplemented("%s: key 'config_groups': expected one group", fields.where());
  }
  POLYAD_ASSIGN_OR_RETURN(const auto group, groups->Object(groups->object().begin().key()));
  if (!group.has_value()) return groups->WrongType("config_groups", "an object");
  POLYAD_RETURN_IF_ERROR(CheckKeys(*group, kGroupKeys));
  POLYAD_ASSIGN_OR_RETURN(const auto weights, group->Object("weights"));
  if (!weights.has_value()) return group->WrongType("weights", "an object");
  POLYAD_RETURN_IF_ERROR(ReadWeightArgs(*weights, made));
  POLYAD_ASSIGN_OR_RETURN(const std::string of_group, group->StringOr("format", ""));
  POLYAD_ASSIGN_OR_RETURN(const std::string format, fields.StringOr("format", of_group));
  made.packed = format == "pack-quantized";
  const bool plain = format == "naive-quantized" ||
                     format == (made.float_codes ? "float-quantized" : "int-quantized");
  POLYAD_RETURN_IF_ERROR(RefuseUnless((made.packed && !made.float_codes) || plain, fields,
                                      "format " + Quote(format) + " of this type"));
  POLYAD_RETURN_IF_ERROR(
      RefuseUnless(made.packed || made.bits == 8, fields, "num_bits 4 in format " + Quote(format)));
  POLYAD_RETURN_IF_ERROR(
      RefuseUnless(made.symmetric || !made.float_codes, fields, "symmetric false of type float"));
  return made;
}

StatusOr<QuantizationConfig> ReadPolyad(const JsonFields& fields) {
  static constexpr std::string_view kKeys[] = {"quant_method", "bits", "group_size"};
  POLYAD_RETURN_IF_ERROR(CheckKeys(fields, kKeys));
  QuantizationConfig made;
  POLYAD_ASSIGN_OR_RETURN(made.bits, ReadBits(fields));
  POLYAD_ASSIGN_OR_RETURN(made.group_size, fields.Int("group_size", 16, kLargestGroup));
  POLYAD_RETURN_IF_ERROR(CheckGroup(fields, made.group_size));
  return made;
}

}  // namespace

StatusOr<std::optional<QuantizationConfig>> ReadQuantizationConfig(const JsonFields& config) {
  POLYAD_ASSIGN_OR_RETURN(const auto fields, config.Object("quantization_config"));
  if (!fields.has_value()) return std::optional<QuantizationConfig>();
  POLYAD_ASSIGN_OR_RETURN(const std::string method, fields->StringOr("quant_method", "unnamed"));
  using Reader = StatusOr<QuantizationConfig> (*)(const JsonFields&);
  struct Row {
    std::string_view name;
    Reader read;
  };
  static constexpr Row kRows[] = {{"bitsandbytes", ReadBitsAndBytes},
                                  {"gptq", ReadGptq},
                                  {"awq", ReadAwq},
                                  {"compressed-tensors", ReadCompressedTensors},
                                  {"polyad", ReadPolyad}};
  for (const Row& row : kRows) {
    if (method != row.name) continue;
    POLYAD_ASSIGN_OR_RETURN(const QuantizationConfig made, row.read(*fields));
    return std::optional<QuantizationConfig>(made);
  }
  return Unimplemented("%s: key 'quantization_config': method %s is not supported", config.where(),
                       Quote(method));
}

}  // namespace polyad
