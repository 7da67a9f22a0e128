#include "engine/runtime/intake.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "engine/runtime/scheduler.h"
#include "tests/sim/fake_tokenizer.h"

namespace polyad {
namespace {

class FixedDelta final : public PackedDelta {
 public:
  DeltaCost cost() const override { return {{Precision::kF32, 12}, 50}; }
};

class IntakeTest : public ::testing::Test {
 protected:
  IntakeTest() {
    AdapterVersion::Identity identity;
    identity.id = AdapterVersionId(5);
    identity.name = "pirate";
    identity.version = 2;
    auto version = std::make_shared<AdapterVersion>(identity, 1);
    for (const SiteGroup group : {SiteGroup::kQkv, SiteGroup::kMlpIn}) {
      const auto delta = std::make_shared<FixedDelta>();
      version->MutableAt(0, group).deltas.push_back({0, delta});
      version->AddCost(delta->cost());
    }
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
    options.max_whole_tokens = 20;
    options.max_whole_scored = 8;
    options.rope_reaches = reaches_;
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
  // Makes "pirate" another version of `id`, with a soft prompt or an invocation.
  void SetAdapter(int64_t id, int64_t num_virtual, std::vector<int32_t> invocation) {
    AdapterVersion::Identity identity;
    identity.id = AdapterVersionId(id);
    auto version = std::make_shared<AdapterVersion>(identity, 1);
    if (num_virtual > 0) {
      auto prompt = std::make_shared<SoftPrompt>();
      prompt->num_tokens = num_virtual;
      version->SetSoftPrompt(std::move(prompt));
    }
    version->SetInvocationTokens(std::move(invocation));
    adapter_ = std::move(version);
  }
  std::vector<PrefixKey> KeysOf(const RequestSpec& spec, int64_t number = 1) {
    return Prepare(spec, number)->prompt_keys.keys;
  }

  std::shared_ptr<const AdapterVersion> adapter_;
  std::vector<int64_t> reaches_;
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

TEST_F(IntakeTest, APromptThatIsReadWholeFitsAStepAndSharesNothing) {
  SetAdapter(5, 4, {});
  const auto whole = std::make_shared<AdapterVersion>(*adapter_);
  whole->SetReadsWholePrompt();
  adapter_ = whole;
  RequestSpec spec = Spec(std::vector<int32_t>(16, 1));
  spec.model = "pirate";
  EXPECT_TRUE(Prepare(spec).ok());
  EXPECT_TRUE(Prepare(spec)->prompt_keys.empty());
  spec.sampling.num_choices = 2;
  EXPECT_TRUE(Prepare(spec)->prompt_keys.empty());
  spec.output.prompt_logprobs = 0;
  ExpectInvalid(spec, "scores at most 8 tokens, got 16");
  spec = Spec(std::vector<int32_t>(17, 1));
  spec.model = "pirate";
  ExpectInvalid(spec, "at most 20 tokens with its virtual ones, got 21");
}

TEST_F(IntakeTest, AFirstPassTakesHalfTheCacheAndSharesNothing) {
  const auto weighed = std::make_shared<AdapterVersion>(*adapter_);
  weighed->SetScalingPass({});
  adapter_ = weighed;
  RequestSpec spec = Spec(std::vector<int32_t>(30, 1), 3);
  spec.model = "pirate";
  spec.sampling.num_choices = 2;
  const StatusOr<Arrive> arrive = Prepare(spec);
  ASSERT_TRUE(arrive.ok()) << arrive.status();
  EXPECT_TRUE(arrive->prompt_keys.empty());
  EXPECT_EQ(arrive->token_cost, kBaseTokenCost * 9 / 4);  // twice the base, and 100 of 400 flops
  spec.stopping.max_tokens = 4;
  ExpectInvalid(spec, "at most 32 tokens (the K/V cache, twice), got 33");
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
  const auto keys = Prepare(plain, 1)->prompt_keys.keys;
  ASSERT_EQ(keys.size(), 2u);
  EXPECT_EQ(Prepare(specs[0], 2)->prompt_keys.keys, keys);
  for (size_t i = 1; i < specs.size(); ++i)
    EXPECT_NE(Prepare(specs[i], 2)->prompt_keys.keys[1], keys[1]) << i;
}

TEST_F(IntakeTest, BypassingTheCacheSharesOnlyBetweenARequestsChoices) {
  RequestSpec spec = Spec(std::vector<int32_t>(20, 1));
  spec.cache.bypass_prefix_cache = true;
  EXPECT_TRUE(Prepare(spec)->prompt_keys.empty());
  spec.sampling.num_choices = 2;
  EXPECT_NE(Prepare(spec, 1)->prompt_keys.keys[1], Prepare(spec, 2)->prompt_keys.keys[1]);
  EXPECT_TRUE(Make(/*prefix_cache=*/false).Prepare(Spec({1}), 1, nullptr)->prompt_keys.empty());
}

TEST_F(IntakeTest, BlocksOfASoftPromptAreEveryTenantsAndTheTextAfterIsNot) {
  SetAdapter(5, 20, {});
  RequestSpec spec = Spec(std::vector<int32_t>(30, 1));
  spec.model = "pirate";
  const auto keys = KeysOf(spec);
  ASSERT_EQ(keys.size(), 4u);  // 20 virtual and 30 text tokens
  std::vector<RequestSpec> others(3, spec);
  others[0].tenant = "other";
  others[1].cache.salt = "salt";
  others[2].cache.bypass_prefix_cache = true;
  for (const RequestSpec& other : others) {
    const auto theirs = KeysOf(other, 2);
    EXPECT_EQ(theirs[1], keys[1]);
    EXPECT_NE(theirs[2], keys[2]);  // four virtual tokens and text
    EXPECT_NE(theirs[3], keys[3]);
  }
  EXPECT_EQ(KeysOf(spec, 2), keys);
  SetAdapter(6, 20, {});  // a new version
  EXPECT_NE(KeysOf(spec)[1], keys[1]);
}

TEST_F(IntakeTest, VirtualTokensCountAgainstTheContext) {
  SetAdapter(5, 60, {});
  RequestSpec spec = Spec(std::vector<int32_t>(40, 1), /*max_tokens=*/1);
  spec.model = "pirate";
  ExpectInvalid(spec, "at most 39 tokens beside the adapter's 60, got 40");
  spec = Spec(std::vector<int32_t>(4, 1), /*max_tokens=*/1);
  spec.model = "pirate";
  EXPECT_TRUE(Prepare(spec).ok());  // 64 tokens fill the four blocks
  spec.stopping.max_tokens = 2;
  ExpectInvalid(spec, "at most 64 tokens (the K/V cache), got 65");
}

TEST_F(IntakeTest, AnActivatedAdapterBeginsAtTheLastInvocation) {
  SetAdapter(5, 0, {3, 4});
  RequestSpec spec = Spec({3, 4, 1, 3, 4, 1});
  spec.model = "pirate";
  EXPECT_EQ(Prepare(spec)->request->adapter_begin, 3);
  spec.prompt = TokenPrompt{{3, 1, 4}};
  EXPECT_GT(Prepare(spec)->request->adapter_begin, 1000);
  spec.model = "";
  EXPECT_EQ(Prepare(spec)->request->adapter_begin, 0);
}

TEST_F(IntakeTest, BlocksBeforeAnInvocationAreTheTenantsWithTheBase) {
  SetAdapter(5, 0, {3});
  std::vector<int32_t> ids(48, 1);
  ids[20] = 3;
  RequestSpec with_adapter = Spec(ids);
  with_adapter.model = "pirate";
  const auto base = KeysOf(Spec(ids));
  const auto keys = KeysOf(with_adapter);
  EXPECT_EQ(keys[1], base[1]);
  EXPECT_NE(keys[2], base[2]);
  EXPECT_NE(keys[3], base[3]);
  RequestSpec other = with_adapter;
  other.tenant = "other";
  EXPECT_NE(KeysOf(other)[1], keys[1]);
  ids[20] = 1;  // not invoked: the base's throughout
  with_adapter.prompt = TokenPrompt{ids};
  EXPECT_EQ(KeysOf(with_adapter), KeysOf(Spec(ids)));
}

TEST_F(IntakeTest, APromptChosenByTheTextIsTheRequestsOwn) {
  auto prompt = std::make_shared<SoftPrompt>();
  prompt->num_tokens = 32;
  prompt->num_prompts = 2;
  prompt->token_scores.assign(static_cast<size_t>(2 * kFakeVocab), 0.0f);
  prompt->token_scores[2 * 7 + 1] = 1.0f;
  AdapterVersion::Identity identity;
  identity.id = AdapterVersionId(5);
  auto version = std::make_shared<AdapterVersion>(identity, 1);
  version->SetSoftPrompt(std::move(prompt));
  adapter_ = std::move(version);
  RequestSpec spec = Spec({7});
  spec.model = "pirate";
  EXPECT_EQ(Prepare(spec)->request->prompt_row, 32);
  EXPECT_NEAR(Prepare(spec)->request->prompt_scale, 1 / (1 + std::exp(-1.0)), 1e-6);
  EXPECT_THAT(KeysOf(spec, 1), ::testing::IsEmpty());
  spec.sampling.num_choices = 2;
  EXPECT_NE(KeysOf(spec, 1)[1], KeysOf(spec, 2)[1]);
  spec.prompt = TokenPrompt{{3}};
  EXPECT_EQ(Prepare(spec)->request->prompt_row, 0);
}

TEST_F(IntakeTest, HowLongARequestMayGetDecidesWhatItTurnsBy) {
  reaches_ = {32, 100};
  const auto choice_of = [this](size_t num_prompt, int64_t max_tokens) {
    return Prepare(Spec(std::vector<int32_t>(num_prompt, 1), max_tokens))->request->rope_choice;
  };
  EXPECT_EQ(choice_of(29, 4), 0);  // the last token that is sampled is in no context
  EXPECT_EQ(choice_of(29, 5), 1);
  EXPECT_EQ(choice_of(32, 0), 0);
  EXPECT_EQ(choice_of(32, 1), 0);
  EXPECT_EQ(choice_of(33, 0), 1);
  // What is turned otherwise is no prefix of it.
  const std::vector<int32_t> prompt(20, 1);
  EXPECT_EQ(KeysOf(Spec(prompt, 4))[1], KeysOf(Spec(prompt, 5))[1]);
  EXPECT_NE(KeysOf(Spec(prompt, 4))[1], KeysOf(Spec(prompt, 40))[1]);
}

TEST_F(IntakeTest, AnAdaptersOwnScalingSaysHowLongItsRequestsAre) {
  RequestSpec spec = Spec(std::vector<int32_t>(50, 1), 4);
  spec.model = "pirate";
  EXPECT_EQ(Prepare(spec)->request->max_context, 100);
  RopeSpec rope;
  rope.rotary_dim = 4;
  rope.scaling = RopeScaling::kDynamic;
  rope.factor = 4.0;
  rope.original_max_position = 10;
  auto version = std::make_shared<AdapterVersion>(adapter_->identity(), 1);
  version->SetRope(std::make_shared<const RopeTables>(rope, 40, 40), 40);
  adapter_ = version;
  ExpectInvalid(spec, "at most 39 tokens");
  spec.prompt = TokenPrompt{std::vector<int32_t>(17, 1)};
  EXPECT_EQ(Prepare(spec)->request->max_context, 40);
  EXPECT_EQ(Prepare(spec)->request->rope_choice, 1);
  spec.stopping.max_tokens = 1000;  // ends with the context
  EXPECT_EQ(Prepare(spec)->request->rope_choice, 2);
}

TEST_F(IntakeTest, RefusesWhatIsTooLateAlready) {
  RequestSpec spec = Spec({1});
  spec.deadline_us = clock_.NowMicros();
  EXPECT_TRUE(absl::IsDeadlineExceeded(Prepare(spec).status()));
}

}  // namespace
}  // namespace polyad
