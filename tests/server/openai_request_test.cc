#include "server/openai_request.h"

#include <gtest/gtest.h>

#include "server/field_error.h"

namespace polyad {
namespace {

StatusOr<OpenAiRequest> Completion(const std::string& body) {
  return ParseOpenAiRequest(OpenAiKind::kCompletion, body);
}
StatusOr<OpenAiRequest> Chat(const std::string& body) {
  return ParseOpenAiRequest(OpenAiKind::kChat, body);
}

TEST(OpenAiRequestTest, ReadsEveryServedCompletionField) {
  const auto parsed =
      Completion(R"({"model": "pirate", "prompt": "hi", "max_tokens": 5, "min_tokens": 1,
      "temperature": 0.5, "top_p": 0.9, "top_k": -1, "min_p": 0.1, "n": 2, "seed": 7, "stop": ["a", "b"],
      "stop_token_ids": [3], "ignore_eos": true, "include_stop_str_in_output": true, "presence_penalty": 1,
      "frequency_penalty": -1, "repetition_penalty": 1.1, "logit_bias": {"5": -100}, "logprobs": 2, "echo": true,
      "stream": true, "stream_options": {"include_usage": true}, "user": "u", "skip_special_tokens": false,
      "cache_salt": "s", "priority": 3, "suffix": null, "best_of": 1})");
  ASSERT_TRUE(parsed.ok()) << parsed.status();
  const v1::GenerateRequest& request = parsed->generate;
  EXPECT_EQ(parsed->model, "pirate");
  EXPECT_TRUE(parsed->stream);
  EXPECT_TRUE(parsed->include_usage);
  EXPECT_EQ(request.text(), "hi");
  EXPECT_EQ(request.stopping().max_tokens(), 5);
  EXPECT_EQ(request.stopping().stop_size(), 2);
  EXPECT_EQ(request.stopping().stop_token_ids(0), 3);
  EXPECT_TRUE(request.stopping().ignore_eos());
  EXPECT_TRUE(request.stopping().include_stop());
  EXPECT_EQ(request.sampling().top_k(), 0);
  EXPECT_EQ(request.sampling().n(), 2);
  EXPECT_EQ(request.sampling().seed(), 7u);
  EXPECT_FLOAT_EQ(request.sampling().logit_bias().at(5), -100);
  EXPECT_EQ(request.output().logprobs(), 2);
  EXPECT_EQ(request.output().prompt_logprobs(), 2);
  EXPECT_FALSE(request.output().skip_special_tokens());
  EXPECT_EQ(request.cache().salt(), "s");
  EXPECT_EQ(request.priority(), 3);
}

TEST(OpenAiRequestTest, PromptIsOneStringOrOneListOfTokens) {
  EXPECT_EQ(Completion(R"({"prompt": ["one"]})")->generate.text(), "one");
  EXPECT_EQ(Completion(R"({"prompt": [1, 2, 3]})")->generate.token_ids().ids_size(), 3);
  EXPECT_EQ(Completion(R"({"prompt": [[1, 2]]})")->generate.token_ids().ids_size(), 2);
  for (const char* bad : {R"({"prompt": ["a", "b"]})", R"({"prompt": [[1], [2]]})",
                          R"({"prompt": 5})", R"({"prompt": [1, "a"]})", R"({"prompt": [1.5]})",
                          R"({"prompt": {}})", R"({"prompt": [99999999999]})"}) {
    const auto parsed = Completion(bad);
    EXPECT_EQ(BlamedField(parsed.status()), "prompt") << bad;
  }
}

TEST(OpenAiRequestTest, ChatTakesTextAndTextParts) {
  const auto parsed = Chat(R"({"messages": [{"role": "system", "content": "be brief"},
      {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
      {"role": "assistant", "content": null}], "max_completion_tokens": 9, "logprobs": true, "top_logprobs": 3,
      "response_format": {"type": "text"}, "tools": [], "tool_choice": "none"})");
  ASSERT_TRUE(parsed.ok()) << parsed.status();
  EXPECT_EQ(parsed->generate.chat().messages_size(), 3);
  EXPECT_EQ(parsed->generate.chat().messages(1).content(), "ab");
  EXPECT_EQ(parsed->generate.stopping().max_tokens(), 9);
  EXPECT_EQ(parsed->generate.output().logprobs(), 3);
  EXPECT_TRUE(parsed->generate.has_constraint());  // none, said so: no default comes in
  EXPECT_EQ(parsed->generate.constraint().kind_case(), v1::Constraint::KIND_NOT_SET);
}

TEST(OpenAiRequestTest, WhatWouldChangeTheAnswerAndIsNotServedIsRefusedByName) {
  const std::pair<const char*, const char*> cases[] = {
      {R"({"prompt": "a", "guided_whitespace_pattern": "x"})", "guided_whitespace_pattern"},
      {R"({"prompt": "a", "best_of": 4})", "best_of"},
      {R"({"prompt": "a", "suffix": "x"})", "suffix"},
      {R"({"prompt": "a", "messages": []})", "messages"},
      {R"({"prompt": "a", "stream_options": {"other": true}})", "stream_options.other"}};
  for (const auto& [body, field] : cases) {
    const auto parsed = Completion(body);
    ASSERT_FALSE(parsed.ok()) << body;
    EXPECT_EQ(parsed.status().code(), absl::StatusCode::kInvalidArgument);
    EXPECT_EQ(BlamedField(parsed.status()), field);
  }
  EXPECT_EQ(BlamedField(Chat(R"({"messages": [], "tools": [{"type": "function"}]})").status()),
            "tools");
  EXPECT_EQ(
      BlamedField(
          Chat(R"({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]})").status()),
      "messages.content");
}

TEST(OpenAiRequestTest, StructuredOutputUnderOpenAisNamesAndVllms) {
  const auto constraint = [](const std::string& fields) {
    const auto parsed = Completion("{\"prompt\": \"a\", " + fields + "}");
    EXPECT_TRUE(parsed.ok()) << fields << parsed.status();
    return parsed.ok() ? parsed->generate.constraint() : v1::Constraint();
  };
  // The order of properties is the client's.
  const std::string schema = R"({"properties":{"z":{},"a":{"type":"null"}}})";
  EXPECT_EQ(constraint(R"("response_format": {"type": "json_schema", "json_schema": {"name": "n",
                "strict": true, "schema": )" +
                       schema + "}}")
                .json_schema(),
            schema);
  EXPECT_EQ(constraint("\"guided_json\": " + schema).json_schema(), schema);
  EXPECT_EQ(constraint(R"("guided_json": "{}")").json_schema(), "{}");
  EXPECT_EQ(constraint("\"structured_outputs\": {\"json\": " + schema + "}").json_schema(), schema);
  EXPECT_TRUE(constraint(R"("response_format": {"type": "json_object"})").json_object());
  EXPECT_TRUE(
      constraint(R"("structured_outputs": {"json_object": true, "regex": null})").json_object());
  EXPECT_EQ(constraint(R"("guided_regex": "a+")").regex(), "a+");
  EXPECT_EQ(constraint(R"("guided_grammar": "g")").grammar(), "g");
  EXPECT_EQ(constraint(R"("guided_choice": ["x", "y"])").choice().options_size(), 2);
  EXPECT_EQ(constraint(R"("structured_outputs": {"choice": ["x"]})").choice().options(0), "x");
  EXPECT_EQ(constraint(R"("response_format": {"type": "text"})").kind_case(),
            v1::Constraint::KIND_NOT_SET);

  const std::pair<const char*, const char*> refused[] = {
      {R"("response_format": {"type": "structural_tag"})", "response_format.type"},
      {R"("response_format": {})", "response_format.type"},
      {R"("response_format": "json")", "response_format"},
      {R"("response_format": {"type": "json_schema"})", "response_format.json_schema"},
      {R"("response_format": {"type": "json_schema", "json_schema": {"name": "n"}})",
       "response_format.json_schema.schema"},
      {R"("guided_json": 5)", "guided_json"},
      {R"("guided_regex": {})", "guided_regex"},
      {R"("guided_choice": "a")", "guided_choice"},
      {R"("guided_choice": [5])", "guided_choice"},
      {R"("structured_outputs": {"tag": 1})", "structured_outputs.tag"},
      {R"("guided_regex": "a", "guided_json": {})", "guided_json"},
      {R"("response_format": {"type": "json_object"}, "guided_regex": "a")", "guided_regex"}};
  for (const auto& [fields, field] : refused) {
    const auto parsed = Completion(std::string("{\"prompt\": \"a\", ") + fields + "}");
    EXPECT_EQ(parsed.status().code(), absl::StatusCode::kInvalidArgument) << fields;
    EXPECT_EQ(BlamedField(parsed.status()), field) << fields;
  }
}

TEST(OpenAiRequestTest, WrongTypesAreRefusedByName) {
  const std::pair<const char*, const char*> cases[] = {{"max_tokens", R"("5")"},
                                                       {"max_tokens", "1.5"},
                                                       {"max_tokens", "-1"},
                                                       {"max_tokens", "1e300"},
                                                       {"max_tokens", "18446744073709551615"},
                                                       {"n", "[]"},
                                                       {"n", "99999999999"},
                                                       {"temperature", R"("hot")"},
                                                       {"temperature", "{}"},
                                                       {"stream", "1"},
                                                       {"stop", "5"},
                                                       {"stop", "[5]"},
                                                       {"logit_bias", "[]"},
                                                       {"logit_bias", R"({"x": 1})"},
                                                       {"logit_bias", R"({"-1": 1})"},
                                                       {"logit_bias", R"({"1": "a"})"},
                                                       {"seed", "1.5"},
                                                       {"model", "5"},
                                                       {"echo", R"("yes")"},
                                                       {"logprobs", "true"},
                                                       {"user_unknown", "1"}};
  for (const auto& [field, value] : cases) {
    const auto parsed =
        Completion(std::string(R"({"prompt": "a", ")") + field + "\": " + value + "}");
    ASSERT_FALSE(parsed.ok()) << field << " " << value;
    EXPECT_EQ(BlamedField(parsed.status()), field) << value;
  }
}

TEST(OpenAiRequestTest, BodiesThatAreNoObjectAreRefused) {
  for (const std::string& bad :
       {std::string(""), std::string("{"), std::string("[]"), std::string("null"),
        std::string("\xff"), std::string("{\"prompt\": \"\xff\"}"), std::string(100'000, '['),
        std::string(R"({"prompt": "a", "prompt": "b"})")}) {
    EXPECT_FALSE(Completion(bad).ok()) << bad.substr(0, 40);
  }
}

}  // namespace
}  // namespace polyad
