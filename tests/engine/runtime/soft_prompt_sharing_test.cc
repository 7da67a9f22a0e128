// A soft prompt is work that is done once: every later request of the same version, whoever's,
// finds its blocks; a new version never does.
#include <gtest/gtest.h>

#include "engine/base/clock.h"
#include "engine/runtime/engine_loop.h"
#include "engine/runtime/intake.h"
#include "tests/sim/fake_model.h"
#include "tests/sim/fake_tokenizer.h"

namespace polyad {
namespace {

constexpr int64_t kBlocks = 64;
constexpr int64_t kContext = 200;

// Counts the virtual tokens that steps compute or store.
class CountingModel final : public StepRunner {
 public:
  StatusOr<FloatRows> Run(const StepBatch& batch) override {
    num_stored += static_cast<int64_t>(batch.prefix_slots.size());
    for (const StepPrompt& rows : batch.prompts) num_computed += rows.row_end - rows.row_begin;
    return model.Run(batch);
  }
  void ArgMax(FloatRows logits, std::span<TokenScore> best) override { model.ArgMax(logits, best); }

  FakeModel model{kBlocks};
  int64_t num_computed = 0;
  int64_t num_stored = 0;
};

class SoftPromptSharing : public ::testing::TestWithParam<bool> {
 protected:
  SoftPromptSharing()
      : loop_(LoopOptions(), {runner_, clock_, inbox_, outputs_, registry_, nullptr}),
        intake_(IntakeOptions(), {tokenizer_, clock_,
                                  [this](std::string_view, std::string_view) {
                                    return StatusOr<Intake::Lease>(adapter_);
                                  },
                                  nullptr}) {
    LoadVersion(1);
  }

  static EngineLoop::Options LoopOptions() {
    EngineLoop::Options options;
    options.limits.scheduler = {.max_running = 8, .max_step_tokens = 64, .max_sample_rows = 24};
    options.limits.num_blocks = kBlocks;
    options.limits.max_context = kContext;
    options.vocab_size = kFakeVocab;
    return options;
  }
  static Intake::Options IntakeOptions() {
    Intake::Options options;
    options.model_name = "base";
    options.vocab_size = kFakeVocab;
    options.max_context = kContext;
    options.num_blocks = kBlocks;
    options.max_prompt_bytes = 1000;
    return options;
  }

  // 40 virtual tokens: two blocks of their own, and eight tokens before the text.
  void LoadVersion(int64_t id) {
    AdapterVersion::Identity identity;
    identity.id = AdapterVersionId(id);
    identity.name = "styled";
    auto prompt = std::make_shared<SoftPrompt>();
    prompt->num_tokens = 40;
    prompt->stores_kv = GetParam();
    prompt->bytes = id;  // whose the fake model takes a stored prefix to be
    auto version = std::make_shared<AdapterVersion>(identity, 1);
    version->SetSoftPrompt(std::move(prompt));
    adapter_ = std::move(version);
  }

  // Runs one request to its end and returns how many virtual tokens that took.
  int64_t VirtualTokensOf(const std::string& tenant, std::vector<int32_t> prompt) {
    RequestSpec spec;
    spec.tenant = tenant;
    spec.model = "styled";
    spec.prompt = TokenPrompt{std::move(prompt)};
    spec.stopping.max_tokens = 3;
    std::string id;
    const StatusOr<int64_t> number = registry_.Begin(id);
    StatusOr<Arrive> arrive = intake_.Prepare(std::move(spec), *number, nullptr);
    EXPECT_TRUE(arrive.ok()) << arrive.status();
    EXPECT_TRUE(inbox_.TryPush(*std::move(arrive)));
    const int64_t before = runner_.num_computed + runner_.num_stored;
    for (int step = 0; step < 20; ++step) loop_.Step();
    EXPECT_TRUE(loop_.state().idle());
    EXPECT_EQ(runner_.model.violation(), "");
    for (const EngineOutput& output : outputs_.DrainNow()) {
      if (const auto* event = std::get_if<PromptEvent>(&output.event)) last_prompt_ = *event;
    }
    return runner_.num_computed + runner_.num_stored - before;
  }

  FakeClock clock_;
  FakeTokenizer tokenizer_;
  CountingModel runner_;
  RequestRegistry registry_{100, 100};
  Inbox inbox_{100};
  OutputQueue outputs_{1};
  std::shared_ptr<const AdapterVersion> adapter_;
  EngineLoop loop_;
  Intake intake_;
  PromptEvent last_prompt_;
};

TEST_P(SoftPromptSharing, ItsBlocksAreComputedOnceForEveryTenant) {
  EXPECT_EQ(VirtualTokensOf("a", {1, 2, 3}), 40);
  EXPECT_EQ(VirtualTokensOf("a", {4, 5}), 8);  // the block that text shares is the request's own
  EXPECT_EQ(VirtualTokensOf("b", {6, 7, 8, 9}), 8);
  EXPECT_EQ(runner_.num_stored, GetParam() ? 56 : 0);
  EXPECT_EQ(runner_.num_computed, GetParam() ? 0 : 56);
}

TEST_P(SoftPromptSharing, ANewVersionNeverMeetsTheOldOnesBlocks) {
  EXPECT_EQ(VirtualTokensOf("a", {1, 2, 3}), 40);
  LoadVersion(2);
  EXPECT_EQ(VirtualTokensOf("a", {1, 2, 3}), 40);
  EXPECT_EQ(VirtualTokensOf("b", {1, 2, 3}), 8);
}

TEST_P(SoftPromptSharing, VirtualTokensAreNobodysPrompt) {
  VirtualTokensOf("a", {1, 2, 3});
  EXPECT_EQ(last_prompt_.num_prompt_tokens, 3);
  EXPECT_EQ(last_prompt_.num_cached_tokens, 0);
  std::vector<int32_t> longer(20, 5);
  VirtualTokensOf("a", longer);
  VirtualTokensOf("a", longer);  // 40 virtual and 8 of these are found: three blocks
  EXPECT_EQ(last_prompt_.num_cached_tokens, 8);
  EXPECT_EQ(loop_.load().prompt_tokens, 3 + 20 + 20);
  EXPECT_EQ(loop_.load().prefix_hits, 8);
}

INSTANTIATE_TEST_SUITE_P(Kinds, SoftPromptSharing, ::testing::Bool(), [](const auto& test) {
  return test.param ? "keys_and_values" : "embeddings";
});

}  // namespace
}  // namespace polyad
