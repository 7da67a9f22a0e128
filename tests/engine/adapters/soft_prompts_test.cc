// What prompt-learning directories lower to and pack as, and the hostile ones that must be refused
// with a precise status.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "engine/adapters/family_table.h"
#include "engine/adapters/gated_prefix.h"
#include "engine/adapters/soft_prompt.h"
#include "kernels/backend_factory.h"
#include "tests/engine/adapters/adapter_bytes.h"
#include "tests/engine/adapters/tiny_spec.h"

namespace polyad {
namespace {

using ::testing::HasSubstr;

// A base whose every weight is the same number.
class ConstantBase final : public BaseWeights {
 public:
  StatusOr<std::vector<float>> Matrix(SiteRef site) const override {
    const SiteShape shape = ShapeOf(TinySpec(), site.site);
    return std::vector<float>(static_cast<size_t>(shape.out * shape.in), 0.5f);
  }
  StatusOr<std::vector<float>> Bias(SiteRef) const override { return std::vector<float>(); }
  StatusOr<NormVectors> Norm(int64_t, NormSite) const override { return NormVectors(); }
};

TestTensor Reshaped(TestTensor tensor, std::vector<int64_t> shape) {
  tensor.shape = std::move(shape);
  return tensor;
}

StatusOr<AdapterProgram> Lower(const std::string& config, const std::vector<TestTensor>& tensors,
                               AdapterOptions options = {}) {
  POLYAD_ASSIGN_OR_RETURN(AdapterSource source,
                          AdapterSource::FromBytes(config, SafetensorsBytes(tensors)));
  const ModelSpec spec = TinySpec();
  const ConstantBase base;
  return LowerAdapter(source, {spec, &base, std::move(options)});
}

std::string Config(const std::string& type, const std::string& more) {
  return R"({"peft_type":")" + type +
         R"(","num_virtual_tokens":3,"num_transformer_submodules":1,)" +
         R"("token_dim":32,"num_layers":2)" + more + "}";
}
const TestTensor kEmbeddings = FloatTensor("prompt_embeddings", 3, 32, 0.1f, 0.01f);

void ExpectRefused(const StatusOr<AdapterProgram>& got, absl::StatusCode code,
                   const std::string& why) {
  EXPECT_EQ(got.status().code(), code) << got.status();
  EXPECT_THAT(std::string(got.status().message()), HasSubstr(why));
}

TEST(SoftPrompts, EmbeddingsLowerAsTheyAre) {
  for (const char* type : {"PROMPT_TUNING", "P_TUNING", "CPT"}) {
    const StatusOr<AdapterProgram> program = Lower(Config(type, ""), {kEmbeddings});
    ASSERT_TRUE(program.ok()) << program.status();
    EXPECT_EQ(program->soft_prompt->num_tokens, 3);
    EXPECT_EQ(program->soft_prompt->embeddings.size(), 96u);
    EXPECT_FLOAT_EQ(program->soft_prompt->embeddings[1], 0.11f);
    EXPECT_TRUE(program->soft_prompt->kv.empty());
  }
}

TEST(SoftPrompts, ATaskIsEmbeddingsTimesItsColumnsAndRows) {
  const std::string config = Config("MULTITASK_PROMPT_TUNING", R"(,"num_tasks":2,"num_ranks":1)");
  const std::vector<TestTensor> tensors = {
      kEmbeddings, Reshaped(FloatTensor("prefix_task_cols", 2, 3, 1.0f, 1.0f), {2, 3, 1}),
      Reshaped(FloatTensor("prefix_task_rows", 2, 32, 2.0f, 0.0f), {2, 1, 32})};
  const StatusOr<AdapterProgram> program = Lower(config, tensors, {{"task", 1}});
  ASSERT_TRUE(program.ok()) << program.status();
  EXPECT_FLOAT_EQ(program->soft_prompt->embeddings[0], 0.1f * 4.0f * 2.0f);  // cols[1][0] is 4
  ExpectRefused(Lower(config, tensors), absl::StatusCode::kInvalidArgument, "option 'task'");
  ExpectRefused(Lower(config, tensors, {{"task", 2}}), absl::StatusCode::kInvalidArgument,
                "expected a value in [0, 1], got 2");
  ExpectRefused(Lower(Config("CPT", ""), {kEmbeddings}, {{"task", 0}}),
                absl::StatusCode::kInvalidArgument, "no such choice");
}

TEST(SoftPrompts, APrefixIsKeysAndValuesOfEachLayer) {
  for (const char* type : {"PREFIX_TUNING", "CARTRIDGE"}) {
    const StatusOr<AdapterProgram> program =
        Lower(Config(type, ""), {FloatTensor("prompt_embeddings", 3, 64, 0, 1)});
    ASSERT_TRUE(program.ok()) << program.status();
    ASSERT_EQ(program->soft_prompt->kv.size(), 2u);
    EXPECT_EQ(program->soft_prompt->kv[1].size(), 96u);
    EXPECT_FLOAT_EQ(program->soft_prompt->kv[0][33], (64 + 1) % 17);  // token 1 of layer 0
    EXPECT_FLOAT_EQ(program->soft_prompt->kv[1][0], 32 % 17);         // token 0 of layer 1
    EXPECT_TRUE(program->soft_prompt->shifts_positions);
  }
}

TEST(SoftPrompts, RefusesWhatDoesNotFit) {
  const auto precondition = absl::StatusCode::kFailedPrecondition;
  const auto malformed = absl::StatusCode::kInvalidArgument;
  const std::string config = Config("PROMPT_TUNING", "");
  ExpectRefused(Lower(config, {FloatTensor("prompt_embeddings", 3, 31, 0.1f, 0.01f)}), precondition,
                "prompt_embeddings: expected [3, 32], got [3, 31]");
  ExpectRefused(Lower(config, {FloatTensor("prompt_embeddings", 2, 32, 0.1f, 0.01f)}), precondition,
                "prompt_embeddings");
  ExpectRefused(Lower(Config("PREFIX_TUNING", ""), {kEmbeddings}), precondition,
                "prompt_embeddings: expected [3, 64]");
  ExpectRefused(Lower(config, {}), malformed, "prompt_embeddings");
  ExpectRefused(Lower(config, {kEmbeddings, FloatTensor("extra", 1, 1, 1, 0)}), malformed, "extra");
  ExpectRefused(Lower(config, {FloatTensor("prompt_embeddings", 3, 32, 1.0f, 1e38f)}), malformed,
                "NaN or an infinity");
  ExpectRefused(Lower(R"({"peft_type":"CPT","num_virtual_tokens":0})", {kEmbeddings}), malformed,
                "num_virtual_tokens");
}

TEST(SoftPrompts, RefusesWhatItDoesNotUnderstand) {
  const auto unserved = absl::StatusCode::kUnimplemented;
  const TestTensor head = FloatTensor("base_model.model.lm_head.weight", 16, 32, 0.1f, 0.0f);
  ExpectRefused(
      Lower(Config("PROMPT_TUNING", R"(,"modules_to_save":["lm_head"])"), {kEmbeddings, head}),
      unserved, "modules_to_save");
  ExpectRefused(Lower(Config("PROMPT_TUNING", R"(,"scale":2)"), {kEmbeddings}), unserved, "scale");
  ExpectRefused(
      Lower(R"({"peft_type":"P_TUNING","num_virtual_tokens":3,"num_transformer_submodules":2})",
            {kEmbeddings}),
      unserved, "encoder");
}

TEST(SoftPrompts, PackingKeepsRowsByLayerAndHidesTheLayersLeftOut) {
  const auto backend = *MakeBackend("reference", {});
  SoftPromptTensors tensors;
  tensors.num_tokens = 2;
  tensors.kv = {std::vector<float>(), std::vector<float>(64, 3.0f)};
  const auto prompt = PackSoftPrompt(tensors, TinySpec(), *backend);
  ASSERT_TRUE(prompt.ok()) << prompt.status();
  EXPECT_TRUE((*prompt)->stores_kv);
  EXPECT_EQ((*prompt)->kv[0].rows, 0);
  EXPECT_EQ((*prompt)->kv[1].rows, 2);
  EXPECT_EQ((*prompt)->kv[1].Row(1)[31], 3.0f);
  EXPECT_EQ((*prompt)->bytes, 256);
  tensors.kv[1].clear();
  EXPECT_FALSE(PackSoftPrompt(tensors, TinySpec(), *backend).ok());
}

TEST(SoftPrompts, GatesOfKeysHaveTheirLimit) {
  const auto backend = *MakeBackend("reference", {});
  SoftPromptTensors tensors;
  for (const int64_t count : {kMaxGatedKeys, kMaxGatedKeys + 1}) {
    tensors.num_tokens = count;
    const auto rows = static_cast<size_t>(count);
    tensors.kv = {std::vector<float>(rows * 32), std::vector<float>(rows * 32)};
    const KeyGateTensors gates{std::vector<float>(rows * 32), std::vector<float>(rows)};
    tensors.key_gates = {gates, gates};
    const Status status = PackSoftPrompt(tensors, TinySpec(), *backend).status();
    EXPECT_EQ(absl::IsResourceExhausted(status), count > kMaxGatedKeys) << status;
  }
}

TEST(SoftPrompts, APrefixWithoutPositionsIsRefusedBesideASlidingWindow) {
  const auto backend = *MakeBackend("reference", {});
  SoftPromptTensors tensors;
  tensors.num_tokens = 1;
  tensors.kv = {std::vector<float>(32), std::vector<float>(32)};
  tensors.shifts_positions = false;
  EXPECT_TRUE(PackSoftPrompt(tensors, TinySpec(), *backend).ok());
  ModelSpec sliding = TinySpec();
  sliding.sliding_window = {0, 8};
  const Status status = PackSoftPrompt(tensors, sliding, *backend).status();
  EXPECT_TRUE(absl::IsUnimplemented(status)) << status;
}

const std::string kAttention = "base_model.model.model.layers.1.self_attn.";
std::vector<TestTensor> AdaptionTensors() {
  return {Reshaped(FloatTensor(kAttention + "adaption_prompt", 2, 32, 1.0f, 0.0f), {1, 2, 32}),
          Reshaped(FloatTensor(kAttention + "adaption_gate", 1, 1, 0.25f, 0.0f), {1})};
}
const std::string kAdaption =
    R"({"peft_type":"ADAPTION_PROMPT","adapter_len":2,"adapter_layers":1,"target_modules":"self_attn"})";

TEST(AdaptionPrompt, KeysAndValuesAreTheBasesProjections) {
  const StatusOr<AdapterProgram> program = Lower(kAdaption, AdaptionTensors());
  ASSERT_TRUE(program.ok()) << program.status();
  ASSERT_EQ(program->gated_prefixes.size(), 1u);
  const GatedPrefixTensors& prefix = program->gated_prefixes[0];
  EXPECT_EQ(prefix.layer, 1);
  EXPECT_EQ(prefix.kv, std::vector<float>(64, 16.0f));  // 32 ones times 0.5
  EXPECT_EQ(prefix.gate, std::vector<float>(4, 0.25f));
  EXPECT_FALSE(prefix.after_projection);
}

TEST(AdaptionPrompt, RefusesWhatDoesNotFit) {
  std::vector<TestTensor> tensors = AdaptionTensors();
  tensors.pop_back();
  ExpectRefused(Lower(kAdaption, tensors), absl::StatusCode::kInvalidArgument, "adaption_gate");
  tensors = AdaptionTensors();
  tensors[0].name = "base_model.model.model.layers.0.self_attn.adaption_prompt";
  ExpectRefused(Lower(kAdaption, tensors), absl::StatusCode::kInvalidArgument, "layers.1");
  ExpectRefused(Lower(R"({"peft_type":"ADAPTION_PROMPT","adapter_len":2,"adapter_layers":3})",
                      AdaptionTensors()),
                absl::StatusCode::kInvalidArgument, "adapter_layers");
}

TEST(GatedPrefix, PacksWhatFitsTheModel) {
  const auto backend = *MakeBackend("reference", {});
  GatedPrefixTensors tensors{1, 2, std::vector<float>(64, 1.0f), std::vector<float>(4, 0.5f),
                             false};
  const StatusOr<GatedPrefix> prefix = PackGatedPrefix(tensors, TinySpec(), *backend);
  ASSERT_TRUE(prefix.ok()) << prefix.status();
  EXPECT_EQ(prefix->kv.rows, 2);
  EXPECT_EQ(prefix->kv.cols, 32);
  tensors.gate.pop_back();
  EXPECT_FALSE(PackGatedPrefix(tensors, TinySpec(), *backend).ok());
  tensors.gate.push_back(1);
  tensors.layer = 2;
  EXPECT_FALSE(PackGatedPrefix(tensors, TinySpec(), *backend).ok());
}

TEST(SoftPrompt, IsChosenByTheMeanOfItsTextsScoresAndTimesItsShare) {
  SoftPrompt prompt;
  prompt.num_tokens = 5;
  EXPECT_EQ(prompt.Choose({}).first, 0);
  EXPECT_EQ(prompt.Choose({}).scale, 1.0f);
  prompt.num_prompts = 2;
  prompt.token_scores = {1, 0, 0, 3, 2, 2};  // of tokens 0, 1, 2
  const auto choose = [&prompt](std::vector<int32_t> text) { return prompt.Choose(text); };
  EXPECT_EQ(choose({0}).first, 0);
  EXPECT_NEAR(choose({0}).scale, 1 / (1 + std::exp(-1.0)), 1e-6);
  EXPECT_EQ(choose({0, 1}).first, 5);
  EXPECT_NEAR(choose({0, 1}).scale, 1 / (1 + std::exp(-1.0)), 1e-6);
  EXPECT_EQ(choose({2}).first, 0);  // of equal ones the first
  EXPECT_EQ(choose({2}).scale, 0.5f);
}

}  // namespace
}  // namespace polyad
