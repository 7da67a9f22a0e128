// Whose word counts, field by field, and what a load refuses by name.

#include "server/adapter_defaults.h"

#include <gtest/gtest.h>

#include <functional>
#include <limits>
#include <string>

#include "google/protobuf/descriptor.h"
#include "server/field_error.h"
#include "tests/server/serving_fixture.h"

namespace polyad {
namespace {

using Field = google::protobuf::FieldDescriptor;

// Some value of the field's type; another one for each `which` of 1 and 2.
void Set(google::protobuf::Message& message, const Field* field, int which) {
  const auto* reflection = message.GetReflection();
  if (field->is_map()) {  // the one there is; reflection on maps breaks under TSan in protobuf 3.21
    ASSERT_EQ(field->full_name(), "polyad.v1.Sampling.logit_bias");
    (*static_cast<v1::Sampling&>(message).mutable_logit_bias())[which] = 1.0f;
  } else if (field->is_repeated()) {
    if (field->cpp_type() == Field::CPPTYPE_STRING) {
      reflection->AddString(&message, field, std::to_string(which));
    } else {
      reflection->AddInt32(&message, field, which);
    }
  } else if (field->cpp_type() == Field::CPPTYPE_FLOAT) {
    reflection->SetFloat(&message, field, static_cast<float>(which - 1));  // 0 is a word too
  } else if (field->cpp_type() == Field::CPPTYPE_INT32) {
    reflection->SetInt32(&message, field, which - 1);
  } else if (field->cpp_type() == Field::CPPTYPE_INT64) {
    reflection->SetInt64(&message, field, which - 1);
  } else if (field->cpp_type() == Field::CPPTYPE_UINT64) {
    reflection->SetUInt64(&message, field, static_cast<uint64_t>(which - 1));
  } else {
    ASSERT_EQ(field->cpp_type(), Field::CPPTYPE_BOOL) << field->full_name();
    reflection->SetBool(&message, field, which == 2);
  }
}

// The precedence of every field of `Part`, which `of` finds in a request or in defaults.
template <typename Part, typename OfDefaults, typename OfRequest>
void ExpectPrecedence(OfDefaults of_defaults, OfRequest of_request) {
  const auto* descriptor = Part::descriptor();
  for (int i = 0; i < descriptor->field_count(); ++i) {
    const Field* field = descriptor->field(i);
    EXPECT_TRUE(field->is_repeated() || field->has_presence()) << field->full_name();
    for (const bool is_default : {false, true}) {
      for (const int said : {0, 1, 2}) {  // 0: the request says nothing
        v1::AdapterDefaults defaults;
        v1::GenerateRequest request;
        Part expected;
        if (is_default) Set(*of_defaults(defaults), field, 2);
        if (said != 0) Set(*of_request(request), field, said);
        if (said != 0 || is_default) Set(expected, field, said != 0 ? said : 2);
        FillInDefaults(defaults, request);
        EXPECT_EQ(of_request(request)->SerializeAsString(), expected.SerializeAsString())
            << field->full_name() << " default " << is_default << " said " << said;
      }
    }
  }
}

TEST(AdapterDefaultsTest, ARequestsOwnFieldsWinOneByOne) {
  ExpectPrecedence<v1::Sampling>([](auto& defaults) { return defaults.mutable_sampling(); },
                                 [](auto& request) { return request.mutable_sampling(); });
  ExpectPrecedence<v1::Stopping>([](auto& defaults) { return defaults.mutable_stopping(); },
                                 [](auto& request) { return request.mutable_stopping(); });
}

TEST(AdapterDefaultsTest, FieldsOfBothStandSideBySide) {
  v1::AdapterDefaults defaults;
  defaults.mutable_sampling()->set_temperature(0.5f);
  defaults.mutable_sampling()->set_top_k(5);
  defaults.mutable_stopping()->add_stop("a");
  defaults.mutable_stopping()->add_stop("b");
  v1::GenerateRequest request;
  request.mutable_sampling()->set_temperature(0);
  request.mutable_stopping()->add_stop("c");
  FillInDefaults(defaults, request);
  EXPECT_EQ(request.sampling().temperature(), 0);
  EXPECT_EQ(request.sampling().top_k(), 5);
  ASSERT_EQ(request.stopping().stop_size(), 1);  // a list is one word
  EXPECT_EQ(request.stopping().stop(0), "c");
}

TEST(AdapterDefaultsTest, AConstraintIsTheRequestsAsAWholeEvenWhereItIsNone) {
  v1::AdapterDefaults defaults;
  defaults.mutable_constraint()->set_regex("a+");
  v1::GenerateRequest request;
  FillInDefaults(defaults, request);
  EXPECT_EQ(request.constraint().regex(), "a+");
  request.mutable_constraint()->set_json_object(true);
  FillInDefaults(defaults, request);
  EXPECT_TRUE(request.constraint().json_object());
  request.mutable_constraint()->Clear();
  FillInDefaults(defaults, request);
  EXPECT_EQ(request.constraint().kind_case(), v1::Constraint::KIND_NOT_SET);
}

TEST(AdapterDefaultsTest, ASystemPromptLeadsAChatThatHasNone) {
  v1::AdapterDefaults defaults;
  defaults.set_system_prompt("Be brief.");
  v1::GenerateRequest request;
  for (const char* role : {"user", "assistant", "user"}) {
    request.mutable_chat()->add_messages()->set_role(role);
  }
  FillInDefaults(defaults, request);
  ASSERT_EQ(request.chat().messages_size(), 4);
  EXPECT_EQ(request.chat().messages(0).role(), "system");
  EXPECT_EQ(request.chat().messages(0).content(), "Be brief.");
  EXPECT_EQ(request.chat().messages(2).role(), "assistant");
  FillInDefaults(defaults, request);
  EXPECT_EQ(request.chat().messages_size(), 4);  // it has one now
  request.mutable_chat()->mutable_messages(0)->set_role("developer");
  FillInDefaults(defaults, request);
  EXPECT_EQ(request.chat().messages_size(), 4);
  request.mutable_chat()->clear_messages();
  FillInDefaults(defaults, request);
  EXPECT_EQ(request.chat().messages_size(), 0);  // refused as ever
  request.set_text("hello");
  FillInDefaults(defaults, request);
  EXPECT_EQ(request.text(), "hello");
}

TEST(AdapterDefaultsTest, AnAnswersLeastLengthGivesWayToTheLengthAskedFor) {
  v1::AdapterDefaults defaults;
  defaults.mutable_stopping()->set_max_tokens(100);
  defaults.mutable_stopping()->set_min_tokens(50);
  v1::GenerateRequest request;
  request.mutable_stopping()->set_max_tokens(20);
  FillInDefaults(defaults, request);
  EXPECT_EQ(request.stopping().min_tokens(), 20);
  request.mutable_stopping()->set_min_tokens(30);  // the client's own mistake stays one
  FillInDefaults(defaults, request);
  EXPECT_EQ(request.stopping().min_tokens(), 30);
}

// "" where they are taken, else the field that is blamed.
std::string Blamed(const std::function<void(v1::AdapterDefaults&)>& set, Status engines = {}) {
  ServingFixture fixture;
  fixture.engine.check_status = std::move(engines);
  v1::AdapterDefaults message;
  set(message);
  const auto defaults = MakeAdapterDefaults(message);
  const Status status = defaults.ok() ? CheckAdapterDefaults(**defaults, fixture.serving.limits,
                                                             fixture.serving.engine)
                                      : defaults.status();
  if (status.ok()) return "";
  const std::string blamed = BlamedField(status);
  EXPECT_TRUE(std::string(status.message()).starts_with(blamed + ": ")) << status;
  return blamed;
}

TEST(AdapterDefaultsTest, NumbersAreBoundedAsARequestsAre) {
  constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
  constexpr float kInf = std::numeric_limits<float>::infinity();
  using SetFloat = void (v1::Sampling::*)(float);
  const struct {
    SetFloat set;
    const char* field;
    std::vector<float> good;
    std::vector<float> bad;
  } kFields[] = {
      {&v1::Sampling::set_temperature, "temperature", {0, 100}, {-0.1f, 100.5f}},
      {&v1::Sampling::set_top_p, "top_p", {0.01f, 1}, {0, -1, 1.01f}},
      {&v1::Sampling::set_min_p, "min_p", {0, 1}, {-0.1f, 1.1f}},
      {&v1::Sampling::set_repetition_penalty, "repetition_penalty", {0.001f, 10}, {0, 10.5f}},
      {&v1::Sampling::set_presence_penalty, "presence_penalty", {-2, 2}, {-2.1f, 2.1f}},
      {&v1::Sampling::set_frequency_penalty, "frequency_penalty", {-2, 2}, {-2.1f, 2.1f}},
  };
  for (const auto& one : kFields) {
    const auto blamed = [&](float value) {
      return Blamed([&](auto& defaults) { (defaults.mutable_sampling()->*one.set)(value); });
    };
    const std::string field = std::string("defaults.sampling.") + one.field;
    for (const float value : one.good) EXPECT_EQ(blamed(value), "") << field << " " << value;
    for (const float value : one.bad) EXPECT_EQ(blamed(value), field) << value;
    for (const float value : {kNan, kInf, -kInf}) EXPECT_EQ(blamed(value), field) << value;
  }
}

TEST(AdapterDefaultsTest, WhatIsHostileIsRefusedByName) {
  using D = v1::AdapterDefaults;
  const std::pair<const char*, std::function<void(D&)>> kCases[] = {
      {"sampling.top_k", [](D& d) { d.mutable_sampling()->set_top_k(-1); }},
      {"sampling.n", [](D& d) { d.mutable_sampling()->set_n(1); }},
      {"sampling.logit_bias",
       [](D& d) { (*d.mutable_sampling()->mutable_logit_bias())[1000] = 1; }},
      {"sampling.logit_bias", [](D& d) { (*d.mutable_sampling()->mutable_logit_bias())[1] = 101; }},
      {"sampling.allowed_token_ids", [](D& d) { d.mutable_sampling()->add_allowed_token_ids(-1); }},
      {"stopping.max_tokens", [](D& d) { d.mutable_stopping()->set_max_tokens(513); }},
      {"stopping.max_tokens", [](D& d) { d.mutable_stopping()->set_max_tokens(-1); }},
      {"stopping.min_tokens", [](D& d) { d.mutable_stopping()->set_min_tokens(17); }},
      {"stopping.stop", [](D& d) { d.mutable_stopping()->add_stop(""); }},
      {"stopping.stop", [](D& d) { d.mutable_stopping()->add_stop(std::string(65, 'a')); }},
      {"stopping.stop",
       [](D& d) {
         for (int i = 0; i < 17; ++i) d.mutable_stopping()->add_stop("a");
       }},
      {"stopping.stop_token_ids", [](D& d) { d.mutable_stopping()->add_stop_token_ids(1000); }},
      {"constraint.json_schema", [](D& d) { d.mutable_constraint()->set_json_schema(""); }},
      {"constraint.json_schema",
       [](D& d) { d.mutable_constraint()->set_json_schema(std::string((64 << 10) + 1, ' ')); }},
      {"constraint.regex",
       [](D& d) { d.mutable_constraint()->set_regex(std::string((4 << 10) + 1, 'a')); }},
      {"constraint.choice.options", [](D& d) { d.mutable_constraint()->mutable_choice(); }},
      {"constraint.grammar", [](D& d) { d.mutable_constraint()->set_grammar(""); }},
      {"chat_template", [](D& d) { d.set_chat_template("{{ messages "); }},
      {"chat_template", [](D& d) { d.set_chat_template("{{ x | no_such_filter(1) "); }},
  };
  for (const auto& [field, set] : kCases) {
    EXPECT_EQ(Blamed(set), std::string("defaults.") + field);
  }
}

TEST(AdapterDefaultsTest, WhatTheEngineRefusesIsBlamedOnTheFieldItCameFrom) {
  EXPECT_EQ(Blamed([](auto& defaults) { defaults.mutable_constraint()->set_regex("("); },
                   InvalidArgument("constraint.regex: byte 1: expected ')'")),
            "defaults.constraint.regex");
  ServingFixture fixture;
  v1::AdapterDefaults message;
  message.set_system_prompt("Be brief.");
  message.set_chat_template("{{ messages[0].content }}");
  const auto defaults = MakeAdapterDefaults(message);
  ASSERT_TRUE(defaults.ok()) << defaults.status();
  ASSERT_TRUE(
      CheckAdapterDefaults(**defaults, fixture.serving.limits, fixture.serving.engine).ok());
  ASSERT_EQ(fixture.engine.checked.size(), 2u);
  const auto& chat = std::get<ChatPrompt>(fixture.engine.checked[1].prompt);
  ASSERT_EQ(chat.messages.size(), 2u);
  EXPECT_EQ(chat.messages[0].content, "Be brief.");
  EXPECT_EQ(chat.chat_template, (*defaults)->chat_template);
}

}  // namespace
}  // namespace polyad
