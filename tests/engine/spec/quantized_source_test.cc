#include "engine/spec/quantized_source.h"

#include <cstring>
#include <limits>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "engine/io/file.h"
#include "engine/io/json.h"
#include "engine/io/safetensors.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/engine/io/file_builders.h"

// Small matrices as bitsandbytes, GPTQ, AWQ, compressed-tensors and we store them, against what the
// library itself makes of them (tests/golden/quantized_weights.py); and the same files spoiled.

namespace polyad {
namespace {

using ::testing::HasSubstr;

constexpr const char* kFormats[] = {
    "nf4",     "nf4_double",    "fp4",     "gptq",   "gptq_act_order", "awq",
    "ct_int4", "ct_int4_zeros", "ct_int8", "ct_fp8", "polyad4",        "polyad8"};

struct Tensor {
  std::string type;
  std::vector<int64_t> shape;
  std::string bytes;
};
using Tensors = std::map<std::string, Tensor>;

std::string PathOf(const std::string& format) {
  return POLYAD_SOURCE_DIR "/tests/golden/quantized/" + format;
}

Tensors ReadTensors(const std::string& format) {
  const auto file = SafetensorsFile::Open(PathOf(format) + ".safetensors");
  EXPECT_TRUE(file.ok()) << file.status();
  Tensors tensors;
  for (const TensorInfo& info : file->tensors()) {
    const auto tensor = file->Read(info.name);
    EXPECT_TRUE(tensor.ok()) << tensor.status();
    tensors[info.name] = {info.stored_type, info.shape,
                          std::string(reinterpret_cast<const char*>(tensor->bytes.data()),
                                      static_cast<size_t>(tensor->bytes.size()))};
  }
  return tensors;
}

std::string FileOf(const Tensors& tensors) {
  Json header = Json::object();
  std::string data;
  for (const auto& [name, tensor] : tensors) {
    header[name] = {{"dtype", tensor.type},
                    {"shape", tensor.shape},
                    {"data_offsets", {data.size(), data.size() + tensor.bytes.size()}}};
    data += tensor.bytes;
  }
  const std::string text = header.dump();
  return Raw(static_cast<uint64_t>(text.size())) + text + data;
}

StatusOr<QuantizationConfig> ConfigOf(const std::string& format) {
  POLYAD_ASSIGN_OR_RETURN(const std::string text,
                          ReadFileLimited(PathOf(format) + ".json", 1 << 16));
  POLYAD_ASSIGN_OR_RETURN(const Json json, ParseJson(text, "config.json", JsonLimits{}));
  POLYAD_ASSIGN_OR_RETURN(const JsonFields fields, JsonFields::Of(json, "config.json"));
  POLYAD_ASSIGN_OR_RETURN(const auto config, ReadQuantizationConfig(fields));
  if (!config.has_value()) return NotFound("no quantization_config");
  return *config;
}

StatusOr<std::unique_ptr<TensorSource>> Open(const std::string& format, const Tensors& tensors) {
  POLYAD_ASSIGN_OR_RETURN(const QuantizationConfig config, ConfigOf(format));
  POLYAD_ASSIGN_OR_RETURN(
      SafetensorsFile file,
      SafetensorsFile::FromFile(RandomAccessFile::FromBytes(FileOf(tensors), "m")));
  return OpenQuantizedSource(std::make_unique<SafetensorsFile>(std::move(file)), config);
}

// Opening, then reading the matrix.
StatusOr<OwnedTensor> ReadMatrix(const std::string& format, const Tensors& tensors) {
  POLYAD_ASSIGN_OR_RETURN(const std::unique_ptr<TensorSource> source, Open(format, tensors));
  POLYAD_ASSIGN_OR_RETURN(OwnedTensor weight, source->Read("m.weight"));
  if (weight.dtype != DType::kGrouped) return Unimplemented("m.weight is not quantised");
  return weight;
}

class QuantizedSourceTest : public testing::TestWithParam<const char*> {};

TEST_P(QuantizedSourceTest, WeightsAreTheLibrarysBitForBit) {
  const Tensors tensors = ReadTensors(GetParam());
  const auto source = Open(GetParam(), tensors);
  ASSERT_TRUE(source.ok()) << source.status();
  EXPECT_EQ((*source)->tensors().size(), 2u);  // the parts are not listed
  const TensorInfo* info = (*source)->Find("m.weight");
  ASSERT_NE(info, nullptr);
  EXPECT_EQ(info->dtype, DType::kGrouped);
  const auto weight = (*source)->Read("m.weight");
  const auto expected = (*source)->Read("expected");
  ASSERT_TRUE(weight.ok()) << weight.status();
  ASSERT_TRUE(expected.ok()) << expected.status();
  EXPECT_EQ(weight->shape, expected->shape);
  EXPECT_EQ(*ToFloats(*weight), *ToFloats(*expected));
  EXPECT_LE(weight->grouped->bits, 8);
}

TEST_P(QuantizedSourceTest, AMissingPartIsRefused) {
  const Tensors whole = ReadTensors(GetParam());
  for (const auto& [name, tensor] : whole) {
    if (name == "expected" || name == "m.g_idx") continue;  // without g_idx, groups are runs
    Tensors spoiled = whole;
    spoiled.erase(name);
    EXPECT_FALSE(ReadMatrix(GetParam(), spoiled).ok()) << "without " << name;
  }
}

TEST_P(QuantizedSourceTest, APartThatIsTooShortIsRefused) {
  const Tensors whole = ReadTensors(GetParam());
  for (const auto& [name, tensor] : whole) {
    if (name == "expected" || name.find("quant_state") != std::string::npos) continue;
    Tensors spoiled = whole;
    Tensor& part = spoiled[name];
    const size_t row = part.bytes.size() / static_cast<size_t>(part.shape[0]);
    part.bytes.resize(part.bytes.size() - row);
    --part.shape[0];
    EXPECT_FALSE(ReadMatrix(GetParam(), spoiled).ok()) << name << " without its last row";
  }
}

TEST_P(QuantizedSourceTest, APartOfAnotherTypeIsRefused) {
  const std::map<std::string, std::string> other = {
      {"U8", "BOOL"}, {"I8", "BOOL"}, {"F8_E4M3", "I8"}, {"F16", "I16"},
      {"F32", "I32"}, {"I32", "F32"}, {"I64", "F64"}};
  const Tensors whole = ReadTensors(GetParam());
  for (const auto& [name, tensor] : whole) {
    const bool byte_view = name == "m.weight" && whole.contains("m.weight.absmax");
    if (name == "expected" || byte_view) continue;
    Tensors spoiled = whole;
    spoiled[name].type = other.at(tensor.type);
    EXPECT_FALSE(ReadMatrix(GetParam(), spoiled).ok()) << name << " as " << spoiled[name].type;
  }
}

TEST_P(QuantizedSourceTest, AScaleThatIsNoNumberIsRefused) {
  const Tensors whole = ReadTensors(GetParam());
  for (const auto& [name, tensor] : whole) {
    if (name == "expected" || tensor.type.front() != 'F' || tensor.type == "F8_E4M3") continue;
    Tensors spoiled = whole;
    std::string& bytes = spoiled[name].bytes;
    bytes[bytes.size() - 1] = '\x7f';  // every exponent bit of the last element
    bytes[bytes.size() - 2] = '\xff';
    const auto read = ReadMatrix(GetParam(), spoiled);
    EXPECT_THAT(read.status().ToString(), HasSubstr(name));
  }
}

INSTANTIATE_TEST_SUITE_P(Formats, QuantizedSourceTest, testing::ValuesIn(kFormats),
                         [](const auto& test) { return std::string(test.param); });

TEST(QuantizedSource, AGroupIndexOutOfRangeIsRefused) {
  Tensors tensors = ReadTensors("gptq_act_order");
  for (const int32_t group : {2, -1, 1 << 30}) {
    std::memcpy(tensors["m.g_idx"].bytes.data() + 8, &group, sizeof(group));
    const auto read = ReadMatrix("gptq_act_order", tensors);
    EXPECT_EQ(read.status().code(), absl::StatusCode::kInvalidArgument) << group;
    EXPECT_THAT(read.status().ToString(), HasSubstr("m.g_idx"));
  }
}

TEST(QuantizedSource, AMatrixBothPlainAndQuantisedIsRefused) {
  Tensors tensors = ReadTensors("gptq");
  tensors["m.weight"] = tensors["expected"];
  EXPECT_THAT(ReadMatrix("gptq", tensors).status().ToString(),
              HasSubstr("both quantised and plain"));
}

TEST(QuantizedSource, AFloat8ThatIsNaNIsRefused) {
  Tensors tensors = ReadTensors("ct_fp8");
  tensors["m.weight"].bytes[5] = '\xff';
  EXPECT_THAT(ReadMatrix("ct_fp8", tensors).status().ToString(), HasSubstr("element 5 is NaN"));
}

TEST(QuantizedSource, ABlockStateThatLiesIsRefused) {
  const std::string name = "m.weight.quant_state.bitsandbytes__nf4";
  const Tensors whole = ReadTensors("nf4_double");
  const Json state = Json::parse(whole.at(name).bytes);
  const std::pair<const char*, Json> lies[] = {{"blocksize", 0},
                                               {"blocksize", 48},
                                               {"blocksize", -64},
                                               {"blocksize", int64_t{1} << 40},
                                               {"shape", {32, 1 << 30}},
                                               {"shape", {64, 64}},
                                               {"shape", {-32, -64}},
                                               {"shape", {2048}},
                                               {"shape", "32x64"},
                                               {"nested_blocksize", 0},
                                               {"nested_blocksize", 4},
                                               {"nested_offset", "much"},
                                               {"nested_dtype", "float16"},
                                               {"rotation", 1}};
  for (const auto& [key, lie] : lies) {
    Json changed = state;
    changed[key] = lie;
    Tensors spoiled = whole;
    spoiled[name].bytes = changed.dump();
    spoiled[name].shape = {static_cast<int64_t>(spoiled[name].bytes.size())};
    EXPECT_FALSE(ReadMatrix("nf4_double", spoiled).ok()) << key << " " << lie.dump();
  }
}

TEST(QuantizedSource, APackedShapeThatLiesIsRefused) {
  for (const int64_t cols : {int64_t{32}, int64_t{96}, int64_t{-64}, int64_t{1} << 60,
                             std::numeric_limits<int64_t>::max()}) {
    Tensors tensors = ReadTensors("ct_int4");
    std::memcpy(tensors["m.weight_shape"].bytes.data() + 8, &cols, sizeof(cols));
    EXPECT_FALSE(ReadMatrix("ct_int4", tensors).ok()) << cols;
  }
}

}  // namespace
}  // namespace polyad
