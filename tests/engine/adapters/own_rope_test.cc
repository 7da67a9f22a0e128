#include "engine/adapters/own_rope.h"

#include <filesystem>
#include <fstream>

#include "engine/adapters/adapter_store.h"
#include "engine/io/file.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "kernels/backend_factory.h"
#include "tests/engine/adapters/adapter_bytes.h"
#include "tests/engine/adapters/tiny_spec.h"

namespace polyad {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

class OwnRopeTest : public testing::Test {
 protected:
  OwnRopeTest() : backend_(std::move(*MakeBackend("reference", BackendOptions{}))) {
    spec_ = TinySpec();
    spec_.rope.rotary_dim = spec_.head_dim;
    root_ = testing::TempDir() + "polyad_own_rope_" +
            testing::UnitTest::GetInstance()->current_test_info()->name();
    std::filesystem::remove_all(root_);
  }
  ~OwnRopeTest() override { std::filesystem::remove_all(root_); }

  // A LoRA in directory `name`; `model_config` empty: no config.json beside it.
  void Write(const std::string& name, const std::string& model_config,
             const std::string& more_of_lora = "") {
    const std::string module = "base_model.model.model.layers.0.self_attn.k_proj";
    WriteAdapter(root_ + "/" + name,
                 R"({"peft_type":"LORA","r":2,"lora_alpha":2)" + more_of_lora + "}",
                 SafetensorsBytes({FloatTensor(module + ".lora_A.weight", 2, 32, 0.1f, 0.1f),
                                   FloatTensor(module + ".lora_B.weight", 16, 2, 0.1f, 0.1f)}));
    if (!model_config.empty()) std::ofstream(root_ + "/" + name + "/config.json") << model_config;
  }
  StatusOr<std::optional<OwnRope>> Read(const std::string& model_config, int64_t max_context = 0) {
    Write("one", model_config);
    const StatusOr<Directory> directory = Directory::OpenBeneath(root_, "one");
    EXPECT_TRUE(directory.ok()) << directory.status();
    const StatusOr<AdapterSource> source = AdapterSource::Open(*directory, 1 << 20);
    EXPECT_TRUE(source.ok()) << source.status();
    return ReadOwnRope(*source, LoweringContext{spec_, nullptr, {}, max_context});
  }
  void ExpectRefused(const std::string& model_config, const std::string& message) {
    const auto own = Read(model_config);
    ASSERT_FALSE(own.ok()) << model_config;
    EXPECT_THAT(std::string(own.status().message()), HasSubstr(message));
  }
  StatusOr<AdapterStore::Lease> Load(AdapterStore& store, const std::string& name) {
    LoadAdapterSpec load;
    load.name = name;
    load.root = root_;
    load.path = name;
    POLYAD_RETURN_IF_ERROR(store.Load(load, nullptr).status());
    return store.Acquire(name, "");
  }

  ModelSpec spec_;
  std::unique_ptr<Backend> backend_;
  std::string root_;
};

TEST_F(OwnRopeTest, AConfigurationThatSaysNothingNewIsTheBases) {
  for (const char* same :
       {"", R"({"model_type": "llama"})", R"({"rope_theta": 10000.0, "rope_scaling": null})",
        R"({"rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
            "max_position_embeddings": 64, "hidden_size": 32})",
        R"({"rope_theta": 10000.0, "max_position_embeddings": 32})",
        R"({"rope_scaling": {"type": "linear", "factor": 1.0}})"}) {
    const auto own = Read(same);
    ASSERT_TRUE(own.ok()) << same << own.status();
    EXPECT_FALSE(own->has_value()) << same;
  }
}

TEST_F(OwnRopeTest, ItsContextFollowsItsScaling) {
  const auto linear = Read(R"({"rope_scaling": {"type": "linear", "factor": 4.0}})");
  ASSERT_TRUE(linear.ok() && linear->has_value()) << linear.status();
  EXPECT_EQ((*linear)->rope.scaling, RopeScaling::kLinear);
  EXPECT_EQ((*linear)->rope.theta, spec_.rope.theta);
  EXPECT_EQ((*linear)->max_context, 256);
  const auto served = Read(R"({"rope_scaling": {"type": "linear", "factor": 4.0}})", 100);
  ASSERT_TRUE(served.ok() && served->has_value());
  EXPECT_EQ((*served)->max_position, 256);
  EXPECT_EQ((*served)->max_context, 100);
  const auto longer = Read(R"({"rope_theta": 10000.0, "max_position_embeddings": 512})");
  ASSERT_TRUE(longer.ok() && longer->has_value());
  EXPECT_EQ((*longer)->max_context, 512);
}

TEST_F(OwnRopeTest, RefusesAnotherBasesAndWhatIsNotServedByName) {
  ExpectRefused(R"({"rope_theta": 5e5, "hidden_size": 64})",
                "'hidden_size': expected the base's 32");
  ExpectRefused(R"({"rope_theta": 5e5, "head_dim": 16})", "'head_dim'");
  ExpectRefused(R"({"rope_scaling": {"type": "su", "factor": 4.0}})", "'su'");
  ExpectRefused(R"({"rope_scaling": {"type": "linear"}})", "'factor'");
  ExpectRefused("{", "config.json");
  spec_.rope.rotary_dim = 0;
  ExpectRefused(R"({"rope_theta": 5e5})", "the base has none");
}

TEST_F(OwnRopeTest, AVersionCarriesItsTablesAndADigestOfItsOwn) {
  Write("plain", "");
  Write("same", R"({"rope_theta": 10000.0})");
  Write("longer", R"({"rope_scaling": {"type": "dynamic", "factor": 4.0}})");
  AdapterStore store(spec_, *backend_, {});
  const auto plain = Load(store, "plain");
  const auto same = Load(store, "same");
  const auto longer = Load(store, "longer");
  ASSERT_TRUE(plain.ok() && same.ok() && longer.ok()) << longer.status();
  EXPECT_EQ((*plain)->rope(), nullptr);
  EXPECT_EQ((*plain)->max_context(), 0);
  EXPECT_EQ((*same)->rope(), nullptr);
  EXPECT_EQ((*same)->identity().digest, (*plain)->identity().digest);
  ASSERT_NE((*longer)->rope(), nullptr);
  EXPECT_THAT((*longer)->rope()->reaches(), ElementsAre(64, 128, 256));
  EXPECT_EQ((*longer)->max_context(), 256);
  EXPECT_NE((*longer)->identity().digest, (*plain)->identity().digest);
  EXPECT_EQ((*longer)->cost().bytes.total(),
            (*plain)->cost().bytes.total() + (*longer)->rope()->bytes());
  EXPECT_EQ(store.Get("longer")->report.max_context, 256);
}

TEST_F(OwnRopeTest, AnActivatedAdapterSharesTheBasesKeysAndSoItsRotation) {
  Write("activated", R"({"rope_scaling": {"type": "linear", "factor": 4.0}})",
        R"(,"alora_invocation_tokens":[5,6])");
  AdapterStore store(spec_, *backend_, {});
  const Status status = Load(store, "activated").status();
  EXPECT_TRUE(absl::IsUnimplemented(status)) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr("activated"));
}

TEST_F(OwnRopeTest, AScalingServesAWholeCompositionAndTwoDoNotMeet) {
  Write("plain", "");
  Write("linear", R"({"rope_scaling": {"type": "linear", "factor": 4.0}})");
  Write("likewise", R"({"rope_scaling": {"rope_type": "linear", "factor": 4.0}})");
  Write("other", R"({"rope_scaling": {"type": "linear", "factor": 2.0}})");
  AdapterStore store(spec_, *backend_, {});
  for (const char* name : {"plain", "linear", "likewise", "other"}) {
    ASSERT_TRUE(Load(store, name).ok());
  }
  const auto compose = [&](const std::string& second, float scale) {
    return store.Compose({{"plain", 0.5f}, {"linear", scale}, {second, 1.0f}}, "");
  };
  const auto composed = compose("likewise", 1.0f);
  ASSERT_TRUE(composed.ok()) << composed.status();
  EXPECT_EQ((*composed)->max_context(), 256);
  EXPECT_NE((*composed)->rope(), nullptr);
  EXPECT_TRUE(absl::IsInvalidArgument(compose("other", 1.0f).status()));
  EXPECT_TRUE(absl::IsInvalidArgument(compose("plain", 0.5f).status()));
}

}  // namespace
}  // namespace polyad
