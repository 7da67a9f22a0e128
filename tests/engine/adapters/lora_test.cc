// What LoRA directories lower to, and the hostile ones that must be refused with a precise status.
#include <cmath>
#include <functional>
#include <limits>

#include "engine/adapters/delta_norms.h"
#include "engine/adapters/family_table.h"
#include "gtest/gtest.h"
#include "tests/engine/adapters/adapter_bytes.h"
#include "tests/engine/adapters/tiny_spec.h"

namespace polyad {
namespace {

const std::string kQ0 = "base_model.model.model.layers.0.self_attn.q_proj";
const std::string kV1 = "base_model.model.model.layers.1.self_attn.v_proj";

struct Files {
  std::string config =
      R"({"peft_type":"LORA","r":4,"lora_alpha":8,"target_modules":["q_proj","v_proj"],"bias":"none"})";
  std::vector<TestTensor> tensors = {FloatTensor(kQ0 + ".lora_A.weight", 4, 32, 0.1f, 0.01f),
                                     FloatTensor(kQ0 + ".lora_B.weight", 32, 4, -0.2f, 0.03f),
                                     FloatTensor(kV1 + ".lora_A.weight", 4, 32, 0.3f, -0.02f),
                                     FloatTensor(kV1 + ".lora_B.weight", 16, 4, 0.05f, 0.01f)};
};

StatusOr<AdapterProgram> Lower(const Files& files, AdapterSource* keep) {
  StatusOr<AdapterSource> source =
      AdapterSource::FromBytes(files.config, SafetensorsBytes(files.tensors));
  if (!source.ok()) return source.status();
  *keep = std::move(*source);
  static const ModelSpec spec = TinySpec();
  return LowerAdapter(*keep, {spec});
}

StatusOr<AdapterProgram> Lower(const Files& files) {
  StatusOr<AdapterSource> source =
      AdapterSource::FromBytes(files.config, SafetensorsBytes(files.tensors));
  if (!source.ok()) return source.status();
  const ModelSpec spec = TinySpec();
  POLYAD_ASSIGN_OR_RETURN(AdapterProgram program, LowerAdapter(*source, {spec}));
  POLYAD_RETURN_IF_ERROR(LayerDeltaNorms(program, spec).status());
  for (SiteOp& op : program.ops) std::get<LowRank>(op.op).a.data = nullptr;  // the source dies here
  return program;
}

TEST(Lora, LowersEachModuleToOneLowRankWithItsScale) {
  const StatusOr<AdapterProgram> program = Lower(Files());
  ASSERT_TRUE(program.ok()) << program.status();
  ASSERT_EQ(program->ops.size(), 2u);
  EXPECT_EQ(program->ops[0].site, (SiteRef{0, Site::kQ}));
  EXPECT_EQ(program->ops[1].site, (SiteRef{1, Site::kV}));
  EXPECT_FLOAT_EQ(std::get<LowRank>(program->ops[0].op).scale, 2.0f);
}

TEST(Lora, RankStabilisedScaleIsAlphaOverTheRootOfTheRank) {
  Files files;
  files.config = R"({"peft_type":"LORA","r":4,"lora_alpha":8,"use_rslora":true})";
  const StatusOr<AdapterProgram> program = Lower(files);
  ASSERT_TRUE(program.ok()) << program.status();
  EXPECT_FLOAT_EQ(std::get<LowRank>(program->ops[0].op).scale, 4.0f);
}

TEST(Lora, TheFirstMatchingPatternInFileOrderWins) {
  Files files;
  files.config = R"({"peft_type":"LORA","r":9,"lora_alpha":8,"rank_pattern":{"[qv]_proj":4},)"
                 R"("alpha_pattern":{"layers.0.self_attn.q_proj":12,"q_proj":99,"roj":7}})";
  const StatusOr<AdapterProgram> program = Lower(files);
  ASSERT_TRUE(program.ok()) << program.status();
  EXPECT_FLOAT_EQ(std::get<LowRank>(program->ops[0].op).scale, 3.0f);
  EXPECT_FLOAT_EQ(std::get<LowRank>(program->ops[1].op).scale, 2.0f);  // "roj" is no whole name
}

// A base that gives no whole matrix.
class ProductsAlone final : public BaseWeights {
 public:
  StatusOr<std::vector<float>> Matrix(SiteRef) const override {
    return FailedPrecondition("a whole matrix");
  }
  StatusOr<std::vector<float>> Bias(SiteRef) const override { return std::vector<float>(); }
  StatusOr<NormVectors> Norm(int64_t, NormSite) const override { return NormVectors(); }
  StatusOr<std::vector<double>> RowSquares(SiteRef site, int64_t) const override {
    return std::vector<double>(static_cast<size_t>(ShapeOf(TinySpec(), site.site).out), 9.0);
  }
  StatusOr<std::vector<float>> Products(SiteRef site, const TensorView& inputs) const override {
    const int64_t out = ShapeOf(TinySpec(), site.site).out;
    return std::vector<float>(static_cast<size_t>(inputs.rows * out), 0.25f);
  }
};

TEST(Lora, DoraNeedsProductsAndLengthsOfTheBaseAlone) {
  Files files;
  files.config = R"({"peft_type":"LORA","r":1,"lora_alpha":1,"use_dora":true})";
  files.tensors = {FloatTensor(kQ0 + ".lora_A.weight", 1, 32, 0.5f, 0.0f),
                   FloatTensor(kQ0 + ".lora_B.weight", 32, 1, 2.0f, 0.0f),
                   FloatTensor(kQ0 + ".lora_magnitude_vector", 1, 32, 3.0f, 0.0f)};
  files.tensors[2].shape = {32};
  StatusOr<AdapterSource> source =
      AdapterSource::FromBytes(files.config, SafetensorsBytes(files.tensors));
  ASSERT_TRUE(source.ok()) << source.status();
  const ModelSpec spec = TinySpec();
  const ProductsAlone base;
  const StatusOr<AdapterProgram> program = LowerAdapter(*source, {spec, &base});
  ASSERT_TRUE(program.ok()) << program.status();
  EXPECT_TRUE(program->read_base);
  ASSERT_EQ(program->ops[0].stage, OpStage::kOutput);
  // |W|^2 + 2 b (a . w) + b^2 |a|^2 = 9 + 2 * 2 * 0.25 + 4 * 32 * 0.25
  EXPECT_FLOAT_EQ(std::get<OutputScale>(program->ops[0].op).values[5], 3.0f / std::sqrt(42.0f));
}

TEST(Lora, TheNormOfTheChangeIsThatOfTheFormedProduct) {
  AdapterSource source;
  const StatusOr<AdapterProgram> program = Lower(Files(), &source);
  ASSERT_TRUE(program.ok()) << program.status();
  const LowRank& op = std::get<LowRank>(program->ops[0].op);
  const auto* a = static_cast<const float*>(op.a.data);
  const auto* b = static_cast<const float*>(op.b.data);
  double square = 0;
  for (int64_t row = 0; row < 32; ++row) {
    for (int64_t col = 0; col < 32; ++col) {
      double value = 0;
      for (int64_t k = 0; k < 4; ++k) {
        value += static_cast<double>(b[row * 4 + k]) * static_cast<double>(a[k * 32 + col]);
      }
      square += 4.0 * value * value;  // scale 2
    }
  }
  // To what gram.h sums in fp32.
  EXPECT_NEAR(FrobeniusNorm(program->ops[0].op), std::sqrt(square), 1e-6 * std::sqrt(square));
}

struct Hostile {
  const char* name;
  std::function<void(Files&)> spoil;
  absl::StatusCode code;
  const char* message_part;
};

std::string WithKey(const std::string& member) {
  return R"({"peft_type":"LORA","r":4,"lora_alpha":8,)" + member + "}";
}

const Hostile kHostile[] = {
    {"NotJson", [](Files& f) { f.config = "{"; }, absl::StatusCode::kInvalidArgument,
     "adapter_config.json"},
    {"ConfigIsAList", [](Files& f) { f.config = "[]"; }, absl::StatusCode::kInvalidArgument,
     "adapter_config.json"},
    {"NoPeftType", [](Files& f) { f.config = R"({"r":4})"; }, absl::StatusCode::kInvalidArgument,
     "peft_type"},
    {"UnknownFamily", [](Files& f) { f.config = R"({"peft_type":"NEWEST"})"; },
     absl::StatusCode::kUnimplemented, "NEWEST"},
    {"DoraWithoutABase", [](Files& f) { f.config = WithKey(R"("use_dora":true)"); },
     absl::StatusCode::kFailedPrecondition, "base"},
    {"BiasOfBMissing", [](Files& f) { f.config = WithKey(R"("lora_bias":true)"); },
     absl::StatusCode::kInvalidArgument, "lora_B.bias: missing"},
    {"BiasOfBUnannounced",
     [](Files& f) { f.tensors.push_back(FloatTensor(kQ0 + ".lora_B.bias", 1, 32, 1, 0)); },
     absl::StatusCode::kInvalidArgument, "lora_B.bias"},
    {"TwoVariants",
     [](Files& f) { f.config = WithKey(R"("use_dora":true,"alora_invocation_tokens":[1])"); },
     absl::StatusCode::kUnimplemented, "two variants"},
    {"InvocationOutsideTheVocabulary",
     [](Files& f) { f.config = WithKey(R"("alora_invocation_tokens":[100])"); },
     absl::StatusCode::kInvalidArgument, "alora_invocation_tokens"},
    {"LayerReplication", [](Files& f) { f.config = WithKey(R"("layer_replication":[[0,1]])"); },
     absl::StatusCode::kUnimplemented, "layer_replication"},
    {"PissaWithoutABase", [](Files& f) { f.config = WithKey(R"("init_lora_weights":"pissa")"); },
     absl::StatusCode::kFailedPrecondition, "base"},
    {"PissaByIterations",
     [](Files& f) { f.config = WithKey(R"("init_lora_weights":"pissa_niter_4")"); },
     absl::StatusCode::kUnimplemented, "pissa_niter_4"},
    {"AnUnknownKeyThatSaysSomething", [](Files& f) { f.config = WithKey(R"("use_magic":3)"); },
     absl::StatusCode::kUnimplemented, "use_magic"},
    {"RankDisagreesWithTensors", [](Files& f) { f.config = R"({"peft_type":"LORA","r":5})"; },
     absl::StatusCode::kInvalidArgument, "rank 5"},
    {"RankZero", [](Files& f) { f.config = R"({"peft_type":"LORA","r":0})"; },
     absl::StatusCode::kInvalidArgument, "key 'r'"},
    {"RankFractional", [](Files& f) { f.config = R"({"peft_type":"LORA","r":2.5})"; },
     absl::StatusCode::kInvalidArgument, "rank"},
    {"RankNegative", [](Files& f) { f.config = R"({"peft_type":"LORA","r":-4})"; },
     absl::StatusCode::kInvalidArgument, "'r'"},
    {"RankAString", [](Files& f) { f.config = R"({"peft_type":"LORA","r":"4"})"; },
     absl::StatusCode::kInvalidArgument, "'r'"},
    {"AlphaHuge", [](Files& f) { f.config = R"({"peft_type":"LORA","r":4,"lora_alpha":1e30})"; },
     absl::StatusCode::kInvalidArgument, "lora_alpha"},
    {"AlphaZero", [](Files& f) { f.config = R"({"peft_type":"LORA","r":4,"lora_alpha":0})"; },
     absl::StatusCode::kInvalidArgument, "does nothing"},
    {"PatternNoRegex", [](Files& f) { f.config = WithKey(R"("rank_pattern":{"(":4})"); },
     absl::StatusCode::kInvalidArgument, "rank_pattern"},
    {"PatternNoNumber", [](Files& f) { f.config = WithKey(R"("alpha_pattern":{"q_proj":"x"})"); },
     absl::StatusCode::kInvalidArgument, "alpha_pattern"},
    {"OnlyA", [](Files& f) { f.tensors.erase(f.tensors.begin() + 1); },
     absl::StatusCode::kInvalidArgument, "lora_B.weight: missing"},
    {"OnlyB", [](Files& f) { f.tensors.erase(f.tensors.begin()); },
     absl::StatusCode::kInvalidArgument, "lora_A.weight: missing"},
    {"NoTensors", [](Files& f) { f.tensors.clear(); }, absl::StatusCode::kInvalidArgument,
     "adapter_model.safetensors"},
    {"AnUnreadTensor",
     [](Files& f) { f.tensors.push_back(FloatTensor("base_model.model.extra", 1, 1, 1, 0)); },
     absl::StatusCode::kInvalidArgument, "base_model.model.extra"},
    {"WrongHiddenSize",
     [](Files& f) { f.tensors[0] = FloatTensor(kQ0 + ".lora_A.weight", 4, 64, 0.1f, 0.1f); },
     absl::StatusCode::kFailedPrecondition, "expected [4, 32], got [4, 64]"},
    {"WrongOutputSize",
     [](Files& f) { f.tensors[1] = FloatTensor(kQ0 + ".lora_B.weight", 31, 4, 0.1f, 0.1f); },
     absl::StatusCode::kFailedPrecondition, "expected [32, 4], got [31, 4]"},
    {"Transposed",
     [](Files& f) { f.tensors[0] = FloatTensor(kQ0 + ".lora_A.weight", 32, 4, 0.1f, 0.1f); },
     absl::StatusCode::kInvalidArgument, "[32, 4]"},
    {"UnknownModule",
     [](Files& f) {
       f.tensors[0].name = "base_model.model.model.layers.0.mlp.router.lora_A.weight";
     },
     absl::StatusCode::kFailedPrecondition, "mlp.router"},
    {"LayerPastTheModel",
     [](Files& f) {
       f.tensors[0].name =
           "base_model.model.model.layers.1000000000.self_attn.q_proj.lora_A.weight";
     },
     absl::StatusCode::kFailedPrecondition, "layers.1000000000"},
    {"OnTheHead",
     [](Files& f) {
       f.tensors[0] = FloatTensor("base_model.model.lm_head.lora_A.weight", 4, 32, 1, 0);
     },
     absl::StatusCode::kInvalidArgument, "lm_head.lora_B.weight: missing"},
    {"NotANumber",
     [](Files& f) {
       const float nan = std::numeric_limits<float>::quiet_NaN();
       f.tensors[0] = FloatTensor(kQ0 + ".lora_A.weight", 4, 32, nan, 0);
     },
     absl::StatusCode::kInvalidArgument, "NaN"},
    {"Infinite",
     [](Files& f) {
       const float infinity = std::numeric_limits<float>::infinity();
       f.tensors[3] = FloatTensor(kV1 + ".lora_B.weight", 16, 4, infinity, 0);
     },
     absl::StatusCode::kInvalidArgument, "infinity"},
    {"EveryChangeZero",
     [](Files& f) {
       f.tensors[1] = FloatTensor(kQ0 + ".lora_B.weight", 32, 4, 0, 0);
       f.tensors[3] = FloatTensor(kV1 + ".lora_B.weight", 16, 4, 0, 0);
     },
     absl::StatusCode::kInvalidArgument, "does nothing"},
    {"IntegerTensor", [](Files& f) { f.tensors[0].dtype = "I32"; },
     absl::StatusCode::kInvalidArgument, "f32, f16 or bf16"},
    {"ThreeDimensions",
     [](Files& f) {
       f.tensors[0].shape = {4, 4, 8};
     },
     absl::StatusCode::kInvalidArgument, "2 dimensions"},
};

class HostileLora : public testing::TestWithParam<Hostile> {};

TEST_P(HostileLora, IsRefusedByName) {
  Files files;
  GetParam().spoil(files);
  const StatusOr<AdapterProgram> program = Lower(files);
  ASSERT_FALSE(program.ok());
  EXPECT_EQ(program.status().code(), GetParam().code) << program.status();
  EXPECT_NE(std::string(program.status().message()).find(GetParam().message_part),
            std::string::npos)
      << program.status();
}

INSTANTIATE_TEST_SUITE_P(Files, HostileLora, testing::ValuesIn(kHostile),
                         [](const auto& test) { return test.param.name; });

TEST(AdapterSource, EveryTruncationOfTheFileIsAnError) {
  const Files files;
  const std::string bytes = SafetensorsBytes(files.tensors);
  for (size_t length = 0; length < bytes.size(); length += 13) {
    EXPECT_FALSE(AdapterSource::FromBytes(files.config, bytes.substr(0, length)).ok()) << length;
  }
}

TEST(AdapterSource, TheDigestCoversConfigAndTensors) {
  Files files;
  const auto digest = [&files] {
    return ToHex(AdapterSource::FromBytes(files.config, SafetensorsBytes(files.tensors))->digest());
  };
  const std::string before = digest();
  files.config += " ";
  const std::string after = digest();
  files.tensors[0].bytes[5] = 'x';
  EXPECT_NE(before, after);
  EXPECT_NE(after, digest());
}

}  // namespace
}  // namespace polyad
