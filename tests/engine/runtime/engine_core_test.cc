#include "engine/runtime/engine_core.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <ctime>
#include <map>
#include <mutex>
#include <thread>

#include "engine/runtime/intake.h"
#include "tests/sim/fake_model.h"
#include "tests/sim/fake_tokenizer.h"
#include "tests/sim/oracle.h"

namespace polyad {
namespace {

constexpr int64_t kBlocks = 64;
constexpr int64_t kContext = 200;

// Collects one request's events; Wait returns once every choice has finished.
class Collector final : public ResponseSink {
 public:
  explicit Collector(int num_choices = 1) : open_(num_choices) {}
  bool OnEvent(TokenEvent event) override {
    std::lock_guard<std::mutex> lock(mutex_);
    if (auto* tokens = std::get_if<TokensEvent>(&event)) {
      auto& ids = token_ids_[tokens->choice];
      ids.insert(ids.end(), tokens->token_ids.begin(), tokens->token_ids.end());
    }
    if (auto* finish = std::get_if<FinishEvent>(&event)) {
      last_ = *finish;
      --open_;
    }
    changed_.notify_all();
    return true;
  }
  FinishEvent Wait() {
    std::unique_lock<std::mutex> lock(mutex_);
    changed_.wait(lock, [this] { return open_ == 0; });
    return last_;
  }
  void WaitForToken() {
    std::unique_lock<std::mutex> lock(mutex_);
    changed_.wait(lock, [this] { return !token_ids_.empty() || open_ == 0; });
  }
  std::vector<int32_t> token_ids(int choice = 0) {
    std::lock_guard<std::mutex> lock(mutex_);
    return token_ids_[choice];
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  std::map<int, std::vector<int32_t>> token_ids_;
  FinishEvent last_;
  int open_;
};

class EngineCoreTest : public ::testing::Test {
 protected:
  EngineCoreTest()
      : model_(kBlocks),
        intake_(IntakeOptions(),
                {tokenizer_, clock_,
                 [](std::string_view, std::string_view) -> StatusOr<Intake::Lease> {
                   return NotFound("no adapters here");
                 },
                 nullptr}) {
    EngineLoop::Options options;
    options.limits.scheduler = {.max_running = 8, .max_step_tokens = 64, .max_sample_rows = 24};
    options.limits.num_blocks = kBlocks;
    options.limits.max_context = kContext;
    options.limits.eos_token_ids = {0};
    options.vocab_size = kFakeVocab;
    core_ = std::make_unique<EngineCore>(options, 100,
                                         EngineCore::Parts{model_, tokenizer_, clock_, nullptr});
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

  static RequestSpec Spec(int32_t seed, int64_t max_tokens) {
    RequestSpec spec;
    spec.prompt = TokenPrompt{{1 + seed % 30, 2, 3, 4 + seed % 7}};
    spec.sampling.seed = static_cast<uint64_t>(seed);
    spec.stopping.max_tokens = max_tokens;
    spec.stopping.ignore_eos = true;
    return spec;
  }

  StatusOr<std::string> Submit(RequestSpec spec, std::shared_ptr<ResponseSink> sink,
                               std::shared_ptr<const Request>* request = nullptr) {
    std::string id = spec.request_id;
    POLYAD_ASSIGN_OR_RETURN(const int64_t number, core_->registry().Begin(id));
    spec.request_id = id;
    POLYAD_ASSIGN_OR_RETURN(Arrive arrive,
                            intake_.Prepare(std::move(spec), number, std::move(sink)));
    if (request != nullptr) *request = arrive.request;
    POLYAD_RETURN_IF_ERROR(core_->Post(std::move(arrive)));
    return id;
  }

  RealClock clock_;
  FakeTokenizer tokenizer_;
  FakeModel model_;
  Intake intake_;
  std::unique_ptr<EngineCore> core_;
};

TEST_F(EngineCoreTest, ManyThreadsSubmitAndEachGetsItsOwnAnswer) {
  std::vector<std::thread> clients;
  for (int32_t client = 0; client < 8; ++client) {
    clients.emplace_back([this, client] {
      for (int32_t i = 0; i < 10; ++i) {
        RequestSpec spec = Spec(client * 100 + i, 20);
        spec.sampling.num_choices = 1 + i % 2;
        const int num_choices = spec.sampling.num_choices;
        auto sink = std::make_shared<Collector>(num_choices);
        std::shared_ptr<const Request> request;
        ASSERT_TRUE(Submit(std::move(spec), sink, &request).ok());
        EXPECT_EQ(sink->Wait().reason, FinishReason::kLength);
        for (int32_t choice = 0; choice < num_choices; ++choice) {
          EXPECT_EQ(sink->token_ids(choice),
                    AnswerAlone(*request, choice, {kContext, {0}}).token_ids);
        }
      }
    });
  }
  for (std::thread& client : clients) client.join();
  EXPECT_TRUE(core_->registry().Drain(60000));
  core_.reset();
  EXPECT_EQ(model_.violation(), "");
}

TEST_F(EngineCoreTest, ACancelFromAnotherThreadEndsARunningRequest) {
  for (int32_t i = 0; i < 20; ++i) {
    auto sink = std::make_shared<Collector>();
    const StatusOr<std::string> id = Submit(Spec(i, 190), sink);
    ASSERT_TRUE(id.ok());
    sink->WaitForToken();
    core_->Cancel(*id);
    const FinishReason reason = sink->Wait().reason;
    EXPECT_TRUE(reason == FinishReason::kCancelled || reason == FinishReason::kLength);
  }
  EXPECT_TRUE(core_->registry().Drain(60000));
  EXPECT_EQ(core_->load().num_kv_blocks_used, 0);
}

TEST_F(EngineCoreTest, DestructionAnswersEveryRequest) {
  std::vector<std::shared_ptr<Collector>> sinks;
  for (int32_t i = 0; i < 50; ++i) {
    sinks.push_back(std::make_shared<Collector>());
    ASSERT_TRUE(Submit(Spec(i, 190), sinks.back()).ok());
  }
  core_.reset();
  for (const auto& sink : sinks) sink->Wait();
}

TEST_F(EngineCoreTest, AnIdleEngineUsesNoProcessor) {
  auto sink = std::make_shared<Collector>();
  ASSERT_TRUE(Submit(Spec(1, 3), sink).ok());
  sink->Wait();
  ASSERT_TRUE(core_->registry().Drain(60000));
  EXPECT_FALSE(core_->registry().Find("nobody").has_value());
  double least = 1e9;
  for (int window = 0; window < 20 && least >= 0.05; ++window) {
    const std::clock_t before = std::clock();
    std::this_thread::sleep_for(std::chrono::milliseconds(500));
    least = std::min(least, static_cast<double>(std::clock() - before) / CLOCKS_PER_SEC);
  }
  EXPECT_LT(least, 0.05);  // a spinning thread would take half a second in every window
}

}  // namespace
}  // namespace polyad
