// The tokenizers' rules that goldens do not state: limits, refusals, provenance, and time on
// adversarial text.

#include "engine/text/tokenizer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <thread>

#include "engine/text/detokenizer.h"
#include "engine/text/tokenizer_json.h"
#include "engine/text/utf8.h"
#include "tests/engine/text/golden_files.h"

namespace polyad {
namespace {

using nlohmann::json;
using ::testing::HasSubstr;

json SmallFile() { return json::parse(ReadGoldenFile("gpt2.json")); }

std::string RefusalOf(const json& file) {
  const auto tokenizer = LoadTokenizerJson(file.dump(), "");
  return tokenizer.ok() ? "accepted" : std::string(tokenizer.status().message());
}

TEST(TokenizerJsonTest, RefusesUnknownComponentsByName) {
  for (const char* part : {"normalizer", "pre_tokenizer", "post_processor", "decoder"}) {
    json file = SmallFile();
    file[part] = {{"type", "Frobnicate"}};
    EXPECT_THAT(RefusalOf(file), HasSubstr("Frobnicate")) << part;
    EXPECT_THAT(RefusalOf(file), HasSubstr(part));
  }
  json unigram = SmallFile();
  unigram["model"]["type"] = "Unigram";
  EXPECT_THAT(RefusalOf(unigram), HasSubstr("Unigram"));
  json dropout = SmallFile();
  dropout["model"]["dropout"] = 0.5;
  EXPECT_THAT(RefusalOf(dropout), HasSubstr("dropout"));
  json suffix = SmallFile();
  suffix["model"]["end_of_word_suffix"] = "</w>";
  EXPECT_THAT(RefusalOf(suffix), HasSubstr("end_of_word_suffix"));
}

TEST(TokenizerJsonTest, RefusesFilesThatContradictThemselves) {
  json merge = SmallFile();
  merge["model"]["merges"].push_back({"never", "heard"});
  EXPECT_THAT(RefusalOf(merge), HasSubstr("not in the vocabulary"));
  json twice = SmallFile();
  twice["added_tokens"].push_back({{"id", 5}, {"content", "other"}, {"special", true}});
  EXPECT_THAT(RefusalOf(twice), HasSubstr("id 5"));
  json id = SmallFile();
  id["added_tokens"][0]["id"] = 1 << 29;
  EXPECT_THAT(RefusalOf(id), HasSubstr("536870912"));
  json no_vocab = SmallFile();
  no_vocab["model"].erase("vocab");
  EXPECT_THAT(RefusalOf(no_vocab), HasSubstr("vocab"));
  json pattern = SmallFile();
  pattern["pre_tokenizer"] = {
      {"type", "Split"}, {"pattern", {{"Regex", "(open"}}}, {"behavior", "Isolated"}};
  EXPECT_THAT(RefusalOf(pattern), HasSubstr("(open"));
}

TEST(TokenizerJsonTest, RefusesDamagedFiles) {
  const std::string text = ReadGoldenFile("llama3.json");
  for (size_t size = 0; size < text.size(); size += 997) {
    EXPECT_FALSE(LoadTokenizerJson(text.substr(0, size), "").ok()) << size;
  }
  EXPECT_FALSE(LoadTokenizerJson(std::string(100000, '['), "").ok());
  EXPECT_FALSE(LoadTokenizerJson("[]", "").ok());
  EXPECT_FALSE(LoadTokenizerJson(R"({"model": []})", "").ok());
  EXPECT_FALSE(LoadTokenizerJson(R"({"model": {"vocab": {"a": -1}, "merges": []}})", "").ok());
  EXPECT_FALSE(LoadTokenizerJson(R"({"model": {"vocab": {"a": "b"}, "merges": []}})", "").ok());
  EXPECT_FALSE(LoadTokenizerJson(R"({"model": {"vocab": {"a": 0}, "merges": ["a"]}})", "").ok());
  EXPECT_FALSE(LoadTokenizerJson(R"({"model": {"vocab": {"a": 0}, "merges": [["a"]]}})", "").ok());
  EXPECT_TRUE(LoadTokenizerJson(R"({"model": {"vocab": {"a": 0}, "merges": []}})", "").ok());
}

TEST(TokenizerJsonTest, TakesBosAndEosFromTheConfig) {
  const auto tokenizer = LoadTokenizerJson(
      ReadGoldenFile("llama2.json"), R"({"bos_token": "<s>", "eos_token": {"content": "</s>"}})");
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
  EXPECT_EQ((*tokenizer)->bos(), 1);
  EXPECT_EQ((*tokenizer)->eos(), 2);
  EXPECT_TRUE((*tokenizer)->IsSpecial(2));
  EXPECT_FALSE((*tokenizer)->IsSpecial(300));
  EXPECT_FALSE((*tokenizer)->IsSpecial(-1));
  EXPECT_EQ((*tokenizer)->TokenBytes(3 + 0x41), "A");
  EXPECT_EQ((*tokenizer)->TokenBytes(1 << 30), "");
}

TEST(TokenizerJsonTest, FindsTheChatTemplateInTheConfig) {
  EXPECT_EQ(**ChatTemplateFromConfig(R"({"chat_template": "x"})"), "x");
  const std::string named = R"({"chat_template": [{"name": "rag", "template": "r"},)"
                            R"({"name": "default", "template": "d"}]})";
  EXPECT_EQ(**ChatTemplateFromConfig(named), "d");
  EXPECT_EQ(*ChatTemplateFromConfig("{}"), std::nullopt);
}

TEST(TokenizerTest, RefusesTextOverItsLimit) {
  const auto tokenizer = LoadGoldenTokenizer("gpt2");
  const std::string text(kMaxEncodeBytes + 1, 'a');
  EXPECT_EQ(tokenizer->Encode(text, {}).status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(
      tokenizer->EncodeSegments(std::vector<TextSegment>{{text, true}}, false).status().code(),
      absl::StatusCode::kInvalidArgument);
}

TEST(TokenizerTest, NoTextOfAUserIsAControlToken) {
  for (const char* name :
       {"gpt2", "llama3", "qwen2", "tekken", "starcoder", "llama2", "mistral", "smollm2"}) {
    const auto tokenizer = LoadGoldenTokenizer(name);
    std::string all;
    for (int32_t id = 0; id < tokenizer->vocab_size(); ++id) {
      if (tokenizer->IsSpecial(id))
        all += std::string(tokenizer->TokenText(id)) + "x" + std::string(tokenizer->TokenText(id));
    }
    const auto user = tokenizer->Encode(all, {.add_special = false, .parse_special = false});
    const auto server = tokenizer->Encode(all, {.add_special = false, .parse_special = true});
    ASSERT_TRUE(user.ok() && server.ok());
    for (const int32_t id : *user) EXPECT_FALSE(tokenizer->IsSpecial(id)) << name << " " << id;
    EXPECT_THAT(*server, ::testing::Contains(::testing::Truly(
                             [&](int32_t id) { return tokenizer->IsSpecial(id); })));
  }
}

TEST(TokenizerTest, CuttingTextIntoSegmentsOfTheServerChangesNothing) {
  const std::vector<std::string> corpus = ReadCorpus();
  for (const char* name : {"qwen2", "llama2", "starcoder", "kitchen"}) {
    const auto tokenizer = LoadGoldenTokenizer(name);
    for (size_t i = 0; i < corpus.size(); i += 5) {
      const std::string text = SanitizeUtf8(corpus[i]);
      const auto whole = tokenizer->Encode(text, {.add_special = true, .parse_special = true});
      const auto whole_user =
          tokenizer->Encode(text, {.add_special = true, .parse_special = false});
      size_t cut = text.size() / 2;
      while (cut < text.size() && (static_cast<unsigned char>(text[cut]) & 0xC0) == 0x80) ++cut;
      for (const bool user : {false, true}) {
        const std::vector<TextSegment> segments = {{text.substr(0, cut), user},
                                                   {text.substr(cut), user}};
        EXPECT_EQ(*tokenizer->EncodeSegments(segments, true), user ? *whole_user : *whole)
            << name << ": " << text;
      }
      // Mixed provenance: without a control token in the text, whose it is changes nothing.
      if (*whole == *whole_user) {
        const std::vector<TextSegment> mixed = {{text.substr(0, cut), false},
                                                {text.substr(cut), true}};
        EXPECT_EQ(*tokenizer->EncodeSegments(mixed, true), *whole) << name << ": " << text;
      }
    }
  }
}

TEST(TokenizerTest, ManyThreadsMayEncodeAtOnce) {
  const auto tokenizer = LoadGoldenTokenizer("llama3");
  const std::vector<std::string> corpus = ReadCorpus();
  std::vector<std::vector<int32_t>> expected;
  for (size_t i = 0; i < 300; ++i) expected.push_back(*tokenizer->Encode(corpus[i], {}));
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&] {
      for (size_t i = 0; i < 300; ++i) EXPECT_EQ(*tokenizer->Encode(corpus[i], {}), expected[i]);
    });
  }
  for (std::thread& thread : threads) thread.join();
}

// Doubling the text may not multiply the time by more than n log n does, with room for a busy
// machine. The better of two runs counts.
double SecondsToEncode(const Tokenizer& tokenizer, const std::string& text) {
  double best = 1e9;
  for (int run = 0; run < 2; ++run) {
    const double begin = ThreadCpuSeconds();
    EXPECT_TRUE(tokenizer.Encode(text, {}).ok());
    best = std::min(best, ThreadCpuSeconds() - begin);
  }
  return best;
}

TEST(TokenizerTest, AdversarialTextStaysNearLinear) {
  const std::vector<std::string> units = {"a",
                                          " ",
                                          "\n",
                                          "ab",
                                          "!",
                                          "0",
                                          "\xE8\xAF\xAD",
                                          "a\xCC\x81\xCC\x96",
                                          " \n",
                                          "'",
                                          "\xCC\x81\xCC\x96",
                                          "<|",
                                          "\xFF"};
  for (const char* name : {"llama3", "qwen2", "llama2", "smollm2"}) {
    const auto tokenizer = LoadGoldenTokenizer(name);
    for (const std::string& unit : units) {
      std::string small;
      while (small.size() < size_t{12} << 10) small += unit;
      std::string large;
      for (int i = 0; i < 8; ++i) large += small;
      // Eight times the text: linear is 8, n log n is under 10, a square is 64.
      const double small_s = SecondsToEncode(*tokenizer, small);
      const double large_s = SecondsToEncode(*tokenizer, large);
      EXPECT_LT(large_s, 30 * small_s + 0.02)
          << name << " with \"" << unit << "\": " << small_s << " s, " << large_s << " s";
    }
  }
}

TEST(DetokenizerTest, EveryPieceIsWholeUtf8) {
  for (const char* name : {"gpt2", "llama2", "mistral", "kitchen"}) {
    const auto tokenizer = LoadGoldenTokenizer(name);
    for (const std::string& text : ReadCorpus()) {
      StreamDetokenizer stream(*tokenizer, true);
      const auto ids = tokenizer->Encode(text, {});
      ASSERT_TRUE(ids.ok());
      for (const int32_t id : *ids) ASSERT_TRUE(IsValidUtf8(stream.Push(id))) << name;
      ASSERT_TRUE(IsValidUtf8(stream.Flush()));
    }
  }
}

TEST(DetokenizerTest, EmitsACharacterWhenItsLastByteComes) {
  const auto tokenizer = LoadGoldenTokenizer("gpt2");
  const auto ids = tokenizer->Encode("\xF0\x9F\xAB\xA0.", {});
  ASSERT_TRUE(ids.ok());
  StreamDetokenizer stream(*tokenizer, false);
  std::string text;
  for (size_t i = 0; i + 1 < ids->size(); ++i) text += stream.Push((*ids)[i]);
  EXPECT_EQ(text, "\xF0\x9F\xAB\xA0");
  EXPECT_EQ(stream.Push(ids->back()), ".");
  EXPECT_EQ(stream.Flush(), "");
}

}  // namespace
}  // namespace polyad
