// Requests with a constraint through the engine loop, one step at a time over the fake model (whose
// tokens are 0, the end, and i for the i-th letter): what they may write, how they end, and that
// neither neighbours nor preemption change a token. covers: engine/runtime/sample_step.cc
// engine/runtime/commit.cc

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>

#include "engine/constraint/constraint_cache.h"
#include "engine/runtime/engine_core.h"
#include "engine/runtime/intake.h"
#include "tests/sim/fake_model.h"
#include "tests/sim/fake_tokenizer.h"

namespace polyad {
namespace {

using Kind = ConstraintSpec::Kind;
constexpr int64_t kContext = 200;

struct Result {
  std::vector<int32_t> tokens;
  std::vector<TokenLogprob> logprobs;
  FinishEvent finish;
  bool done = false;
  std::string text() const {
    std::string text;
    for (const int32_t id : tokens) text += id == 0 ? '$' : static_cast<char>('`' + id);
    return text;
  }
};

class Harness {
 public:
  explicit Harness(int64_t num_blocks = 64)
      : model_(num_blocks),
        cache_(tokenizer_, kFakeVocab),
        intake_(
            {.model_name = "base",
             .vocab_size = kFakeVocab,
             .max_context = kContext,
             .num_blocks = num_blocks,
             .max_prompt_bytes = 1000},
            {tokenizer_, clock_,
             [](std::string_view, std::string_view) -> StatusOr<Intake::Lease> {
               return NotFound("no adapters here");
             },
             nullptr, nullptr, [this](const ConstraintSpec& spec) { return cache_.Get(spec); }}),
        inbox_(1000),
        outputs_(100'000),
        registry_(1000, 1000) {
    EngineLoop::Options options;
    options.limits.scheduler = {.max_running = 8, .max_step_tokens = 64, .max_sample_rows = 24};
    options.limits.num_blocks = num_blocks;
    options.limits.max_context = kContext;
    options.limits.eos_token_ids = {0};
    options.vocab_size = kFakeVocab;
    loop_ = std::make_unique<EngineLoop>(
        options, EngineLoop::Parts{model_, clock_, inbox_, outputs_, registry_});
  }

  Status Submit(RequestSpec spec) {
    std::string id;
    POLYAD_ASSIGN_OR_RETURN(const int64_t number, registry_.Begin(id));
    POLYAD_ASSIGN_OR_RETURN(Arrive arrive, intake_.Prepare(std::move(spec), number, nullptr));
    inbox_.PushUrgent(std::move(arrive));
    return absl::OkStatus();
  }
  // Steps until nothing is left; results by order of Submit and choice.
  std::map<std::pair<int64_t, int32_t>, Result> Run() {
    std::map<std::pair<int64_t, int32_t>, Result> results;
    do {
      loop_->Step();
      for (EngineOutput& output : outputs_.DrainNow()) {
        if (auto* tokens = std::get_if<TokensEvent>(&output.event)) {
          Result& result = results[{output.number, tokens->choice}];
          result.tokens.insert(result.tokens.end(), tokens->token_ids.begin(),
                               tokens->token_ids.end());
          result.logprobs.insert(result.logprobs.end(), tokens->token_logprobs.begin(),
                                 tokens->token_logprobs.end());
        } else if (auto* finish = std::get_if<FinishEvent>(&output.event)) {
          Result& result = results[{output.number, finish->choice}];
          result.finish = *finish;
          result.done = true;
        }
      }
    } while (loop_->load().num_running + loop_->load().num_waiting > 0);
    return results;
  }
  Result RunOne(RequestSpec spec) {
    const Status status = Submit(std::move(spec));
    POLYAD_CHECK(status.ok(), std::string(status.message()).c_str());
    return Run().begin()->second;
  }
  int64_t num_preemptions() const { return loop_->load().num_preemptions; }
  const std::string& violation() const { return model_.violation(); }

 private:
  FakeClock clock_;
  FakeTokenizer tokenizer_;
  FakeModel model_;
  ConstraintCache cache_;
  Intake intake_;
  Inbox inbox_;
  OutputQueue outputs_;
  RequestRegistry registry_;
  std::unique_ptr<EngineLoop> loop_;
};

RequestSpec Spec(int32_t seed, Kind kind, std::string text, float temperature = 1.0f) {
  RequestSpec spec;
  spec.prompt = TokenPrompt{{1 + seed % 30, 2, 3, 4 + seed % 7}};
  spec.sampling.seed = static_cast<uint64_t>(seed);
  spec.sampling.temperature = temperature;
  spec.stopping.max_tokens = 40;
  spec.constraint = {.kind = kind, .text = std::move(text)};
  return spec;
}

TEST(Constrained, AnOutputThatNothingCanFollowEndsWithStop) {
  for (const float temperature : {0.0f, 1.0f}) {
    const Result result = Harness().RunOne(Spec(1, Kind::kRegex, "(ab|cd){3}", temperature));
    EXPECT_EQ(result.tokens.size(), 6u);
    EXPECT_EQ(result.finish.reason, FinishReason::kStop);
    EXPECT_EQ(result.finish.usage.completion_tokens, 6);
    EXPECT_EQ(result.finish.stop_reason, "");
  }
}

TEST(Constrained, TheEndMayBeChosenExactlyWhereTheOutputIsComplete) {
  int num_ended = 0;
  for (int32_t seed = 0; seed < 60; ++seed) {
    const Result result = Harness().RunOne(Spec(seed, Kind::kRegex, "(abc)+"));
    const std::string text = result.text();
    if (result.finish.reason == FinishReason::kStop) {
      EXPECT_EQ(text.size() % 3, 1u) << text;
      EXPECT_EQ(text.find('$'), text.size() - 1) << text;
      ++num_ended;
    } else {
      EXPECT_EQ(result.finish.reason, FinishReason::kLength);
      EXPECT_EQ(text.find('$'), text.npos) << text;
    }
    for (size_t i = 0; i < text.size(); ++i) {
      EXPECT_EQ(text[i], text[i] == '$' ? '$' : "abc"[i % 3]) << text;
    }
  }
  EXPECT_GT(num_ended, 10);
}

TEST(Constrained, MinimumLengthHoldsOffTheEndAndMaximumLengthCuts) {
  RequestSpec spec = Spec(3, Kind::kRegex, "a*");
  spec.stopping.min_tokens = 25;
  const Result result = Harness().RunOne(spec);
  EXPECT_GT(result.tokens.size(), 25u);
  spec = Spec(3, Kind::kRegex, "[ab]{30}");
  spec.stopping.max_tokens = 7;
  const Result cut = Harness().RunOne(spec);
  EXPECT_EQ(cut.tokens.size(), 7u);
  EXPECT_EQ(cut.finish.reason, FinishReason::kLength);
  // What must end ends, before the minimum too.
  spec = Spec(3, Kind::kRegex, "ab");
  spec.stopping.min_tokens = 10;
  EXPECT_EQ(Harness().RunOne(spec).finish.reason, FinishReason::kStop);
}

TEST(Constrained, WithoutAnEndTokenTheOutputGoesOnWhileItCan) {
  RequestSpec spec = Spec(5, Kind::kRegex, "[a-c]*");
  spec.stopping.ignore_eos = true;
  const Result result = Harness().RunOne(spec);
  EXPECT_EQ(result.tokens.size(), 40u);
  EXPECT_EQ(result.finish.reason, FinishReason::kLength);
}

TEST(Constrained, StopTokensEndACompleteOutputOnly) {
  for (int32_t seed = 0; seed < 20; ++seed) {
    RequestSpec spec = Spec(seed, Kind::kRegex, "([a-e]z)+");
    spec.stopping.stop_token_ids = {5};  // an e may only come where it ends the output
    const Result result = Harness().RunOne(spec);
    const std::string text = result.text();
    const size_t found = text.find('e');
    if (found == text.npos) continue;
    EXPECT_EQ(found, text.size() - 1) << text;
    EXPECT_EQ(found % 2, 0u) << text;
    EXPECT_EQ(result.finish.stop_reason, "5");
  }
}

TEST(Constrained, WhatOtherFieldsForbidAltogetherIsAnError) {
  RequestSpec spec = Spec(1, Kind::kRegex, "ab");
  spec.sampling.allowed_token_ids = {1};
  const Result result = Harness().RunOne(spec);
  EXPECT_EQ(result.text(), "a");
  EXPECT_EQ(result.finish.reason, FinishReason::kError);
  EXPECT_TRUE(absl::IsFailedPrecondition(result.finish.status)) << result.finish.status;
}

TEST(Constrained, LogprobsAreOfTheDistributionBeforeTheMask) {
  RequestSpec spec = Spec(2, Kind::kRegex, "a{8}", 0.0f);
  spec.output.logprobs = 3;
  const Result result = Harness().RunOne(spec);
  ASSERT_EQ(result.logprobs.size(), 8u);
  bool was_unlikely = false;
  for (const TokenLogprob& one : result.logprobs) {
    EXPECT_EQ(one.token_id, 1);
    was_unlikely = was_unlikely || one.rank > 3;
    for (const TokenAlternative& top : one.top)
      EXPECT_GE(top.logprob, one.rank > 3 ? one.logprob : -100);
  }
  EXPECT_TRUE(was_unlikely);
}

TEST(Constrained, RefusedFormsNameTheirField) {
  Harness harness;
  EXPECT_THAT(std::string(harness.Submit(Spec(1, Kind::kRegex, "(")).message()),
              testing::HasSubstr("constraint.regex"));
  EXPECT_THAT(std::string(harness.Submit(Spec(1, Kind::kRegex, "[0-9]+")).message()),
              testing::HasSubstr("the model's tokens can spell"));
}

// Constrained and free requests, one and several choices, in one batch that does not fit the cache:
// each has the tokens that it has alone.
TEST(Constrained, NeighboursAndPreemptionsChangeNoToken) {
  std::vector<RequestSpec> specs;
  for (int32_t i = 0; i < 14; ++i) {
    RequestSpec spec = i % 3 == 0
                           ? Spec(i, Kind::kNone, "")
                           : Spec(i, Kind::kRegex, i % 2 == 0 ? "([a-e]x?)+" : "(a|bc|def)*z");
    spec.sampling.temperature = i % 4 == 0 ? 0.0f : 1.0f;
    spec.sampling.num_choices = 1 + i % 2;
    spec.stopping.min_tokens = 30;
    specs.push_back(std::move(spec));
  }
  Harness together(7);
  for (const RequestSpec& spec : specs) ASSERT_TRUE(together.Submit(spec).ok());
  const auto mixed = together.Run();
  EXPECT_GT(together.num_preemptions(), 0);
  EXPECT_EQ(together.violation(), "");
  int64_t first_number = mixed.begin()->first.first;
  for (size_t i = 0; i < specs.size(); ++i) {
    Harness alone;
    ASSERT_TRUE(alone.Submit(specs[i]).ok());
    for (const auto& [key, result] : alone.Run()) {
      const auto found = mixed.find({first_number + static_cast<int64_t>(i), key.second});
      ASSERT_NE(found, mixed.end());
      EXPECT_EQ(found->second.tokens, result.tokens) << i;
      EXPECT_EQ(found->second.finish.reason, result.finish.reason) << i;
    }
  }
}

}  // namespace
}  // namespace polyad
