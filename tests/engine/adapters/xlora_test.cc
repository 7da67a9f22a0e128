// X-LoRA's files: what each key and shape must be, and what is refused by name. The goldens say
// what is computed.
#include <functional>

#include "engine/adapters/family_table.h"
#include "engine/adapters/program_packing.h"
#include "engine/adapters/xlora_config.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "kernels/backend_factory.h"
#include "tests/engine/adapters/golden_adapter.h"

namespace polyad {
namespace {

using absl::StatusCode;

using Change = std::function<void(OrderedJson& config, std::vector<TestTensor>& tensors)>;

StatusOr<AdapterSource> SourceOf(const Change& change) {
  const GoldenAdapter golden = ReadGoldenAdapter("llama/xlora");
  OrderedJson config = OrderedJson::parse(golden.config);
  std::vector<TestTensor> tensors = golden.tensors;
  change(config, tensors);
  return AdapterSource::FromBytes(config.dump(), SafetensorsBytes(tensors), golden.format);
}

Status LowerWith(const Change& change) {
  POLYAD_ASSIGN_OR_RETURN(AdapterSource source, SourceOf(change));
  const LoweringContext context{BaseOf("llama").files->spec(), BaseOf("llama").weights.get(), {}};
  return LowerAdapter(source, context).status();
}

void ExpectRefusal(StatusCode code, const std::string& message, const Change& change) {
  const Status status = LowerWith(change);
  EXPECT_EQ(status.code(), code) << status;
  EXPECT_THAT(std::string(status.message()), testing::HasSubstr(message));
}

Change Xlora(const std::string& key, const OrderedJson& value) {
  return [=](OrderedJson& config, auto&) { config["xlora"][key] = value; };
}

Change Part(const std::string& key, const OrderedJson& value) {
  return [=](OrderedJson& config, auto&) { config["parts"]["1"][key] = value; };
}

TEST(XLora, TheGoldenLowersToWeighedPairs) {
  StatusOr<AdapterSource> source = SourceOf([](auto&, auto&) {});
  ASSERT_TRUE(source.ok()) << source.status();
  const ModelSpec& spec = BaseOf("llama").files->spec();
  const StatusOr<AdapterProgram> program = LowerAdapter(*source, LoweringContext{spec});
  ASSERT_TRUE(program.ok()) << program.status();
  EXPECT_EQ(program->family, "XLORA");
  EXPECT_EQ(program->scaling_pass->rule.size(), 3);
  EXPECT_EQ(program->scaling_pass->layers.size(), 2u);
  for (const SiteOp& op : program->ops) EXPECT_GE(op.coefficient, 0);
}

TEST(XLora, KeysOfTheLorasAreTheirNumbers) {
  const auto adapters = [](const std::vector<std::string>& keys) {
    OrderedJson value = OrderedJson::object();
    for (const std::string& key : keys) value[key] = "somewhere";
    return Xlora("adapters", value);
  };
  ExpectRefusal(StatusCode::kUnimplemented, "got 'math'", adapters({"math", "code"}));
  ExpectRefusal(StatusCode::kUnimplemented, "expected key '2'", adapters({"0", "1", "10", "2"}));
  ExpectRefusal(StatusCode::kUnimplemented, "'../0'", adapters({"../0"}));
  ExpectRefusal(StatusCode::kNotFound, "3: not found", adapters({"0", "1", "2", "3"}));
  ExpectRefusal(StatusCode::kInvalidArgument, "adapters", adapters({}));
  ExpectRefusal(StatusCode::kInvalidArgument, "adapters", Xlora("adapters", 3));
  ExpectRefusal(StatusCode::kInvalidArgument, "layers.3.weight", adapters({"0", "1"}));
  std::vector<std::string> many;
  for (int i = 0; i < 65; ++i) many.push_back(std::to_string(i));
  ExpectRefusal(StatusCode::kResourceExhausted, "the limit is 64", adapters(many));
}

TEST(XLora, NumbersThatMakeNoClassifierAreRefused) {
  constexpr auto kInvalid = StatusCode::kInvalidArgument;
  ExpectRefusal(StatusCode::kFailedPrecondition, "another base", Xlora("hidden_size", 4096));
  ExpectRefusal(kInvalid, "xlora_depth", Xlora("xlora_depth", 1000000));
  ExpectRefusal(kInvalid, "xlora_depth", Xlora("xlora_depth", 0));
  ExpectRefusal(kInvalid, "xlora_size", Xlora("xlora_size", 1 << 30));
  ExpectRefusal(kInvalid, "layers.0.weight", Xlora("xlora_size", 13));
  ExpectRefusal(kInvalid, "layers.0.weight", Xlora("xlora_depth", 1));
  ExpectRefusal(kInvalid, "layers.3.weight", Xlora("xlora_depth", 3));
  ExpectRefusal(kInvalid, "layers.2.weight: missing", Xlora("xlora_dropout_p", 0.0));
  ExpectRefusal(kInvalid, "layers.3.weight", Xlora("layerwise_scalings", true));
  ExpectRefusal(kInvalid, "softmax_temperature", Xlora("softmax_temperature", 0.0));
  ExpectRefusal(kInvalid, "top_k_lora", Xlora("top_k_lora", 4));
  ExpectRefusal(kInvalid, "top_k_lora", Xlora("top_k_lora", 0));
  ExpectRefusal(StatusCode::kUnimplemented, "scaling_pass_value", [](OrderedJson& config, auto&) {
    config["xlora"]["scaling_pass_value"] = 0.5;
    config["xlora"]["top_k_lora"] = 1;
  });
}

TEST(XLora, OnlyPlainLorasAreWeighed) {
  constexpr auto kUnimplemented = StatusCode::kUnimplemented;
  ExpectRefusal(kUnimplemented, "LoRA 1", Part("peft_type", "XLORA"));
  ExpectRefusal(kUnimplemented, "LoRA 1", Part("target_parameters", {"w"}));
  ExpectRefusal(kUnimplemented, "LoRA 1", Part("alora_invocation_tokens", {5}));
  ExpectRefusal(kUnimplemented, "LoRA 1", Part("init_lora_weights", "olora"));
  ExpectRefusal(StatusCode::kInvalidArgument, "LoRA 1", Part("use_dora", true));
  ExpectRefusal(kUnimplemented, "linear modules", [](auto&, std::vector<TestTensor>& tensors) {
    tensors.push_back(FloatTensor("2/base_model.model.lm_head.lora_A.weight", 2, 64, 0.5f, 0.01f));
    tensors.push_back(FloatTensor("2/base_model.model.lm_head.lora_B.weight", 320, 2, 0.5f, 0.01f));
  });
}

TEST(XLora, AnEqualFirstPassStaysEqualThroughTheSecondSoftmax) {
  const auto read = [](const OrderedJson& changes) {
    OrderedJson config = {{"peft_type", "XLORA"},
                          {"hidden_size", 64},
                          {"scaling_pass_value", 3.0},
                          {"adapters", {{"0", "a"}, {"1", "b"}}}};
    config.update(changes);
    return ReadXloraConfig(config, 64)->rule.first_pass;
  };
  EXPECT_FLOAT_EQ(read(OrderedJson::object()), 3.0f);
  EXPECT_FLOAT_EQ(read({{"enable_softmax_topk", true}}), 0.5f);
  EXPECT_FLOAT_EQ(read({{"scaling_pass_value", 0.0}}), 0.0f);
}

TEST(XLora, AClassifierThatNoStepHasRoomForIsRefused) {
  const auto backend = *MakeBackend("reference", {});
  const ModelSpec& spec = BaseOf("llama").files->spec();
  const std::vector<float> weight(static_cast<size_t>(2 * spec.hidden_size));
  ScalingPassTensors pass;
  pass.rule.num_experts = 2;
  pass.layers = {{{weight.data(), DType::kF32, 2, spec.hidden_size}, {0, 0}}};
  EXPECT_TRUE(PackScalingPass(pass, spec, *backend).ok());
  pass.rule.num_groups = 3;
  EXPECT_EQ(PackScalingPass(pass, spec, *backend).status().code(), StatusCode::kInvalidArgument);
  pass.rule.num_groups = 1 << 20;
  EXPECT_EQ(PackScalingPass(pass, spec, *backend).status().code(), StatusCode::kResourceExhausted);
}

}  // namespace
}  // namespace polyad
