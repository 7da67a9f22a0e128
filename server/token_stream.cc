#include "server/token_stream.h"

#include "server/event_codec.h"

namespace polyad {
namespace {

size_t BytesOf(const std::vector<TokenLogprob>& logprobs) {
  size_t bytes = 0;
  for (const TokenLogprob& logprob : logprobs) bytes += 24 + 12 * logprob.top.size();
  return bytes;
}

// About what the event holds in memory as a message.
size_t BytesOf(const TokenEvent& event) {
  constexpr size_t kMessage = 64;
  if (const auto* tokens = std::get_if<TokensEvent>(&event)) {
    return kMessage + tokens->text.size() + 8 * tokens->token_ids.size() +
           BytesOf(tokens->token_logprobs);
  }
  // A prompt's logprobs come at once, bounded by the context: they do not count against a slow
  // reader.
  return kMessage;
}

}  // namespace

TokenStream::TokenStream(Options options)
    : options_(std::move(options)), queue_(options_.max_buffer_bytes) {}

bool TokenStream::OnEvent(TokenEvent event) {
  const bool accepted = queue_.Add(BytesOf(event), [&](auto& items) {
    const auto* tokens = std::get_if<TokensEvent>(&event);
    if (tokens != nullptr && !items.empty() && MergeIntoDelta(*tokens, items.back().message)) {
      items.back().bytes += BytesOf(event);
      return;
    }
    items.emplace_back();
    items.back().bytes = BytesOf(event);
    EncodeEvent(event, options_.request_id, items.back().message);
  });
  if (!accepted) {
    queue_.Abort(
        Aborted("stream: the client left more than %d bytes unread", options_.max_buffer_bytes));
    CancelOnce();
    return false;
  }
  if (const auto* finish = std::get_if<FinishEvent>(&event)) NoteFinish(*finish);
  return true;
}

void TokenStream::NoteFinish(const FinishEvent& finish) {
  if (final_status_.ok()) {
    if (!finish.status.ok()) {
      final_status_ = finish.status;
    } else if (finish.reason == FinishReason::kError) {
      final_status_ = Internal("request: failed");
    } else if (finish.reason == FinishReason::kCancelled) {
      final_status_ = Cancelled("request: cancelled");
    }
  }
  if (++num_finished_ == options_.num_choices) queue_.Close(final_status_);
}

void TokenStream::OnWritten(bool ok) {
  if (!ok) CancelOnce();
  queue_.OnWritten(ok);
}

void TokenStream::OnCancelled() {
  CancelOnce();
  queue_.Abort(Cancelled("request: cancelled"));
}

void TokenStream::CancelOnce() {
  if (!cancelled_.exchange(true) && options_.cancel) options_.cancel();
}

}  // namespace polyad
