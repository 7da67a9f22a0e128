#include "engine/runtime/intake.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>

#include "engine/runtime/scheduler.h"
#include "tests/sim/fake_tokenizer.h"

namespace polyad {
namespace {

class FixedDelta final : public PackedDelta {
 public:
  DeltaCost cost() const override { return {.bytes = 10, .flops_per_token = 50}; }
};

class IntakeTest : public ::testing::Test {
 protected:
  IntakeTest() {
    AdapterVersion::Identity identity;
    identity.id = AdapterVersionId(5);
    identity.name = "pirate";
    identity.version = 2;
    auto version = std::make_shared<AdapterVersion>(identity, 1);
    version->Add(0, SiteGroup::kQkv, {0, std::make_shared<FixedDelta>()});
    version->Add(0, SiteGroup::kMlpIn, {0, std::make_shared<FixedDelta>()});
    adapter_ = version;
  }

  Intake Make(bool prefix_cache = true) {
    Intake::Options options;
    options.model_name = "base";
    options.vocab_size = kFakeVocab;
    options.max_context = 100;
    options.num_blocks = 4;
    options.max_prompt_bytes = 50;
    options.base_flops_per_token = 400;
    options.prefix_cache = prefix_cache;
    return Intake(options,
                  {tokenizer_, clock_,
                   [this](std::string_view name, std::string_view) -> StatusOr<Intake::Lease> {
                     if (name == "pirate") return adapter_;
                     return NotFound("model: no adapter named %s", name);
                   },
                   nullptr});
  }

  static RequestSpec Spec(std::vector<int32_t> ids, int64_t max_tokens = 4) {
    RequestSpec spec;
    spec.prompt = TokenPrompt{std::move(ids)};
    spec.stopping.max_tokens = max_tokens;
    return spec;
  }
  StatusOr<Arrive> Prepare(RequestSpec spec, int64_t number = 1) {
    return Make().Prepare(std::move(spec), number, nullptr);
  }
  void ExpectInvalid(RequestSpec spec, const std::string& field) {
    const Status status = Prepare(std::move(spec)).status();
    EXPECT_TRUE(absl::IsInvalidArgument(status)) << status;
    EXPECT_THAT(std::string(status.message()), ::testing::HasSubstr(field));
  }

  FakeTokenizer tokenizer_;
  FakeClock clock_;
  std::shared_ptr<const AdapterVersion> adapter_;
};

TEST_F(IntakeTest, TakesTextOrIds) {
  RequestSpec spec = Spec({});
  spec.prompt = TextPrompt{"abc"};
  EXPECT_THAT(Prepare(spec)->request->prompt_tokens, ::testing::ElementsAre(1, 2, 3));
  EXPECT_THAT(Prepare(Spec({4, 5}))->request->prompt_tokens, ::testing::ElementsAre(4, 5));
}

TEST_F(IntakeTest, RefusesWhatTheModelCannotRead) {
  ExpectInvalid(Spec({}), "at least one token");
  ExpectInvalid(Spec({1, -1}), "prompt.token_ids");
  ExpectInvalid(Spec({1, static_cast<int32_t>(kFakeVocab)}), "prompt.token_ids");
  ExpectInvalid(Spec({1, std::numeric_limits<int32_t>::max()}), "prompt.token_ids");
  RequestSpec spec = Spec({1});
  spec.prompt = TextPrompt{std::string(51, 'a')};
  ExpectInvalid(spec, "prompt.text");
  spec = Spec({1});
  spec.prompt = ChatPrompt{};
  EXPECT_TRUE(absl::IsFailedPrecondition(Prepare(spec).status()));
}

TEST_F(IntakeTest, RefusesParametersOutOfRange) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const auto with = [](auto change) {
    RequestSpec spec = Spec({1});
    change(spec);
    return spec;
  };
  ExpectInvalid(with([&](RequestSpec& s) { s.sampling.temperature = nan; }), "temperature");
  ExpectInvalid(with([](RequestSpec& s) { s.sampling.temperature = -0.1f; }), "temperature");
  ExpectInvalid(with([](RequestSpec& s) { s.sampling.top_p = 0; }), "top_p");
  ExpectInvalid(with([](RequestSpec& s) { s.sampling.num_choices = 17; }), "sampling.n");
  ExpectInvalid(with([](RequestSpec& s) { s.sampling.num_choices = 0; }), "sampling.n");
  ExpectInvalid(with([](RequestSpec& s) { s.sampling.repetition_penalty = 0; }),
                "repetition_penalty");
  ExpectInvalid(with([](RequestSpec& s) { s.sampling.logit_bias = {{32, 1.0f}}; }), "logit_bias");
  ExpectInvalid(with([&](RequestSpec& s) { s.sampling.logit_bias = {{1, nan}}; }), "logit_bias");
  ExpectInvalid(with([](RequestSpec& s) { s.sampling.allowed_token_ids = {-5}; }),
                "allowed_token_ids");
  ExpectInvalid(with([](RequestSpec& s) { s.stopping.stop_token_ids = {99}; }), "stop_token_ids");
  ExpectInvalid(with([](RequestSpec& s) { s.stopping.max_tokens = -1; }), "max_tokens");
  ExpectInvalid(with([](RequestSpec& s) { s.output.logprobs = 21; }), "logprobs");
}

TEST_F(IntakeTest, RefusesWhatCanNeverFit) {
  // Four blocks hold 64 tokens; the last token that is sampled needs no place.
  EXPECT_TRUE(Prepare(Spec(std::vector<int32_t>(60, 1), 5)).ok());
  ExpectInvalid(Spec(std::vector<int32_t>(60, 1), 6), "K/V cache");
  ExpectInvalid(Spec(std::vector<int32_t>(100, 1), 1), "at most 99 tokens");
  EXPECT_TRUE(Prepare(Spec(std::vector<int32_t>(64, 1), 0)).ok());
}

TEST_F(IntakeTest, NamesOfTheBaseModelNeedNoAdapter) {
  for (const char* name : {"", "base", "base:base"}) {
    RequestSpec spec = Spec({1});
    spec.model = name;
    const StatusOr<Arrive> arrive = Prepare(spec);
    ASSERT_TRUE(arrive.ok()) << name;
    EXPECT_EQ(arrive->request->adapter, nullptr);
    EXPECT_EQ(arrive->request->adapter_identity.name, "base");
    EXPECT_EQ(arrive->token_cost, kBaseTokenCost);
  }
  for (const char* name : {"base:other", "unknown"}) {
    RequestSpec spec = Spec({1});
    spec.model = name;
    EXPECT_TRUE(absl::IsNotFound(Prepare(spec).status())) << name;
  }
}

TEST_F(IntakeTest, ARequestCarriesItsLeaseAndItsCost) {
  RequestSpec spec = Spec({1});
  spec.model = "pirate";
  const StatusOr<Arrive> arrive = Prepare(spec);
  EXPECT_EQ(arrive->request->adapter, adapter_);
  EXPECT_EQ(arrive->request->adapter_identity.version, 2);
  EXPECT_EQ(arrive->token_cost, kBaseTokenCost * 5 / 4);  // 100 of 400 flops more
}

TEST_F(IntakeTest, PromptsAreSharedOnlyWithinATenantAnAdapterAndASalt) {
  const RequestSpec plain = Spec(std::vector<int32_t>(20, 1));
  std::vector<RequestSpec> specs(4, plain);
  specs[1].tenant = "other";
  specs[2].cache.salt = "salt";
  specs[3].model = "pirate";
  const auto keys = Prepare(plain, 1)->prompt_keys;
  ASSERT_EQ(keys.size(), 2u);
  EXPECT_EQ(Prepare(specs[0], 2)->prompt_keys, keys);
  for (size_t i = 1; i < specs.size(); ++i)
    EXPECT_NE(Prepare(specs[i], 2)->prompt_keys[1], keys[1]) << i;
}

TEST_F(IntakeTest, BypassingTheCacheSharesOnlyBetweenARequestsChoices) {
  RequestSpec spec = Spec(std::vector<int32_t>(20, 1));
  spec.cache.bypass_prefix_cache = true;
  EXPECT_TRUE(Prepare(spec)->prompt_keys.empty());
  spec.sampling.num_choices = 2;
  EXPECT_NE(Prepare(spec, 1)->prompt_keys[1], Prepare(spec, 2)->prompt_keys[1]);
  EXPECT_TRUE(Make(/*prefix_cache=*/false).Prepare(Spec({1}), 1, nullptr)->prompt_keys.empty());
}

TEST_F(IntakeTest, RefusesWhatIsTooLateAlready) {
  RequestSpec spec = Spec({1});
  spec.deadline_us = clock_.NowMicros();
  EXPECT_TRUE(absl::IsDeadlineExceeded(Prepare(spec).status()));
}

}  // namespace
}  // namespace polyad
