#include "engine/runtime/delivery.h"

#include <algorithm>
#include <chrono>
#include <span>
#include <utility>

#include "engine/base/check.h"

namespace polyad {
namespace {

// Decoders that treat the first token of a text specially (a dropped space) must know that the
// output is not one: the last few prompt tokens go through the detokeniser first, unseen.
constexpr size_t kPrimingTokens = 4;

StreamDetokenizer PrimedDetokenizer(const Tokenizer& tokenizer, const Request& request) {
  StreamDetokenizer text(tokenizer, request.output.skip_special_tokens);
  const std::span<const int32_t> prompt(request.prompt_tokens);
  for (const int32_t id : prompt.last(std::min(prompt.size(), kPrimingTokens))) text.Push(id);
  return text;
}

}  // namespace

void Delivery::Run(OutputQueue& outputs) {
  while (true) {
    const bool closed = outputs.closed();
    std::vector<EngineOutput> batch = outputs.DrainWait(std::chrono::milliseconds(1000));
    if (batch.empty() && closed) return;
    for (EngineOutput& output : batch) Deliver(std::move(output));
  }
}

void Delivery::Deliver(EngineOutput output) {
  Stream& stream = StreamOf(output);
  std::visit([&](auto&& event) { Handle(stream, output, std::move(event)); },
             std::exchange(output.event, TokenEvent{}));
  if (stream.num_open > 0) return;
  if (parts_.observer != nullptr && !stream.request->is_head_request) {
    stream.done.time_to_first_token_ms = stream.first_token_ms;
    parts_.observer->OnRequestDone(stream.done);
  }
  const int64_t number = stream.number;
  streams_.erase(number);
  parts_.registry.End(number);
}

Delivery::Stream& Delivery::StreamOf(const EngineOutput& output) {
  const auto [entry, inserted] = streams_.try_emplace(output.number);
  Stream& stream = entry->second;
  if (!inserted) return stream;
  const Request& request = *output.request;
  stream.number = output.number;
  stream.request = output.request;
  stream.num_open = request.sampling.num_choices;
  stream.done.adapter = request.adapter_identity.name;
  for (int32_t i = 0; i < request.sampling.num_choices; ++i) {
    stream.choices.push_back({PrimedDetokenizer(parts_.tokenizer, request),
                              StopMatcher(request.stopping.stop, request.stopping.include_stop)});
  }
  return stream;
}

void Delivery::Handle(Stream& stream, const EngineOutput&, PromptEvent event) {
  Send(stream, std::move(event));
  if (!stream.request->output.echo) return;
  const std::string text = Decode(parts_.tokenizer, stream.request->prompt_tokens,
                                  stream.request->output.skip_special_tokens);
  for (int32_t choice = 0; choice < stream.request->sampling.num_choices; ++choice) {
    TokensEvent echo;
    echo.choice = choice;
    echo.text = text;
    Send(stream, std::move(echo));
  }
}

void Delivery::Handle(Stream& stream, const EngineOutput& output, TokensEvent event) {
  Choice& choice = stream.choices[static_cast<size_t>(event.choice)];
  if (choice.finished || stream.refused) return;
  if (stream.first_token_ms == 0) stream.first_token_ms = MillisSinceArrival(stream);
  choice.num_tokens += static_cast<int64_t>(event.token_ids.size());
  StopMatcher::Result result = TextOf(stream, choice, output, event);
  event.text = std::move(result.text);
  const int32_t index = event.choice;
  Send(stream, std::move(event));
  if (!result.stop_index.has_value()) return;
  parts_.inbox.PushUrgent(StopMatched{stream.number, index});
  Close(stream, StoppedBy(stream, *result.stop_index, output, index));
}

StopMatcher::Result Delivery::TextOf(Stream& stream, Choice& choice, const EngineOutput& output,
                                     const TokensEvent& event) {
  const StoppingParams& stopping = stream.request->stopping;
  StopMatcher::Result result;
  for (size_t i = 0; i < event.token_ids.size(); ++i) {
    const bool ends_it = output.ends_with_stop_token && i + 1 == event.token_ids.size();
    if (ends_it && !stopping.include_stop) break;
    const std::string text = choice.text.Push(event.token_ids[i]);
    if (choice.num_tokens <= stopping.min_tokens) {  // too early to stop
      result.text += text;
      continue;
    }
    StopMatcher::Result pushed = choice.stops.Push(text);
    result.text += pushed.text;
    result.stop_index = pushed.stop_index;
    if (result.stop_index.has_value()) break;
  }
  return result;
}

FinishEvent Delivery::StoppedBy(const Stream& stream, int stop_index, const EngineOutput& output,
                                int32_t choice) const {
  FinishEvent finish;
  finish.choice = choice;
  finish.reason = FinishReason::kStop;
  finish.stop_reason = stream.request->stopping.stop[static_cast<size_t>(stop_index)];
  finish.usage.prompt_tokens = static_cast<int64_t>(stream.request->prompt_tokens.size());
  finish.usage.cached_tokens = output.cached_tokens;
  finish.timings = output.timings;
  return finish;
}

void Delivery::Handle(Stream& stream, const EngineOutput& output, FinishEvent event) {
  --stream.num_open;
  Choice& choice = stream.choices[static_cast<size_t>(event.choice)];
  if (choice.finished) return;  // at a stop string
  StopMatcher::Result rest = choice.stops.Push(choice.text.Flush());
  if (!rest.stop_index.has_value()) {
    rest.text += choice.stops.Flush();
  } else if (event.reason == FinishReason::kLength || event.reason == FinishReason::kStop) {
    event = StoppedBy(stream, *rest.stop_index, output, event.choice);
  }
  if (!rest.text.empty()) {
    TokensEvent tail;
    tail.choice = event.choice;
    tail.text = std::move(rest.text);
    Send(stream, std::move(tail));
  }
  Close(stream, std::move(event));
}

void Delivery::Close(Stream& stream, FinishEvent event) {
  Choice& choice = stream.choices[static_cast<size_t>(event.choice)];
  POLYAD_CHECK(!choice.finished, "a choice finishes once");
  choice.finished = true;
  event.usage.completion_tokens = choice.num_tokens;
  stream.done.reason = event.reason;
  stream.done.end_to_end_ms = MillisSinceArrival(stream);
  stream.done.timings = event.timings;
  stream.done.usage.prompt_tokens = event.usage.prompt_tokens;
  stream.done.usage.cached_tokens = event.usage.cached_tokens;
  stream.done.usage.completion_tokens += event.usage.completion_tokens;
  Send(stream, std::move(event));
}

void Delivery::Send(Stream& stream, TokenEvent event) {
  const bool is_finish = std::holds_alternative<FinishEvent>(event);
  if (stream.refused && !is_finish) return;
  if (stream.request->sink->OnEvent(std::move(event)) || stream.refused) return;
  stream.refused = true;
  parts_.inbox.PushUrgent(CancelRequest{stream.number});
}

double Delivery::MillisSinceArrival(const Stream& stream) const {
  return static_cast<double>(parts_.clock.NowMicros() - stream.request->arrival_us) / 1000.0;
}

}  // namespace polyad
