#include "tests/sim/simulation.h"

#include <algorithm>
#include <map>
#include <memory>
#include <random>
#include <set>
#include <utility>
#include <vector>

#include "engine/adapters/adapter_version.h"
#include "engine/base/check.h"
#include "engine/base/clock.h"
#include "engine/runtime/delivery.h"
#include "engine/runtime/engine_loop.h"
#include "engine/runtime/intake.h"
#include "engine/runtime/request_registry.h"
#include "engine/runtime/soft_prompt_head.h"
#include "tests/sim/fake_model.h"
#include "tests/sim/fake_tokenizer.h"
#include "tests/sim/oracle.h"

namespace polyad {
namespace {

constexpr int kArrivalTicks = 60;
constexpr int64_t kNumReaches = 2;  // of the rotary tables, at most
constexpr int kMaxTicks = 20000;    // a history that is not over by then has stalled

class Dice {
 public:
  explicit Dice(uint64_t seed) : random_(seed) {}
  int64_t Below(int64_t n) { return static_cast<int64_t>(random_() % static_cast<uint64_t>(n)); }
  int64_t Between(int64_t low, int64_t high) { return low + Below(high - low + 1); }
  bool Chance(int percent) { return Below(100) < percent; }

 private:
  std::mt19937_64 random_;
};

// What one client saw, with the order of events checked as they come.
struct Record {
  struct Choice {
    std::vector<int32_t> token_ids;
    std::vector<TokenLogprob> token_logprobs;
    std::string text;
    bool finished = false;
    FinishEvent finish;
  };
  std::shared_ptr<const Request> request;
  std::vector<Choice> choices;
  std::vector<TokenLogprob> prompt_logprobs;
  int64_t number = 0;
  bool prompt_seen = false;
  bool refuses = false;  // from some event on
  int64_t refuse_after = -1;
  int64_t num_events = 0;
  bool cancelled = false;
  int64_t echo_bytes = 0;
};

uint64_t HashBytes(uint64_t hash, const void* data, size_t bytes) {  // FNV-1a
  const auto* p = static_cast<const unsigned char*>(data);
  for (size_t i = 0; i < bytes; ++i) hash = (hash ^ p[i]) * 0x100000001b3u;
  return hash;
}

bool SameLogprobs(const std::vector<TokenLogprob>& a, const std::vector<TokenLogprob>& b,
                  size_t count) {
  for (size_t i = 0; i < count; ++i) {
    if (a[i].token_id != b[i].token_id || a[i].logprob != b[i].logprob || a[i].rank != b[i].rank)
      return false;
    if (a[i].top.size() != b[i].top.size()) return false;
    for (size_t k = 0; k < a[i].top.size(); ++k) {
      if (a[i].top[k].token_id != b[i].top[k].token_id) return false;
    }
  }
  return true;
}

class World {
 public:
  explicit World(uint64_t seed)
      : dice_(seed),
        num_blocks_(dice_.Between(6, 24)),
        options_(MakeOptions()),
        model_(num_blocks_),
        registry_(dice_.Chance(20) ? 4 : 200, dice_.Chance(20) ? 8 : 1000),
        inbox_(dice_.Chance(20) ? 3 : 500),
        outputs_(1),
        spill_(MakeSpill()),
        loop_(options_, {model_, clock_, inbox_, outputs_, registry_, nullptr, spill_.get()}),
        delivery_({tokenizer_, clock_, inbox_, registry_, nullptr}),
        intake_(
            MakeIntake(),
            {tokenizer_, clock_,
             [this](std::string_view name, std::string_view) { return Acquire(name); }, nullptr}),
        delivery_percent_(static_cast<int>(dice_.Between(5, 100))),
        fault_percent_(dice_.Chance(30) ? 5 : 0) {
    for (int i = 0; i < 3; ++i) LoadAdapter("adapter-" + std::to_string(i));
    for (int64_t length : {40, 25, 64}) shared_prefixes_.push_back(RandomTokens(length));
  }

  SimulationResult Run() {
    int tick = 0;
    for (; tick < kMaxTicks && result_.failure.empty(); ++tick) {
      if (tick < kArrivalTicks) Act();
      if (tick >= kArrivalTicks && registry_.num_alive() == 0) break;
      Step();
      if (dice_.Chance(delivery_percent_)) Deliver();
    }
    if (result_.failure.empty() && tick == kMaxTicks) Fail("the history does not end");
    if (result_.failure.empty()) CheckEnd();
    result_.num_preemptions = loop_.state().counters.num_preemptions;
    result_.prefix_hits = loop_.state().counters.prefix_hits;
    result_.num_faults = model_.num_faults();
    result_.num_restored = loop_.state().counters.num_kv_blocks_restored;
    return std::move(result_);
  }

 private:
  class Sink final : public ResponseSink {
   public:
    Sink(World& world, Record& record) : world_(world), record_(record) {}
    bool OnEvent(TokenEvent event) override { return world_.Receive(record_, std::move(event)); }

   private:
    World& world_;
    Record& record_;
  };

  void Fail(const std::string& what) {
    if (result_.failure.empty()) result_.failure = what;
  }
  void Expect(bool holds, const Record& record, const char* what) {
    if (!holds) Fail("request " + std::to_string(record.number) + ": " + what);
  }

  // None, or a few blocks, or so many that nothing is ever let go.
  std::unique_ptr<SpillStore> MakeSpill() {
    if (dice_.Chance(40)) return nullptr;
    SpillStore::Options options;
    options.block_bytes = model_.kv_block_bytes();
    options.num_memory_blocks = dice_.Chance(50) ? dice_.Between(1, 8) : 2000;
    StatusOr<std::unique_ptr<SpillStore>> spill = SpillStore::Create(options);
    POLYAD_CHECK(spill.ok(), "a few bytes are there");
    return *std::move(spill);
  }

  EngineLoop::Options MakeOptions() {
    EngineLoop::Options options;
    SchedulerLimits& scheduler = options.limits.scheduler;
    scheduler.max_running = dice_.Between(1, 10);
    scheduler.max_step_tokens = scheduler.max_running + dice_.Between(0, 60);
    scheduler.max_sample_rows = scheduler.max_running + dice_.Between(1, 20);
    options.limits.num_blocks = num_blocks_;
    options.limits.max_context = dice_.Between(40, 160);
    options.limits.eos_token_ids = {0};
    options.vocab_size = kFakeVocab;
    options.max_pending_events = dice_.Chance(20) ? dice_.Between(2, 12) : 10000;
    return options;
  }
  Intake::Options MakeIntake() {
    Intake::Options options;
    options.model_name = "base";
    options.vocab_size = kFakeVocab;
    options.max_context = options_.limits.max_context;
    options.num_blocks = num_blocks_;
    options.max_prompt_bytes = 1000;
    options.prefix_cache = dice_.Chance(85);
    if (dice_.Chance(50)) options.rope_reaches = {dice_.Between(8, 100), 200};
    return options;
  }

  std::vector<int32_t> RandomTokens(int64_t count) {
    std::vector<int32_t> tokens;
    for (int64_t i = 0; i < count; ++i)
      tokens.push_back(static_cast<int32_t>(dice_.Between(1, kFakeVocab - 1)));
    return tokens;
  }

  // Every version has the same name or one of few, and its own id and content.
  void LoadAdapter(const std::string& name) {
    AdapterVersion::Identity identity;
    identity.id = AdapterVersionId(next_version_++);
    identity.name = name;
    identity.version = identity.id.value();
    identity.digest[0] =
        static_cast<uint8_t>(dice_.Below(2));  // content may repeat between versions
    adapters_[name] = std::make_shared<AdapterVersion>(identity, 1);
    if (dice_.Chance(35)) {
      adapters_[name]->SetSoftPrompt(RandomPrompt(identity.id));
    } else if (dice_.Chance(20)) {
      adapters_[name]->SetInvocationTokens(RandomTokens(dice_.Between(1, 2)));
    } else if (dice_.Chance(20)) {
      adapters_[name]->SetScalingPass({});
    }
    all_versions_.push_back(adapters_[name]);
    if (adapters_[name]->shares_head() && dice_.Chance(70)) ComputeHead(adapters_[name]);
  }
  // As a load does, but without waiting.
  void ComputeHead(std::shared_ptr<const AdapterVersion> version) {
    std::string request_id;
    const StatusOr<int64_t> number = registry_.Begin(request_id);
    if (!number.ok()) return;
    auto record = std::make_unique<Record>();
    StatusOr<Arrive> arrive =
        intake_.PrepareHead(std::move(version), *number, std::make_shared<Sink>(*this, *record));
    Post(std::move(arrive), *number, std::move(record));
  }
  // Whether the engine will see it.
  bool Post(StatusOr<Arrive> arrive, int64_t number, std::unique_ptr<Record> record) {
    if (arrive.ok()) {
      record->number = number;
      record->request = arrive->request;
      record->choices.resize(static_cast<size_t>(arrive->request->sampling.num_choices));
      if (inbox_.TryPush(*std::move(arrive))) {
        records_.push_back(std::move(record));
        return true;
      }
    }
    registry_.End(number);
    return false;
  }
  bool MayBeAskedFor(const std::shared_ptr<AdapterVersion>& version) const {
    const auto current = adapters_.find(version->identity().name);
    if (current != adapters_.end() && current->second == version) return true;
    return std::any_of(records_.begin(), records_.end(), [&](const auto& record) {
      return record->request->adapter == version &&
             !std::all_of(record->choices.begin(), record->choices.end(),
                          [](const Record::Choice& choice) { return choice.finished; });
    });
  }
  // As the store does once the last lease on a replaced version has ended.
  void ForgetHeads() {
    for (const auto& version : all_versions_) {
      if (!version->shares_head() || MayBeAskedFor(version)) continue;
      if (!forgotten_.insert(version->id()).second) continue;
      inbox_.PushUrgent(ForgetHead{HeadKeys(*version, kNumReaches)});
    }
  }
  // Embeddings, or keys and values with text after them or beside them; the fake needs no numbers,
  // but knows whose a stored prefix is by its size.
  std::shared_ptr<const SoftPrompt> RandomPrompt(AdapterVersionId version) {
    auto prompt = std::make_shared<SoftPrompt>();
    prompt->num_tokens = dice_.Between(1, dice_.Chance(50) ? 12 : 50);
    prompt->stores_kv = dice_.Chance(50);
    prompt->shifts_positions = !prompt->stores_kv || dice_.Chance(50);
    prompt->bytes = version.value();
    prompt->FillBlocks();
    return prompt;
  }
  StatusOr<Intake::Lease> Acquire(std::string_view name) {
    const auto found = adapters_.find(std::string(name));
    if (found == adapters_.end()) return NotFound("no such adapter");
    return Intake::Lease(found->second);
  }

  void Act() {
    for (int64_t i = dice_.Below(3); i > 0; --i) Submit();
    if (dice_.Chance(6) && !records_.empty()) {
      Record& record =
          *records_[static_cast<size_t>(dice_.Below(static_cast<int64_t>(records_.size())))];
      if (const auto number = registry_.Find(record.request->request_id)) {
        record.cancelled = true;
        inbox_.PushUrgent(CancelRequest{*number});
      }
    }
    if (dice_.Chance(4)) LoadAdapter("adapter-" + std::to_string(dice_.Below(3)));
    if (dice_.Chance(2)) ForceUnload();
    if (dice_.Chance(10)) ForgetHeads();
    if (dice_.Chance(fault_percent_)) model_.FailNext();
    if (dice_.Chance(fault_percent_)) model_.SpoilNext();
  }

  void ForceUnload() {
    const std::string name = "adapter-" + std::to_string(dice_.Below(3));
    if (adapters_.count(name) == 0) return;
    const AdapterVersionId version = adapters_[name]->id();
    adapters_.erase(name);
    unloaded_.push_back(version);
    inbox_.PushUrgent(RetireVersion{version});
  }

  RequestSpec RandomSpec() {
    RequestSpec spec;
    std::vector<int32_t> prompt;
    if (dice_.Chance(60)) {
      const auto& prefix = shared_prefixes_[static_cast<size_t>(dice_.Below(3))];
      prompt.assign(prefix.begin(),
                    prefix.begin() + dice_.Between(1, static_cast<int64_t>(prefix.size())));
    }
    const std::vector<int32_t> own = RandomTokens(dice_.Between(prompt.empty() ? 1 : 0, 30));
    prompt.insert(prompt.end(), own.begin(), own.end());
    spec.prompt = TokenPrompt{prompt};
    spec.tenant = "tenant-" + std::to_string(dice_.Below(3));
    if (dice_.Chance(60)) spec.model = "adapter-" + std::to_string(dice_.Below(3));
    spec.priority = dice_.Chance(20) ? static_cast<int32_t>(dice_.Between(-2, 2)) : 0;
    if (dice_.Chance(10)) spec.deadline_us = clock_.NowMicros() + dice_.Between(1, 40000);
    SamplingParams& sampling = spec.sampling;
    sampling.temperature = dice_.Chance(50) ? 0.0f : 0.8f;
    sampling.seed = static_cast<uint64_t>(dice_.Below(1000));
    if (dice_.Chance(20)) sampling.top_p = 0.9f;
    if (dice_.Chance(20)) sampling.top_k = 5;
    if (dice_.Chance(20)) sampling.repetition_penalty = 1.3f;
    if (dice_.Chance(20)) sampling.frequency_penalty = 0.5f;
    if (dice_.Chance(20)) sampling.num_choices = static_cast<int32_t>(dice_.Between(2, 4));
    StoppingParams& stopping = spec.stopping;
    stopping.max_tokens = dice_.Chance(5) ? 0 : dice_.Between(1, 40);
    if (dice_.Chance(20)) stopping.min_tokens = dice_.Between(1, 10);
    if (dice_.Chance(30)) stopping.stop = {"a", "bc", "xyz"};
    if (dice_.Chance(20)) stopping.stop_token_ids = {7};
    stopping.include_stop = dice_.Chance(30);
    stopping.ignore_eos = dice_.Chance(30);
    if (dice_.Chance(15)) spec.output.logprobs = 2;
    if (dice_.Chance(10)) spec.output.prompt_logprobs = 1;
    spec.output.echo = dice_.Chance(10);
    if (dice_.Chance(10)) spec.cache.salt = "salt";
    spec.cache.bypass_prefix_cache = dice_.Chance(10);
    return spec;
  }

  void Submit() {
    RequestSpec spec = RandomSpec();
    const StatusOr<int64_t> number = registry_.Begin(spec.request_id);
    if (!number.ok()) return;
    auto record = std::make_unique<Record>();
    StatusOr<Arrive> arrive =
        intake_.Prepare(std::move(spec), *number, std::make_shared<Sink>(*this, *record));
    if (dice_.Chance(5)) record->refuse_after = dice_.Between(0, 6);
    if (!Post(std::move(arrive), *number, std::move(record))) return;
    ++result_.num_requests;
    const Request& request = *records_.back()->request;
    const int64_t begin = request.adapter_begin;
    if (begin > 0 && begin < static_cast<int64_t>(request.prompt_tokens.size()))
      ++result_.num_invocations;
  }

  void Step() {
    clock_.AdvanceMicros(dice_.Between(1, 2000));
    loop_.Step();
    CheckState();
    if (!model_.violation().empty()) Fail(model_.violation());
  }

  void Deliver() {
    for (EngineOutput& output : outputs_.DrainNow()) delivery_.Deliver(std::move(output));
  }

  struct BlockOwner {
    std::string tenant;
    const AdapterVersion* adapter = nullptr;
  };
  // A block is one tenant's with one adapter; a soft prompt's own blocks are every tenant's, and
  // those before an invocation are the base's.
  void CheckOwner(const Request& request, int64_t index, BlockId block,
                  std::map<int64_t, BlockOwner>& owners) {
    const int64_t end = (index + 1) * kBlockTokens;
    BlockOwner owner{request.tenant, request.adapter.get()};
    if (end <= request.adapter_begin) owner.adapter = nullptr;
    const auto [entry, inserted] = owners.emplace(block.value(), owner);
    if (inserted) return;
    if (entry->second.adapter != owner.adapter) Fail("a block is held across adapters");
    if (entry->second.tenant == owner.tenant) return;
    const bool virtual_only =
        owner.adapter != nullptr && end <= owner.adapter->num_virtual_tokens();
    if (!virtual_only) Fail("a block is held across tenants");
    ++result_.num_shared_prompts;
  }

  // After every step.
  void CheckState() {
    const EngineState& state = loop_.state();
    state.CheckInvariants();
    const SchedulerLimits& limits = options_.limits.scheduler;
    int64_t num_running = 0;
    std::map<int64_t, BlockOwner> owners;
    for (const auto& [id, sequence] : state.sequences()) {
      const Request& request = *sequence->owner->request;
      if (sequence->running) ++num_running;
      for (size_t i = 0; i < sequence->blocks.size(); ++i) {
        const auto index = static_cast<int64_t>(i) / sequence->num_caches();
        CheckOwner(request, index, sequence->blocks[i], owners);
      }
      if (request.deadline_us > 0 && request.deadline_us <= clock_.NowMicros()) {
        Fail("a request outlives its deadline");
      }
      for (const AdapterVersionId version : unloaded_) {
        if (request.adapter != nullptr && request.adapter->id() == version) {
          Fail("a request outlives its adapter's forced unload");
        }
      }
    }
    for (const auto& record : records_) {
      if (record->cancelled && state.requests().count(record->number) > 0) {
        Fail("a request outlives its cancel");
      }
    }
    if (num_running > limits.max_running) Fail("more sequences run than may");
    if (state.counters.step_rows > limits.max_step_tokens) Fail("a step exceeds its budget");
  }

  bool Receive(Record& record, TokenEvent event) {
    result_.log_hash = HashBytes(result_.log_hash, &record.number, sizeof(record.number));
    const bool accepts = record.refuse_after < 0 || record.num_events < record.refuse_after;
    ++record.num_events;
    std::visit([&](const auto& body) { Take(record, body); }, event);
    if (!accepts) record.refuses = true;
    return accepts;
  }
  void Take(Record& record, const PromptEvent& event) {
    Expect(!record.prompt_seen, record, "one prompt event");
    record.prompt_seen = true;
    record.prompt_logprobs = event.token_logprobs;
    Expect(event.num_prompt_tokens == static_cast<int64_t>(record.request->prompt_tokens.size()),
           record, "the prompt event counts the prompt");
    Expect(event.num_cached_tokens < event.num_prompt_tokens, record, "a token is always computed");
    Expect(event.adapter.version ==
               (record.request->adapter ? record.request->adapter->identity().version : 0),
           record, "the adapter version leased is the one that answers");
    if (record.request->output.echo) {
      record.echo_bytes =
          static_cast<int64_t>(Decode(tokenizer_, record.request->prompt_tokens, true).size());
    }
  }
  void Take(Record& record, const TokensEvent& event) {
    Record::Choice& choice = record.choices[static_cast<size_t>(event.choice)];
    Expect(record.prompt_seen, record, "the prompt event comes before tokens");
    Expect(!choice.finished, record, "no token follows the finish");
    Expect(!record.refuses, record, "a refusing client is sent no more tokens");
    choice.token_ids.insert(choice.token_ids.end(), event.token_ids.begin(), event.token_ids.end());
    choice.token_logprobs.insert(choice.token_logprobs.end(), event.token_logprobs.begin(),
                                 event.token_logprobs.end());
    choice.text += event.text;
    result_.log_hash =
        HashBytes(result_.log_hash, event.token_ids.data(), event.token_ids.size() * 4);
    result_.log_hash = HashBytes(result_.log_hash, event.text.data(), event.text.size());
  }
  void Take(Record& record, const FinishEvent& event) {
    Record::Choice& choice = record.choices[static_cast<size_t>(event.choice)];
    Expect(!choice.finished, record, "one finish for each choice");
    choice.finished = true;
    choice.finish = event;
    const auto reason = static_cast<int32_t>(event.reason);
    result_.log_hash = HashBytes(result_.log_hash, &reason, sizeof(reason));
    Expect(event.usage.completion_tokens == static_cast<int64_t>(choice.token_ids.size()), record,
           "usage is the tokens sent");
    Expect(!record.refuses || event.reason != FinishReason::kError || !event.status.ok(), record,
           "an error says why");
  }

  void CheckEnd() {
    Deliver();
    if (loop_.state().pool.num_held() != 0) Fail("blocks are left behind");
    if (!loop_.state().idle() || !loop_.state().requests().empty())
      Fail("sequences are left behind");
    if (delivery_.num_streams() != 0) Fail("streams are left behind");
    if (inbox_.size() > 0) loop_.Step();
    for (const auto& version : all_versions_) {
      if (!forgotten_.contains(version->id())) continue;
      for (int64_t choice = 0; choice < kNumReaches; ++choice) {
        const PrefixChain head = HeadChain(*version, choice);
        if (loop_.state().pool.FindPrefix(head.keys, head.num_head_blocks).num_blocks > 0) {
          Fail("a forgotten version's soft prompt is found");
        }
      }
      ++result_.num_forgotten_heads;
    }
    for (const auto& record : records_) CheckAnswer(*record);
    records_.clear();
    for (const auto& version : all_versions_) {
      const auto current = adapters_.find(version->identity().name);
      const bool is_current = current != adapters_.end() && current->second == version;
      if (version.use_count() != (is_current ? 2 : 1)) Fail("a lease is left behind");
    }
  }

  void CheckAnswer(const Record& record) {
    const Request& request = *record.request;
    const OracleModel model{options_.limits.max_context, options_.limits.eos_token_ids};
    if (request.output.prompt_logprobs && record.prompt_seen) {
      const auto expected = ScorePromptAlone(request);
      Expect(expected.size() == record.prompt_logprobs.size() &&
                 SameLogprobs(expected, record.prompt_logprobs, expected.size()),
             record, "the prompt scores as it does alone");
    }
    for (size_t i = 0; i < record.choices.size(); ++i) {
      const Record::Choice& choice = record.choices[i];
      Expect(choice.finished, record, "every choice finishes");
      const OracleAnswer expected = AnswerAlone(request, static_cast<int32_t>(i), model);
      const bool whole = choice.finish.reason == FinishReason::kStop ||
                         choice.finish.reason == FinishReason::kLength;
      const size_t count = choice.token_ids.size();
      Expect(count <= expected.token_ids.size() &&
                 std::equal(choice.token_ids.begin(), choice.token_ids.end(),
                            expected.token_ids.begin()),
             record, "tokens are those of the request alone");
      if (!request.output.logprobs) {
        Expect(choice.token_logprobs.empty(), record, "logprobs come only where asked for");
      } else if (result_.failure.empty()) {
        Expect(choice.token_logprobs.size() == count &&
                   SameLogprobs(choice.token_logprobs, expected.token_logprobs, count),
               record, "logprobs are those of the request alone");
      }
      CountEnd(record, choice);
      if (!whole || record.refuses) continue;
      const auto echo = std::min(static_cast<size_t>(record.echo_bytes), choice.text.size());
      Expect(count == expected.token_ids.size(), record, "no token is missing");
      Expect(choice.text.substr(echo) == expected.text, record,
             "the text is that of the request alone");
      Expect(choice.finish.reason == expected.reason, record, "it ends as it does alone");
      Expect(choice.finish.stop_reason == expected.stop_reason, record, "and says why");
      ++result_.num_finished;
    }
  }

  void CountEnd(const Record& record, const Record::Choice& choice) {
    const auto& stops = record.request->stopping.stop;
    if (std::find(stops.begin(), stops.end(), choice.finish.stop_reason) != stops.end())
      ++result_.num_stop_strings;
    if (choice.finish.reason == FinishReason::kCancelled) ++result_.num_cancelled;
    if (absl::IsResourceExhausted(choice.finish.status)) ++result_.num_overruns;
    if (absl::IsDeadlineExceeded(choice.finish.status)) ++result_.num_expired;
    if (choice.finish.reason == FinishReason::kCancelled) {
      Expect(record.cancelled || record.refuses, record, "only what was cancelled ends so");
    }
  }

  Dice dice_;
  const int64_t num_blocks_;
  const EngineLoop::Options options_;
  FakeClock clock_;
  FakeTokenizer tokenizer_;
  FakeModel model_;
  RequestRegistry registry_;
  Inbox inbox_;
  OutputQueue outputs_;
  const std::unique_ptr<SpillStore> spill_;
  EngineLoop loop_;
  Delivery delivery_;
  Intake intake_;
  const int delivery_percent_;
  const int fault_percent_;
  std::map<std::string, std::shared_ptr<AdapterVersion>> adapters_;
  std::vector<std::shared_ptr<AdapterVersion>> all_versions_;
  std::vector<AdapterVersionId> unloaded_;
  std::set<AdapterVersionId> forgotten_;  // whose soft prompts were
  std::vector<std::vector<int32_t>> shared_prefixes_;
  std::vector<std::unique_ptr<Record>> records_;
  int64_t next_version_ = 1;
  SimulationResult result_;
};

}  // namespace

SimulationResult Simulate(uint64_t seed) { return World(seed).Run(); }

}  // namespace polyad
