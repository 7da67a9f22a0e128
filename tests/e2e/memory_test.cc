// The program with one memory for K/V and adapters (--memory-mib): many more adapters than fit, and
// prompts that fill the cache, served together. covers: engine/engine_create.cc
// server/engine_setup.cc

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <functional>
#include <map>
#include <string>
#include <thread>
#include <vector>

#include "engine/io/safetensors.h"
#include "tests/e2e/clients.h"
#include "tests/e2e/server_process.h"
#include "tests/server/raw_client.h"

namespace polyad {
namespace {

const std::string kGolden = std::string(POLYAD_SOURCE_DIR) + "/tests/golden";
const std::string kModel = kGolden + "/models/llama";
const std::string kAdapters = kGolden + "/adapters/llama";
const std::vector<std::string> kNames = {"plain",       "rslora", "dora_all",
                                         "ia3_default", "lokr",   "prefix_tuning"};

// 6 MiB are three huge pages, one of which is K/V's for good; an adapter of these takes 64 KiB or
// two of them, so 64 fit at most.
constexpr int64_t kMemory = 6 << 20;
constexpr int64_t kKvFloor = 2 << 20;
constexpr size_t kNumAdapters = 150;

std::vector<int32_t> GoldenInts(const std::string& directory, const std::string& name) {
  const auto file = SafetensorsFile::Open(directory + "/goldens.safetensors");
  EXPECT_TRUE(file.ok()) << file.status();
  const auto tensor = file->Read(name);
  EXPECT_TRUE(tensor.ok()) << tensor.status();
  std::vector<int32_t> values(static_cast<size_t>(tensor->shape.at(0)));
  std::memcpy(values.data(), tensor->bytes.data(), values.size() * sizeof(int32_t));
  return values;
}

class SharedMemoryServer : public testing::Test {
 protected:
  explicit SharedMemoryServer(int64_t memory = kMemory)
      : memory_(memory),
        server_({"--model", kModel, "--dtype=f32", "--memory-mib", std::to_string(memory >> 20),
                 "--adapter-root", kAdapters}),
        admin_(server_) {}

  // What the load tells is all of memory, whatever is going on.
  v1::MemoryBytes Memory() {
    const v1::MemoryBytes memory = admin_.GetLoad().memory_bytes();
    EXPECT_EQ(memory.total(), memory_);
    EXPECT_EQ(memory.kv() + memory.prefix() + memory.adapters() + memory.free(), memory_);
    for (const int64_t bytes : {memory.kv(), memory.prefix(), memory.adapters(), memory.free()}) {
      EXPECT_GE(bytes, 0);
    }
    return memory;
  }
  // A prompt that nothing else begins with, of seven blocks.
  static std::vector<int32_t> PromptOf(int32_t i) {
    std::vector<int32_t> prompt(112, 20 + i % 50);
    prompt[0] = 20 + i / 50;
    return prompt;
  }
  std::vector<int32_t> Ask(int32_t i) {
    const Answer answer = Generate(server_.Address("grpc"), "", PromptOf(i), 4);
    EXPECT_TRUE(answer.status.ok()) << answer.status.error_message();
    return answer.tokens;
  }
  // Its tokens are those of the original library.
  void AskAdapter(size_t which) {
    const std::string directory = kAdapters + "/" + kNames[which % kNames.size()];
    const auto expected = GoldenInts(directory, "prompt.1.greedy");
    const Answer answer =
        Generate(server_.Address("grpc"), NameOf(which), GoldenInts(directory, "prompt.1.tokens"),
                 static_cast<int64_t>(expected.size()));
    EXPECT_TRUE(answer.status.ok()) << NameOf(which) << ": " << answer.status.error_message();
    EXPECT_EQ(answer.tokens, expected) << NameOf(which);
  }
  static std::string NameOf(size_t which) {
    return kNames[which % kNames.size()] + "." + std::to_string(which);
  }
  void LoadAdapters() {
    for (size_t i = 0; i < kNumAdapters; ++i) {
      ASSERT_EQ(admin_.Load(NameOf(i), kNames[i % kNames.size()]).state(),
                v1::LoadAdapterResponse::RESIDENT)
          << NameOf(i);
    }
  }
  static void WaitFor(const std::function<bool()>& holds) {
    const auto until = std::chrono::steady_clock::now() + std::chrono::seconds(60);
    while (!holds() && std::chrono::steady_clock::now() < until) std::this_thread::yield();
    EXPECT_TRUE(holds());
  }
  int64_t Counter(const std::string& name) {
    const std::string text = polyad::Ask(server_.Address("http"), Get("/metrics"));
    const size_t at = text.find("\n" + name + " ");
    EXPECT_NE(at, std::string::npos) << name;
    return at == std::string::npos ? 0 : std::stoll(text.substr(at + name.size() + 2));
  }

  const int64_t memory_;
  ServerProcess server_;
  Admin admin_;
};

TEST_F(SharedMemoryServer, KvAndAdaptersServeFromOneMemoryWithTheTokensOfEach) {
  std::map<int32_t, std::vector<int32_t>> expected;
  // Cached prompts take what nobody else does: all but a quarter once there are adapters.
  constexpr int32_t kPrompts = 90;
  for (int32_t i = 0; i < kPrompts; ++i) expected[i] = Ask(i);
  const v1::MemoryBytes cached = Memory();
  EXPECT_GT(cached.prefix(), kKvFloor);
  EXPECT_EQ(cached.adapters(), 0);

  LoadAdapters();
  const v1::MemoryBytes loaded = Memory();
  EXPECT_GT(loaded.adapters(), kMemory - cached.kv() - cached.prefix());  // K/V gave
  EXPECT_GT(loaded.adapters(), 1 << 20);
  EXPECT_GT(Counter("polyad_adapters_swapped_out_total"), 0);

  std::vector<std::thread> clients;
  std::atomic<int> num_running = 0;
  for (size_t client = 0; client < 6; ++client) {
    ++num_running;
    clients.emplace_back([&, client] {
      for (size_t i = 0; i < 16; ++i) {
        if (client % 2 == 0) {
          AskAdapter((client * 31 + i * 17) % kNumAdapters);
        } else {
          const auto which = static_cast<int32_t>((client * 29 + i * 7) % kPrompts);
          EXPECT_EQ(Ask(which), expected[which]) << which;
        }
      }
      --num_running;
    });
  }
  while (num_running > 0) Memory();
  for (std::thread& client : clients) client.join();
  EXPECT_GT(Counter("polyad_adapters_read_back_total"), 0);
}

// Room for 32 adapters.
class SmallSharedMemoryServer : public SharedMemoryServer {
 protected:
  SmallSharedMemoryServer() : SharedMemoryServer(4 << 20) {}
};

// As many adapters as there is room for are asked for over and over by streams that overlap, so
// that none of them is ever idle. Others have their turn all the same.
TEST_F(SmallSharedMemoryServer, NobodyStarvesWhereEveryResidentAdapterIsInUse) {
  const std::string large = "lora_embedding_head";
  const auto prompt = GoldenInts(kAdapters + "/" + large, "prompt.1.tokens");
  int num_busy = 0;
  while (Counter("polyad_adapters_swapped_out_total") == 0) {
    ASSERT_LT(num_busy, 64);
    admin_.Load("busy." + std::to_string(num_busy++), large);
  }
  for (size_t i = 0; i < kNames.size(); ++i) admin_.Load(NameOf(i), kNames[i]);
  std::vector<std::thread> clients;
  std::atomic<bool> done = false;
  for (int client = 0; client < 2 * num_busy; ++client) {
    clients.emplace_back([&, name = "busy." + std::to_string(client % num_busy)] {
      while (!done) {
        const Answer answer = Generate(server_.Address("grpc"), name, prompt, 60);
        EXPECT_TRUE(answer.status.ok()) << name << ": " << answer.status.error_message();
      }
    });
  }
  WaitFor([&] { return admin_.GetLoad().running_adapters_size() >= num_busy / 2; });
  const auto start = std::chrono::steady_clock::now();
  for (size_t i = 0; i < kNames.size(); ++i) AskAdapter(i);
  const std::chrono::duration<double> elapsed = std::chrono::steady_clock::now() - start;
  done = true;
  for (std::thread& client : clients) client.join();
  std::printf("%zu adapters beside %d that are never idle: %.2f s\n", kNames.size(), num_busy,
              elapsed.count());
  Memory();
}

TEST_F(SharedMemoryServer, WhatCannotFitIsRefusedAndTheMemoryIsTold) {
  // A context of the model is K/V's for good.
  const Answer longest = Generate(server_.Address("grpc"), "", PromptOf(1), 16);
  EXPECT_EQ(longest.tokens.size(), 16u);
  EXPECT_EQ(admin_.GetServerInfo().model().memory_bytes(), kMemory);
  const std::string metrics = polyad::Ask(server_.Address("http"), Get("/metrics"));
  for (const char* kind : {"kv", "prefix", "adapters", "free"}) {
    EXPECT_NE(metrics.find("polyad_memory_bytes{kind=\"" + std::string(kind) + "\"} "),
              std::string::npos)
        << kind;
  }
}

}  // namespace
}  // namespace polyad
