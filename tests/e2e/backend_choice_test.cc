// Which backend the program takes where CUDA's is missing something: with `auto` the CPU and a line
// that says why, with `cuda` an error that names the cause. Then ranks of the CPU's.
// covers: kernels/backend_factory.cc

#include <gmock/gmock.h>

#include <string>
#include <vector>

#include "kernels/cuda/plugin_api.h"
#include "tests/e2e/clients.h"
#include "tests/e2e/server_process.h"

namespace polyad {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

constexpr int kRefused = 3;  // exit code: model or adapter refused

const std::string kModel = std::string(POLYAD_SOURCE_DIR) + "/tests/golden/models/llama";

struct Lacking {
  std::string name;
  std::string plugin;
  std::string says;
};

std::vector<Lacking> Cases() {
  const std::string fakes = POLYAD_FAKE_PLUGINS;
  return {{"Library", "/nowhere/polyad_cuda.so", "CUDA plugin /nowhere/polyad_cuda.so"},
          {"OtherVersion", fakes + "/fake_plugin1.so",
           "version " + std::to_string(POLYAD_CUDA_ABI_VERSION) + " of its interface, got"},
          {"OtherBuild", fakes + "/fake_plugin4.so", "expected one of this build"},
          {"Driver", fakes + "/fake_plugin2.so", "CUDA: no driver"},
          {"Code", fakes + "/fake_plugin5.so", "no code for compute capability 7.0"}};
}

class BackendChoice : public testing::TestWithParam<Lacking> {
 protected:
  static std::vector<std::string> Flags(const std::string& backend) {
    return {"--model",     kModel,      "--dtype=f32",
            "--kv-mib=8",  "--backend", backend,
            "--log-level", "warning",   "--cuda-plugin=" + GetParam().plugin};
  }
};
INSTANTIATE_TEST_SUITE_P(All, BackendChoice, testing::ValuesIn(Cases()),
                         [](const auto& test) { return test.param.name; });

TEST_P(BackendChoice, AutoServesOnTheCpuAndSaysWhy) {
  testing::internal::CaptureStderr();
  ServerProcess server(Flags("auto"));
  const std::string said = testing::internal::GetCapturedStderr();
  ASSERT_THAT(server.ready_line(), HasSubstr("polyad ready"));
  EXPECT_THAT(said, AllOf(HasSubstr("backend_fallback"), HasSubstr(GetParam().says)));
  const Answer answer = Generate(server.Address("grpc"), "llama", {1, 2, 3}, 2);
  EXPECT_TRUE(answer.status.ok()) << answer.status.error_message();
  EXPECT_EQ(answer.tokens.size(), 2u);
  EXPECT_EQ(Admin(server).GetServerInfo().backend(), "cpu");
}

TEST_P(BackendChoice, CudaIsRefusedByItsCause) {
  testing::internal::CaptureStderr();
  ServerProcess server(Flags("cuda"));
  EXPECT_EQ(server.Wait(), kRefused);
  EXPECT_THAT(testing::internal::GetCapturedStderr(), HasSubstr(GetParam().says));
  EXPECT_EQ(server.ready_line(), "");
}

// Weights and K/V of the base, and an adapter, split among ranks: the same answers.
std::vector<Answer> AnswersOfRanks(const std::string& num_ranks) {
  const std::string adapter =
      std::string(POLYAD_SOURCE_DIR) + "/tests/golden/adapters/llama/lora_bias_of_b";
  ServerProcess server({"--model", kModel, "--kv-mib=8", "--adapter", "tuned=" + adapter,
                        "--tensor-parallel", num_ranks});
  EXPECT_THAT(server.ready_line(), HasSubstr("polyad ready"));
  std::vector<Answer> answers;
  for (const char* model : {"llama", "tuned"}) {
    answers.push_back(Generate(server.Address("grpc"), model, {1, 2, 3}, 12));
    EXPECT_TRUE(answers.back().status.ok()) << answers.back().status.error_message();
  }
  return answers;
}

TEST(TensorParallel, RanksOfTheCpuAnswerAsOneDoes) {
  const std::vector<Answer> one = AnswersOfRanks("1");
  const std::vector<Answer> two = AnswersOfRanks("2");
  for (size_t i = 0; i < one.size(); ++i) EXPECT_EQ(two[i].tokens, one[i].tokens);
  EXPECT_NE(one[0].tokens, one[1].tokens);
}

TEST(TensorParallel, MoreRanksThanKvHeadsAreRefused) {
  testing::internal::CaptureStderr();
  ServerProcess server({"--model", kModel, "--kv-mib=8", "--tensor-parallel", "3"});
  EXPECT_EQ(server.Wait(), kRefused);
  EXPECT_THAT(testing::internal::GetCapturedStderr(),
              HasSubstr("split among 3 ranks: expected at least as many kv heads, got 2"));
}

}  // namespace
}  // namespace polyad
