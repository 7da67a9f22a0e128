#include "engine/spec/model_files.h"

#include <cmath>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

#include "engine/io/float_bits.h"
#include "engine/io/json.h"
#include "engine/spec/rope_frequencies.h"
#include "engine/spec/weight_layout.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/engine/io/file_builders.h"

namespace polyad {
namespace {

using ::testing::HasSubstr;

std::string Golden(const std::string& name) {
  return POLYAD_SOURCE_DIR "/tests/golden/models/" + name;
}

std::string Content(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

std::vector<float> Floats(const ModelFiles& files, int64_t layer, WeightKind kind) {
  const auto tensor = files.ReadWeight(layer, kind);
  EXPECT_TRUE(tensor.ok()) << tensor.status();
  if (!tensor.ok()) return {};
  const auto floats = ToFloats(*tensor);
  EXPECT_TRUE(floats.ok()) << floats.status();
  return floats.ok() ? *floats : std::vector<float>();
}

TEST(ModelFilesTest, OpensEveryGoldenModel) {
  for (const std::string name : {"gpt2",
                                 "llama",
                                 "llama3",
                                 "llama_linear",
                                 "llama_odd",
                                 "llama_sharded",
                                 "mistral",
                                 "qwen2",
                                 "qwen3",
                                 "smollm2",
                                 "gpt2_gguf_f16/model.gguf",
                                 "llama3_gguf_f16/model.gguf",
                                 "llama_gguf_bf16/model.gguf",
                                 "llama_gguf_f16/model.gguf",
                                 "llama_gguf_f32/model.gguf",
                                 "llama_gguf_q4_0/model.gguf",
                                 "llama_gguf_q4_1/model.gguf",
                                 "llama_gguf_q8_0/model.gguf",
                                 "qwen2_gguf_f16/model.gguf",
                                 "qwen3_gguf_f16/model.gguf"}) {
    const auto files = OpenModel(Golden(name));
    ASSERT_TRUE(files.ok()) << name << ": " << files.status();
    for (const WeightEntry& entry : files->weights()) {
      const auto tensor = files->ReadWeight(entry.layer, entry.kind);
      ASSERT_TRUE(tensor.ok()) << name << " " << entry.tensor_name << ": " << tensor.status();
      EXPECT_EQ(tensor->shape, entry.shape) << name << " " << entry.tensor_name;
    }
    const TokenizerFiles& tokenizer = files->tokenizer();
    EXPECT_NE(tokenizer.tokenizer_json.empty(), !tokenizer.gguf.has_value()) << name;
    EXPECT_FALSE(tokenizer.chat_template.empty()) << name;
  }
}

// The containers of one model hold one set of weights: layouts are undone, up to the stored
// precision.
void ExpectSameWeights(const std::string& directory, const std::string& gguf, float tolerance) {
  const auto expected = OpenModel(Golden(directory));
  const auto actual = OpenModel(Golden(gguf));
  ASSERT_TRUE(expected.ok()) << expected.status();
  ASSERT_TRUE(actual.ok()) << actual.status();
  ASSERT_EQ(expected->weights().size(), actual->weights().size());
  for (const WeightEntry& entry : expected->weights()) {
    const std::vector<float> a = Floats(*expected, entry.layer, entry.kind);
    const std::vector<float> b = Floats(*actual, entry.layer, entry.kind);
    ASSERT_EQ(a.size(), b.size());
    for (size_t i = 0; i < a.size(); ++i) {
      ASSERT_NEAR(a[i], b[i], tolerance * std::abs(a[i]) + 1e-7f) << entry.tensor_name << " " << i;
    }
  }
}

TEST(ModelFilesTest, ContainersAgreeOnEveryWeight) {
  constexpr float kHalfUlp = 0x1p-11f;
  ExpectSameWeights("llama", "llama_gguf_f32/model.gguf", 0.0f);
  ExpectSameWeights("llama", "llama_gguf_f16/model.gguf", kHalfUlp);
  ExpectSameWeights("llama", "llama_gguf_bf16/model.gguf", 0x1p-8f);
  ExpectSameWeights("llama3", "llama3_gguf_f16/model.gguf", kHalfUlp);
  ExpectSameWeights("qwen2", "qwen2_gguf_f16/model.gguf", kHalfUlp);
  ExpectSameWeights("qwen3", "qwen3_gguf_f16/model.gguf", kHalfUlp);
  ExpectSameWeights("gpt2", "gpt2_gguf_f16/model.gguf", kHalfUlp);
}

TEST(ModelFilesTest, ContainersAgreeOnTheSpec) {
  for (const std::string name : {"llama3", "qwen2", "qwen3", "gpt2"}) {
    const auto hf = OpenModel(Golden(name));
    const auto gguf = OpenModel(Golden(name + "_gguf_f16/model.gguf"));
    ASSERT_TRUE(hf.ok() && gguf.ok());
    const ModelSpec& a = hf->spec();
    const ModelSpec& b = gguf->spec();
    EXPECT_EQ(a.hidden_size, b.hidden_size);
    EXPECT_EQ(a.head_dim, b.head_dim);
    EXPECT_EQ(a.num_kv_heads, b.num_kv_heads);
    EXPECT_EQ(a.intermediate_size, b.intermediate_size);
    EXPECT_EQ(a.vocab_size, b.vocab_size);
    EXPECT_EQ(a.max_position, b.max_position);
    EXPECT_EQ(a.norm_eps, b.norm_eps);
    EXPECT_EQ(a.activation, b.activation);
    EXPECT_EQ(a.qkv_bias, b.qkv_bias);
    EXPECT_EQ(a.tie_embeddings, b.tie_embeddings);
    EXPECT_EQ(a.attention_scale, b.attention_scale);
    EXPECT_EQ(a.sliding_window, b.sliding_window);
    const std::vector<float> frequencies = RopeFrequencies(a.rope);
    const std::vector<float> others = RopeFrequencies(b.rope);
    ASSERT_EQ(frequencies.size(), others.size());
    for (size_t i = 0; i < others.size(); ++i) {
      EXPECT_NEAR(frequencies[i], others[i], 1e-6f * frequencies[i]) << name << " " << i;
    }
  }
}

// A copy of a golden directory that a test may spoil.
class SpoiledModelTest : public ::testing::Test {
 protected:
  void Copy(const std::string& name) {
    std::filesystem::copy(Golden(name), directory_.path(),
                          std::filesystem::copy_options::recursive |
                              std::filesystem::copy_options::overwrite_existing);
  }
  void PatchConfig(const std::string& patch) {
    Json json = Json::parse(Content(directory_.path() + "/config.json"));
    json.update(Json::parse(patch));
    directory_.Write("config.json", json.dump());
  }
  std::string Message() {
    const auto files = OpenModel(directory_.path());
    EXPECT_FALSE(files.ok());
    return std::string(files.status().message());
  }
  TemporaryDirectory directory_;
};

TEST_F(SpoiledModelTest, RefusesAConfigOfAnotherModel) {
  const std::vector<std::pair<std::string, std::string>> cases = {
      {R"({"hidden_size": 128})",
       "'model.embed_tokens.weight': expected [320, 128], got [320, 64]"},
      {R"({"vocab_size": 321})", "expected [321, 64]"},
      {R"({"num_hidden_layers": 3})", "'model.layers.2.input_layernorm.weight' is missing"},
      {R"({"num_hidden_layers": 1})", "is no part of a llama model"},
      {R"({"attention_bias": true})", "q_proj.bias' is missing"},
      {R"({"mlp_bias": true})", "gate_proj.bias' is missing"},
      {R"({"num_key_value_heads": 4})", "k_proj.weight': expected [64, 64], got [32, 64]"},
      {R"({"head_dim": 32})", "q_proj.weight': expected [128, 64]"},
      {R"({"intermediate_size": 97})", "gate_proj.weight': expected [97, 64]"},
      {R"({"model_type": "qwen2", "architectures": ["Qwen2ForCausalLM"]})", "q_proj.bias'"},
      {R"({"model_type": "qwen3", "architectures": ["Qwen3ForCausalLM"], "head_dim": 16})",
       "q_norm.weight'"},
  };
  for (const auto& [patch, message] : cases) {
    Copy("llama");
    PatchConfig(patch);
    EXPECT_THAT(Message(), HasSubstr(message)) << patch;
  }
}

TEST_F(SpoiledModelTest, RefusesAbsentAndTruncatedFiles) {
  Copy("llama");
  const std::string weights = directory_.path() + "/model.safetensors";
  std::filesystem::resize_file(weights, std::filesystem::file_size(weights) - 1);
  EXPECT_THAT(Message(), HasSubstr("truncated"));
  std::filesystem::remove(weights);
  EXPECT_THAT(Message(), HasSubstr("only safetensors"));
  std::filesystem::remove(directory_.path() + "/config.json");
  EXPECT_THAT(Message(), HasSubstr("'config.json' does not exist"));
  EXPECT_EQ(OpenModel(directory_.path() + "/absent").status().code(), absl::StatusCode::kNotFound);
  EXPECT_FALSE(OpenModel(directory_.Write("model.bin", "x")).ok());
}

TEST_F(SpoiledModelTest, FindsTheChatTemplateWhereverItIs) {
  Copy("llama");
  directory_.Write("tokenizer_config.json", R"({"chat_template": [
      {"name": "tool_use", "template": "T"}, {"name": "default", "template": "D"}]})");
  EXPECT_EQ(OpenModel(directory_.path())->tokenizer().chat_template, "D");
  directory_.Write("chat_template.jinja", "J");
  EXPECT_EQ(OpenModel(directory_.path())->tokenizer().chat_template, "J");
  std::filesystem::remove(directory_.path() + "/chat_template.jinja");
  directory_.Write("tokenizer_config.json", R"({"chat_template": 3})");
  EXPECT_FALSE(OpenModel(directory_.path()).ok());
}

TEST(ModelFilesTest, RefusesEveryTruncationOfAGguf) {
  const std::string bytes = Content(Golden("llama_gguf_q4_0/model.gguf"));
  const TemporaryDirectory directory;
  for (size_t size = 0; size < bytes.size(); size += 997) {
    const std::string path = directory.Write("model.gguf", std::string_view(bytes).substr(0, size));
    EXPECT_FALSE(OpenModel(path).ok()) << size;
  }
}

TEST(ModelFilesTest, NamesTheWeightItDoesNotHave) {
  const auto files = OpenModel(Golden("qwen2"));
  ASSERT_TRUE(files.ok());
  EXPECT_TRUE(files->HasWeight(0, WeightKind::kQBias));
  EXPECT_FALSE(files->HasWeight(0, WeightKind::kOBias));
  EXPECT_FALSE(files->HasWeight(-1, WeightKind::kHead));
  EXPECT_EQ(files->ReadWeight(0, WeightKind::kOBias).status().code(), absl::StatusCode::kNotFound);
}

OwnedTensor Counting(DType dtype, std::vector<int64_t> shape) {
  OwnedTensor tensor;
  tensor.dtype = dtype;
  tensor.shape = std::move(shape);
  const TensorView view = tensor.view();
  const int64_t bytes = view.rows * RowBytes(dtype, view.cols);
  tensor.bytes = *OwnedBytes::Allocate(bytes);
  for (int64_t i = 0; i < bytes; ++i) tensor.bytes.data()[i] = static_cast<uint8_t>(i);
  return tensor;
}

TEST(WeightLayoutTest, TransposesWholeElements) {
  WeightEntry entry;
  entry.layout = WeightLayout::kTransposed;
  for (const DType dtype : {DType::kF32, DType::kF16, DType::kBF16}) {
    const int64_t size = InfoOf(dtype).block_bytes;
    const OwnedTensor stored = Counting(dtype, {35, 67});
    const auto logical = ToLogicalLayout(Counting(dtype, {35, 67}), entry);
    ASSERT_TRUE(logical.ok());
    EXPECT_EQ(logical->shape, (std::vector<int64_t>{67, 35}));
    for (int64_t row = 0; row < 35; ++row) {
      for (int64_t col = 0; col < 67; ++col) {
        ASSERT_EQ(
            std::memcmp(stored.bytes.data() + (row * 67 + col) * size,
                        logical->bytes.data() + (col * 35 + row) * size, static_cast<size_t>(size)),
            0);
      }
    }
  }
  EXPECT_FALSE(ToLogicalLayout(Counting(DType::kQ8_0, {2, 32}), entry).ok());
}

TEST(WeightLayoutTest, SplitsRotaryRowsOfBlocksWhole) {
  WeightEntry entry;
  entry.layout = WeightLayout::kInterleavedRows;
  entry.rotary_heads = 2;
  const auto logical = ToLogicalLayout(Counting(DType::kQ8_0, {8, 32}), entry);
  ASSERT_TRUE(logical.ok());
  const int64_t stored_row[8] = {0, 2, 1, 3, 4, 6, 5, 7};
  for (int64_t row = 0; row < 8; ++row) {
    EXPECT_EQ(logical->bytes.data()[row * 34], static_cast<uint8_t>(stored_row[row] * 34)) << row;
  }
  const auto bias = ToLogicalLayout(Counting(DType::kU8, {8}), entry);
  ASSERT_TRUE(bias.ok());
  for (int64_t row = 0; row < 8; ++row) EXPECT_EQ(bias->bytes.data()[row], stored_row[row]);
}

}  // namespace
}  // namespace polyad
