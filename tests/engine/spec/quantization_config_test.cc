#include "engine/spec/quantization_config.h"

#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

// What each library writes into quantization_config, and what is refused by name.

namespace polyad {
namespace {

using ::testing::HasSubstr;

StatusOr<std::optional<QuantizationConfig>> Read(const std::string& inner) {
  const Json json = {{"quantization_config", Json::parse(inner)}};
  POLYAD_ASSIGN_OR_RETURN(const JsonFields fields, JsonFields::Of(json, "config.json"));
  return ReadQuantizationConfig(fields);
}

TEST(QuantizationConfigTest, ADirectoryWithoutOneIsNotQuantised) {
  const Json json = Json::object();
  const auto fields = JsonFields::Of(json, "config.json");
  const auto config = ReadQuantizationConfig(*fields);
  ASSERT_TRUE(config.ok());
  EXPECT_FALSE(config->has_value());
}

TEST(QuantizationConfigTest, GptqSaysHowItsZeroPointsAreStored) {
  const auto first = Read(R"({"quant_method": "gptq", "bits": 4, "group_size": 64})");
  ASSERT_TRUE(first.ok()) << first.status();
  EXPECT_TRUE((*first)->zeros_less_one);
  EXPECT_EQ((*first)->group_size, 64);
  const auto second = Read(
      R"({"quant_method": "gptq", "bits": 8, "group_size": -1, "checkpoint_format": "gptq_v2"})");
  ASSERT_TRUE(second.ok()) << second.status();
  EXPECT_FALSE((*second)->zeros_less_one);
  EXPECT_EQ((*second)->bits, 8);
}

struct Refusal {
  const char* config;
  const char* message;
};

constexpr Refusal kRefused[] = {
    {R"({"quant_method": "aqlm"})", "'aqlm'"},
    {R"({})", "unnamed"},
    {R"({"quant_method": "bitsandbytes", "load_in_8bit": true})", "load_in_4bit"},
    {R"({"quant_method": "bitsandbytes", "load_in_4bit": true, "bnb_4bit_quant_type": "int4"})",
     "'int4'"},
    {R"({"quant_method": "bitsandbytes", "load_in_4bit": true, "shuffle": 1})", "'shuffle'"},
    {R"({"quant_method": "gptq"})", "'bits'"},
    {R"({"quant_method": "gptq", "bits": 3})", "bits other than 4 and 8"},
    {R"({"quant_method": "gptq", "bits": 4, "group_size": 0})", "group_size"},
    {R"({"quant_method": "gptq", "bits": 4, "group_size": 40})", "group_size"},
    {R"({"quant_method": "gptq", "bits": 4, "group_size": -2})", "group_size"},
    {R"({"quant_method": "gptq", "bits": 4, "checkpoint_format": "marlin"})", "'marlin'"},
    {R"({"quant_method": "gptq", "bits": 4, "dynamic": {"+:x": {"bits": 8}}})", "'dynamic'"},
    {R"({"quant_method": "awq", "bits": 4, "version": "gemv"})", "'gemv'"},
    {R"({"quant_method": "awq", "bits": 4, "zero_point": false})", "zero_point"},
    {R"({"quant_method": "compressed-tensors", "config_groups": {}})", "one group"},
    {R"({"quant_method": "compressed-tensors", "kv_cache_scheme": {"num_bits": 8}})",
     "kv_cache_scheme"},
    {R"({"quant_method": "compressed-tensors", "format": "int-quantized", "config_groups": {"g":
        {"weights": {"num_bits": 8}, "input_activations": {"num_bits": 8}}}})",
     "input_activations"},
    {R"({"quant_method": "compressed-tensors", "format": "int-quantized", "config_groups": {"g":
        {"weights": {"num_bits": 8, "dynamic": true}}}})",
     "dynamic"},
    {R"({"quant_method": "compressed-tensors", "format": "marlin-24", "config_groups": {"g":
        {"weights": {"num_bits": 4}}}})",
     "'marlin-24'"},
    {R"({"quant_method": "compressed-tensors", "format": "float-quantized", "config_groups": {"g":
        {"weights": {"num_bits": 4, "type": "float"}}}})",
     "'float'"},
    {R"({"quant_method": "compressed-tensors", "format": "naive-quantized", "config_groups": {"g":
        {"weights": {"num_bits": 8, "strategy": "block"}}}})",
     "'block'"},
    {R"({"quant_method": "polyad", "bits": 5, "group_size": 32})", "bits other than 4 and 8"},
    {R"({"quant_method": "polyad", "bits": 4, "group_size": 24})", "group_size"},
};

TEST(QuantizationConfigTest, WhatWouldChangeTheMathsIsRefusedByName) {
  for (const Refusal& refusal : kRefused) {
    const auto config = Read(refusal.config);
    EXPECT_FALSE(config.ok()) << refusal.config;
    EXPECT_THAT(config.status().ToString(), HasSubstr(refusal.message)) << refusal.config;
  }
}

}  // namespace
}  // namespace polyad
