// `bias` and `modules_to_save` of a PEFT configuration against the tensors that PEFT 0.21.2 writes
// for them: with biases in the base (q, k, v as Qwen2 has them) and without.
#include "engine/adapters/replacement_config.h"

#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "tests/engine/adapters/adapter_bytes.h"
#include "tests/engine/adapters/tiny_spec.h"

namespace polyad {
namespace {

const std::string kLayer0 = "base_model.model.model.layers.0.";
const std::string kLayer1 = "base_model.model.model.layers.1.";
using Names = std::vector<std::string>;

ModelSpec WithBiases() {
  ModelSpec spec = TinySpec();
  spec.architecture = Architecture::kQwen2;
  spec.qkv_bias = true;
  return spec;
}

// Of a file with q_proj wrapped in both layers, and the named tensors beside it.
Status Check(const std::string& member, const Names& beside, const ModelSpec& spec) {
  std::vector<TestTensor> tensors;
  for (const std::string& layer : {kLayer0, kLayer1}) {
    tensors.push_back(FloatTensor(layer + "self_attn.q_proj.lora_A.weight", 4, 32, 0.1f, 0));
    tensors.push_back(FloatTensor(layer + "self_attn.q_proj.lora_B.weight", 32, 4, 0.1f, 0));
  }
  for (const std::string& name : beside) tensors.push_back(FloatTensor(name, 1, 1, 0.1f, 0));
  const std::string config = R"({"peft_type":"LORA","r":4)" + (member.empty() ? "" : "," + member);
  const StatusOr<AdapterSource> source =
      AdapterSource::FromBytes(config + "}", SafetensorsBytes(tensors));
  return source.ok() ? CheckReplacementConfig(*source, spec) : source.status();
}

void ExpectRefused(const Status& status, absl::StatusCode code, const std::string& part) {
  EXPECT_EQ(status.code(), code) << status;
  EXPECT_NE(std::string(status.message()).find(part), std::string::npos) << status;
}

const Names kBiasesOfQ = {kLayer0 + "self_attn.q_proj.base_layer.bias",
                          kLayer1 + "self_attn.q_proj.base_layer.bias"};

Names EveryBias() {
  Names names = kBiasesOfQ;
  for (const std::string& layer : {kLayer0, kLayer1}) {
    for (const char* module : {"k", "v"})
      names.push_back(layer + "self_attn." + module + "_proj.bias");
  }
  return names;
}

TEST(ReplacementConfig, OtherKindsOfBiasAreRefusedByName) {
  for (const char* value : {R"("some")", R"("")", R"("ALL")", R"("only")"}) {
    ExpectRefused(Check(std::string(R"("bias":)") + value, {}, TinySpec()),
                  absl::StatusCode::kUnimplemented, "bias = '");
  }
  for (const char* value : {"true", "1", "[\"all\"]", "{}"}) {
    ExpectRefused(Check(std::string(R"("bias":)") + value, {}, TinySpec()),
                  absl::StatusCode::kInvalidArgument, "key 'bias'");
  }
  for (const char* member : {"", R"("bias":null)", R"("bias":"none")", R"("bias":"boft_only")"}) {
    EXPECT_TRUE(Check(member, {}, TinySpec()).ok()) << member;
  }
}

TEST(ReplacementConfig, ABaseWithoutBiasesHasNoneToSave) {
  EXPECT_TRUE(Check(R"("bias":"all")", {}, TinySpec()).ok());
  EXPECT_TRUE(Check(R"("bias":"lora_only")", {}, TinySpec()).ok());
}

TEST(ReplacementConfig, AllMeansEveryBiasOfTheBase) {
  EXPECT_TRUE(Check(R"("bias":"all")", EveryBias(), WithBiases()).ok());
  for (size_t i = 0; i < EveryBias().size(); ++i) {
    Names names = EveryBias();
    names.erase(names.begin() + static_cast<std::ptrdiff_t>(i));
    ExpectRefused(Check(R"("bias":"all")", names, WithBiases()), absl::StatusCode::kInvalidArgument,
                  "missing");
  }
}

TEST(ReplacementConfig, OnlyMeansTheBiasesOfWrappedModules) {
  const std::string only = R"("bias":"lora_only")";
  EXPECT_TRUE(Check(only, kBiasesOfQ, WithBiases()).ok());
  // As older versions wrote them.
  EXPECT_TRUE(Check(only, {kLayer0 + "self_attn.q_proj.bias", kLayer1 + "self_attn.q_proj.bias"},
                    WithBiases())
                  .ok());
  ExpectRefused(Check(only, {kBiasesOfQ[0]}, WithBiases()), absl::StatusCode::kInvalidArgument,
                "layers.1.self_attn.q_proj.bias: missing");
  ExpectRefused(Check(only, {}, WithBiases()), absl::StatusCode::kInvalidArgument, "missing");
}

TEST(ReplacementConfig, ABiasThatTheConfigurationDeniesIsRefused) {
  for (const char* member : {"", R"("bias":"none")"}) {
    for (const ModelSpec& spec : {TinySpec(), WithBiases()}) {
      ExpectRefused(Check(member, {kBiasesOfQ[0]}, spec), absl::StatusCode::kInvalidArgument,
                    kBiasesOfQ[0] + ": adapter_config.json denies it");
      ExpectRefused(Check(member, {kLayer0 + "mlp.up_proj.bias"}, spec),
                    absl::StatusCode::kInvalidArgument, "up_proj.bias");
    }
  }
  ModelSpec gpt2 = TinySpec();
  gpt2.architecture = Architecture::kGpt2;
  gpt2.norm = NormKind::kLayer;
  gpt2.gated_mlp = false;
  gpt2.fused_qkv = true;
  ExpectRefused(
      Check(R"("bias":"lora_only")", {"base_model.model.transformer.h.0.ln_1.bias"}, gpt2),
      absl::StatusCode::kInvalidArgument, "ln_1.bias");
  // Part of a module that is saved whole.
  EXPECT_TRUE(Check(R"("modules_to_save":["v_proj"])",
                    {kLayer0 + "self_attn.v_proj.weight", kLayer0 + "self_attn.v_proj.bias",
                     kLayer1 + "self_attn.v_proj.weight", kLayer1 + "self_attn.v_proj.bias"},
                    WithBiases())
                  .ok());
}

TEST(ReplacementConfig, EverySavedModuleOfTheBaseIsThere) {
  const Names norms = {kLayer0 + "input_layernorm.weight", kLayer1 + "input_layernorm.weight",
                       kLayer0 + "post_attention_layernorm.weight",
                       kLayer1 + "post_attention_layernorm.weight",
                       "base_model.model.model.norm.weight"};
  const std::string saves_norms = R"("modules_to_save":["norm"])";  // all paths that end so
  EXPECT_TRUE(Check(saves_norms, norms, TinySpec()).ok());
  for (size_t i = 0; i < norms.size(); ++i) {
    Names names = norms;
    names.erase(names.begin() + static_cast<std::ptrdiff_t>(i));
    ExpectRefused(Check(saves_norms, names, TinySpec()), absl::StatusCode::kInvalidArgument,
                  norms[i] + ": missing");
  }
  ExpectRefused(Check(R"("modules_to_save":["lm_head"])", {}, TinySpec()),
                absl::StatusCode::kInvalidArgument, "lm_head.weight: missing");
  // A module of modules.
  ExpectRefused(Check(R"("modules_to_save":["mlp"])", {kLayer0 + "mlp.up_proj.weight"}, TinySpec()),
                absl::StatusCode::kInvalidArgument, "mlp.");
  // What the base has no module for trains nothing.
  EXPECT_TRUE(Check(R"("modules_to_save":["classifier","score"])", {}, TinySpec()).ok());
  for (const char* value : {R"("lm_head")", "[1]", "{}"}) {
    ExpectRefused(Check(std::string(R"("modules_to_save":)") + value, {}, TinySpec()),
                  absl::StatusCode::kInvalidArgument, "key 'modules_to_save'");
  }
}

TEST(ReplacementConfig, ATiedHeadMayStandAsTheEmbedding) {
  ModelSpec tied = TinySpec();
  tied.tie_embeddings = true;
  const std::string member = R"("modules_to_save":["lm_head"])";
  EXPECT_TRUE(Check(member, {"base_model.model.lm_head.weight"}, tied).ok());
  EXPECT_TRUE(Check(member, {"base_model.model.model.embed_tokens.weight"}, tied).ok());
  ExpectRefused(Check(member, {}, tied), absl::StatusCode::kInvalidArgument, "lm_head.weight");
}

}  // namespace
}  // namespace polyad
