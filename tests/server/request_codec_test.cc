#include "server/request_codec.h"

#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <limits>
#include <string>
#include <vector>

#include "server/field_error.h"

namespace polyad {
namespace {

using Request = v1::GenerateRequest;

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();
constexpr double kInf = std::numeric_limits<double>::infinity();

DecodeLimits Limits() { return {"base-model", 1000, 512, 4096}; }

Request Minimal() {
  Request request;
  request.set_text("hello");
  return request;
}

struct FieldCase {
  std::string field;  // as the error names it
  std::function<void(double, Request&)> set;
  std::vector<double> accepted;
  std::vector<double> refused;
};

std::vector<FieldCase> FieldCases() {
  const auto sampling = [](Request& r) { return r.mutable_sampling(); };
  const auto stopping = [](Request& r) { return r.mutable_stopping(); };
  const auto as_int = [](double v) { return static_cast<int32_t>(v); };
  return {
      {"sampling.temperature",
       [=](double v, Request& r) { sampling(r)->set_temperature(static_cast<float>(v)); },
       {0, -0.0, 1, 100},
       {-0.001, 100.1, kNan, kInf, -kInf, 3e38}},
      {"sampling.top_k",
       [=](double v, Request& r) { sampling(r)->set_top_k(as_int(v)); },
       {0, 1, 1073741824},
       {-1, 2147483647}},
      {"sampling.top_p",
       [=](double v, Request& r) { sampling(r)->set_top_p(static_cast<float>(v)); },
       {0.001, 1},
       {0, -0.0, -1, 1.001, kNan, kInf}},
      {"sampling.min_p",
       [=](double v, Request& r) { sampling(r)->set_min_p(static_cast<float>(v)); },
       {0, 1},
       {-0.001, 1.001, kNan, kInf}},
      {"sampling.repetition_penalty",
       [=](double v, Request& r) { sampling(r)->set_repetition_penalty(static_cast<float>(v)); },
       {0.01, 1, 10},
       {0, -1, 10.1, kNan, kInf}},
      {"sampling.presence_penalty",
       [=](double v, Request& r) { sampling(r)->set_presence_penalty(static_cast<float>(v)); },
       {-2, 0, 2},
       {-2.01, 2.01, kNan, -kInf}},
      {"sampling.frequency_penalty",
       [=](double v, Request& r) { sampling(r)->set_frequency_penalty(static_cast<float>(v)); },
       {-2, 0, 2},
       {-2.01, 2.01, kNan, -kInf}},
      {"sampling.n",
       [=](double v, Request& r) { sampling(r)->set_n(as_int(v)); },
       {1, 16},
       {0, -1, 17, 1000000}},
      {"sampling.logit_bias",
       [=](double v, Request& r) {
         (*sampling(r)->mutable_logit_bias())[5] = static_cast<float>(v);
       },
       {-100, 0, 100},
       {-100.1, 100.1, kNan, kInf}},
      {"sampling.logit_bias",
       [=](double v, Request& r) { (*sampling(r)->mutable_logit_bias())[as_int(v)] = 1; },
       {0, 999},
       {-1, 1000, 2147483647, -2147483648.0}},
      {"sampling.allowed_token_ids",
       [=](double v, Request& r) { sampling(r)->add_allowed_token_ids(as_int(v)); },
       {0, 999},
       {-1, 1000, 2147483647}},
      {"stopping.max_tokens",
       [=](double v, Request& r) { stopping(r)->set_max_tokens(static_cast<int64_t>(v)); },
       {0, 1, 512},
       {-1, 513, 9e18, -9e18}},
      {"stopping.min_tokens",
       [=](double v, Request& r) { stopping(r)->set_min_tokens(static_cast<int64_t>(v)); },
       {0, 16},
       {-1, 17, 9e18}},  // the default max_tokens is 16
      {"stopping.stop_token_ids",
       [=](double v, Request& r) { stopping(r)->add_stop_token_ids(as_int(v)); },
       {0, 999},
       {-1, 1000}},
      {"output.logprobs",
       [=](double v, Request& r) { r.mutable_output()->set_logprobs(as_int(v)); },
       {0, 20},
       {-1, 21}},
      {"output.prompt_logprobs",
       [=](double v, Request& r) { r.mutable_output()->set_prompt_logprobs(as_int(v)); },
       {0, 20},
       {-1, 21}},
      {"priority",
       [=](double v, Request& r) { r.set_priority(as_int(v)); },
       {-100, 0, 100},
       {-101, 101}},
      {"max_adapter_wait_ms",
       [=](double v, Request& r) { r.set_max_adapter_wait_ms(static_cast<int64_t>(v)); },
       {0, 600000},
       {-1, 600001, 9e18}},
      {"token_ids.ids",
       [=](double v, Request& r) { r.mutable_token_ids()->add_ids(as_int(v)); },
       {0, 999},
       {-1, 1000, 2147483647, -2147483648.0}},
  };
}

TEST(RequestCodecTest, NumbersAreAcceptedWithinTheirRangeAndRefusedByNameOutside) {
  for (const FieldCase& field : FieldCases()) {
    for (double value : field.accepted) {
      Request request = Minimal();
      field.set(value, request);
      const auto spec = DecodeGenerate(request, Limits());
      EXPECT_TRUE(spec.ok()) << field.field << " = " << value << ": " << spec.status();
    }
    for (double value : field.refused) {
      Request request = Minimal();
      field.set(value, request);
      const auto spec = DecodeGenerate(request, Limits());
      ASSERT_FALSE(spec.ok()) << field.field << " = " << value;
      EXPECT_EQ(spec.status().code(), absl::StatusCode::kInvalidArgument);
      EXPECT_EQ(BlamedField(spec.status()), field.field);
      const std::string message(spec.status().message());
      EXPECT_NE(message.find("expected"), std::string::npos) << message;
      EXPECT_NE(message.find("got"), std::string::npos) << message;
    }
  }
}

TEST(RequestCodecTest, AbsentFieldsTakeTheDocumentedDefaults) {
  const auto spec = DecodeGenerate(Minimal(), Limits());
  ASSERT_TRUE(spec.ok()) << spec.status();
  EXPECT_EQ(spec->sampling.temperature, 1.0f);
  EXPECT_EQ(spec->sampling.top_p, 1.0f);
  EXPECT_EQ(spec->sampling.repetition_penalty, 1.0f);
  EXPECT_EQ(spec->sampling.num_choices, 1);
  EXPECT_EQ(spec->stopping.max_tokens, 16);
  EXPECT_FALSE(spec->output.logprobs.has_value());
  EXPECT_TRUE(spec->output.skip_special_tokens);
  EXPECT_EQ(spec->model, "");
}

TEST(RequestCodecTest, ServerDrawsAnotherSeedForEachRequestWithoutOne) {
  const auto first = DecodeGenerate(Minimal(), Limits());
  const auto second = DecodeGenerate(Minimal(), Limits());
  EXPECT_NE(first->sampling.seed, second->sampling.seed);
  Request request = Minimal();
  request.mutable_sampling()->set_seed(0);
  EXPECT_EQ(DecodeGenerate(request, Limits())->sampling.seed, 0u);
}

struct CountCase {
  std::string field;
  size_t max;
  std::function<void(size_t, Request&)> fill;
};

TEST(RequestCodecTest, ListsAndStringsHaveTheirLimits) {
  const std::vector<CountCase> cases = {
      {"text", 4096, [](size_t n, Request& r) { r.set_text(std::string(n, 'a')); }},
      {"request_id", 128, [](size_t n, Request& r) { r.set_request_id(std::string(n, 'a')); }},
      {"cache.salt", 64,
       [](size_t n, Request& r) { r.mutable_cache()->set_salt(std::string(n, 'a')); }},
      {"token_ids.ids", 512,
       [](size_t n, Request& r) {
         for (size_t i = 0; i < n; ++i) r.mutable_token_ids()->add_ids(1);
       }},
      {"stopping.stop", 16,
       [](size_t n, Request& r) {
         for (size_t i = 0; i < n; ++i) r.mutable_stopping()->add_stop("x");
       }},
      {"stopping.stop", 64,
       [](size_t n, Request& r) { r.mutable_stopping()->add_stop(std::string(n, 'a')); }},
      {"stopping.stop_token_ids", 128,
       [](size_t n, Request& r) {
         for (size_t i = 0; i < n; ++i) r.mutable_stopping()->add_stop_token_ids(1);
       }},
      {"sampling.allowed_token_ids", 1024,
       [](size_t n, Request& r) {
         for (size_t i = 0; i < n; ++i) r.mutable_sampling()->add_allowed_token_ids(1);
       }},
      {"chat.messages", 2048,
       [](size_t n, Request& r) {
         for (size_t i = 0; i < n; ++i) r.mutable_chat()->add_messages()->set_role("user");
       }},
      {"chat.messages.content", 4096,
       [](size_t n, Request& r) {
         r.mutable_chat()->add_messages()->set_role("user");
         r.mutable_chat()->mutable_messages(0)->set_content(std::string(n, 'a'));
       }},
      {"chat.messages.role", 64,
       [](size_t n, Request& r) {
         r.mutable_chat()->add_messages()->set_role(std::string(n, 'a'));
       }},
  };
  for (const CountCase& one : cases) {
    Request at_limit = Minimal();
    one.fill(one.max, at_limit);
    EXPECT_TRUE(DecodeGenerate(at_limit, Limits()).ok()) << one.field;
    Request over = Minimal();
    one.fill(one.max + 1, over);
    const auto refused = DecodeGenerate(over, Limits());
    ASSERT_FALSE(refused.ok()) << one.field;
    EXPECT_EQ(BlamedField(refused.status()), one.field);
  }
  DecodeLimits wide = Limits();
  wide.vocab_size = 10'000;
  for (size_t count : {size_t{1024}, size_t{1025}}) {
    Request biased = Minimal();
    for (size_t i = 0; i < count; ++i) {
      (*biased.mutable_sampling()->mutable_logit_bias())[static_cast<int32_t>(i)] = 1;
    }
    EXPECT_EQ(DecodeGenerate(biased, wide).ok(), count == 1024);
  }
}

TEST(RequestCodecTest, PromptIsRequired) {
  for (const auto& prepare : std::vector<std::function<void(Request&)>>{
           [](Request&) {}, [](Request& r) { r.mutable_token_ids(); },
           [](Request& r) { r.mutable_chat(); }}) {
    Request request;
    prepare(request);
    EXPECT_EQ(DecodeGenerate(request, Limits()).status().code(),
              absl::StatusCode::kInvalidArgument);
  }
}

TEST(RequestCodecTest, AConstraintIsOneFormWithinItsSize) {
  using Kind = ConstraintSpec::Kind;
  EXPECT_TRUE(DecodeGenerate(Minimal(), Limits())->constraint.empty());
  const auto decode = [](const std::function<void(v1::Constraint&)>& set) {
    Request request = Minimal();
    set(*request.mutable_constraint());
    return DecodeGenerate(request, Limits());
  };
  const auto schema = decode([](v1::Constraint& c) { c.set_json_schema("{}"); });
  EXPECT_EQ(schema->constraint.kind, Kind::kJsonSchema);
  EXPECT_EQ(schema->constraint.text, "{}");
  EXPECT_EQ(decode([](v1::Constraint& c) { c.set_regex("a*"); })->constraint.kind, Kind::kRegex);
  EXPECT_EQ(decode([](v1::Constraint& c) { c.set_grammar("root ::= \"a\""); })->constraint.kind,
            Kind::kGrammar);
  EXPECT_EQ(decode([](v1::Constraint& c) { c.set_json_object(true); })->constraint.kind,
            Kind::kJsonObject);
  EXPECT_TRUE(decode([](v1::Constraint& c) { c.set_json_object(false); })->constraint.empty());
  const auto choice = decode([](v1::Constraint& c) {
    c.mutable_choice()->add_options("yes");
    c.mutable_choice()->add_options("no");
  });
  EXPECT_EQ(choice->constraint.options, (std::vector<std::string>{"yes", "no"}));

  const std::pair<const char*, std::function<void(v1::Constraint&)>> refused[] = {
      {"constraint.json_schema", [](v1::Constraint& c) { c.set_json_schema(""); }},
      {"constraint.json_schema",
       [](v1::Constraint& c) { c.set_json_schema(std::string((64 << 10) + 1, 'a')); }},
      {"constraint.regex", [](v1::Constraint& c) { c.set_regex(std::string(4097, 'a')); }},
      {"constraint.grammar",
       [](v1::Constraint& c) { c.set_grammar(std::string((64 << 10) + 1, 'a')); }},
      {"constraint.choice.options", [](v1::Constraint& c) { c.mutable_choice(); }},
      {"constraint.choice.options",
       [](v1::Constraint& c) {
         for (int i = 0; i < 257; ++i) c.mutable_choice()->add_options("a");
       }},
      {"constraint.choice.options",
       [](v1::Constraint& c) { c.mutable_choice()->add_options(std::string(1025, 'a')); }}};
  for (const auto& [field, set] : refused) {
    const Status status = decode(set).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << field;
    EXPECT_EQ(BlamedField(status), field);
  }
}

TEST(RequestCodecTest, ACompositionIsAnOrderedListOfAdaptersWithScales) {
  Request composed = Minimal();
  composed.add_adapters()->set_name("a");
  auto* second = composed.add_adapters();
  second->set_name("b@3");
  second->set_scale(-0.5f);
  const auto spec = DecodeGenerate(composed, Limits());
  ASSERT_TRUE(spec.ok()) << spec.status();
  ASSERT_EQ(spec->adapters.size(), 2u);
  EXPECT_EQ(spec->adapters[0].name, "a");
  EXPECT_EQ(spec->adapters[0].scale, 1.0f);
  EXPECT_EQ(spec->adapters[1].name, "b@3");
  EXPECT_EQ(spec->adapters[1].scale, -0.5f);
}

TEST(RequestCodecTest, ACompositionIsBoundedAndNamesItsFields) {
  const auto blamed = [](const std::function<void(Request&)>& change) {
    Request request = Minimal();
    request.add_adapters()->set_name("a");
    change(request);
    return BlamedField(DecodeGenerate(request, Limits()).status());
  };
  EXPECT_EQ(blamed([](Request& r) { r.set_model("b"); }), "adapters");
  EXPECT_EQ(blamed([](Request& r) { r.add_adapters(); }), "adapters.name");
  EXPECT_EQ(blamed([](Request& r) { r.mutable_adapters(0)->set_name("no/name"); }),
            "adapters.name");
  EXPECT_EQ(blamed([](Request& r) { r.mutable_adapters(0)->set_scale(101.0f); }), "adapters.scale");
  EXPECT_EQ(blamed([](Request& r) { r.mutable_adapters(0)->set_scale(NAN); }), "adapters.scale");
  EXPECT_EQ(blamed([](Request& r) {
              for (int i = 0; i < 8; ++i) r.add_adapters()->set_name("a");
            }),
            "adapters");
}

TEST(RequestCodecTest, ModelReferencesAreNamesVersionsOrTheBase) {
  const auto decode = [](const std::string& model) {
    return DecodeModel(model, Limits(), "model");
  };
  EXPECT_EQ(decode("").value(), "");
  EXPECT_EQ(decode("base-model").value(), "");
  EXPECT_EQ(decode("base:base-model").value(), "");
  EXPECT_EQ(decode("pirate").value(), "pirate");
  EXPECT_EQ(decode("pirate@12").value(), "pirate@12");
  EXPECT_EQ(decode(std::string(128, 'a')).value(), std::string(128, 'a'));
  for (const char* bad : {"-a", ".a", "a,b", "a/b", "../a", "a b", "a@", "a@x", "a@1@2", "@1",
                          "base:other", "a\n", "a@1234567890123456789", "\xc3\xa9"}) {
    EXPECT_FALSE(decode(bad).ok()) << bad;
  }
  EXPECT_FALSE(decode(std::string(129, 'a')).ok());
}

TEST(RequestCodecTest, RequestIdIsPrintableAscii) {
  for (const char* bad : {"a b", "a\n", "\x7f", "\xc3\xa9"}) {
    Request request = Minimal();
    request.set_request_id(bad);
    EXPECT_EQ(BlamedField(DecodeGenerate(request, Limits()).status()), "request_id");
  }
}

TEST(RequestCodecTest, MessagesQuoteOnlyPrintableText) {
  Request request = Minimal();
  request.set_model("a\x1b[31m" + std::string(100'000, 'x'));
  const std::string message(DecodeGenerate(request, Limits()).status().message());
  EXPECT_LT(message.size(), 400u);
  EXPECT_EQ(message.find('\x1b'), std::string::npos);
}

}  // namespace
}  // namespace polyad
