#pragma once

// An Engine that plays back what a test asks for, and an AdapterRegistry in memory. A thread of its
// own stands for the delivery thread.

#include <atomic>
#include <chrono>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "engine/base/check.h"
#include "engine/engine.h"
#include "server/adapter_registry.h"

namespace polyad {

class FakeEngine final : public Engine {
 public:
  struct Script {
    int num_tokens = 3;     // per choice; token i is the text "w<i> "
    int gap_us = 0;         // between tokens
    size_t text_bytes = 0;  // longer text per token, 0: the words
    bool forever = false;   // until cancelled
    Status fail;            // end with this instead of STOP
  };

  FakeEngine() {
    info_.name = "base-model";
    info_.architecture = "llama";
    info_.vocab_size = 1000;
    info_.hidden_size = 4;
    info_.max_context = 512;
    info_.kv_format = "int8";
    info_.kv_bytes_per_token = 12240;
    info_.backend = {"cpu", "scalar", 1};
    info_.weight_bytes.embeddings = {Precision::k8Bit, 700};
    info_.weight_bytes.layers = {Precision::k4Bit, 300};
  }
  ~FakeEngine() override {
    for (const auto& [id, run] : runs_) run->cancelled.store(true);
    for (const auto& [id, run] : runs_) run->thread.join();
  }

  StatusOr<std::string> Submit(RequestSpec spec, std::shared_ptr<ResponseSink> sink) override {
    if (!submit_status.ok()) return submit_status;
    spec.model = spec.model.substr(0, spec.model.find('@'));
    if (!spec.model.empty() && spec.model != "pirate")
      return NotFound("model: no adapter '%s'", spec.model);
    std::lock_guard<std::mutex> lock(mutex_);
    last_spec_ = spec;
    auto run = std::make_shared<Run>();
    runs_[spec.request_id] = run;
    run->thread = std::thread([this, run, spec, sink = std::move(sink), script = script] {
      Play(*run, spec, *sink, script);
    });
    return spec.request_id;
  }
  Status Check(const RequestSpec& spec) override {
    checked.push_back(spec);
    return check_status;
  }
  void Cancel(std::string_view request_id) override {
    std::lock_guard<std::mutex> lock(mutex_);
    const auto found = runs_.find(std::string(request_id));
    if (found == runs_.end()) return;
    found->second->cancelled.store(true);
    ++num_cancels;
  }
  StatusOr<std::vector<int32_t>> Tokenize(std::string_view text, bool) const override {
    return std::vector<int32_t>(text.begin(), text.end());
  }
  StatusOr<std::string> Detokenize(const std::vector<int32_t>& ids, bool) const override {
    std::string text;
    for (int32_t id : ids) text += "<" + std::to_string(id) + ">";
    return text;
  }
  AdapterStore& adapters() override {
    POLYAD_CHECK(false, "tests go through the registry");
    std::abort();
  }
  const ModelInfo& model_info() const override { return info_; }
  EngineLoad load() const override { return load_snapshot; }
  bool Drain(int64_t) override { return true; }

  RequestSpec last_spec() {
    std::lock_guard<std::mutex> lock(mutex_);
    return last_spec_;
  }

  size_t num_submitted() {
    std::lock_guard<std::mutex> lock(mutex_);
    return runs_.size();
  }

  Script script;
  Status submit_status;
  Status check_status;
  std::vector<RequestSpec> checked;
  EngineLoad load_snapshot;
  std::atomic<int> num_cancels{0};
  std::atomic<int> num_refused_events{0};

 private:
  struct Run {
    std::atomic<bool> cancelled{false};
    std::thread thread;
  };

  // Its first value is the prompt's size.
  std::vector<float> EmbeddingOf(const RequestSpec& spec) const {
    const auto* text = std::get_if<TextPrompt>(&spec.prompt);
    const size_t size =
        text != nullptr ? text->text.size() : std::get<TokenPrompt>(spec.prompt).ids.size();
    std::vector<float> values(static_cast<size_t>(info_.hidden_size), 0.5f);
    if (spec.embedding->dimensions > 0)
      values.resize(static_cast<size_t>(spec.embedding->dimensions));
    values[0] = static_cast<float>(size);
    return values;
  }

  void Play(Run& run, const RequestSpec& spec, ResponseSink& sink, const Script& script_now) {
    PromptEvent prompt;
    prompt.num_prompt_tokens = 5;
    prompt.adapter.name = spec.model.empty() ? info_.name : spec.model;
    if (spec.embedding) prompt.embedding = EmbeddingOf(spec);
    sink.OnEvent(prompt);
    int64_t made = 0;
    const int num_tokens = spec.embedding ? 0 : script_now.num_tokens;
    for (int i = 0; (i < num_tokens || script_now.forever) && !run.cancelled.load(); ++i) {
      for (int32_t choice = 0; choice < spec.sampling.num_choices; ++choice) {
        TokensEvent tokens;
        tokens.choice = choice;
        tokens.token_ids = {i};
        tokens.text = script_now.text_bytes > 0 ? std::string(script_now.text_bytes, 'x')
                                                : "w" + std::to_string(i) + " ";
        if (spec.output.logprobs) tokens.token_logprobs = {{i, -0.5f, 1, {{i, -0.5f}}}};
        if (!sink.OnEvent(std::move(tokens))) {
          ++num_refused_events;
          run.cancelled.store(true);
        }
      }
      ++made;
      if (script_now.gap_us > 0)
        std::this_thread::sleep_for(std::chrono::microseconds(script_now.gap_us));
    }
    for (int32_t choice = 0; choice < spec.sampling.num_choices; ++choice) {
      FinishEvent finish;
      finish.choice = choice;
      finish.reason = run.cancelled.load()    ? FinishReason::kCancelled
                      : !script_now.fail.ok() ? FinishReason::kError
                                              : FinishReason::kStop;
      finish.status = run.cancelled.load() ? absl::OkStatus() : script_now.fail;
      finish.usage = {5, 2, made};
      sink.OnEvent(std::move(finish));
    }
  }

  ModelInfo info_;
  std::mutex mutex_;
  RequestSpec last_spec_;
  std::map<std::string, std::shared_ptr<Run>> runs_;
};

class FakeRegistry : public AdapterRegistry {
 public:
  StatusOr<LoadReport> Load(LoadAdapterSpec spec, const AdapterStore::Progress& progress) override {
    progress(LoadState::kResolving);
    if (spec.path == "bad")
      return InvalidArgument("tensor q_proj.lora_A: expected [8, 576], got [8, 512]");
    progress(LoadState::kVerifying);
    progress(LoadState::kLowering);
    std::lock_guard<std::mutex> lock(mutex_);
    AdapterInfo& info = adapters_[spec.name];
    info.report.name = spec.name;
    info.report.family = "lora";
    info.report.version += 1;
    info.report.ranks = {8, 16};
    info.report.file_bytes = file_bytes;
    info.pinned = spec.pinned;
    info.allowed_tenants = spec.allowed_tenants;
    info.defaults = spec.defaults;
    ++changes_;
    progress(LoadState::kResident);
    return info.report;
  }
  Status Unload(std::string_view name, bool, int64_t) override {
    std::lock_guard<std::mutex> lock(mutex_);
    ++changes_;
    return adapters_.erase(std::string(name)) > 0 ? absl::OkStatus() : NotFound("adapter: unknown");
  }
  Status Pin(std::string_view name, bool pinned) override {
    std::lock_guard<std::mutex> lock(mutex_);
    const auto found = adapters_.find(std::string(name));
    if (found == adapters_.end()) return NotFound("adapter: unknown");
    found->second.pinned = pinned;
    return absl::OkStatus();
  }
  Status SetAlias(std::string_view alias, std::string_view target) override {
    std::lock_guard<std::mutex> lock(mutex_);
    if (target.empty()) {
      for (auto& [name, info] : adapters_) std::erase(info.aliases, alias);
      return absl::OkStatus();
    }
    const auto found = adapters_.find(std::string(target));
    if (found == adapters_.end()) return NotFound("adapter: unknown");
    found->second.aliases.emplace_back(alias);
    return absl::OkStatus();
  }
  StatusOr<AdapterInfo> Get(std::string_view name) const override {
    std::lock_guard<std::mutex> lock(mutex_);
    const auto found = adapters_.find(std::string(name));
    if (found == adapters_.end()) return NotFound("adapter: unknown");
    return found->second;
  }
  Status UnloadVersion(std::string_view name, int64_t version, bool, int64_t) override {
    const auto info = Get(name);
    if (!info.ok()) return info.status();
    return version == info->report.version ? FailedPrecondition("adapter: it serves")
                                           : NotFound("adapter: no such version");
  }
  Status ShiftTraffic(const TrafficShift& shift) override {
    const auto info = Get(shift.name);
    if (!info.ok()) return info.status();
    std::lock_guard<std::mutex> lock(mutex_);
    last_shift_ = shift;
    return absl::OkStatus();
  }
  AdapterStore::Choice Choose(std::string_view reference, std::string_view,
                              std::string_view session) const override {
    {
      std::lock_guard<std::mutex> lock(mutex_);
      last_session = session;
    }
    const auto info = Get(reference.substr(0, reference.find('@')));
    if (!info.ok()) return {};
    return {nullptr, info->report.name, info->report.version, info->defaults, false};
  }
  std::vector<AdapterInfo> List() const override {
    std::lock_guard<std::mutex> lock(mutex_);
    ++num_lists_;
    std::vector<AdapterInfo> out;
    for (const auto& [name, info] : adapters_) out.push_back(info);
    return out;
  }
  std::vector<AdapterSummary> Summaries() const override {
    std::lock_guard<std::mutex> lock(mutex_);
    std::vector<AdapterSummary> out;
    for (const auto& [name, info] : adapters_) {
      out.push_back({name, info.report.family, !info.retired && !info.kept, info.resident});
    }
    return out;
  }
  int64_t WaitForChange(int64_t seen, int64_t wait_ms) const override {
    for (int64_t waited = 0; waited < wait_ms && changes_.load() <= seen; ++waited) {
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    return changes_.load();
  }
  PrecisionBytes resident_bytes() const override {
    return PrecisionBytes(Precision::kBF16, 4000) + PrecisionBytes(Precision::k1Bit, 96);
  }
  AdapterStore::SwapCounts swap_counts() const override { return {}; }

  int64_t file_bytes = 0;  // of whatever is loaded
  TrafficShift last_shift() const {
    std::lock_guard<std::mutex> lock(mutex_);
    return last_shift_;
  }
  int64_t num_lists() const { return num_lists_.load(); }  // reports copied, all of them
  mutable std::string last_session;

 private:
  mutable std::mutex mutex_;
  TrafficShift last_shift_;
  std::map<std::string, AdapterInfo> adapters_;
  std::atomic<int64_t> changes_{0};
  mutable std::atomic<int64_t> num_lists_{0};
};

}  // namespace polyad
