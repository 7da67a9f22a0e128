#include "engine/spec/gguf_spec.h"

#include <cstring>
#include <functional>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/engine/io/file_builders.h"

namespace polyad {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

using Edit = std::function<void(GgufBuilder&)>;

// A llama of two layers; keys in `without` are left out so that `edit` may lie about them.
GgufBuilder Llama(const std::vector<std::string>& without = {}) {
  GgufBuilder builder;
  const auto add = [&](const std::string& key, uint32_t value) {
    for (const std::string& absent : without) {
      if (absent == key) return;
    }
    builder.U32(key, value);
  };
  builder.String("general.architecture", "llama");
  add("llama.embedding_length", 32);
  add("llama.block_count", 2);
  add("llama.context_length", 128);
  add("llama.feed_forward_length", 64);
  add("llama.attention.head_count", 4);
  add("llama.attention.head_count_kv", 2);
  return builder;
}

StatusOr<ModelSpec> Spec(GgufBuilder builder) {
  builder.Tensor("token_embd.weight", {32, 100}, 0, 0);
  const auto file = GgufFile::FromFile(
      RandomAccessFile::FromBytes(builder.Build(std::string(32 * 100 * 4, '\0')), "x.gguf"));
  if (!file.ok()) return file.status();
  return SpecFromGguf(*file);
}

std::string IntList(const std::vector<int32_t>& values) {
  std::string bytes = Raw(uint32_t{5}) + Raw(static_cast<uint64_t>(values.size()));
  for (const int32_t value : values) bytes += Raw(value);
  return bytes;
}

TEST(GgufSpecTest, ReadsLlama) {
  const auto spec = Spec(Llama()
                             .F32("llama.attention.layer_norm_rms_epsilon", 1e-5f)
                             .F32("llama.rope.freq_base", 50000.0f)
                             .U32("llama.attention.sliding_window", 16)
                             .U32("tokenizer.ggml.eos_token_id", 3)
                             .U32("tokenizer.ggml.eot_token_id", 4));
  ASSERT_TRUE(spec.ok()) << spec.status();
  EXPECT_EQ(spec->vocab_size, 100);
  EXPECT_EQ(spec->head_dim, 8);
  EXPECT_EQ(spec->norm_eps, 1e-5f);
  EXPECT_EQ(spec->rope.theta, 50000.0);
  EXPECT_TRUE(spec->tie_embeddings);
  EXPECT_THAT(spec->sliding_window, ElementsAre(16, 16));
  EXPECT_THAT(spec->eos_ids, ElementsAre(3, 4));
}

TEST(GgufSpecTest, EqualPerLayerValuesAreOneValue) {
  const auto spec = Spec(Llama({"llama.attention.head_count_kv"})
                             .Pair("llama.attention.head_count_kv", 9, IntList({2, 2})));
  ASSERT_TRUE(spec.ok()) << spec.status();
  EXPECT_EQ(spec->num_kv_heads, 2);
}

TEST(GgufSpecTest, ReadsScalingsAsLlamaCppDoes) {
  const auto linear = Spec(Llama().F32("llama.rope.scaling.factor", 4.0f));
  ASSERT_TRUE(linear.ok()) << linear.status();
  EXPECT_EQ(linear->rope.scaling, RopeScaling::kLinear);
  EXPECT_EQ(linear->max_position, 512);
  const auto none = Spec(
      Llama().F32("llama.rope.scaling.factor", 4.0f).String("llama.rope.scaling.type", "none"));
  ASSERT_TRUE(none.ok()) << none.status();
  EXPECT_EQ(none->rope.scaling, RopeScaling::kNone);
  const auto yarn = Spec(Llama()
                             .String("llama.rope.scaling.type", "yarn")
                             .F32("llama.rope.scaling.factor", 8.0f)
                             .F32("llama.rope.scaling.attn_factor", 2.0f)
                             .F32("llama.rope.scaling.yarn_beta_fast", 16.0f)
                             .U32("llama.rope.scaling.original_context_length", 32));
  ASSERT_TRUE(yarn.ok()) << yarn.status();
  EXPECT_EQ(yarn->rope.scaling, RopeScaling::kYarn);
  EXPECT_EQ(yarn->rope.factor, 8.0);
  EXPECT_EQ(yarn->rope.original_max_position, 32);
  EXPECT_EQ(yarn->rope.beta_fast, 16.0);
  EXPECT_EQ(yarn->rope.beta_slow, 1.0);
  EXPECT_NEAR(yarn->rope.attention_factor, 2.0 * 1.2079, 1e-3);
  EXPECT_EQ(yarn->max_position, 256);
}

TEST(GgufSpecTest, FactorsOfTwoLengthsAreLongRope) {
  GgufBuilder builder = Llama();
  builder.U32("llama.rope.scaling.original_context_length", 32)
      .F32("llama.rope.scaling.attn_factor", 1.25f)
      .Tensor("token_embd.weight", {32, 100}, 0, 0)
      .Tensor("rope_factors_short.weight", {4}, 0, 32 * 100 * 4)
      .Tensor("rope_factors_long.weight", {4}, 0, 32 * 100 * 4 + 32);
  std::string bytes(32 * 100 * 4 + 64, '\0');
  const float factors[] = {1.0f, 1.5f, 2.0f, 2.5f, 0, 0, 0, 0, 4.0f, 5.0f, 6.0f, 7.0f};
  std::memcpy(bytes.data() + 32 * 100 * 4, factors, sizeof(factors));
  const auto file = GgufFile::FromFile(RandomAccessFile::FromBytes(builder.Build(bytes), "x.gguf"));
  ASSERT_TRUE(file.ok()) << file.status();
  const auto spec = SpecFromGguf(*file);
  ASSERT_TRUE(spec.ok()) << spec.status();
  EXPECT_EQ(spec->rope.scaling, RopeScaling::kLongRope);
  EXPECT_EQ(spec->rope.original_max_position, 32);
  EXPECT_EQ(spec->rope.attention_factor, 1.25);
  EXPECT_THAT(spec->rope.frequency_factors, ElementsAre(1.0f, 1.5f, 2.0f, 2.5f));
  EXPECT_THAT(spec->rope.long_factors, ElementsAre(4.0f, 5.0f, 6.0f, 7.0f));
}

TEST(GgufSpecTest, RefusesWhatItCannotServeByName) {
  struct Case {
    GgufBuilder builder;
    const char* message;
  };
  const std::vector<Case> cases = {
      {GgufBuilder(), "general.architecture"},
      {GgufBuilder().U32("general.architecture", 1), "expected a string"},
      {GgufBuilder().String("general.architecture", "gemma3"), "'gemma3' is not supported"},
      {Llama({"llama.embedding_length"}), "embedding_length"},
      {Llama({"llama.block_count"}), "block_count"},
      {Llama({"llama.context_length"}), "context_length"},
      {Llama({"llama.feed_forward_length"}), "feed_forward_length"},
      {Llama({"llama.attention.head_count"}), "head_count"},
      {Llama({"llama.block_count"}).U32("llama.block_count", 0),
       "expected an integer in [1, 1024]"},
      {Llama({"llama.block_count"}).U32("llama.block_count", 1u << 31), "block_count"},
      {Llama({"llama.block_count"}).F32("llama.block_count", 2.0f), "block_count"},
      {Llama({"llama.embedding_length"}).U32("llama.embedding_length", 33), "key_length"},
      {Llama({"llama.attention.head_count"}).U32("llama.attention.head_count", 3), "key_length"},
      {Llama({"llama.attention.head_count_kv"}).U32("llama.attention.head_count_kv", 3), "share"},
      {Llama({"llama.attention.head_count_kv"})
           .Pair("llama.attention.head_count_kv", 9, IntList({2, 1})),
       "differ between layers"},
      {Llama({"llama.attention.head_count_kv"})
           .Pair("llama.attention.head_count_kv", 9, IntList({})),
       "head_count_kv"},
      {Llama().U32("llama.expert_count", 8), "8 experts"},
      {Llama().F32("llama.attention.scale", 0.5f), "attention.scale"},
      {Llama().F32("llama.logit_scale", 0.5f), "logit_scale"},
      {Llama().String("llama.rope.scaling.type", "alibi"), "'alibi'"},
      {Llama().String("llama.rope.scaling.type", "longrope"), "rope_factors_short.weight"},
      {Llama()
           .String("llama.rope.scaling.type", "yarn")
           .F32("llama.rope.scaling.yarn_log_multiplier", 0.1f),
       "yarn_log_multiplier"},
      {Llama().F32("llama.rope.freq_base", 0.0f), "freq_base"},
      {Llama().U32("llama.rope.dimension_count", 4), "4 of a head's 8"},
      {Llama().U32("llama.attention.value_length", 16), "value_length"},
      {Llama().F32("llama.attention.layer_norm_rms_epsilon", -1.0f), "epsilon"},
      {Llama().Tensor("rope_freqs.weight", {3}, 0, 32 * 100 * 4), "past the file"},
  };
  for (const Case& refusal : cases) {
    SCOPED_TRACE(refusal.message);
    const auto spec = Spec(refusal.builder);
    ASSERT_FALSE(spec.ok());
    EXPECT_THAT(std::string(spec.status().message()), HasSubstr(refusal.message));
  }
}

StatusOr<GgufTokenizerMetadata> Tokenizer(const GgufBuilder& builder) {
  const auto file = GgufFile::FromFile(RandomAccessFile::FromBytes(builder.Build(), "x.gguf"));
  if (!file.ok()) return file.status();
  return TokenizerFromGguf(*file);
}

std::string Words(const std::vector<std::string>& words) {
  std::string bytes = Raw(uint32_t{8}) + Raw(static_cast<uint64_t>(words.size()));
  for (const std::string& word : words) bytes += GgufBuilder::Text(word);
  return bytes;
}

TEST(GgufTokenizerTest, KeepsTheFilesOwnWords) {
  const auto tokenizer = Tokenizer(GgufBuilder()
                                       .String("tokenizer.ggml.model", "gpt2")
                                       .String("tokenizer.ggml.pre", "smollm")
                                       .Pair("tokenizer.ggml.tokens", 9, Words({"a", "b"}))
                                       .Pair("tokenizer.ggml.merges", 9, Words({"a b"}))
                                       .Pair("tokenizer.ggml.token_type", 9, IntList({1, 3}))
                                       .U32("tokenizer.ggml.bos_token_id", 1)
                                       .U32("tokenizer.ggml.padding_token_id", 0xffffffff)
                                       .Pair("tokenizer.ggml.add_bos_token", 7, "\1")
                                       .String("tokenizer.chat_template", "{{ x }}"));
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
  EXPECT_EQ(tokenizer->model, "gpt2");
  EXPECT_EQ(tokenizer->pre, "smollm");
  EXPECT_THAT(tokenizer->tokens, ElementsAre("a", "b"));
  EXPECT_THAT(tokenizer->merges, ElementsAre("a b"));
  EXPECT_THAT(tokenizer->token_types, ElementsAre(1, 3));
  EXPECT_EQ(tokenizer->bos_id, 1);
  EXPECT_EQ(tokenizer->padding_id, std::nullopt);
  EXPECT_EQ(tokenizer->add_bos, true);
  EXPECT_EQ(tokenizer->add_eos, std::nullopt);
  EXPECT_EQ(tokenizer->chat_template, "{{ x }}");
}

TEST(GgufTokenizerTest, RefusesListsThatDoNotMatch) {
  const std::string tokens = Words({"a", "b"});
  EXPECT_FALSE(Tokenizer(GgufBuilder()
                             .Pair("tokenizer.ggml.tokens", 9, tokens)
                             .Pair("tokenizer.ggml.token_type", 9, IntList({1})))
                   .ok());
  EXPECT_FALSE(Tokenizer(GgufBuilder()
                             .Pair("tokenizer.ggml.tokens", 9, tokens)
                             .Pair("tokenizer.ggml.scores", 9,
                                   Raw(uint32_t{6}) + Raw(uint64_t{1}) + Raw(0.5f)))
                   .ok());
  EXPECT_FALSE(Tokenizer(GgufBuilder()
                             .Pair("tokenizer.ggml.tokens", 9, tokens)
                             .Pair("tokenizer.ggml.token_type", 9, IntList({1, 999})))
                   .ok());
  EXPECT_FALSE(Tokenizer(GgufBuilder().Pair("tokenizer.ggml.tokens", 9, IntList({1}))).ok());
}

}  // namespace
}  // namespace polyad
