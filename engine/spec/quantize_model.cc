#include "engine/spec/quantize_model.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <memory>
#include <set>
#include <system_error>
#include <utility>
#include <vector>

#include "engine/io/file.h"
#include "engine/io/float_bits.h"
#include "engine/io/json.h"
#include "engine/io/part_directory.h"
#include "engine/io/quote.h"
#include "engine/io/safetensors_writer.h"
#include "engine/spec/model_files.h"

namespace polyad {

namespace {

constexpr int64_t kMaxConfigBytes = int64_t{1} << 20;
constexpr const char* kCopied[] = {"tokenizer.json", "tokenizer_config.json",
                                   "generation_config.json", "special_tokens_map.json",
                                   "chat_template.jinja"};

// A matrix in our format, and how far it strayed.
struct Quantized {
  std::vector<uint8_t> codes;
  std::vector<uint16_t> scales;
  std::vector<uint16_t> minima;
  double squared_error = 0;
  double squares = 0;
};

void AddError(float value, float stands_for, Quantized& out) {
  const double difference = static_cast<double>(value) - static_cast<double>(stands_for);
  out.squared_error += difference * difference;
  out.squares += static_cast<double>(value) * static_cast<double>(value);
}

void QuantizeGroup8(const float* values, int64_t group, Quantized& out) {
  float largest = 0;
  for (int64_t i = 0; i < group; ++i) largest = std::max(largest, std::fabs(values[i]));
  const uint16_t half = FloatToHalf(largest / 127.0f);
  const float scale = HalfToFloat(half);
  for (int64_t i = 0; i < group; ++i) {
    const float steps = scale > 0 ? std::nearbyint(values[i] / scale) : 0.0f;
    const float code = std::clamp(steps, -127.0f, 127.0f);
    out.codes.push_back(static_cast<uint8_t>(code + 128.0f));
    AddError(values[i], scale * code, out);
  }
  out.scales.push_back(half);
}

void QuantizeGroup4(const float* values, int64_t group, Quantized& out) {
  const auto [low, high] = std::minmax_element(values, values + group);
  const uint16_t minimum_half = FloatToHalf(*low);
  const float minimum = HalfToFloat(minimum_half);
  const uint16_t half = FloatToHalf(std::max(0.0f, *high - minimum) / 15.0f);
  const float scale = HalfToFloat(half);
  uint8_t even = 0;
  for (int64_t i = 0; i < group; ++i) {
    const float steps = scale > 0 ? std::nearbyint((values[i] - minimum) / scale) : 0.0f;
    const float code = std::clamp(steps, 0.0f, 15.0f);
    AddError(values[i], scale * code + minimum, out);
    const auto nibble = static_cast<uint8_t>(code);
    if (i % 2 == 0) {
      even = nibble;
    } else {
      out.codes.push_back(static_cast<uint8_t>(even | (nibble << 4)));
    }
  }
  out.scales.push_back(half);
  out.minima.push_back(minimum_half);
}

Status CheckOptions(const QuantizeOptions& options) {
  if (options.bits != 4 && options.bits != 8) {
    return InvalidArgument("quantize: bits: expected 4 or 8, got %d", options.bits);
  }
  if (options.group < 16 || options.group % 16 != 0) {
    return InvalidArgument("quantize: group: expected a multiple of 16, got %d", options.group);
  }
  if (!IsDirectory(options.model)) {
    return InvalidArgument("quantize: %s is no model directory", Quote(options.model));
  }
  return absl::OkStatus();
}

class Quantizer {
 public:
  Quantizer(const QuantizeOptions& options, const ModelFiles& files)
      : options_(options), source_(files.source()) {
    for (const WeightEntry& entry : files.weights()) {
      if (entry.kind >= WeightKind::kQ && entry.kind <= WeightKind::kFcOut) {
        matrices_.insert(entry.tensor_name);
      }
    }
  }

  // What the new file will hold.
  Status Plan() {
    for (const TensorInfo& info : source_.tensors()) {
      report_.bytes_before += info.bytes;
      if (!matrices_.contains(info.name)) {
        planned_.push_back({info.name, info.stored_type, info.shape, info.bytes});
        continue;
      }
      POLYAD_RETURN_IF_ERROR(PlanMatrix(info));
    }
    for (const TensorToWrite& tensor : planned_) report_.bytes_after += tensor.bytes;
    report_.num_matrices = static_cast<int64_t>(matrices_.size());
    return absl::OkStatus();
  }

  Status Write(const std::string& out, const QuantizeProgress& progress) {
    POLYAD_ASSIGN_OR_RETURN(const auto writer,
                            SafetensorsWriter::Create(out + "/model.safetensors", planned_));
    int64_t done = 0;
    for (const TensorInfo& info : source_.tensors()) {
      POLYAD_ASSIGN_OR_RETURN(const OwnedTensor tensor, source_.Read(info.name));
      if (matrices_.contains(info.name)) {
        POLYAD_RETURN_IF_ERROR(WriteMatrix(info.name, tensor, *writer));
      } else {
        POLYAD_RETURN_IF_ERROR(writer->Write(tensor.bytes.span()));
      }
      progress(++done, static_cast<int64_t>(source_.tensors().size()));
    }
    if (squares_ > 0) report_.relative_error = std::sqrt(squared_error_ / squares_);
    return writer->Finish();
  }

  const QuantizeReport& report() const { return report_; }

 private:
  Status PlanMatrix(const TensorInfo& info) {
    const bool floats =
        info.dtype == DType::kF32 || info.dtype == DType::kF16 || info.dtype == DType::kBF16;
    if (!floats) {
      return Unimplemented("quantize: tensor %s: expected a floating-point matrix, got %s",
                           Quote(info.name), Quote(info.stored_type));
    }
    const int64_t rows = info.shape[0];
    const int64_t cols = info.shape[1];
    if (cols % 32 != 0 || cols % options_.group != 0) {
      return InvalidArgument(
          "quantize: tensor %s: expected inputs in multiples of 32 and %d, got %d",
          Quote(info.name), options_.group, cols);
    }
    const int64_t width = cols * options_.bits / 8;
    const int64_t groups = cols / options_.group;
    planned_.push_back({info.name + ".codes", "U8", {rows, width}, rows * width});
    planned_.push_back({info.name + ".scales", "F16", {rows, groups}, rows * groups * 2});
    if (options_.bits == 4) {
      planned_.push_back({info.name + ".minima", "F16", {rows, groups}, rows * groups * 2});
    }
    return absl::OkStatus();
  }

  Status WriteMatrix(const std::string& name, const OwnedTensor& tensor,
                     SafetensorsWriter& writer) {
    POLYAD_ASSIGN_OR_RETURN(const std::vector<float> values, ToFloats(tensor));
    for (const float value : values) {
      if (!(std::fabs(value) < 32768.0f)) {  // differences stay f16 numbers
        return InvalidArgument("quantize: tensor %s: expected numbers below 32768, got %f",
                               Quote(name), value);
      }
    }
    Quantized out;
    const auto group = static_cast<size_t>(options_.group);
    for (size_t at = 0; at < values.size(); at += group) {
      if (options_.bits == 8) {
        QuantizeGroup8(values.data() + at, options_.group, out);
      } else {
        QuantizeGroup4(values.data() + at, options_.group, out);
      }
    }
    squared_error_ += out.squared_error;
    squares_ += out.squares;
    POLYAD_RETURN_IF_ERROR(writer.Write(out.codes));
    POLYAD_RETURN_IF_ERROR(writer.Write(BytesOf(out.scales)));
    return options_.bits == 4 ? writer.Write(BytesOf(out.minima)) : absl::OkStatus();
  }

  static std::span<const uint8_t> BytesOf(const std::vector<uint16_t>& halves) {
    return {reinterpret_cast<const uint8_t*>(halves.data()), halves.size() * 2};
  }

  const QuantizeOptions& options_;
  const TensorSource& source_;
  std::set<std::string> matrices_;
  std::vector<TensorToWrite> planned_;
  QuantizeReport report_;
  double squared_error_ = 0;
  double squares_ = 0;
};

Status WriteText(const std::string& path, const std::string& text) {
  std::ofstream file(path, std::ios::binary);
  file << text;
  file.close();
  if (file.fail()) return Internal("quantize: %s cannot be written", Quote(path));
  return absl::OkStatus();
}

Status WriteSmallFiles(const QuantizeOptions& options, const std::string& config_text,
                       const std::string& out) {
  POLYAD_ASSIGN_OR_RETURN(OrderedJson config,
                          ParseOrderedJson(config_text, "config.json", JsonLimits{}));
  config["quantization_config"] = {
      {"quant_method", "polyad"}, {"bits", options.bits}, {"group_size", options.group}};
  POLYAD_RETURN_IF_ERROR(WriteText(out + "/config.json", config.dump(2) + "\n"));
  for (const char* name : kCopied) {
    const std::string from = options.model + "/" + name;
    if (!FileExists(from)) continue;
    std::error_code error;
    std::filesystem::copy_file(from, out + "/" + name, error);
    if (error) return Internal("quantize: %s cannot be copied: %s", Quote(from), error.message());
  }
  return absl::OkStatus();
}

}  // namespace

StatusOr<QuantizeReport> QuantizeModel(const QuantizeOptions& options,
                                       const QuantizeProgress& progress) {
  POLYAD_RETURN_IF_ERROR(CheckOptions(options));
  PartDirectory directory(options.out);
  POLYAD_RETURN_IF_ERROR(directory.CheckFree());
  POLYAD_ASSIGN_OR_RETURN(const std::string config,
                          ReadFileLimited(options.model + "/config.json", kMaxConfigBytes));
  POLYAD_ASSIGN_OR_RETURN(const ModelFiles files, OpenModel(options.model));
  if (files.spec().architecture == Architecture::kGpt2) {
    return Unimplemented("quantize: GPT-2's transposed matrices are not supported");
  }
  Quantizer quantizer(options, files);
  POLYAD_RETURN_IF_ERROR(quantizer.Plan());
  POLYAD_RETURN_IF_ERROR(directory.Make());
  POLYAD_RETURN_IF_ERROR(quantizer.Write(directory.path(), progress));
  POLYAD_RETURN_IF_ERROR(WriteSmallFiles(options, config, directory.path()));
  POLYAD_RETURN_IF_ERROR(directory.Finish());
  return quantizer.report();
}

}  // namespace polyad
