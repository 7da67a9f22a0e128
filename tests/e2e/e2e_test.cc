// The real program end to end on the tiny golden model: what it prints, what it answers over both
// fronts, what hostile clients do to it, how it ends. covers: server/main.cc
// server/command_serve.cc server/command_generate.cc server/command_inspect.cc
// server/command_bench.cc server/command.cc server/engine_setup.cc

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <functional>
#include <nlohmann/json.hpp>
#include <thread>

#include "engine/io/safetensors.h"
#include "polyad/v1/adapter_admin.grpc.pb.h"
#include "tests/e2e/clients.h"
#include "tests/e2e/server_process.h"
#include "tests/engine/io/file_builders.h"
#include "tests/server/raw_client.h"

namespace polyad {
namespace {

const std::string kGolden = std::string(POLYAD_SOURCE_DIR) + "/tests/golden";
const std::string kModel = kGolden + "/models/llama";
const std::string kAdapters = kGolden + "/adapters/llama";

std::vector<int32_t> GoldenInts(const std::string& directory, const std::string& name) {
  const auto file = SafetensorsFile::Open(directory + "/goldens.safetensors");
  EXPECT_TRUE(file.ok()) << file.status();
  const auto tensor = file->Read(name);
  EXPECT_TRUE(tensor.ok()) << tensor.status();
  std::vector<int32_t> values(static_cast<size_t>(tensor->shape.at(0)));
  std::memcpy(values.data(), tensor->bytes.data(), values.size() * sizeof(int32_t));
  return values;
}

std::vector<std::string> Flags(std::vector<std::string> more = {}) {
  std::vector<std::string> flags = {"--model",    kModel,           "--dtype=f32",
                                    "--kv-mib=8", "--adapter-root", kAdapters};
  flags.insert(flags.end(), more.begin(), more.end());
  return flags;
}

// One server for the tests that leave it as they found it; ended with the program.
class SharedServer final : public testing::Environment {
 public:
  static ServerProcess& Get() {
    if (Slot() == nullptr) {
      Slot() =
          std::make_unique<ServerProcess>(Flags({"--adapter", "plain=" + kAdapters + "/plain"}));
    }
    return *Slot();
  }
  void TearDown() override { Slot().reset(); }

 private:
  static std::unique_ptr<ServerProcess>& Slot() {
    static std::unique_ptr<ServerProcess> server;
    return server;
  }
};

[[maybe_unused]] const testing::Environment* const kEnvironment =
    testing::AddGlobalTestEnvironment(new SharedServer);

ServerProcess& Shared() { return SharedServer::Get(); }

TEST(ServeTest, ReadyLineNamesThreeBoundPorts) {
  const ServerProcess& server = Shared();
  EXPECT_TRUE(server.ready_line().starts_with("polyad ready grpc=127.0.0.1:"))
      << server.ready_line();
  for (const char* name : {"grpc", "admin", "http"}) {
    EXPECT_GT(std::stoi(server.Address(name).substr(10)), 0) << name;
  }
}

TEST(ServeTest, GreedyTokensAreTheOriginalsForBaseAndAdapterAtOnce) {
  const std::string address = Shared().Address("grpc");
  struct Case {
    std::string model;
    std::string directory;
    int prompt;
  };
  const std::vector<Case> cases = {{"", kModel, 0},
                                   {"", kModel, 2},
                                   {"", kModel, 4},
                                   {"plain", kAdapters + "/plain", 0},
                                   {"plain", kAdapters + "/plain", 1},
                                   {"plain", kAdapters + "/plain", 2}};
  std::vector<std::thread> threads;
  for (const Case& one : cases) {
    threads.emplace_back([&] {
      const std::string prefix = "prompt." + std::to_string(one.prompt);
      const auto expected = GoldenInts(one.directory, prefix + ".greedy");
      const Answer answer =
          Generate(address, one.model, GoldenInts(one.directory, prefix + ".tokens"),
                   static_cast<int64_t>(expected.size()));
      EXPECT_TRUE(answer.status.ok()) << answer.status.error_message();
      EXPECT_EQ(answer.tokens, expected) << one.model << " " << prefix;
    });
  }
  for (std::thread& thread : threads) thread.join();
}

TEST(ServeTest, HttpAnswersTheSameTokensAsGrpc) {
  const auto prompt = GoldenInts(kModel, "prompt.2.tokens");
  const nlohmann::json body = {{"prompt", prompt},
                               {"max_tokens", 8},
                               {"temperature", 0},
                               {"ignore_eos", true},
                               {"logprobs", 0}};
  const std::string response = Ask(Shared().Address("http"), Post("/v1/completions", body.dump()));
  ASSERT_EQ(StatusOf(response), 200) << response;
  const auto answer = nlohmann::json::parse(response.substr(response.find("\r\n\r\n") + 4));
  EXPECT_EQ(answer["usage"]["completion_tokens"], 8);
  EXPECT_EQ(answer["usage"]["prompt_tokens"], prompt.size());
  EXPECT_EQ(answer["choices"][0]["logprobs"]["tokens"].size(), 8u);
  EXPECT_EQ(answer["choices"][0]["finish_reason"], "length");
}

TEST(ServeTest, AdaptersLoadFromTheRootServeAndUnload) {
  const ServerProcess& server = Shared();
  Admin admin(server);
  const v1::LoadAdapterResponse last = admin.Load("rs", "rslora");
  EXPECT_EQ(last.state(), v1::LoadAdapterResponse::RESIDENT);
  EXPECT_EQ(last.report().digest().size(), 64u);
  const std::string directory = kAdapters + "/rslora";
  const auto expected = GoldenInts(directory, "prompt.1.greedy");
  EXPECT_EQ(
      Generate(server.Address("grpc"), "rs", GoldenInts(directory, "prompt.1.tokens"), 24).tokens,
      expected);
  EXPECT_TRUE(admin.Unload("rs").ok());
  EXPECT_EQ(Generate(server.Address("grpc"), "rs", {5}, 1).status.error_code(),
            grpc::StatusCode::NOT_FOUND);
}

// Waits for what follows an answer at once, but on another thread.
void WaitUntil(const std::function<bool()>& holds, const char* what) {
  for (int i = 0; i < 1000 && !holds(); ++i) {
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
  EXPECT_TRUE(holds()) << what;
}

TEST(ServeTest, ASoftPromptIsComputedByItsLoadAndGoesWithItsLastLease) {
  for (const char* name : {"prefix_tuning", "prompt_tuning", "hub_prefix"}) {
    const ServerProcess& server = Shared();
    Admin admin(server);
    const v1::GetLoadResponse before = admin.GetLoad();
    admin.Load(name, name);
    const v1::GetLoadResponse loaded = admin.GetLoad();
    EXPECT_GT(loaded.soft_prompt_tokens(), before.soft_prompt_tokens()) << name;
    EXPECT_GT(loaded.num_kv_blocks_soft_prompt(), 0) << name;
    EXPECT_EQ(loaded.prompt_tokens(), before.prompt_tokens()) << name;
    const std::string directory = kAdapters + "/" + name;
    for (int prompt : {0, 1, 2}) {
      const std::string prefix = "prompt." + std::to_string(prompt);
      const auto expected = GoldenInts(directory, prefix + ".greedy");
      EXPECT_EQ(Generate(server.Address("grpc"), name, GoldenInts(directory, prefix + ".tokens"),
                         static_cast<int64_t>(expected.size()))
                    .tokens,
                expected)
          << name;
    }
    EXPECT_EQ(admin.GetLoad().soft_prompt_tokens(), loaded.soft_prompt_tokens()) << name;
    EXPECT_TRUE(admin.Unload(name).ok());
    WaitUntil([&] { return admin.GetLoad().num_kv_blocks_soft_prompt() == 0; }, name);
  }
}

// Many more adapters than memory holds: requests in every order have their own adapter's tokens.
TEST(ServeTest, AdaptersBeyondMemoryAreReadBackOnDemand) {
  const std::vector<std::string> names = {"plain",       "rslora", "dora_all",
                                          "ia3_default", "lokr",   "prefix_tuning"};
  ServerProcess server(Flags({"--max-adapter-mib=1"}));
  Admin admin(server);
  int64_t largest = 0;
  int64_t all = 0;
  std::vector<std::string> loaded;
  // Copies of the same six until they are three times what there is room for.
  for (int copy = 0; all < (3 << 20); ++copy) {
    ASSERT_LT(copy, 600);
    for (const std::string& name : names) {
      loaded.push_back(name + "." + std::to_string(copy));
      const int64_t bytes = admin.Load(loaded.back(), name).report().resident_bytes();
      largest = std::max(largest, bytes);
      all += bytes;
    }
  }
  EXPECT_LT(largest, 1 << 19) << "several fit";
  EXPECT_LE(admin.GetLoad().adapter_bytes(), 1 << 20);
  std::vector<std::thread> clients;
  for (size_t client = 0; client < 4; ++client) {
    clients.emplace_back([&, client] {
      for (size_t i = 0; i < 12; ++i) {
        const size_t which = (client * 31 + i * 17) % loaded.size();
        const std::string directory = kAdapters + "/" + names[which % names.size()];
        const auto expected = GoldenInts(directory, "prompt.1.greedy");
        const Answer answer = Generate(server.Address("grpc"), loaded[which],
                                       GoldenInts(directory, "prompt.1.tokens"),
                                       static_cast<int64_t>(expected.size()));
        EXPECT_TRUE(answer.status.ok()) << answer.status.error_message();
        EXPECT_EQ(answer.tokens, expected) << loaded[which];
      }
    });
  }
  for (std::thread& client : clients) client.join();
  EXPECT_LE(admin.GetLoad().adapter_bytes(), 1 << 20);
  const std::string metrics = Ask(server.Address("http"), Get("/metrics"));
  EXPECT_EQ(metrics.find("polyad_adapters_read_back_total 0"), std::string::npos);
  EXPECT_NE(metrics.find("tier=\"disk\""), std::string::npos);
}

// A pool of 1 MiB, then memory of 1 MiB, then a file: what was driven out of all but the last comes
// back, and the answers with it.
TEST(ServeTest, EvictedPromptsComeBackFromMemoryAndFile) {
  ServerProcess server({"--model", kModel, "--dtype=f32", "--kv-mib=1", "--kv-spill-mib=1",
                        "--kv-spill-file-mib=8", "--kv-spill-dir", testing::TempDir()});
  Admin admin(server);
  const std::string address = server.Address("grpc");
  const auto prompt_of = [](int32_t i) {
    std::vector<int32_t> prompt(112, 20 + i % 50);
    prompt[0] = 20 + i / 50;
    return prompt;
  };
  std::vector<std::vector<int32_t>> first;
  int32_t num_prompts = 0;
  for (; num_prompts < 1000 && admin.GetLoad().num_kv_blocks_in_file() < 20; ++num_prompts) {
    first.push_back(Generate(address, "", prompt_of(num_prompts), 4).tokens);
    ASSERT_EQ(first.back().size(), 4u);
  }
  const v1::GetLoadResponse full = admin.GetLoad();
  EXPECT_GT(full.num_kv_blocks_saved(), 0);
  EXPECT_EQ(full.num_kv_blocks_restored(), 0);
  for (int32_t i : {0, 1, num_prompts / 2, num_prompts - 1}) {
    EXPECT_EQ(Generate(address, "", prompt_of(i), 4).tokens, first[static_cast<size_t>(i)]) << i;
  }
  const v1::GetLoadResponse after = admin.GetLoad();
  EXPECT_GE(after.num_kv_blocks_restored(), 2 * 6);
  EXPECT_GE(after.prefix_hits() - full.prefix_hits(), 4 * 96);
}

// Every layer of the tiny Mistral sees eight tokens, which with the next one lie in two blocks:
// however long sequences grow, they hold no more.
TEST(ServeTest, BlocksBehindASlidingWindowAreGivenBack) {
  ServerProcess server({"--model", kGolden + "/models/mistral", "--dtype=f32"});
  Admin admin(server);
  std::vector<std::thread> clients;
  std::atomic<int> num_running = 0;
  for (int32_t client = 0; client < 8; ++client) {
    ++num_running;
    clients.emplace_back([&, client] {
      for (int32_t i = 0; i < 3; ++i) {
        const std::vector<int32_t> prompt(9, 20 + client * 3 + i);
        EXPECT_EQ(Generate(server.Address("grpc"), "", prompt, 110).tokens.size(), 110u);
      }
      --num_running;
    });
  }
  int64_t most_running = 0;
  while (num_running > 0) {
    const v1::GetLoadResponse load = admin.GetLoad();
    most_running = std::max<int64_t>(most_running, load.num_running());
    EXPECT_LE(load.num_kv_blocks_used(), 2 * load.num_running());
  }
  for (std::thread& client : clients) client.join();
  EXPECT_GT(most_running, 0);
  EXPECT_EQ(admin.GetLoad().num_kv_blocks_used(), 0);
}

TEST(ServeTest, AdaptersOutsideTheRootOrBrokenAreRefused) {
  const std::string http = Shared().Address("http");
  for (const char* path :
       {"../../models/llama", "/etc", "file:///etc", "nobody", ".", "plain/adapter_config.json"}) {
    const std::string body = nlohmann::json({{"lora_name", "x"}, {"lora_path", path}}).dump();
    const std::string response = Ask(http, Post("/v1/load_lora_adapter", body));
    EXPECT_GE(StatusOf(response), 400) << path;
    EXPECT_LT(StatusOf(response), 500) << path << response;
    EXPECT_EQ(response.find(kGolden), std::string::npos) << response;
  }
}

TEST(ServeTest, HostileHttpClientsLeaveOthersUntouched) {
  const std::string http = Shared().Address("http");
  const std::string host = "Host: x\r\n";
  const std::vector<std::string> abuses = {
      std::string(1, '\0'),
      "\r\n\r\n",
      "GET\r\n\r\n",
      "GET / HTTP/9.9\r\n\r\n",
      "GET /" + std::string(100'000, 'a'),
      "GET / HTTP/1.1\r\n" + std::string(100'000, 'A'),
      "GET / HTTP/1.1\r\nHost: " + std::string(100'000, 'a') + "\r\n\r\n",
      "POST /v1/completions HTTP/1.1\r\n" + host + "Content-Length: 18446744073709551616\r\n\r\n",
      "POST /v1/completions HTTP/1.1\r\n" + host + "Content-Length: -1\r\n\r\n",
      "POST /v1/completions HTTP/1.1\r\n" + host +
          "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
      "POST /v1/completions HTTP/1.1\r\n" + host +
          "Transfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\n",
      "POST /v1/completions HTTP/1.1\r\n" + host + "Transfer-Encoding: chunked\r\n\r\n1;" +
          std::string(9000, 'e'),
      "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
      "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
      Post("/v1/completions", std::string(100'000, '[')),
      Post("/v1/completions", "{\"prompt\": \"\xff\xfe\"}"),
      Post("/v1/completions", R"({"prompt": "a", "n": 1000000})"),
      Post("/v1/completions", R"({"prompt": [2147483647]})"),
      Post("/v1/completions", R"({"prompt": [-1]})"),
      Post("/v1/completions", R"({"prompt": "a", "max_tokens": 9223372036854775807})"),
      Post("/v1/completions", R"({"model": "../../etc", "prompt": "a"})"),
      Post("/v1/chat/completions", R"({"messages": [{"role": "user", "content": {"x": 1}}]})")};
  for (const std::string& abuse : abuses) {
    RawClient client(http);
    client.Send(abuse);
    ::shutdown(client.fd(), SHUT_WR);
    const std::string response = client.ReadAll();
    const int status = StatusOf(response);
    EXPECT_TRUE(response.empty() || (status >= 400 && status < 500) || status == 501 ||
                status == 505)
        << abuse.substr(0, 60) << " -> " << response.substr(0, 200);
  }
  EXPECT_EQ(StatusOf(Ask(http, Get("/health"))), 200);
  const auto expected = GoldenInts(kModel, "prompt.2.greedy");
  EXPECT_EQ(
      Generate(Shared().Address("grpc"), "", GoldenInts(kModel, "prompt.2.tokens"), 24).tokens,
      expected);
}

TEST(ServeTest, DisconnectsLeaveNothingBehind) {
  const std::string http = Shared().Address("http");
  for (int i = 0; i < 100; ++i) {
    RawClient client(http);
    client.Send(
        Post("/v1/completions",
             R"({"prompt": "a", "max_tokens": 100, "stream": true, "ignore_eos": true, "n": 2})"));
    if (i % 2 == 0) client.ReadUntil("data: ");
  }
  const auto metric = [&](const std::string& name) {
    const std::string text = Ask(http, Get("/metrics"));
    const size_t at = text.find("\n" + name + " ");
    return at == std::string::npos ? -1.0 : std::stod(text.substr(at + name.size() + 2));
  };
  bool idle = false;
  for (int i = 0; i < 500 && !idle; ++i) {
    idle = metric("vllm:num_requests_running") == 0 && metric("vllm:num_requests_waiting") == 0 &&
           metric("polyad_kv_blocks_used") == 0;
    if (!idle) std::this_thread::sleep_for(std::chrono::milliseconds(20));
  }
  EXPECT_TRUE(idle);
}

TEST(ServeTest, SigtermFinishesWhatRunsRefusesWhatComesAndEndsWithZero) {
  ServerProcess server(Flags());
  ASSERT_FALSE(server.ready_line().empty());
  std::thread running([&] {
    const Answer answer = Generate(server.Address("grpc"), "", {5, 6, 7}, 100);
    EXPECT_TRUE(answer.status.ok()) << answer.status.error_message();
    EXPECT_EQ(answer.tokens.size(), 100u);
  });
  // Wait until it runs, or has run.
  for (int i = 0; i < 2000; ++i) {
    const std::string metrics = Ask(server.Address("http"), Get("/metrics"));
    if (metrics.find("\npolyad_steps_total 0\n") == std::string::npos) break;
  }
  server.Signal(SIGTERM);
  running.join();
  EXPECT_EQ(server.Wait(), 0);
}

TEST(ServeTest, ExitCodesSayWhatIsWrong) {
  EXPECT_EQ(RunProgram("").exit_code, 2);
  EXPECT_EQ(RunProgram("serv").exit_code, 2);
  EXPECT_NE(RunProgram("serv").text.find("did you mean 'serve'"), std::string::npos);
  EXPECT_EQ(RunProgram("serve --model x --max-queed 3").exit_code, 2);
  EXPECT_EQ(RunProgram("serve --model " + kModel + " --grpc-listen 0.0.0.0:0").exit_code, 2);
  EXPECT_EQ(RunProgram("serve --model " + kAdapters + "/nobody --kv-mib 8").exit_code, 3);
  EXPECT_EQ(RunProgram("serve --model " + kModel +
                       " --kv-mib 8 --grpc-listen 127.0.0.1:0 --admin-listen 127.0.0.1:0 "
                       "--http-listen 127.0.0.1:0 --adapter a=" +
                       kModel)
                .exit_code,
            3);
  EXPECT_EQ(RunProgram("serve --model " + kModel + " --dtype f32 --kv-mib 8 --grpc-listen " +
                       Shared().Address("grpc"))
                .exit_code,
            4);
  EXPECT_EQ(RunProgram("check-config --model x").exit_code, 0);
  EXPECT_EQ(RunProgram("check-config").exit_code, 2);
  EXPECT_EQ(RunProgram("version").text, "polyad 0.1.0\n");
  for (const char* command :
       {"serve", "generate", "inspect", "bench", "quantize", "compress", "check-config"}) {
    const Output help = RunProgram(std::string(command) + " --help");
    EXPECT_EQ(help.exit_code, 0) << command;
    EXPECT_NE(help.text.find("usage: polyad " + std::string(command)), std::string::npos);
  }
}

int64_t SumOf(const nlohmann::json& bytes) {
  int64_t sum = 0;
  for (const auto& held : bytes) sum += held.get<int64_t>();
  return sum;
}

// 14 matrices of 73,728 weights in all, each with one scale, and a norm of 64.
TEST(InspectTest, SaysInWhichPrecisionsAnAdapterIsHeld) {
  const std::string flags =
      "inspect " + kGolden + "/adapters/mistral/bitdelta --model " + kGolden + "/models/mistral";
  const Output asked = RunProgram(flags + " --json");
  ASSERT_EQ(asked.exit_code, 0) << asked.text;
  const auto report = nlohmann::json::parse(asked.text);
  EXPECT_EQ(report["bytes_by_precision"]["1-bit"], 73728 / 8);
  EXPECT_EQ(report["bytes_by_precision"]["f32"], (14 + 64) * 4);
  EXPECT_EQ(report["resident_bytes"], 73728 / 8 + (14 + 64) * 4);
  const Output text = RunProgram(flags);
  EXPECT_NE(text.text.find("f32=312 1-bit=9216"), std::string::npos) << text.text;
}

TEST(InspectTest, AnAdapterThatNamesItsBaseIsRefusedOverAnother) {
  const TemporaryDirectory directory;
  const std::string adapter = directory.path() + "/adapter";
  const std::string other = directory.path() + "/other";
  std::filesystem::copy(kAdapters + "/plain", adapter);
  ASSERT_EQ(RunProgram("quantize --model " + kModel + " --out " + other).exit_code, 0);
  const auto base = nlohmann::json::parse(RunProgram("inspect --json " + kModel).text);
  std::ofstream(adapter + "/polyad_base.json")
      << "{\"weights_sha256\": " << base["weights_sha256"] << "}";
  EXPECT_EQ(RunProgram("inspect " + adapter + " --model " + kModel).exit_code, 0);
  const Output refused = RunProgram("inspect " + adapter + " --model " + other);
  EXPECT_EQ(refused.exit_code, 3);
  EXPECT_NE(refused.text.find("polyad_base.json"), std::string::npos) << refused.text;
}

TEST(InspectTest, SaysWhatAModelAndAnAdapterAre) {
  const Output model = RunProgram("inspect --json " + kModel);
  EXPECT_EQ(model.exit_code, 0) << model.text;
  const auto base = nlohmann::json::parse(model.text);
  EXPECT_EQ(base["architecture"], "llama");
  EXPECT_EQ(base["weights_sha256"].get<std::string>().size(), 64u);
  EXPECT_EQ(base["weight_bytes"], SumOf(base["embedding_bytes"]) + SumOf(base["layer_bytes"]));
  const Output adapter =
      RunProgram("inspect " + kAdapters + "/plain --model " + kModel + " --json");
  ASSERT_EQ(adapter.exit_code, 0) << adapter.text;
  const auto report = nlohmann::json::parse(adapter.text);
  EXPECT_EQ(report["kind"], "adapter");
  EXPECT_GT(report["num_tensors_read"], 0);
  EXPECT_EQ(report["layer_delta_norms"].size(), 2u);
  EXPECT_EQ(report["resident_bytes"], SumOf(report["bytes_by_precision"]));
  EXPECT_EQ(RunProgram("inspect " + kAdapters + "/plain").exit_code, 2);
  EXPECT_EQ(RunProgram("inspect " + kAdapters).exit_code, 3);
  EXPECT_EQ(RunProgram("inspect " + kGolden + "/adapters/gpt2/plain --model " + kModel).exit_code,
            3);
}

TEST(GenerateTest, OnePromptWithoutAServer) {
  const std::string flags =
      "generate --dtype f32 --kv-mib 8 --model " + kModel + " --max-tokens 5 --prompt 'Hello, '";
  const Output base = RunProgram(flags);
  EXPECT_EQ(base.exit_code, 0) << base.text;
  EXPECT_NE(base.text.find("5 tokens in"), std::string::npos) << base.text;
  EXPECT_EQ(RunProgram(flags + " --adapter plain=" + kAdapters + "/plain").exit_code, 0);
  EXPECT_EQ(RunProgram(flags + " --use nobody").exit_code, 1);
  EXPECT_EQ(RunProgram("generate --model " + kModel).exit_code, 2);
}

TEST(PerplexityTest, ScoresATextInEveryKvFormatAndSaysWhichItWas) {
  const TemporaryDirectory directory;
  const std::string text = directory.path() + "/text";
  std::ofstream(text) << "The lamp in the harbour is lit at dusk, and put out when the sun is up. "
                         "Nobody has seen who lights it, or who comes for it in the morning.";
  const std::string command =
      "perplexity --window 32 --kv-mib 8 --model " + kModel + " --text " + text;
  for (const char* format : {"bf16", "int8", "int4"}) {
    const Output scored = RunProgram(command + " --kv-dtype " + format);
    EXPECT_EQ(scored.exit_code, 0) << scored.text;
    EXPECT_NE(scored.text.find(std::string("K/V in ") + format), std::string::npos) << scored.text;
  }
  EXPECT_NE(RunProgram(command + " --dtype f32").text.find("K/V in f32"), std::string::npos);
  const Output refused = RunProgram(command + " --dtype f32 --kv-dtype int8");
  EXPECT_EQ(refused.exit_code, 3);
  EXPECT_NE(refused.text.find("int8"), std::string::npos) << refused.text;
  EXPECT_EQ(RunProgram(command + " --kv-dtype int3").exit_code, 2);
  EXPECT_EQ(RunProgram("perplexity --model " + kModel).exit_code, 2);
  EXPECT_EQ(RunProgram("perplexity --model " + kModel + " --text /nowhere").exit_code, 1);
}

TEST(QuantizeTest, WhatItWritesIsServed) {
  const TemporaryDirectory directory;
  const std::string out = directory.path() + "/quantised";
  const Output made = RunProgram("quantize --model " + kModel + " --out " + out + " --bits 4");
  ASSERT_EQ(made.exit_code, 0) << made.text;
  EXPECT_NE(made.text.find("14 matrices in 4 bits"), std::string::npos) << made.text;
  const std::string flags = " --kv-mib 8 --max-tokens 5 --prompt 'Hello, ' --model " + out;
  for (const char* dtype : {"f32", "auto"}) {
    const Output answer = RunProgram("generate --dtype " + std::string(dtype) + flags);
    EXPECT_EQ(answer.exit_code, 0) << answer.text;
    EXPECT_NE(answer.text.find("5 tokens in"), std::string::npos) << answer.text;
  }
  EXPECT_EQ(RunProgram("quantize --model " + kModel + " --out " + out).exit_code, 3);
  EXPECT_EQ(RunProgram("quantize --model " + kModel).exit_code, 2);
  EXPECT_EQ(RunProgram("quantize --model " + kModel + " --out x --bits 5.5").exit_code, 2);
}

// The other tiny llama-shaped models differ in more than numbers, so the fine-tune is the base's
// own weights in 8 bits.
TEST(CompressTest, WhatItWritesIsInspectedServedAndScored) {
  const TemporaryDirectory directory;
  const std::string fine = directory.path() + "/fine";
  const std::string out = directory.path() + "/compressed";
  ASSERT_EQ(RunProgram("quantize --model " + kModel + " --out " + fine + " --bits 4").exit_code, 0);
  const std::string text = directory.path() + "/text";
  std::ofstream(text) << "The lamp in the harbour is lit at dusk, and put out when the sun is up. "
                         "Nobody has seen who lights it, or who comes for it in the morning.";
  const std::string pair = "compress --base " + kModel + " --fine-tuned " + fine;
  const std::string flags = " --kv-mib 8 --threads 2 --dtype f32";
  const Output made = RunProgram(pair + flags + " --out " + out + " --bits 2 --text " + text +
                                 " --calibrate " + text);
  ASSERT_EQ(made.exit_code, 0) << made.text;
  for (const char* told : {"14 matrices in 2 bits", "layer 1", "calibrated: error of outputs",
                           "perplexity of ", "of the way"}) {
    EXPECT_NE(made.text.find(told), std::string::npos) << told << ": " << made.text;
  }
  const Output seen = RunProgram("inspect " + out + " --model " + kModel + " --json");
  ASSERT_EQ(seen.exit_code, 0) << seen.text;
  EXPECT_EQ(nlohmann::json::parse(seen.text)["family"], "bitdelta");
  EXPECT_EQ(RunProgram("inspect " + out + " --model " + fine).exit_code, 3);
  const Output answer = RunProgram("generate --max-tokens 5 --prompt 'Hello, ' --model " + kModel +
                                   flags + " --adapter tenant=" + out);
  EXPECT_EQ(answer.exit_code, 0) << answer.text;
  EXPECT_EQ(RunProgram(pair + " --out " + out).exit_code, 3);
  EXPECT_EQ(RunProgram(pair).exit_code, 2);
  EXPECT_EQ(RunProgram(pair + " --out x --bits 4").exit_code, 2);
  EXPECT_EQ(RunProgram(pair + " --out x --scale column").exit_code, 2);
  EXPECT_EQ(RunProgram("compress --base " + kModel + " --fine-tuned " + kGolden +
                       "/models/qwen2 --out " + directory.path() + "/x")
                .exit_code,
            3);
}

TEST(BenchTest, MeasuresARunningServer) {
  const Output out =
      RunProgram("bench --target " + Shared().Address("grpc") +
                 " --requests 20 --rate 200 --prompt-tokens 8 --output-tokens 4 --vocab-size 320 "
                 "--models plain,base:" +
                 "llama --mix zipf");
  ASSERT_EQ(out.exit_code, 0) << out.text;
  const auto result = nlohmann::json::parse(out.text);
  EXPECT_EQ(result["completed"], 20);
  EXPECT_EQ(result["total_output_tokens"], 80);
  EXPECT_GT(result["median_ttft_ms"], 0);
  EXPECT_EQ(result["models"]["plain"]["completed"].get<int>() +
                result["models"]["base:llama"]["completed"].get<int>(),
            20);
  EXPECT_EQ(RunProgram("bench --requests 0").exit_code, 2);
  EXPECT_EQ(RunProgram("bench --requests 1 --models nobody --target " + Shared().Address("grpc"))
                .exit_code,
            1);
}

}  // namespace
}  // namespace polyad
