#include "tests/sim/simulation.h"

#include <algorithm>
#include <array>
#include <filesystem>
#include <map>
#include <memory>
#include <set>
#include <span>
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
#include "tests/sim/block_owners.h"
#include "tests/sim/fake_model.h"
#include "tests/sim/fake_tokenizer.h"
#include "tests/sim/memory_press.h"
#include "tests/sim/oracle.h"
#include "tests/sim/record.h"

namespace polyad {
namespace {

constexpr int kArrivalTicks = 60;
constexpr int64_t kNumReaches = 2;    // of the rotary tables, at most
constexpr int64_t kMaxTicks = 20000;  // a history that is not over by then has stalled
// Of a long history: ticks that an operation takes at most, and requests that wait at once.
constexpr int64_t kMaxTicksPerOperation = 10;
constexpr int64_t kLongQueue = 24;

uint64_t HashBytes(uint64_t hash, const void* data, size_t bytes) {  // FNV-1a
  const auto* p = static_cast<const unsigned char*>(data);
  for (size_t i = 0; i < bytes; ++i) hash = (hash ^ p[i]) * 0x100000001b3u;
  return hash;
}

class World {
 public:
  explicit World(const SimulationOptions& options)
      : num_operations_(options.num_operations),
        dice_(options.seed),
        num_blocks_(dice_.Between(6, 24)),
        press_(options.shares_memory
                   ? std::make_unique<MemoryPress>(options.seed, num_blocks_, clock_)
                   : nullptr),
        options_(MakeOptions()),
        model_(num_blocks_, options_.limits.sliding_window),
        registry_(dice_.Chance(20) ? 4
                  : is_long()      ? kLongQueue
                                   : 200,
                  dice_.Chance(20) ? 8 : 1000),
        inbox_(dice_.Chance(20) ? 3 : 500),
        outputs_(1),
        spill_(MakeSpill()),
        loop_(options_, {model_, clock_, inbox_, outputs_, registry_, nullptr, spill_.get(),
                         press_ == nullptr ? nullptr : press_->memory()}),
        delivery_({tokenizer_, clock_, inbox_, registry_, nullptr}),
        intake_(
            MakeIntake(),
            {tokenizer_, clock_,
             [this](std::string_view name, std::string_view) { return Acquire(name); }, nullptr}),
        delivery_percent_(static_cast<int>(dice_.Between(5, 100))),
        fault_percent_(dice_.Chance(30) ? 5 : 0) {
    if (press_ != nullptr) model_.SetBlockStride(press_->layout().block_stride);
    for (int i = 0; i < 3; ++i) LoadAdapter("adapter-" + std::to_string(i));
    for (int64_t length : {40, 25, 64}) shared_prefixes_.push_back(RandomTokens(length));
  }

  SimulationResult Run() {
    const int64_t max_ticks = kMaxTicks + kMaxTicksPerOperation * num_operations_;
    int64_t tick = 0;
    for (; tick < max_ticks && result_.failure.empty(); ++tick) {
      const bool acts = is_long() ? result_.num_operations < num_operations_ : tick < kArrivalTicks;
      if (acts) Act();
      if (acts && press_ != nullptr) press_->Act();
      if (!acts && registry_.num_alive() == 0) break;
      Step();
      if (dice_.Chance(delivery_percent_)) Deliver();
    }
    if (result_.failure.empty() && tick == max_ticks) Fail("the history does not end");
    if (result_.failure.empty()) CheckEnd();
    const EngineLoad& counters = loop_.state().counters;
    result_.num_steps = counters.num_steps;
    result_.num_preemptions = counters.num_preemptions;
    result_.prefix_hits = counters.prefix_hits;
    result_.num_faults = model_.num_faults();
    result_.num_saved = counters.num_kv_blocks_saved;
    result_.num_restored = counters.num_kv_blocks_restored;
    if (press_ != nullptr) {
      result_.num_pages_grown = press_->num_grown;
      result_.num_pages_given = press_->num_given;
      result_.num_adapters_placed = press_->num_placed;
      result_.num_condemned = press_->num_condemned;
    }
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

  bool is_long() const { return num_operations_ > 0; }

  void Fail(const std::string& what) {  // empty: nothing
    if (result_.failure.empty()) result_.failure = what;
  }
  void Expect(bool holds, const Record& record, const char* what) {
    if (!holds) Fail("request " + std::to_string(record.number) + ": " + what);
  }

  // None, or a few blocks, or so many that nothing is ever let go; and a file of a few behind some.
  std::unique_ptr<SpillStore> MakeSpill() {
    if (!is_long() && dice_.Chance(40)) return nullptr;
    SpillStore::Options options;
    options.block_bytes = model_.kv_block_bytes();
    options.num_memory_blocks = dice_.Chance(50) ? dice_.Between(1, 8) : 2000;
    if (is_long())
      options.num_memory_blocks = dice_.Between(2, 16);  // so that all of it turns over
    if (is_long() || dice_.Chance(30)) options.num_file_blocks = dice_.Between(1, 8);
    options.directory = std::filesystem::temp_directory_path().string();
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
    if (press_ != nullptr) options.limits.kv_layout = press_->layout();
    options.limits.max_context = dice_.Between(40, 160);
    options.limits.eos_token_ids = {0};
    if (dice_.Chance(40)) options.limits.sliding_window = dice_.Between(1, 40);
    options.vocab_size = kFakeVocab;
    options.max_pending_events = dice_.Chance(20) ? dice_.Between(2, 12) : 10000;
    return options;
  }
  Intake::Options MakeIntake() {
    Intake::Options options;
    options.model_name = "base";
    options.vocab_size = kFakeVocab;
    options.hidden_size = kFakeHidden;
    options.max_context = options_.limits.max_context;
    options.num_blocks = press_ != nullptr ? press_->max_request_blocks() : num_blocks_;
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
    ++result_.num_operations;
    if (adapters_.count(name) > 0) ++result_.num_reloads;
    adapters_[name] = std::make_shared<AdapterVersion>(identity, 1);
    if (dice_.Chance(35)) {
      adapters_[name]->SetSoftPrompt(RandomPrompt(identity.id));
    } else if (dice_.Chance(20)) {
      adapters_[name]->SetInvocationTokens(RandomTokens(dice_.Between(1, 2)));
    } else if (dice_.Chance(20)) {
      adapters_[name]->SetScalingPass({});
    }
    all_versions_.push_back(adapters_[name]);
    if (!adapters_[name]->shares_head()) return;
    heads_[identity.id] = BlocksOfHeads(*adapters_[name]);
    if (dice_.Chance(70)) ComputeHead(adapters_[name]);
  }
  // The keys of the blocks of a version's heads, one for each choice of rotary tables.
  static std::set<PrefixKey> BlocksOfHeads(const AdapterVersion& version) {
    std::set<PrefixKey> blocks;
    for (int64_t choice = 0; choice < kNumReaches; ++choice) {
      const PrefixChain head = HeadChain(version, choice);
      blocks.insert(head.keys.begin() + 1, head.keys.end());
    }
    return blocks;
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
        ++result_.num_operations;
        return true;
      }
    }
    registry_.End(number);
    return false;
  }
  // As the store does once the last lease on a replaced version has ended.
  void ForgetVersions() {
    ++result_.num_operations;
    std::erase_if(all_versions_, [this](const std::shared_ptr<AdapterVersion>& version) {
      if (version.use_count() > 1) return false;
      unloaded_.erase(version->id());
      const auto head = heads_.find(version->id());
      if (head == heads_.end()) return true;
      inbox_.PushUrgent(ForgetHead{HeadKeys(*version, kNumReaches)});
      forgotten_.merge(head->second);
      heads_.erase(head);
      ++result_.num_forgotten_heads;
      return true;
    });
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
    if (dice_.Chance(is_long() ? 40 : 6) && !records_.empty()) Cancel();
    if (dice_.Chance(is_long() ? 10 : 4)) {
      LoadAdapter("adapter-" + std::to_string(dice_.Below(3)));
    }
    if (dice_.Chance(is_long() ? 4 : 2)) ForceUnload();
    if (dice_.Chance(is_long() ? 30 : 10)) ForgetVersions();
    if (dice_.Chance(fault_percent_)) model_.FailNext();
    if (dice_.Chance(fault_percent_)) model_.SpoilNext();
  }

  void Cancel() {
    Record& record =
        *records_[static_cast<size_t>(dice_.Below(static_cast<int64_t>(records_.size())))];
    const auto number = registry_.Find(record.request->request_id);
    if (!number) return;
    ++result_.num_operations;
    record.cancelled = true;
    inbox_.PushUrgent(CancelRequest{*number});
  }

  void ForceUnload() {
    const std::string name = "adapter-" + std::to_string(dice_.Below(3));
    if (adapters_.count(name) == 0) return;
    const AdapterVersionId version = adapters_[name]->id();
    adapters_.erase(name);
    unloaded_.insert(version);
    ++result_.num_operations;
    ++result_.num_unloads;
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
    if (dice_.Chance(15)) {
      spec.share.weight = dice_.Between(1, 3 * kUnitWeight);
      spec.share.max_sequences = dice_.Between(0, 3);
      spec.share.max_kv_blocks = dice_.Chance(50) ? dice_.Between(2, 12) : 0;
    }
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
    if (dice_.Chance(12)) EmbedInstead(spec);
    return spec;
  }

  void EmbedInstead(RequestSpec& spec) {
    using Pooling = EmbeddingParams::Pooling;
    spec.embedding = {dice_.Chance(70) ? Pooling::kMean : Pooling::kLast, dice_.Chance(50),
                      static_cast<int32_t>(dice_.Below(kFakeHidden + 1))};
    spec.sampling.num_choices = 1;
    spec.stopping.max_tokens = 0;
    spec.output = {};
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
    std::erase_if(records_, [this](const std::unique_ptr<Record>& record) {
      if (record->request.use_count() > 1) return false;
      CheckAnswer(*record);
      return true;
    });
  }

  // After every step.
  void CheckState() {
    const EngineState& state = loop_.state();
    state.CheckInvariants();
    const SchedulerLimits& limits = options_.limits.scheduler;
    int64_t num_running = 0;
    BlockOwners owners;
    for (const auto& [id, sequence] : state.sequences()) {
      const Request& request = *sequence->owner->request;
      if (sequence->running) ++num_running;
      for (size_t i = 0; i < sequence->blocks.size(); ++i) {
        const auto index = static_cast<int64_t>(i) / sequence->num_caches();
        if (sequence->blocks[i].valid()) {
          Fail(owners.Add(request, index, sequence->blocks[i]));
        } else {
          ++result_.num_given_back;
        }
      }
      if (request.deadline_us > 0 && request.deadline_us <= clock_.NowMicros()) {
        Fail("a request outlives its deadline");
      }
      if (request.adapter != nullptr && unloaded_.contains(request.adapter->id())) {
        Fail("a request outlives its adapter's forced unload");
      }
    }
    result_.num_shared_prompts += owners.num_shared();
    CheckSoftPrompts(state);
    if (press_ != nullptr) Fail(press_->Check(loop_));
    if (!state.restores.empty()) Fail("a block is not copied back");
    if (spill_ != nullptr && spill_->num_kept() > 0) Fail("a spilled block is kept for nobody");
    for (const auto& record : records_) {
      if (record->cancelled && state.requests().count(record->number) > 0) {
        Fail("a request outlives its cancel");
      }
    }
    if (num_running > limits.max_running) Fail("more sequences run than may");
    if (state.counters.step_rows > limits.max_step_tokens) Fail("a step exceeds its budget");
  }

  // What may be found of soft prompts is those of versions that may be asked for, and all of it.
  void CheckSoftPrompts(const EngineState& state) {
    const auto count = [](const std::set<PrefixKey>& blocks, auto holds) {
      return std::count_if(blocks.begin(), blocks.end(), [&](const PrefixKey& block) {
        const std::array<PrefixKey, 2> chain{PrefixKey{}, block};
        return holds(chain);
      });
    };
    const auto in_pool = [&](std::span<const PrefixKey> chain) {
      return state.pool.FindPrefix(chain, 1).num_blocks > 0;
    };
    const auto in_spill = [&](std::span<const PrefixKey> chain) {
      return spill_ != nullptr && spill_->FindPrefix(chain, 1, 2) > 0;
    };
    int64_t num_found = 0;
    for (const auto& [version, blocks] : heads_) num_found += count(blocks, in_pool);
    if (num_found != state.pool.num_soft_prompt()) Fail("a soft prompt's block is nobody's");
    if (count(forgotten_, in_pool) + count(forgotten_, in_spill) > 0)
      Fail("a forgotten version's soft prompt is found");
    forgotten_.clear();
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
    record.embedding = event.embedding;
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
    Deliver();
    if (!records_.empty()) Fail("somebody holds a request that has ended");
    ForgetVersions();
    if (all_versions_.size() != adapters_.size()) Fail("a lease is left behind");
    loop_.Step();
    CheckState();
    if (press_ != nullptr) Fail(press_->CheckEnd(loop_));
  }

  void CheckAnswer(const Record& record) {
    const Request& request = *record.request;
    const OracleModel model{options_.limits.max_context, options_.limits.eos_token_ids,
                            options_.limits.sliding_window};
    if (request.output.prompt_logprobs && record.prompt_seen) {
      const auto expected = ScorePromptAlone(request, model);
      Expect(expected.size() == record.prompt_logprobs.size() &&
                 SameLogprobs(expected, record.prompt_logprobs, expected.size()),
             record, "the prompt scores as it does alone");
    }
    if (request.embedding && record.prompt_seen) {
      Expect(record.embedding == EmbedAlone(request, model), record,
             "the embedding is that of the request alone");
      ++result_.num_embeddings;
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

  const int64_t num_operations_;  // 0: a short history
  Dice dice_;
  FakeClock clock_;
  const int64_t num_blocks_;
  const std::unique_ptr<MemoryPress> press_;  // null: K/V has memory of its own
  const EngineLoop::Options options_;
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
  std::vector<std::shared_ptr<AdapterVersion>> all_versions_;  // but those that nobody leases
  std::set<AdapterVersionId> unloaded_;
  std::map<AdapterVersionId, std::set<PrefixKey>> heads_;  // of all_versions_, their blocks
  std::set<PrefixKey> forgotten_;                          // since the last step
  std::vector<std::vector<int32_t>> shared_prefixes_;
  std::vector<std::unique_ptr<Record>> records_;
  int64_t next_version_ = 1;
  SimulationResult result_;
};

}  // namespace

SimulationResult Simulate(const SimulationOptions& options) { return World(options).Run(); }

}  // namespace polyad
