// A soft prompt is work that is done once: every later request of the same version, whoever's,
// finds its blocks; a new version never does.
#include <gtest/gtest.h>

#include "engine/base/clock.h"
#include "engine/runtime/engine_loop.h"
#include "engine/runtime/intake.h"
#include "engine/runtime/soft_prompt_head.h"
#include "tests/engine/model/forwarding_runner.h"
#include "tests/sim/fake_model.h"
#include "tests/sim/fake_tokenizer.h"

namespace polyad {
namespace {

constexpr int64_t kBlocks = 64;
constexpr int64_t kContext = 200;

// Counts the virtual tokens that steps compute or store.
class CountingModel final : public ForwardingRunner {
 public:
  CountingModel() : ForwardingRunner(model) {}
  StatusOr<FloatRows> Run(const StepBatch& batch) override {
    num_stored += static_cast<int64_t>(batch.prefix_slots.size());
    for (const StepPrompt& rows : batch.prompts) num_computed += rows.row_end - rows.row_begin;
    return ForwardingRunner::Run(batch);
  }

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

  // 40 virtual tokens behind eight empty slots: three blocks.
  void LoadVersion(int64_t id) {
    AdapterVersion::Identity identity;
    identity.id = AdapterVersionId(id);
    identity.name = "styled";
    auto prompt = std::make_shared<SoftPrompt>();
    prompt->num_tokens = 40;
    prompt->stores_kv = GetParam();
    prompt->bytes = id;  // whose the fake model takes a stored prefix to be
    prompt->FillBlocks();
    auto version = std::make_shared<AdapterVersion>(identity, 1);
    version->SetSoftPrompt(std::move(prompt));
    adapter_ = std::move(version);
  }

  void Post(const std::string& tenant, std::vector<int32_t> prompt) {
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
  }

  // Runs one request to its end and returns how many virtual tokens that took.
  int64_t VirtualTokensOf(const std::string& tenant, std::vector<int32_t> prompt) {
    Post(tenant, std::move(prompt));
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
  EXPECT_EQ(VirtualTokensOf("a", {1, 2, 3}), 48);
  EXPECT_EQ(VirtualTokensOf("a", {4, 5}), 0);
  EXPECT_EQ(VirtualTokensOf("b", {6, 7, 8, 9}), 0);
  EXPECT_EQ(runner_.num_stored, GetParam() ? 48 : 8);  // embeddings: the empty slots alone
  EXPECT_EQ(runner_.num_computed, GetParam() ? 0 : 40);
  EXPECT_EQ(loop_.load().soft_prompt_tokens, 48);
  EXPECT_EQ(loop_.load().num_kv_blocks_soft_prompt, 3);
}

TEST_P(SoftPromptSharing, RequestsHoldTheSameBlocks) {
  VirtualTokensOf("a", {1, 2, 3});
  for (const char* tenant : {"a", "b", "c"}) Post(tenant, {4, 5, 6});
  loop_.Step();
  EXPECT_EQ(loop_.load().num_kv_blocks_shared, 3);
  EXPECT_EQ(loop_.load().num_kv_blocks_used, 3 + 3);  // and one block of text each
  for (int step = 0; step < 20; ++step) loop_.Step();
  outputs_.DrainNow();
}

TEST_P(SoftPromptSharing, ALoadComputesItBeforeAnybodyAsks) {
  std::string id;
  const StatusOr<int64_t> number = registry_.Begin(id);
  StatusOr<Arrive> arrive = intake_.PrepareHead(adapter_, *number, nullptr);
  ASSERT_TRUE(arrive.ok()) << arrive.status();
  EXPECT_TRUE(inbox_.TryPush(*std::move(arrive)));
  for (int step = 0; step < 5; ++step) loop_.Step();
  EXPECT_TRUE(loop_.state().idle());
  EXPECT_EQ(loop_.load().prompt_tokens, 0) << "it is nobody's request";
  EXPECT_EQ(loop_.load().num_requests_finished, 0);
  EXPECT_EQ(VirtualTokensOf("a", {1, 2, 3}), 0);
}

TEST_P(SoftPromptSharing, ItGoesWithTheLastLease) {
  VirtualTokensOf("a", {1, 2, 3});
  EXPECT_EQ(loop_.load().num_kv_blocks_soft_prompt, 3);
  inbox_.PushUrgent(ForgetHead{HeadChain(*adapter_).keys});
  loop_.Step();
  EXPECT_EQ(loop_.load().num_kv_blocks_soft_prompt, 0);
  EXPECT_EQ(loop_.load().num_kv_blocks_cached, 0);
}

TEST_P(SoftPromptSharing, ANewVersionNeverMeetsTheOldOnesBlocks) {
  EXPECT_EQ(VirtualTokensOf("a", {1, 2, 3}), 48);
  LoadVersion(2);
  EXPECT_EQ(VirtualTokensOf("a", {1, 2, 3}), 48);
  EXPECT_EQ(VirtualTokensOf("b", {1, 2, 3}), 0);
}

TEST_P(SoftPromptSharing, VirtualTokensAreNobodysPrompt) {
  VirtualTokensOf("a", {1, 2, 3});
  EXPECT_EQ(last_prompt_.num_prompt_tokens, 3);
  EXPECT_EQ(last_prompt_.num_cached_tokens, 0);
  std::vector<int32_t> longer(20, 5);
  VirtualTokensOf("a", longer);
  VirtualTokensOf("a", longer);  // the soft prompt and a block of these are found
  EXPECT_EQ(last_prompt_.num_cached_tokens, 16);
  EXPECT_EQ(loop_.load().prompt_tokens, 3 + 20 + 20);
  EXPECT_EQ(loop_.load().prefix_hits, 16);
}

TEST_P(SoftPromptSharing, EmptySlotsTakeNoPosition) {
  const int64_t most = kContext - 40 - 1;  // a position each, but for the last token's
  Post("a", std::vector<int32_t>(static_cast<size_t>(most), 5));
  for (int step = 0; step < 20; ++step) loop_.Step();
  int64_t num_generated = 0;
  for (const EngineOutput& output : outputs_.DrainNow()) {
    if (std::holds_alternative<TokensEvent>(output.event)) ++num_generated;
  }
  EXPECT_EQ(num_generated, 1);
  EXPECT_EQ(runner_.model.violation(), "");
}

INSTANTIATE_TEST_SUITE_P(Kinds, SoftPromptSharing, ::testing::Bool(), [](const auto& test) {
  return test.param ? "keys_and_values" : "embeddings";
});

}  // namespace
}  // namespace polyad
