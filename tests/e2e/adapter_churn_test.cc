// Never another's adapter: many clients ask for 64 adapters of which four fit into memory, while
// those are loaded, replaced, kept, shifted, aliased and unloaded every ten milliseconds, and
// clients cancel, run out of time and leave. Every token must be the one that the same request gets
// alone, in a server that does nothing else, from the version whose digest its answer names.
// POLYAD_CHURN_REQUESTS says how many requests, 1500 unless it does. covers:
// engine/adapters/adapter_store.cc engine/runtime/engine_loop.cc

#include <grpcpp/create_channel.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <map>
#include <mutex>
#include <random>
#include <thread>

#include "polyad/v1/adapter_admin.grpc.pb.h"
#include "polyad/v1/inference.grpc.pb.h"
#include "tests/e2e/server_process.h"
#include "tests/engine/adapters/adapter_bytes.h"
#include "tests/server/raw_client.h"

namespace polyad {
namespace {

namespace fs = std::filesystem;
using std::chrono::milliseconds;
using std::chrono::steady_clock;
using Random = std::mt19937_64;

constexpr int kAdapters = 64;
constexpr int kContents = 3;  // of each adapter, one after the other
constexpr int kCases = 8;
constexpr int kClients = 24;
constexpr int kOperators = 2;
constexpr int64_t kRank = 33;               // in fp32 four of them fit into 1 MiB
constexpr milliseconds kOperatorPause{20};  // of each, so a change begins every ten
constexpr milliseconds kPatience{600'000};

const std::string kModel = std::string(POLYAD_SOURCE_DIR) + "/tests/golden/models/llama";

std::string NameOf(int adapter) { return "a" + std::to_string(adapter); }
std::string FolderOf(int adapter, int content) {
  return NameOf(adapter) + "-" + std::to_string(content);
}

TestTensor RandomTensor(const std::string& name, int64_t rows, int64_t cols, float scale,
                        Random& random) {
  TestTensor tensor = FloatTensor(name, rows, cols, 0, 0);
  for (size_t at = 0; at < tensor.bytes.size(); at += sizeof(float)) {
    const float value = scale * (static_cast<float>(random() % 2001) / 1000 - 1);
    std::memcpy(tensor.bytes.data() + at, &value, sizeof(value));
  }
  return tensor;
}

// A LoRA on every linear layer of the tiny llama, large enough to say something of its own.
void WriteRandomAdapter(const fs::path& folder, uint64_t seed) {
  struct Site {
    const char* name;
    int64_t in, out;
  };
  constexpr std::array<Site, 7> kSites = {{{"self_attn.q_proj", 64, 64},
                                           {"self_attn.k_proj", 64, 32},
                                           {"self_attn.v_proj", 64, 32},
                                           {"self_attn.o_proj", 64, 64},
                                           {"mlp.gate_proj", 64, 96},
                                           {"mlp.up_proj", 64, 96},
                                           {"mlp.down_proj", 96, 64}}};
  Random random(seed);
  std::vector<TestTensor> tensors;
  for (int layer = 0; layer < 2; ++layer) {
    for (const Site& site : kSites) {
      const std::string module =
          "base_model.model.model.layers." + std::to_string(layer) + "." + site.name;
      tensors.push_back(RandomTensor(module + ".lora_A.weight", kRank, site.in, 0.3f, random));
      tensors.push_back(RandomTensor(module + ".lora_B.weight", site.out, kRank, 0.3f, random));
    }
  }
  WriteAdapter(folder.string(), R"({"peft_type":"LORA","r":33,"lora_alpha":33})",
               SafetensorsBytes(tensors));
}

// What is asked, by its number; the same for every adapter.
v1::GenerateRequest CaseOf(int number) {
  Random random(static_cast<uint64_t>(number));
  v1::GenerateRequest request;
  const int prompt_tokens = 3 + number * 7;  // up to four blocks, so that prefixes are shared
  for (int i = 0; i < prompt_tokens; ++i) {
    request.mutable_token_ids()->add_ids(static_cast<int32_t>(3 + random() % 300));
  }
  request.mutable_sampling()->set_temperature(number % 2 == 0 ? 0.0f : 0.9f);
  request.mutable_sampling()->set_seed(static_cast<uint64_t>(number));
  request.mutable_stopping()->set_max_tokens(6 + number * 2);
  request.mutable_stopping()->set_ignore_eos(true);
  return request;
}

struct Reply {
  std::string digest;
  std::vector<int32_t> tokens;
  grpc::Status status;
};

// Reads the answer, and cancels after `most_events` of it.
Reply Generate(v1::InferenceService::Stub& stub, const v1::GenerateRequest& request,
               milliseconds deadline, int most_events) {
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + deadline);
  context.set_wait_for_ready(true);  // a failed first dial would spend many requests in an instant
  const auto reader = stub.Generate(&context, request);
  Reply reply;
  int events = 0;
  for (v1::GenerateResponse response; reader->Read(&response);) {
    if (response.has_prompt()) reply.digest = response.prompt().adapter().digest();
    for (const int32_t id : response.delta().token_ids()) reply.tokens.push_back(id);
    if (++events == most_events) context.TryCancel();
  }
  reply.status = reader->Finish();
  return reply;
}

std::unique_ptr<v1::InferenceService::Stub> Connect(const ServerProcess& server) {
  grpc::ChannelArguments arguments;
  arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  return v1::InferenceService::NewStub(grpc::CreateCustomChannel(
      server.Address("grpc"), grpc::InsecureChannelCredentials(), arguments));
}

grpc::Status Load(v1::AdapterAdminService::Stub& admin, const v1::LoadAdapterRequest& request,
                  v1::LoadReport* report) {
  grpc::ClientContext context;
  const auto reader = admin.LoadAdapter(&context, request);
  for (v1::LoadAdapterResponse response; reader->Read(&response);) *report = response.report();
  return reader->Finish();
}

std::unique_ptr<v1::AdapterAdminService::Stub> ConnectAdmin(const ServerProcess& server) {
  return v1::AdapterAdminService::NewStub(
      grpc::CreateChannel(server.Address("admin"), grpc::InsecureChannelCredentials()));
}

class AdapterChurnTest : public testing::Test {
 protected:
  AdapterChurnTest()
      : root_(fs::path(testing::TempDir()) / ("adapter-churn-" + std::to_string(::getpid()))) {
    const char* asked = std::getenv("POLYAD_CHURN_REQUESTS");
    num_requests_ = asked == nullptr ? 1500 : std::atoi(asked);
    for (int adapter = 0; adapter < kAdapters; ++adapter) {
      for (int content = 0; content < kContents; ++content) {
        WriteRandomAdapter(root_ / FolderOf(adapter, content),
                           static_cast<uint64_t>(1 + adapter * kContents + content));
      }
    }
  }
  ~AdapterChurnTest() override { fs::remove_all(root_); }

  std::vector<std::string> Flags(const std::vector<std::string>& more) const {
    std::vector<std::string> flags = {"--model",           kModel,           "--dtype=f32",
                                      "--kv-mib=1",        "--adapter-root", root_.string(),
                                      "--max-adapters=512"};
    flags.insert(flags.end(), more.begin(), more.end());
    return flags;
  }

  // Each request by itself, from each content. -> the bytes of one adapter in memory
  int64_t LearnTheOracle() {
    ServerProcess server(Flags({"--max-running=1", "--prefix-cache=false", "--threads=1"}));
    const auto admin = ConnectAdmin(server);
    const auto stub = Connect(server);
    int64_t bytes = 0;
    for (int adapter = 0; adapter < kAdapters; ++adapter) {
      for (int content = 0; content < kContents; ++content) {
        v1::LoadAdapterRequest load;
        load.set_name("oracle");
        load.set_uri(FolderOf(adapter, content));
        load.set_replace(true);
        v1::LoadReport report;
        const grpc::Status loaded = Load(*admin, load, &report);
        EXPECT_TRUE(loaded.ok()) << loaded.error_message();
        bytes = report.resident_bytes();
        for (int number = 0; number < kCases; ++number) {
          v1::GenerateRequest request = CaseOf(number);
          request.set_model("oracle");
          const Reply reply = Generate(*stub, request, kPatience, -1);
          EXPECT_EQ(reply.digest, report.digest());
          oracle_[report.digest()][static_cast<size_t>(number)] = reply.tokens;
        }
      }
    }
    EXPECT_EQ(oracle_.size(), static_cast<size_t>(kAdapters * kContents));
    return bytes;
  }
  fs::path root_;
  int num_requests_ = 0;
  std::map<std::string, std::array<std::vector<int32_t>, kCases>> oracle_;
};

// What the clients saw, and the first things that were wrong.
class Book {
 public:
  explicit Book(const std::map<std::string, std::array<std::vector<int32_t>, kCases>>& oracle)
      : oracle_(oracle) {}

  void Count(const std::string& what) {
    std::lock_guard<std::mutex> lock(mutex_);
    ++counts_[what];
  }
  // The version that an adapter was loaded as last, so that clients ask for some that may be there.
  void SetLatest(int adapter, int64_t version) {
    latest_[static_cast<size_t>(adapter)].store(version);
  }
  int64_t latest(int adapter) const { return latest_[static_cast<size_t>(adapter)].load(); }
  // Whatever came is a beginning of what the version says; all of it where the call went well.
  void Check(int number, const Reply& reply) {
    const bool whole = reply.status.ok();
    if (reply.tokens.empty() && !whole) return;
    std::lock_guard<std::mutex> lock(mutex_);
    const auto found = oracle_.find(reply.digest);
    if (found == oracle_.end()) return Blame("a digest of none: '" + reply.digest + "'");
    const std::vector<int32_t>& expected = found->second[static_cast<size_t>(number)];
    const bool begins = reply.tokens.size() <= expected.size() &&
                        std::equal(reply.tokens.begin(), reply.tokens.end(), expected.begin());
    if (!begins || (whole && reply.tokens.size() != expected.size())) {
      std::string text = "case " + std::to_string(number) + " of " + reply.digest + ": got";
      for (const int32_t id : reply.tokens) text += " " + std::to_string(id);
      text += ", expected";
      for (const int32_t id : expected) text += " " + std::to_string(id);
      return Blame(text);
    }
    counts_["tokens compared"] += static_cast<int64_t>(reply.tokens.size());
    ++counts_["answers compared"];
  }
  std::map<std::string, int64_t> counts() const {
    std::lock_guard<std::mutex> lock(mutex_);
    return counts_;
  }
  std::vector<std::string> blamed() const { return blamed_; }

 private:
  void Blame(const std::string& text) {
    ++counts_["wrong"];
    if (blamed_.size() < 10) blamed_.push_back(text);
  }
  const std::map<std::string, std::array<std::vector<int32_t>, kCases>>& oracle_;
  mutable std::mutex mutex_;
  std::map<std::string, int64_t> counts_;
  std::vector<std::string> blamed_;
  std::array<std::atomic<int64_t>, kAdapters> latest_ = {};
};

// Half of what is asked goes to a few adapters, so that versions change under their requests.
int DrawAdapter(Random& random) {
  return static_cast<int>(random() % 2 == 0 ? random() % 6 : random() % kAdapters);
}

// One of the clients: asks until all requests are spent.
class Client {
 public:
  Client(const ServerProcess& server, Book& book, uint64_t seed)
      : server_(server), stub_(Connect(server)), book_(book), random_(seed) {}

  void Run(std::atomic<int>& left) {
    while (left.fetch_sub(1) > 0) AskOnce();
  }

 private:
  void AskOnce() {
    const int number = static_cast<int>(random_() % kCases);
    v1::GenerateRequest request = CaseOf(number);
    const uint64_t kind = random_() % 20;
    const int adapter = DrawAdapter(random_);
    const std::string name = NameOf(adapter);
    request.set_model(kind % 5 == 1 ? "x" + name : name);
    if (kind % 4 == 2) request.set_session("session-" + std::to_string(random_() % 8));
    if (kind % 7 == 3) {
      const auto back = static_cast<int64_t>(random_() % 3);
      request.set_model(name + "@" +
                        std::to_string(std::max(book_.latest(adapter) - back, int64_t{1})));
    }
    if (kind == 0) return Leave(name);
    const int most_events = kind <= 3 ? static_cast<int>(1 + random_() % 8) : -1;
    const milliseconds deadline(kind == 4 ? 1 + random_() % 30 : 600'000);
    const Reply reply = Generate(*stub_, request, deadline, most_events);
    book_.Count(kind <= 3 ? "cancelled" : kind == 4 ? "short of time" : "asked to the end");
    book_.Count("status " + std::to_string(reply.status.error_code()));
    book_.Check(number, reply);
  }
  // Over HTTP, without waiting for the end.
  void Leave(const std::string& name) {
    RawClient client(server_.Address("http"));
    client.Send(Post("/v1/completions", R"({"model": ")" + name +
                                            R"(", "prompt": [5, 6, 7], "max_tokens": 60,)" +
                                            R"( "stream": true, "ignore_eos": true})"));
    if (random_() % 2 == 0) client.ReadSome(20);
    book_.Count("left");
  }

  const ServerProcess& server_;
  std::unique_ptr<v1::InferenceService::Stub> stub_;
  Book& book_;
  Random random_;
};

// Changes one adapter or another, whatever it is at.
class Operator {
 public:
  Operator(const ServerProcess& server, Book& book, uint64_t seed)
      : admin_(ConnectAdmin(server)), book_(book), random_(seed) {}

  void Run(const std::atomic<bool>& done) {
    auto next = steady_clock::now();
    while (!done) {
      next = std::max(next + kOperatorPause, steady_clock::now());
      const auto [what, status] = Change();
      book_.Count(what + (status.ok() ? " done" : " refused"));
      std::this_thread::sleep_until(next);
    }
  }
  grpc::Status NameAgain(int adapter) {
    v1::SetAliasRequest request;
    request.set_alias("x" + NameOf(adapter));
    request.set_target(NameOf(DrawAdapter(random_)));
    v1::SetAliasResponse response;
    grpc::ClientContext context;
    return admin_->SetAlias(&context, request, &response);
  }
  grpc::Status LoadNext(int adapter, uint64_t manner) {
    v1::LoadAdapterRequest request;
    request.set_name(NameOf(adapter));
    request.set_uri(FolderOf(adapter, static_cast<int>(random_() % kContents)));
    request.set_replace(manner < 8);
    request.set_keep_previous(manner < 3);
    if (manner >= 8) request.set_share(0.3);
    v1::LoadReport report;
    const grpc::Status status = Load(*admin_, request, &report);
    if (status.ok()) book_.SetLatest(adapter, report.version());
    return status;
  }

 private:
  std::pair<std::string, grpc::Status> Change() {
    const int adapter = DrawAdapter(random_);
    const std::string name = NameOf(adapter);
    grpc::ClientContext context;
    switch (const uint64_t kind = random_() % 20; kind) {
      case 0:
      case 1:
      case 2: {
        v1::UnloadAdapterRequest request;
        request.set_name(name);
        request.set_force(kind == 0);
        request.set_wait_ms(0);  // the name is gone all the same
        v1::UnloadAdapterResponse response;
        return {"unload", admin_->UnloadAdapter(&context, request, &response)};
      }
      case 3:
      case 4:
      case 5:
      case 6: {
        v1::GetAdapterRequest get;
        get.set_name(name);
        v1::GetAdapterResponse got;
        if (!admin_->GetAdapter(&context, get, &got).ok()) break;
        v1::ShiftTrafficRequest request;
        request.set_name(name);
        request.set_version(std::max<int64_t>(
            got.adapter().report().version() - 1 + static_cast<int64_t>(random_() % 3), 1));
        request.set_share(static_cast<double>(random_() % 3) / 2);
        v1::ShiftTrafficResponse response;
        grpc::ClientContext other;
        other.set_deadline(std::chrono::system_clock::now() + milliseconds(200));
        return {"shift", admin_->ShiftTraffic(&other, request, &response)};
      }
      case 7:
      case 8:
        return {"alias", NameAgain(adapter)};
      default:
        break;
    }
    return {"load", LoadNext(adapter, random_() % 10)};
  }

  std::unique_ptr<v1::AdapterAdminService::Stub> admin_;
  Book& book_;
  Random random_;
};

// Nothing is left once the last name is gone.
void ExpectNothingLeft(const ServerProcess& server) {
  const auto admin = ConnectAdmin(server);
  for (int adapter = 0; adapter < kAdapters; ++adapter) {
    v1::UnloadAdapterRequest request;
    request.set_name(NameOf(adapter));
    v1::UnloadAdapterResponse response;
    grpc::ClientContext context;
    const grpc::Status status = admin->UnloadAdapter(&context, request, &response);
    EXPECT_TRUE(status.ok() || status.error_code() == grpc::StatusCode::NOT_FOUND)
        << status.error_message();
  }
  v1::GetLoadResponse load;
  grpc::ClientContext context;
  ASSERT_TRUE(admin->GetLoad(&context, {}, &load).ok());
  EXPECT_EQ(load.num_running(), 0);
  EXPECT_EQ(load.num_waiting(), 0);
  EXPECT_EQ(load.num_kv_blocks_used(), 0);
  EXPECT_EQ(load.adapter_bytes(), 0);
}

TEST_F(AdapterChurnTest, EveryTokenIsOfTheVersionThatTheAnswerNames) {
  const int64_t bytes = LearnTheOracle();
  ASSERT_GT(5 * bytes, int64_t{1} << 20) << "five would fit";
  ASSERT_LE(4 * bytes, int64_t{1} << 20) << "four would not fit";
  ServerProcess server(Flags({"--max-adapter-mib=1", "--max-running=16"}));
  ASSERT_FALSE(server.ready_line().empty());
  Book book(oracle_);
  Operator first(server, book, 0);
  for (int adapter = 0; adapter < kAdapters; ++adapter) {
    ASSERT_TRUE(first.LoadNext(adapter, 5).ok());
  }
  for (int adapter = 0; adapter < kAdapters; ++adapter) {
    ASSERT_TRUE(first.NameAgain(adapter).ok());
  }
  const auto start = steady_clock::now();
  std::atomic<int> left{num_requests_};
  std::atomic<bool> done{false};
  std::vector<std::thread> clients;
  std::vector<std::thread> operators;
  for (uint64_t i = 0; i < kClients; ++i) {
    clients.emplace_back([&, i] { Client(server, book, i).Run(left); });
  }
  for (uint64_t i = 0; i < kOperators; ++i) {
    operators.emplace_back([&, i] { Operator(server, book, 100 + i).Run(done); });
  }
  for (std::thread& client : clients) client.join();
  done = true;
  for (std::thread& one : operators) one.join();
  const std::chrono::duration<double> took = steady_clock::now() - start;
  const auto counts = book.counts();
  for (const auto& [what, count] : counts) {
    std::printf("%8lld %s\n", static_cast<long long>(count), what.c_str());
  }
  std::printf("%8.1f seconds\n", took.count());
  for (const std::string& text : book.blamed()) ADD_FAILURE() << text;
  EXPECT_EQ(counts.count("wrong"), 0u);
  ExpectNothingLeft(server);
  // That there was something to find.
  const auto at = [&](const char* what) { return counts.contains(what) ? counts.at(what) : 0; };
  EXPECT_GT(at("status 0"), num_requests_ / 4);
  EXPECT_GT(at("answers compared"), num_requests_ / 2);
  EXPECT_GT(at("load done"), 0);
  EXPECT_GT(at("unload done"), 0);
  EXPECT_GT(at("shift done"), 0);
  // Only what may happen to a request here: done, cancelled, too late, no room in time, gone before
  // it began, unloaded by force while it ran.
  for (const auto& [what, count] : counts) {
    if (!what.starts_with("status ")) continue;
    const int code = std::atoi(what.c_str() + 7);
    EXPECT_TRUE(code == grpc::StatusCode::OK || code == grpc::StatusCode::CANCELLED ||
                code == grpc::StatusCode::DEADLINE_EXCEEDED ||
                code == grpc::StatusCode::NOT_FOUND ||
                code == grpc::StatusCode::RESOURCE_EXHAUSTED || code == grpc::StatusCode::ABORTED)
        << what << ", " << count << " times";
  }
}

}  // namespace
}  // namespace polyad
