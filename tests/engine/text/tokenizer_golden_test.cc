// Token for token against Hugging Face `tokenizers` (tests/golden/text/VERSIONS): encode, encode as
// a user's text, and decode, over the corpus of awkward strings and over random id sequences, at
// once and one token at a time.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "engine/text/detokenizer.h"
#include "engine/text/utf8.h"
#include "tests/engine/text/golden_files.h"

namespace polyad {
namespace {

std::vector<int32_t> EncodeOrDie(const Tokenizer& tokenizer, const std::string& text,
                                 bool parse_special) {
  const auto ids = tokenizer.Encode(text, {.add_special = true, .parse_special = parse_special});
  EXPECT_TRUE(ids.ok()) << ids.status();
  return ids.ok() ? *ids : std::vector<int32_t>();
}

// Checks one tokenizer against one golden file and counts the strings compared.
size_t Compare(const Tokenizer& tokenizer, const std::string& golden_name) {
  const std::vector<std::string> corpus = ReadCorpus();
  GoldenReader golden(ReadGzippedGoldenFile(golden_name + ".ids.bin"));
  int num_failures = 0;
  for (size_t i = 0; i < corpus.size() && num_failures < 5; ++i) {
    const std::vector<int32_t> ids = golden.Ids();
    const std::vector<int32_t> user_ids = golden.Varint() == 0 ? ids : golden.Ids();
    const std::string sanitized = SanitizeUtf8(corpus[i]);
    const std::string decoded = golden.Varint() == 0 ? sanitized : golden.Text();
    EXPECT_EQ(EncodeOrDie(tokenizer, corpus[i], true), ids) << "string " << i << ": " << corpus[i];
    EXPECT_EQ(EncodeOrDie(tokenizer, corpus[i], false), user_ids)
        << "a user's string " << i << ": " << corpus[i];
    EXPECT_EQ(Decode(tokenizer, ids, false), decoded) << "string " << i;
    num_failures += ::testing::Test::HasFailure() ? 1 : 0;
  }
  if (num_failures > 0) return 0;
  const uint64_t num_sequences = golden.Varint();
  for (uint64_t i = 0; i < num_sequences && num_failures < 5; ++i) {
    const std::vector<int32_t> ids = golden.Ids();
    EXPECT_EQ(Decode(tokenizer, ids, false), golden.Text()) << ::testing::PrintToString(ids);
    EXPECT_EQ(Decode(tokenizer, ids, true), golden.Text()) << ::testing::PrintToString(ids);
    num_failures += ::testing::Test::HasFailure() ? 1 : 0;
  }
  EXPECT_TRUE(num_failures > 0 || golden.AtEnd());
  return corpus.size();
}

class TokenizerGoldenTest : public ::testing::TestWithParam<std::string> {};

TEST_P(TokenizerGoldenTest, EqualsTheOriginalTokenForToken) {
  EXPECT_GE(Compare(*LoadGoldenTokenizer(GetParam()), GetParam()), 2000u);
}

INSTANTIATE_TEST_SUITE_P(AllTokenizers, TokenizerGoldenTest,
                         ::testing::Values("gpt2", "llama3", "qwen2", "tekken", "starcoder",
                                           "llama2", "mistral", "kitchen", "smollm2"),
                         [](const auto& param) { return param.param; });

TEST(GgufTokenizerGoldenTest, SmolLm2FromGgufEqualsTheOriginal) {
  auto tokenizer = MakeGgufTokenizer(SmolLm2GgufData());
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
  EXPECT_GE(Compare(**tokenizer, "smollm2"), 2000u);
}

TEST(GgufTokenizerGoldenTest, ScoredVocabularyEqualsTheOriginal) {
  auto tokenizer = MakeGgufTokenizer(GgufDataOf(ReadGoldenFile("llama2.json"), ""));
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
  EXPECT_GE(Compare(**tokenizer, "llama2"), 2000u);
}

TEST(GgufTokenizerGoldenTest, NamedPreTokenisersEqualTheSpelledOutOnes) {
  const std::vector<std::pair<std::string, std::string>> cases = {
      {"gpt2", "gpt-2"}, {"gpt2", ""}, {"qwen2", "qwen2"}, {"tekken", "tekken"}};
  for (const auto& [name, pre] : cases) {
    auto tokenizer = MakeGgufTokenizer(
        GgufDataOf(ReadGoldenFile(name + ".json"), pre.empty() ? "default" : pre));
    ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
    EXPECT_GE(Compare(**tokenizer, name), 2000u) << pre;
  }
  GgufTokenizerData llama = GgufDataOf(ReadGoldenFile("llama3.json"), "llama-bpe");
  llama.bos = 1500;
  while (llama.tokens[static_cast<size_t>(*llama.bos)] != "<|begin_of_text|>") --*llama.bos;
  llama.add_bos = true;
  auto tokenizer = MakeGgufTokenizer(std::move(llama));
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
  EXPECT_GE(Compare(**tokenizer, "llama3"), 2000u);
}

}  // namespace
}  // namespace polyad
