#include "engine/perplexity.h"

#include <algorithm>
#include <cmath>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <utility>
#include <variant>

namespace polyad {
namespace {

// Sums what the engine says of a prompt's tokens.
class ScoringSink final : public ResponseSink {
 public:
  bool OnEvent(TokenEvent event) override {
    std::lock_guard<std::mutex> lock(mutex_);
    if (const auto* prompt = std::get_if<PromptEvent>(&event)) {
      for (const TokenLogprob& token : prompt->token_logprobs) sum_ += token.logprob;
      count_ += static_cast<int64_t>(prompt->token_logprobs.size());
    } else if (auto* finish = std::get_if<FinishEvent>(&event)) {
      status_ = std::move(finish->status);
      done_ = true;
      ready_.notify_all();
    }
    return true;
  }

  struct Score {
    double sum = 0;
    int64_t count = 0;
  };
  StatusOr<Score> Wait() {
    std::unique_lock<std::mutex> lock(mutex_);
    ready_.wait(lock, [this] { return done_; });
    POLYAD_RETURN_IF_ERROR(status_);
    return Score{sum_, count_};
  }

 private:
  std::mutex mutex_;
  std::condition_variable ready_;
  double sum_ = 0;
  int64_t count_ = 0;
  Status status_;
  bool done_ = false;
};

RequestSpec Scoring(const std::string& model, std::vector<int32_t> ids) {
  RequestSpec spec;
  spec.model = model;
  spec.prompt = TokenPrompt{std::move(ids)};
  spec.sampling.temperature = 0;
  spec.stopping.max_tokens = 0;
  spec.output.prompt_logprobs = 0;
  spec.cache.bypass_prefix_cache = true;
  return spec;
}

}  // namespace

StatusOr<double> Perplexity(Engine& engine, const std::string& model, const PerplexityText& text) {
  const auto size = static_cast<int64_t>(text.tokens.size());
  const int64_t window = std::min({text.window, size, engine.model_info().max_context});
  if (window < 2) {
    return InvalidArgument("perplexity: expected a text of at least 2 tokens, got %d", size);
  }
  ScoringSink::Score total;
  for (int64_t begin = 0; begin + window <= size; begin += window) {
    const auto first = text.tokens.begin() + begin;
    const auto sink = std::make_shared<ScoringSink>();
    const auto id = engine.Submit(Scoring(model, {first, first + window}), sink);
    if (!id.ok()) return id.status();
    POLYAD_ASSIGN_OR_RETURN(const ScoringSink::Score score, sink->Wait());
    total.sum += score.sum;
    total.count += score.count;
  }
  return std::exp(-total.sum / static_cast<double>(total.count));
}

}  // namespace polyad
