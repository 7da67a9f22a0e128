// LLM-Adapters: where its bottlenecks stand, and what its library has no place for.
#include <string>

#include "engine/adapters/family_table.h"
#include "gtest/gtest.h"
#include "tests/engine/adapters/adapter_bytes.h"
#include "tests/engine/adapters/tiny_spec.h"

namespace polyad {
namespace {

StatusOr<AdapterProgram> Lower(const std::string& module, int64_t in, int64_t out,
                               const std::string& more = "") {
  const std::string config =
      R"({"peft_type":"BOTTLENECK","bottleneck_size":4,"non_linearity":"tanh","scaling":2.0)" +
      more + "}";
  const std::string path = "base_model.model.model.layers.1." + module;
  POLYAD_ASSIGN_OR_RETURN(
      AdapterSource source,
      AdapterSource::FromBytes(
          config,
          SafetensorsBytes({FloatTensor(path + ".adapter_down.weight", 4, in, 0.1f, 0.01f),
                            FloatTensor(path + ".adapter_up.weight", out, 4, 0.1f, 0.01f)}),
          AdapterFormat::kPeft));
  const ModelSpec spec = TinySpec();
  return LowerAdapter(source, LoweringContext{spec});
}

OpStage StageOf(const StatusOr<AdapterProgram>& program) { return program->ops.at(0).stage; }

TEST(LinearBottleneck, StandsBeforeWhatLeadsIntoTheMlpAndBehindWhatLeadsOut) {
  const StatusOr<AdapterProgram> gate = Lower("mlp.gate_proj", 32, 32);
  ASSERT_TRUE(gate.ok()) << gate.status();
  EXPECT_EQ(StageOf(gate), OpStage::kInput);
  EXPECT_EQ(std::get<Bottleneck>(gate->ops[0].op).scale[0], 2.0f);
  const StatusOr<AdapterProgram> down = Lower("mlp.down_proj", 32, 32);
  ASSERT_TRUE(down.ok()) << down.status();
  EXPECT_EQ(StageOf(down), OpStage::kAfter);
}

TEST(LinearBottleneck, InParallelItStandsBesideAnyModule) {
  const StatusOr<AdapterProgram> key =
      Lower("self_attn.k_proj", 32, 16, R"(,"use_parallel_adapter":true)");
  ASSERT_TRUE(key.ok()) << key.status();
  EXPECT_EQ(StageOf(key), OpStage::kDelta);
}

TEST(LinearBottleneck, WhatItsLibraryHasNoPlaceForIsRefusedByName) {
  const auto kUnknown = absl::StatusCode::kUnimplemented;
  const absl::Status query = Lower("self_attn.q_proj", 32, 32).status();
  EXPECT_EQ(query.code(), kUnknown);
  EXPECT_NE(query.message().find("q_proj.adapter_down"), std::string::npos) << query;
  EXPECT_EQ(Lower("mlp.gate_proj", 32, 32, R"(,"use_adapterp":true)").status().code(), kUnknown);
  EXPECT_EQ(Lower("mlp.down_proj", 32, 32, R"(,"non_linearity":"cosine")").status().code(),
            absl::StatusCode::kInvalidArgument);  // a key twice
  EXPECT_EQ(Lower("mlp.down_proj", 32, 32, R"(,"scaling_by":3)").status().code(), kUnknown);
  // The shape of another placement.
  EXPECT_EQ(Lower("mlp.up_proj", 32, 48).status().code(), absl::StatusCode::kFailedPrecondition);
}

}  // namespace
}  // namespace polyad
