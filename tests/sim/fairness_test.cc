// Fairness between tenants, measured over the real intake, loop and scheduler with a fake model and
// a fake clock: who is served how much while others ask for more than there is. covers:
// engine/runtime/scheduler.cc engine/runtime/tenant_ledger.cc

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <string>
#include <vector>

#include "engine/base/clock.h"
#include "engine/runtime/engine_loop.h"
#include "engine/runtime/intake.h"
#include "engine/runtime/request_registry.h"
#include "tests/sim/fake_model.h"
#include "tests/sim/fake_tokenizer.h"

namespace polyad {
namespace {

constexpr int64_t kNumBlocks = 400;
constexpr int64_t kPromptTokens = 20;
constexpr int64_t kOutputTokens = 20;
constexpr int64_t kMostWaiting = 300;  // of one tenant, as a quota would have it
constexpr int64_t kMaxRunning = 16;

class NoSink final : public ResponseSink {
 public:
  bool OnEvent(TokenEvent) override { return true; }
};

EngineLoop::Options LoopOptions(int64_t num_blocks) {
  EngineLoop::Options options;
  options.limits.scheduler = {
      .max_running = kMaxRunning, .max_step_tokens = 64, .max_sample_rows = 32};
  options.limits.num_blocks = num_blocks;
  options.limits.max_context = 200;
  options.vocab_size = kFakeVocab;
  return options;
}

Intake::Options IntakeOptions(int64_t num_blocks) {
  Intake::Options options;
  options.model_name = "base";
  options.vocab_size = kFakeVocab;
  options.max_context = 200;
  options.num_blocks = num_blocks;
  options.max_prompt_bytes = 1000;
  options.prefix_cache = false;
  return options;
}

// A tenant that asks for `rate` requests a step, from `begin` on.
struct Client {
  double rate = 0;
  TenantShare share = {};
  int64_t begin = 0;
  int64_t prompt_tokens = kPromptTokens;
  int64_t output_tokens = kOutputTokens;

  double owed = 0;
  int64_t num_waiting = 0;
  int64_t num_refused = 0;
  int64_t tokens = 0;  // served: of prompts and of outputs
  std::vector<int64_t> first_token_steps = {};
};

class Rig {
 public:
  explicit Rig(std::vector<Client> clients, int64_t num_blocks = kNumBlocks)
      : clients_(std::move(clients)), num_blocks_(num_blocks) {
    for (size_t i = 0; i < clients_.size(); ++i) {  // not all of them in the same step
      clients_[i].owed = static_cast<double>(i) / static_cast<double>(clients_.size());
    }
  }

  void Run(int64_t num_steps) {
    for (const int64_t end = step_ + num_steps; step_ < end; ++step_) {
      for (size_t i = 0; i < clients_.size(); ++i) Arrivals(i);
      loop_.Step();
      clock_.AdvanceMicros(10'000);
      for (const EngineOutput& output : outputs_.DrainNow()) Note(output);
    }
  }
  const std::vector<Client>& clients() const { return clients_; }
  int64_t num_preemptions() const { return loop_.load().num_preemptions; }
  std::vector<double> Tokens() const {
    std::vector<double> tokens;
    for (const Client& client : clients_) tokens.push_back(static_cast<double>(client.tokens));
    return tokens;
  }

 private:
  struct Asked {
    size_t client = 0;
    int64_t step = 0;
    bool answered = false;
  };

  void Arrivals(size_t index) {
    Client& client = clients_[index];
    if (step_ < client.begin) return;
    for (client.owed += client.rate; client.owed >= 1; client.owed -= 1) {
      if (client.num_waiting < kMostWaiting) {
        Submit(index);
      } else {
        ++client.num_refused;
      }
    }
  }
  void Submit(size_t index) {
    RequestSpec spec;
    spec.tenant = "tenant-" + std::to_string(index);
    spec.share = clients_[index].share;
    spec.prompt =
        TokenPrompt{std::vector<int32_t>(static_cast<size_t>(clients_[index].prompt_tokens),
                                         static_cast<int32_t>(1 + next_number_ % 30))};
    spec.sampling.temperature = 0;
    spec.stopping.max_tokens = clients_[index].output_tokens;
    spec.stopping.ignore_eos = true;
    const int64_t number = next_number_++;
    StatusOr<Arrive> arrive = intake_.Prepare(std::move(spec), number, std::make_shared<NoSink>());
    ASSERT_TRUE(arrive.ok()) << arrive.status();
    ASSERT_TRUE(inbox_.TryPush(*std::move(arrive)));
    asked_[number] = {index, step_};
    ++clients_[index].num_waiting;
  }
  void Note(const EngineOutput& output) {
    Asked& asked = asked_[output.number];
    Client& client = clients_[asked.client];
    if (const auto* prompt = std::get_if<PromptEvent>(&output.event)) {
      client.tokens += prompt->num_prompt_tokens;
      --client.num_waiting;
    } else if (const auto* tokens = std::get_if<TokensEvent>(&output.event)) {
      client.tokens += static_cast<int64_t>(tokens->token_ids.size());
      if (!asked.answered) client.first_token_steps.push_back(step_ - asked.step);
      asked.answered = true;
    } else {
      asked_.erase(output.number);
    }
  }

  std::vector<Client> clients_;
  const int64_t num_blocks_;
  FakeClock clock_;
  FakeTokenizer tokenizer_;
  FakeModel model_{num_blocks_};
  RequestRegistry registry_{100'000, 100'000};
  Inbox inbox_{100'000};
  OutputQueue outputs_{100'000};
  EngineLoop loop_{LoopOptions(num_blocks_), {model_, clock_, inbox_, outputs_, registry_}};
  const Intake intake_{IntakeOptions(num_blocks_), {tokenizer_, clock_, nullptr, nullptr}};
  std::map<int64_t, Asked> asked_;
  int64_t next_number_ = 1;
  int64_t step_ = 0;
};

double JainIndex(const std::vector<double>& shares) {
  double sum = 0;
  double squares = 0;
  for (const double share : shares) {
    sum += share;
    squares += share * share;
  }
  return sum * sum / (static_cast<double>(shares.size()) * squares);
}

int64_t Percentile99(std::vector<int64_t> values) {
  std::sort(values.begin(), values.end());
  return values.empty() ? -1 : values[(values.size() - 1) * 99 / 100];
}

// A step serves 16 of the 21 that a request takes: 0.76 requests a step, 0.095 for each of eight.
constexpr double kFairRate = 0.095;

TEST(Fairness, EqualTenantsAreServedEquallyWhereOneOffersFiftyTimesAsMuch) {
  std::vector<Client> clients(8, Client{.rate = 2 * kFairRate});
  clients[3].rate *= 50;
  Rig rig(clients);
  rig.Run(2000);
  EXPECT_GE(JainIndex(rig.Tokens()), 0.99);
  EXPECT_GT(rig.clients()[3].num_refused, 10'000);
}

TEST(Fairness, WhoAsksForLessThanItsShareHasItAsIfAlone) {
  std::vector<Client> clients(8, Client{.rate = kFairRate / 2});
  Rig alone({clients[0]});
  alone.Run(2000);
  clients[3].rate *= 50;
  Rig rig(clients);
  rig.Run(2000);
  const double asked = kFairRate / 2 * 2000 * (kPromptTokens + kOutputTokens);
  for (size_t i = 0; i < clients.size(); ++i) {
    const Client& client = rig.clients()[i];
    if (i == 3) {
      // All that the others leave: half of the whole, and its own eighth.
      EXPECT_GE(static_cast<double>(client.tokens), 0.9 * asked * 9) << "the heavy one is served";
      continue;
    }
    EXPECT_GE(static_cast<double>(client.tokens), 0.95 * asked) << i;
    EXPECT_LE(Percentile99(client.first_token_steps),
              Percentile99(alone.clients()[0].first_token_steps) + 4)
        << "steps until a place is free";
  }
}

TEST(Fairness, ServiceFollowsTheWeights) {
  std::vector<Client> clients(3, Client{.rate = 2});
  clients[1].share.weight = 2 * kUnitWeight;
  clients[2].share.weight = 4 * kUnitWeight;
  Rig rig(clients);
  rig.Run(2000);
  const std::vector<double> tokens = rig.Tokens();
  EXPECT_NEAR(tokens[1] / tokens[0], 2.0, 0.1);
  EXPECT_NEAR(tokens[2] / tokens[0], 4.0, 0.2);
}

// Ten contexts of 200 tokens fill the pool, and there are places left.
constexpr int64_t kFewBlocks = 130;
constexpr Client kLongContexts = {.rate = 1, .prompt_tokens = 60, .output_tokens = 140};

TEST(Fairness, WhoComesToAFullPoolIsNotKeptWaitingForOthersToEnd) {
  Client small = {.rate = 0.1, .begin = 300};
  Client large = kLongContexts;
  large.rate = 0.02;
  large.begin = 300;
  for (const Client& late : {small, large}) {
    Rig alone({kLongContexts}, kFewBlocks);
    alone.Run(2000);
    Rig rig({kLongContexts, late}, kFewBlocks);
    rig.Run(2000);
    const auto asked = static_cast<size_t>(late.rate * 1700);
    EXPECT_GE(rig.clients()[1].first_token_steps.size() + 1, asked);
    EXPECT_LE(Percentile99(rig.clients()[1].first_token_steps), 4);
    const std::vector<double> tokens = rig.Tokens();
    EXPECT_GE(tokens[0] + tokens[1], 0.95 * alone.Tokens()[0]) << "what is computed again";
  }
}

TEST(Fairness, TenantsOfLongContextsShareAFullPool) {
  Client late = kLongContexts;
  late.begin = 300;
  Rig rig({kLongContexts, late}, kFewBlocks);
  rig.Run(500);
  const std::vector<double> before = rig.Tokens();
  rig.Run(3000);
  std::vector<double> since = rig.Tokens();
  for (size_t i = 0; i < since.size(); ++i) since[i] -= before[i];
  EXPECT_GE(JainIndex(since), 0.98);
}

TEST(Fairness, IdlingSavesNothingUp) {
  std::vector<Client> clients(3, Client{.rate = 2});
  clients[2].begin = 1000;
  Rig rig(clients);
  rig.Run(1000);
  const std::vector<double> before = rig.Tokens();
  rig.Run(500);
  std::vector<double> since = rig.Tokens();
  for (size_t i = 0; i < since.size(); ++i) since[i] -= before[i];
  EXPECT_GE(JainIndex(since), 0.99);
}

TEST(Fairness, TheSameArrivalsAreServedTheSameWay) {
  std::vector<Client> clients(4, Client{.rate = 0.3});
  clients[0].rate = 3;
  clients[1].share.max_sequences = 2;
  clients[2].share.max_kv_blocks = 8;
  Rig first(clients);
  Rig second(clients);
  first.Run(500);
  second.Run(500);
  for (size_t i = 0; i < clients.size(); ++i) {
    EXPECT_EQ(first.clients()[i].first_token_steps, second.clients()[i].first_token_steps);
  }
  // Two at a time, twenty-one steps each.
  EXPECT_LE(first.clients()[1].first_token_steps.size(), 2u * (500 / 20 + 1));
}

}  // namespace
}  // namespace polyad
