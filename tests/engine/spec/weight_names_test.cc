#include "engine/spec/weight_names.h"

#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace polyad {
namespace {

using ::testing::ElementsAre;

ModelSpec Llama() {
  ModelSpec spec;
  spec.hidden_size = 64;
  spec.num_layers = 1;
  spec.num_heads = 4;
  spec.num_kv_heads = 2;
  spec.head_dim = 16;
  spec.intermediate_size = 96;
  spec.vocab_size = 320;
  return spec;
}

std::vector<std::string> Names(const ModelSpec& spec, WeightFormat format) {
  std::vector<std::string> names;
  for (const WeightEntry& entry : WeightPlan(spec, format)) names.push_back(entry.tensor_name);
  return names;
}

const WeightEntry* FindKind(const std::vector<WeightEntry>& plan, WeightKind kind) {
  for (const WeightEntry& entry : plan) {
    if (entry.kind == kind) return &entry;
  }
  return nullptr;
}

TEST(WeightNamesTest, ListsALlamaInEitherContainer) {
  EXPECT_THAT(
      Names(Llama(), WeightFormat::kHuggingFace),
      ElementsAre(
          "model.embed_tokens.weight", "model.layers.0.input_layernorm.weight",
          "model.layers.0.self_attn.q_proj.weight", "model.layers.0.self_attn.k_proj.weight",
          "model.layers.0.self_attn.v_proj.weight", "model.layers.0.self_attn.o_proj.weight",
          "model.layers.0.post_attention_layernorm.weight", "model.layers.0.mlp.gate_proj.weight",
          "model.layers.0.mlp.up_proj.weight", "model.layers.0.mlp.down_proj.weight",
          "model.norm.weight", "lm_head.weight"));
  ModelSpec tied = Llama();
  tied.tie_embeddings = true;
  EXPECT_THAT(Names(tied, WeightFormat::kGguf),
              ElementsAre("token_embd.weight", "blk.0.attn_norm.weight", "blk.0.attn_q.weight",
                          "blk.0.attn_k.weight", "blk.0.attn_v.weight", "blk.0.attn_output.weight",
                          "blk.0.ffn_norm.weight", "blk.0.ffn_gate.weight", "blk.0.ffn_up.weight",
                          "blk.0.ffn_down.weight", "output_norm.weight"));
}

TEST(WeightNamesTest, OnlyLlamaGgufInterleavesRotaryRows) {
  ModelSpec spec = Llama();
  spec.qkv_bias = true;
  const auto llama = WeightPlan(spec, WeightFormat::kGguf);
  EXPECT_EQ(FindKind(llama, WeightKind::kQ)->rotary_heads, 4);
  EXPECT_EQ(FindKind(llama, WeightKind::kK)->rotary_heads, 2);
  EXPECT_EQ(FindKind(llama, WeightKind::kKBias)->layout, WeightLayout::kInterleavedRows);
  EXPECT_EQ(FindKind(llama, WeightKind::kV)->layout, WeightLayout::kAsStored);
  for (const Architecture architecture : {Architecture::kQwen2, Architecture::kQwen3}) {
    spec.architecture = architecture;
    for (const WeightEntry& entry : WeightPlan(spec, WeightFormat::kGguf)) {
      EXPECT_EQ(entry.layout, WeightLayout::kAsStored) << entry.tensor_name;
    }
  }
}

TEST(WeightNamesTest, IgnoresOnlyWhatSaysNothing) {
  ModelSpec spec = Llama();
  EXPECT_TRUE(IsIgnorableTensor(spec, "model.layers.0.self_attn.rotary_emb.inv_freq"));
  EXPECT_FALSE(IsIgnorableTensor(spec, "lm_head.weight"));
  EXPECT_FALSE(IsIgnorableTensor(spec, "model.layers.0.attn.bias"));
  spec.tie_embeddings = true;
  EXPECT_TRUE(IsIgnorableTensor(spec, "lm_head.weight"));
  spec.architecture = Architecture::kGpt2;
  EXPECT_TRUE(IsIgnorableTensor(spec, "h.0.attn.bias"));
  EXPECT_FALSE(IsIgnorableTensor(spec, "h.0.attn.c_attn.bias"));
}

}  // namespace
}  // namespace polyad
