#include "engine/spec/hf_config.h"

#include <cmath>
#include <string>
#include <vector>

#include "engine/io/json.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace polyad {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr char kLlama[] = R"({"architectures": ["LlamaForCausalLM"], "model_type": "llama",
  "vocab_size": 320, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2,
  "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 128,
  "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "bos_token_id": 1, "eos_token_id": 2})";

// kLlama with members of `patch` replaced or added.
std::string Patched(const std::string& patch) {
  Json json = Json::parse(kLlama);
  json.update(Json::parse(patch));
  return json.dump();
}

StatusOr<ModelSpec> Spec(const std::string& patch) { return SpecFromHfConfig(Patched(patch), ""); }

struct Refusal {
  std::string patch;
  absl::StatusCode code;
  const char* message;
};

constexpr absl::StatusCode kInvalid = absl::StatusCode::kInvalidArgument;
constexpr absl::StatusCode kUnserved = absl::StatusCode::kUnimplemented;

TEST(HfConfigTest, RefusesWhatItCannotServeByName) {
  const std::vector<Refusal> cases = {
      {R"({"model_type": "gemma2", "architectures": ["Gemma2ForCausalLM"]})", kUnserved, "gemma2"},
      {R"({"architectures": ["LlamaForSequenceClassification"]})", kUnserved,
       "LlamaForSequenceClassification"},
      {R"({"architectures": ["MistralForCausalLM"]})", kUnserved, "model_type 'llama'"},
      {R"({"model_type": "mixtral", "architectures": null})", kUnserved, "mixtral"},
      {R"({"model_type": null, "architectures": []})", kInvalid, "neither model_type"},
      {R"({"architectures": "LlamaForCausalLM"})", kInvalid, "'architectures'"},
      {R"({"quantization_config": {"quant_method": "aqlm"}})", kUnserved, "method 'aqlm'"},
      {R"({"quantization_config": {}})", kUnserved, "quantization_config"},
      {R"({"hidden_act": "mish"})", kUnserved, "'mish'"},
      {R"({"hidden_act": 3})", kInvalid, "'hidden_act': expected a string"},
      {R"({"rope_scaling": {"rope_type": "yarn"}})", kInvalid, "'factor'"},
      {R"({"rope_scaling": {"rope_type": "yarn", "factor": 4.0, "beta_fast": 1,
           "beta_slow": 2}})",
       kInvalid, "beta_fast"},
      {R"({"rope_scaling": {"type": "dynamic"}})", kInvalid, "'factor'"},
      {R"({"rope_scaling": {"type": "su", "factor": 2.0}})", kUnserved, "'su'"},
      {R"({"rope_scaling": {"type": "mrope", "factor": 2.0}})", kUnserved, "'mrope'"},
      {R"({"rope_scaling": {"type": "dynamic", "factor": 2.0, "alpha": 1000}})", kUnserved,
       "'alpha'"},
      {R"({"rope_parameters": {"full_attention": {"rope_type": "default"}}})", kUnserved,
       "'full_attention'"},
      {R"({"rope_parameters": {"rope_type": "longrope"}})", kInvalid, "'short_factor'"},
      {R"({"rope_parameters": {"rope_type": "longrope", "short_factor": [1, 1, 1],
           "long_factor": [1, 1, 1]}})",
       kInvalid, "list of 8 positive numbers"},
      {R"({"rope_parameters": {"rope_type": "longrope", "short_factor": [1, 1, 1, 1, 1, 1, 1, 0],
           "long_factor": [1, 1, 1, 1, 1, 1, 1, 1]}})",
       kInvalid, "got 0"},
      {R"({"rope_scaling": {"type": "linear"}})", kInvalid, "'factor'"},
      {R"({"rope_scaling": {"type": "linear", "factor": 0}})", kInvalid, "'factor'"},
      {R"({"rope_scaling": {"type": "linear", "factor": "2"}})", kInvalid, "'factor'"},
      {R"({"rope_scaling": {"rope_type": "llama3", "factor": 8.0}})", kInvalid, "low_freq_factor"},
      {R"({"rope_scaling": {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 4.0,
           "high_freq_factor": 4.0}})",
       kInvalid, "must exceed"},
      {R"({"rope_scaling": [1]})", kInvalid, "'rope_scaling': expected an object"},
      {R"({"rope_scaling": {"type": "linear", "factor": 2.0},
           "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0}})",
       kInvalid, "disagree"},
      {R"({"rope_theta": 0})", kInvalid, "'rope_theta'"},
      {R"({"partial_rotary_factor": 0.2})", kUnserved, "partial_rotary_factor"},
      {R"({"rope_parameters": {"rope_type": "default", "partial_rotary_factor": 0.0}})", kUnserved,
       "0 of a head's 16"},
      {R"({"hidden_size": 0})", kInvalid, "'hidden_size': expected an integer in [1, 65536]"},
      {R"({"hidden_size": -64})", kInvalid, "got -64"},
      {R"({"hidden_size": 65537})", kInvalid, "got 65537"},
      {R"({"hidden_size": 64.0})", kInvalid, "got 64.0"},
      {R"({"hidden_size": "64"})", kInvalid, "got the string '64'"},
      {R"({"hidden_size": 18446744073709551615})", kInvalid, "'hidden_size'"},
      {R"({"hidden_size": 66})", kInvalid, "no multiple of num_attention_heads"},
      {R"({"num_hidden_layers": 1000000000})", kInvalid, "'num_hidden_layers'"},
      {R"({"num_attention_heads": 0})", kInvalid, "'num_attention_heads'"},
      {R"({"num_key_value_heads": 3})", kInvalid, "cannot share"},
      {R"({"num_key_value_heads": 8})", kInvalid, "cannot share"},
      {R"({"head_dim": 15})", kInvalid, "even number"},
      {R"({"head_dim": 4096})", kInvalid, "'head_dim'"},
      {R"({"hidden_size": 4096, "num_attention_heads": 1, "num_key_value_heads": 1})", kInvalid,
       "head dimension: expected at most 1024, got 4096"},
      {R"({"intermediate_size": [96]})", kInvalid, "'intermediate_size'"},
      {R"({"vocab_size": 4194304})", kInvalid, "'vocab_size'"},
      {R"({"max_position_embeddings": 0})", kInvalid, "'max_position_embeddings'"},
      {R"({"rms_norm_eps": -1})", kInvalid, "'rms_norm_eps'"},
      {R"({"attention_bias": 1})", kInvalid, "'attention_bias'"},
      {R"({"tie_word_embeddings": "yes"})", kInvalid, "'tie_word_embeddings'"},
      {R"({"eos_token_id": "2"})", kInvalid, "'eos_token_id'"},
      {R"({"eos_token_id": [2, 3.5]})", kInvalid, "'eos_token_id'"},
      {R"({"model_type": "qwen2", "architectures": ["Qwen2ForCausalLM"],
           "layer_types": ["full_attention"]})",
       kInvalid, "expected 2 entries"},
      {R"({"model_type": "qwen2", "architectures": ["Qwen2ForCausalLM"],
           "layer_types": ["full_attention", "linear_attention"]})",
       kUnserved, "linear_attention"},
      {R"({"model_type": "qwen2", "architectures": ["Qwen2ForCausalLM"],
           "layer_types": ["full_attention", "sliding_attention"]})",
       kInvalid, "not in use"},
      {R"({"model_type": "gpt2", "architectures": ["GPT2LMHeadModel"],
           "scale_attn_by_inverse_layer_idx": true})",
       kUnserved, "scale_attn_by_inverse"},
      {R"({"model_type": "gpt2", "architectures": ["GPT2LMHeadModel"],
           "reorder_and_upcast_attn": true})",
       kUnserved, "reorder_and_upcast_attn"},
      {R"({"model_type": "gpt2", "architectures": ["GPT2LMHeadModel"],
           "add_cross_attention": true})",
       kUnserved, "add_cross_attention"},
      {R"({"model_type": "gpt2", "architectures": ["GPT2LMHeadModel"], "n_embd": 65,
           "n_head": 4})",
       kInvalid, "n_embd 65 is no multiple"},
  };
  for (const Refusal& refusal : cases) {
    SCOPED_TRACE(refusal.patch);
    const auto spec = Spec(refusal.patch);
    ASSERT_FALSE(spec.ok());
    EXPECT_EQ(spec.status().code(), refusal.code) << spec.status();
    EXPECT_THAT(std::string(spec.status().message()), HasSubstr(refusal.message));
  }
}

TEST(HfConfigTest, RefusesTextThatIsNoConfig) {
  for (const std::string text : {"", "{", "[]", "null", "\xef\xbb\xbf{}", "{\"a\":1,\"a\":1}"}) {
    EXPECT_FALSE(SpecFromHfConfig(text, "").ok()) << text;
  }
  for (const std::string text : {"{", "[]", "{\"temperature\":\"hot\"}", "{\"top_k\":-1}"}) {
    EXPECT_FALSE(SpecFromHfConfig(kLlama, text).ok()) << text;
  }
}

TEST(HfConfigTest, ReadsLlama) {
  const auto spec = Spec("{}");
  ASSERT_TRUE(spec.ok()) << spec.status();
  EXPECT_EQ(spec->architecture, Architecture::kLlama);
  EXPECT_EQ(spec->hidden_size, 64);
  EXPECT_EQ(spec->head_dim, 16);
  EXPECT_EQ(spec->num_kv_heads, 2);
  EXPECT_EQ(spec->rope.rotary_dim, 16);
  EXPECT_EQ(spec->attention_scale, 0.25f);
  EXPECT_FALSE(spec->tie_embeddings);
  EXPECT_FALSE(spec->qkv_bias);
  EXPECT_THAT(spec->sliding_window, ElementsAre(0, 0));
  EXPECT_EQ(spec->bos_id, 1);
  EXPECT_THAT(spec->eos_ids, ElementsAre(2));
}

// transformers 5.19: LlamaConfig(), MistralConfig(), Qwen2Config(), Qwen3Config(), GPT2Config().
TEST(HfConfigTest, AbsentKeysTakeTransformersDefaults) {
  const auto llama = SpecFromHfConfig(R"({"model_type": "llama"})", "");
  ASSERT_TRUE(llama.ok()) << llama.status();
  EXPECT_EQ(llama->num_kv_heads, 32);
  EXPECT_EQ(llama->max_position, 2048);
  EXPECT_EQ(llama->norm_eps, 1e-6f);
  EXPECT_EQ(llama->rope.theta, 10000.0);
  const auto mistral = SpecFromHfConfig(R"({"model_type": "mistral"})", "");
  ASSERT_TRUE(mistral.ok()) << mistral.status();
  EXPECT_EQ(mistral->num_kv_heads, 8);
  EXPECT_EQ(mistral->head_dim, 128);
  EXPECT_EQ(mistral->sliding_window[0], 4096);
  EXPECT_EQ(mistral->max_position, 131072);
  const auto qwen2 = SpecFromHfConfig(R"({"model_type": "qwen2"})", "");
  ASSERT_TRUE(qwen2.ok()) << qwen2.status();
  EXPECT_EQ(qwen2->vocab_size, 151936);
  EXPECT_TRUE(qwen2->qkv_bias);
  EXPECT_FALSE(qwen2->o_bias);
  EXPECT_EQ(qwen2->sliding_window[31], 0);
  const auto qwen3 = SpecFromHfConfig(R"({"model_type": "qwen3"})", "");
  ASSERT_TRUE(qwen3.ok()) << qwen3.status();
  EXPECT_EQ(qwen3->head_dim, 128);
  EXPECT_TRUE(qwen3->qk_norm);
  EXPECT_FALSE(qwen3->qkv_bias);
  const auto gpt2 = SpecFromHfConfig(R"({"model_type": "gpt2"})", "");
  ASSERT_TRUE(gpt2.ok()) << gpt2.status();
  EXPECT_EQ(gpt2->intermediate_size, 3072);
  EXPECT_EQ(gpt2->activation, ActivationKind::kGeluTanh);
  EXPECT_TRUE(gpt2->tie_embeddings);
  EXPECT_TRUE(gpt2->fused_qkv);
  EXPECT_EQ(gpt2->rope.rotary_dim, 0);
  EXPECT_EQ(gpt2->attention_scale, 0.125f);
}

TEST(HfConfigTest, BothSpellingsOfRopeSayTheSame) {
  const auto older = Spec(R"({"rope_theta": 500000.0, "rope_scaling": {"rope_type": "llama3",
      "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
      "original_max_position_embeddings": 32}})");
  const auto newer = Spec(R"({"rope_theta": null, "rope_parameters": {"rope_type": "llama3",
      "rope_theta": 500000.0, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
      "original_max_position_embeddings": 32}})");
  ASSERT_TRUE(older.ok()) << older.status();
  ASSERT_TRUE(newer.ok()) << newer.status();
  EXPECT_EQ(older->rope, newer->rope);
  EXPECT_EQ(older->rope.scaling, RopeScaling::kLlama3);
  EXPECT_EQ(older->rope.original_max_position, 32);
  const auto linear = Spec(R"({"rope_scaling": {"type": "linear", "factor": 4.0}})");
  ASSERT_TRUE(linear.ok());
  EXPECT_EQ(linear->rope.scaling, RopeScaling::kLinear);
  EXPECT_EQ(linear->rope.factor, 4.0);
  EXPECT_EQ(linear->max_position, 512);
}

TEST(HfConfigTest, TheConfigurationsOwnOriginalLengthCounts) {
  const auto spec = Spec(R"({"original_max_position_embeddings": 32,
      "rope_scaling": {"rope_type": "yarn", "factor": null,
                       "original_max_position_embeddings": 64}})");
  ASSERT_TRUE(spec.ok()) << spec.status();
  EXPECT_EQ(spec->rope.original_max_position, 32);
  EXPECT_EQ(spec->rope.factor, 4.0);
  EXPECT_NEAR(spec->rope.attention_factor, 1.1386, 1e-4);
}

TEST(HfConfigTest, PartOfAHeadMayTurn) {
  const auto outer = Spec(R"({"partial_rotary_factor": 0.5})");
  ASSERT_TRUE(outer.ok()) << outer.status();
  EXPECT_EQ(outer->rope.rotary_dim, 8);
  const auto inner = Spec(R"({"partial_rotary_factor": 0.5,
      "rope_parameters": {"rope_type": "default", "partial_rotary_factor": 0.25}})");
  ASSERT_TRUE(inner.ok()) << inner.status();
  EXPECT_EQ(inner->rope.rotary_dim, 4);
}

TEST(HfConfigTest, WindowsFollowTheArchitecture) {
  const auto window = [](const std::string& patch) {
    const auto spec = Spec(patch);
    EXPECT_TRUE(spec.ok()) << spec.status();
    return spec.ok() ? spec->sliding_window : std::vector<int64_t>();
  };
  const std::string mistral = R"("model_type": "mistral", "architectures": null)";
  const std::string qwen2 = R"("model_type": "qwen2", "architectures": null)";
  EXPECT_THAT(window(R"({"sliding_window": 8})"), ElementsAre(0, 0));
  EXPECT_THAT(window("{" + mistral + R"(, "sliding_window": 8})"), ElementsAre(8, 8));
  EXPECT_THAT(window("{" + mistral + R"(, "sliding_window": null})"), ElementsAre(0, 0));
  EXPECT_THAT(window("{" + mistral + "}"), ElementsAre(4096, 4096));
  EXPECT_THAT(window("{" + qwen2 + R"(, "sliding_window": 8})"), ElementsAre(0, 0));
  EXPECT_THAT(window("{" + qwen2 + R"(, "sliding_window": 8, "use_sliding_window": true,
                      "max_window_layers": 1})"),
              ElementsAre(0, 8));
  EXPECT_THAT(window("{" + qwen2 + R"(, "sliding_window": 8, "use_sliding_window": true,
      "layer_types": ["sliding_attention", "full_attention"]})"),
              ElementsAre(8, 0));
}

TEST(HfConfigTest, GenerationConfigReplacesIds) {
  const auto spec = SpecFromHfConfig(
      kLlama, R"({"eos_token_id": [5, 6], "temperature": 0.6, "top_p": 0.9, "top_k": 50,
                  "do_sample": true, "repetition_penalty": 1.1})");
  ASSERT_TRUE(spec.ok()) << spec.status();
  EXPECT_THAT(spec->eos_ids, ElementsAre(5, 6));
  EXPECT_EQ(spec->bos_id, 1);
  EXPECT_EQ(spec->generation.temperature, 0.6);
  EXPECT_EQ(spec->generation.top_k, 50);
  EXPECT_EQ(spec->generation.do_sample, true);
  EXPECT_EQ(spec->generation.min_p, std::nullopt);
}

TEST(HfConfigTest, WarnsOfWhatItIgnores) {
  const auto spec = Spec(R"({"auto_map": {"AutoModel": "evil.py"}, "bos_token_id": 50256,
                             "eos_token_id": [2, -1]})");
  ASSERT_TRUE(spec.ok()) << spec.status();
  EXPECT_EQ(spec->warnings.size(), 3u);
  EXPECT_FALSE(spec->bos_id.has_value());
  EXPECT_THAT(spec->eos_ids, ElementsAre(2));
}

}  // namespace
}  // namespace polyad
