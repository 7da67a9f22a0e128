#pragma once

// One engine without threads over a real model: requests in (greedy unless told), tokens and their
// log probabilities out. What the requests compute is cached under keys of their own, and spilled
// where there is a store. Test-only.

#include <algorithm>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "engine/base/clock.h"
#include "engine/model/model.h"
#include "engine/runtime/engine_loop.h"
#include "gtest/gtest.h"
#include "tests/engine/model/golden_files.h"

namespace polyad {

struct Answer {
  std::vector<int32_t> tokens;
  std::vector<float> logprobs;
  std::vector<float> embedding = {};

  friend bool operator==(const Answer&, const Answer&) = default;
};

class LoopRunner {
 public:
  struct Cache {
    int64_t num_blocks = 0;
    SpillStore* spill = nullptr;  // outlives the runner
    bool keeps_all = false;       // what is behind every layer's window too
    // Shared with adapters, with where its blocks lie; null: K/V has memory of its own.
    MemoryLedger* memory = nullptr;
    BlockPages::Layout layout = {};
    StepRunner* runner = nullptr;  // in front of the model; null: the model itself
  };
  LoopRunner(Model& model, Cache cache)
      : loop_(OptionsOf(model, cache),
              {cache.runner != nullptr ? *cache.runner : model, clock_, inbox_, outputs_, registry_,
               nullptr, cache.spill, cache.memory}) {}
  LoopRunner(Model& model, int64_t num_blocks) : LoopRunner(model, Cache{num_blocks}) {}

  int64_t Add(const GoldenPrompt& prompt, std::shared_ptr<const AdapterVersion> adapter,
              const SamplingParams& sampling = {.temperature = 0}) {
    auto request = std::make_shared<Request>();
    request->prompt_tokens = prompt.tokens;
    request->adapter = std::move(adapter);
    request->sampling = sampling;
    request->stopping.max_tokens = static_cast<int64_t>(prompt.greedy.size());
    request->stopping.ignore_eos = true;
    request->output.logprobs = 0;
    return Post(std::move(request));
  }
  int64_t AddEmbedding(const GoldenPrompt& prompt, std::shared_ptr<const AdapterVersion> adapter,
                       const EmbeddingParams& params) {
    auto request = std::make_shared<Request>();
    request->prompt_tokens = prompt.tokens;
    request->adapter = std::move(adapter);
    request->stopping.max_tokens = 0;
    request->embedding = params;
    return Post(std::move(request));
  }

  // `between` is called after every step.
  std::map<int64_t, Answer> Run(const std::function<void()>& between = nullptr) {
    while (loop_.Step() || !loop_.state().idle()) {
      if (between) between();
      loop_.state().CheckInvariants();
      most_held_ = std::max(most_held_, loop_.state().pool.num_held());
    }
    std::map<int64_t, Answer> answers;
    for (const EngineOutput& output : outputs_.DrainNow()) {
      if (const auto* event = std::get_if<TokensEvent>(&output.event)) {
        Answer& answer = answers[output.number];
        answer.tokens.push_back(event->token_ids.at(0));
        answer.logprobs.push_back(event->token_logprobs.at(0).logprob);
      } else if (const auto* prompt = std::get_if<PromptEvent>(&output.event)) {
        answers[output.number].embedding = prompt->embedding;
      }
    }
    return answers;
  }
  int64_t num_preemptions() const { return loop_.load().num_preemptions; }
  int64_t num_restored_blocks() const { return loop_.load().num_kv_blocks_restored; }
  int64_t most_held_blocks() const { return most_held_; }  // after a step
  int64_t num_held_blocks() const { return loop_.state().pool.num_held(); }

 private:
  int64_t Post(std::shared_ptr<Request> request) {
    std::string id;
    Arrive arrive;
    arrive.number = *registry_.Begin(id);
    arrive.prompt_keys = KeysOf(*request, arrive.number);
    arrive.request = std::move(request);
    const int64_t number = arrive.number;
    EXPECT_TRUE(inbox_.TryPush(std::move(arrive)));
    return number;
  }
  // Nothing is shared, but a sequence that was preempted finds what it computed.
  static PrefixChain KeysOf(const Request& request, int64_t number) {
    const AdapterVersion* adapter = request.adapter.get();
    PrefixChain chain;
    if (adapter != nullptr && (adapter->num_caches() > 1 || adapter->reads_whole_prompt())) {
      return chain;
    }
    PrefixRoot root;
    root.private_request = number;
    chain.keys = {RootKey(root)};
    ExtendKeys(SequenceTokens(request), chain);
    return chain;
  }
  static EngineLoop::Options OptionsOf(const Model& model, const Cache& cache) {
    EngineLoop::Options options;
    options.limits.scheduler = {.max_running = 8, .max_step_tokens = 64, .max_sample_rows = 16};
    options.limits.num_blocks = cache.num_blocks;
    options.limits.kv_layout = cache.layout;
    options.limits.max_context = model.max_context();
    options.limits.sliding_window = cache.keeps_all ? 0 : model.sliding_window();
    options.vocab_size = model.spec().vocab_size;
    return options;
  }

  int64_t most_held_ = 0;
  FakeClock clock_;
  Inbox inbox_{100};
  OutputQueue outputs_{10000};
  RequestRegistry registry_{100, 100};
  EngineLoop loop_;
};

}  // namespace polyad
