#include <grpcpp/alarm.h>
#include <grpcpp/create_channel.h>

#include <atomic>
#include <condition_variable>
#include <mutex>
#include <thread>

#include "polyad/v1/inference.grpc.pb.h"
#include "server/bench_load.h"

namespace polyad {
namespace {

using Clock = std::chrono::steady_clock;

// Counts calls that have not ended; outlives them.
class Outstanding {
 public:
  void Add() { ++count_; }
  void Done() {
    std::lock_guard<std::mutex> lock(mutex_);
    if (--count_ == 0) none_.notify_all();
  }
  void Wait() {
    std::unique_lock<std::mutex> lock(mutex_);
    none_.wait(lock, [this] { return count_ == 0; });
  }

 private:
  std::mutex mutex_;
  std::condition_variable none_;
  std::atomic<int64_t> count_{0};
};

// One request; deletes itself when it has ended.
class Call final : public grpc::ClientReadReactor<v1::GenerateResponse> {
 public:
  Call(const BenchRequest& request, BenchTime intended, const BenchSink& sink, Outstanding& others)
      : request_(request), timer_(intended), sink_(sink), others_(others) {}

  void Start(v1::InferenceService::Stub& stub, v1::GenerateRequest message, const BenchLoad& load) {
    message_ = std::move(message);
    const std::string& key = load.KeyOf(request_);
    if (!key.empty()) context_.AddMetadata("authorization", "Bearer " + key);
    context_.set_deadline(std::chrono::system_clock::now() +
                          std::chrono::milliseconds(load.timeout_ms));
    stub.async()->Generate(&context_, &message_, this);
    AddHold();  // until reading is over, so that no alarm outlives the call
    Read();
    timer_.Sent(Clock::now());
    StartCall();
  }

  void OnReadDone(bool ok) override {
    if (!ok) {
      RemoveHold();
      return;
    }
    if (response_.has_delta()) {
      timer_.Tokens(response_.delta().token_ids_size(), Clock::now());
    } else if (response_.has_finish()) {
      timer_.outcome().input_tokens = response_.finish().usage().prompt_tokens();
      timer_.outcome().output_tokens = response_.finish().usage().completion_tokens();
    }
    const int64_t cut = request_.cancel_after_tokens;
    if (cut > 0 && timer_.num_tokens() >= cut && !cancelled_) {
      cancelled_ = true;
      context_.TryCancel();
    }
    Read();
  }

  void OnDone(const grpc::Status& status) override {
    BenchOutcome outcome = timer_.Finish(Clock::now());
    using End = BenchOutcome::End;
    outcome.end = status.ok() ? End::kCompleted : End::kFailed;
    if (status.error_code() == grpc::StatusCode::RESOURCE_EXHAUSTED) outcome.end = End::kRefused;
    if (cancelled_) outcome.end = End::kCancelled;
    if (!status.ok() && !cancelled_) outcome.error = status.error_message();
    sink_(request_, std::move(outcome));
    Outstanding& others = others_;
    delete this;
    others.Done();
  }

 private:
  void Read() {
    if (request_.read_pause_ms == 0) {
      StartRead(&response_);
      return;
    }
    pause_.Set(std::chrono::system_clock::now() + std::chrono::milliseconds(request_.read_pause_ms),
               [this](bool) { StartRead(&response_); });
  }

  const BenchRequest& request_;
  grpc::ClientContext context_;
  v1::GenerateRequest message_;
  v1::GenerateResponse response_;
  grpc::Alarm pause_;
  BenchTimer timer_;
  bool cancelled_ = false;
  const BenchSink& sink_;
  Outstanding& others_;
};

v1::GenerateRequest MakeMessage(const BenchRequest& request, int64_t vocab_size,
                                std::mt19937_64& random) {
  v1::GenerateRequest message;
  const std::vector<int32_t> ids = BenchPrompt(request, vocab_size, random);
  message.mutable_token_ids()->mutable_ids()->Add(ids.begin(), ids.end());
  message.set_model(request.model);
  message.mutable_sampling()->set_temperature(0);
  message.mutable_stopping()->set_max_tokens(request.output_tokens);
  message.mutable_stopping()->set_ignore_eos(true);
  return message;
}

}  // namespace

BenchTime RunGrpcLoad(const BenchLoad& load, const BenchSink& sink) {
  const auto channel = grpc::CreateChannel(load.target, grpc::InsecureChannelCredentials());
  const auto stub = v1::InferenceService::NewStub(channel);
  std::mt19937_64 random(load.seed);
  Outstanding outstanding;
  const BenchTime begin = Clock::now();
  for (const BenchRequest& request : load.requests) {
    v1::GenerateRequest message = MakeMessage(request, load.vocab_size, random);
    const BenchTime intended = begin + std::chrono::microseconds(load.ArrivalUs(request));
    std::this_thread::sleep_until(intended);
    outstanding.Add();
    auto* call = new Call(request, intended, sink, outstanding);
    call->Start(*stub, std::move(message), load);
  }
  outstanding.Wait();
  return begin;
}

}  // namespace polyad
