// Our own container: what it says, op by op, and the malformed ones that must be refused by name.
#include <functional>

#include "engine/adapters/family_table.h"
#include "gtest/gtest.h"
#include "kernels/api/delta_check.h"
#include "tests/engine/adapters/adapter_bytes.h"
#include "tests/engine/adapters/tiny_spec.h"

namespace polyad {
namespace {

struct Files {
  std::string config = R"({"zoo_version":1,"family":"test","base":{"name":"b"},"dtype":"f32",)"
                       R"("sites":{"L0.q.lr.0":{"a":"shared.a","scale":2.0}},"hooks":[]})";
  std::vector<TestTensor> tensors = {FloatTensor("shared.a", 4, 32, 0.1f, 0.01f),
                                     FloatTensor("L0.q.lr.0.b", 32, 4, -0.2f, 0.03f),
                                     FloatTensor("L1.v.dd.0.delta", 16, 32, 0.3f, -0.02f)};
};

StatusOr<AdapterProgram> Lower(const Files& files) {
  POLYAD_ASSIGN_OR_RETURN(AdapterSource source,
                          AdapterSource::FromBytes(files.config, SafetensorsBytes(files.tensors),
                                                   AdapterFormat::kContainer));
  const ModelSpec spec = TinySpec();
  const LoweringContext context{spec};
  return LowerAdapter(source, context);
}

TEST(ZooContainer, LowersWhatItSaysUnderItsOwnFamily) {
  const StatusOr<AdapterProgram> program = Lower(Files());
  ASSERT_TRUE(program.ok()) << program.status();
  EXPECT_EQ(program->family, "test");
  ASSERT_EQ(program->ops.size(), 2u);
  EXPECT_EQ(program->ops[0].site, (SiteRef{0, Site::kQ}));
  EXPECT_TRUE(std::holds_alternative<LowRank>(program->ops[0].op));
  EXPECT_EQ(program->ops[1].site, (SiteRef{1, Site::kV}));
  EXPECT_TRUE(std::holds_alternative<Dense>(program->ops[1].op));
}

TEST(ZooContainer, OpsOfOneKindRunInTheOrderOfTheirNumbers) {
  Files files;
  files.tensors.push_back(FloatTensor("L1.v.kr.10.c", 4, 4, 0.5f, 0.1f));
  files.tensors.push_back(FloatTensor("L1.v.kr.10.d", 4, 8, 0.5f, 0.1f));
  files.tensors.push_back(FloatTensor("L1.v.kr.9.c", 2, 4, 0.5f, 0.1f));
  files.tensors.push_back(FloatTensor("L1.v.kr.9.d", 8, 8, 0.5f, 0.1f));
  const StatusOr<AdapterProgram> program = Lower(files);
  ASSERT_TRUE(program.ok()) << program.status();
  ASSERT_EQ(program->ops.size(), 4u);
  EXPECT_EQ(std::get<Kronecker>(program->ops[2].op).c.rows, 2);
  EXPECT_EQ(std::get<Kronecker>(program->ops[3].op).c.rows, 4);
}

struct Hostile {
  const char* what;
  std::function<void(Files&)> spoil;
  absl::StatusCode code;
  const char* culprit;
};

void Replace(Files& files, const std::string& from, const std::string& to) {
  const size_t at = files.config.find(from);
  ASSERT_NE(at, std::string::npos);
  files.config.replace(at, from.size(), to);
}

TEST(ZooContainer, MalformedContainersAreRefusedByName) {
  const auto kInvalid = absl::StatusCode::kInvalidArgument;
  const auto kOther = absl::StatusCode::kFailedPrecondition;
  const auto kUnknown = absl::StatusCode::kUnimplemented;
  const std::vector<Hostile> cases = {
      {"version", [](Files& f) { Replace(f, "\"zoo_version\":1", "\"zoo_version\":2"); }, kUnknown,
       "zoo_version"},
      {"member", [](Files& f) { Replace(f, "\"dtype\"", "\"dtypes\""); }, kUnknown, "dtypes"},
      {"family", [](Files& f) { Replace(f, "\"test\"", "\"\""); }, kInvalid, "family"},
      {"option", [](Files& f) { Replace(f, "\"scale\"", "\"scales\""); }, kUnknown, "scales"},
      {"hook", [](Files& f) { Replace(f, "\"hooks\":[]", "\"hooks\":[{}]"); }, kUnknown, "hooks"},
      {"hooks", [](Files& f) { Replace(f, "\"hooks\":[]", "\"hooks\":7"); }, kInvalid, "hooks"},
      {"op of a site", [](Files& f) { Replace(f, "L0.q.lr.0", "L0.q.lr.0."); }, kInvalid,
       "L0.q.lr.0."},
      {"op without tensors", [](Files& f) { Replace(f, "L0.q.lr.0", "L0.q.lr.7"); }, kInvalid,
       "L0.q.lr"},
      {"shared", [](Files& f) { Replace(f, "shared.a", "shared.b"); }, kInvalid, "shared.b"},
      {"layer", [](Files& f) { f.tensors[2].name = "L2.v.dd.0.delta"; }, kOther, "L2.v.dd.0"},
      {"site", [](Files& f) { f.tensors[2].name = "L1.qkv.dd.0.delta"; }, kOther, "L1.qkv.dd.0"},
      {"place", [](Files& f) { f.tensors[2].name = "M1.v.dd.0.delta"; }, kInvalid, "M1.v.dd.0"},
      {"number", [](Files& f) { f.tensors[2].name = "L1.v.dd.00.delta"; }, kInvalid, "L1.v.dd.00"},
      {"op", [](Files& f) { f.tensors[2].name = "L1.v.zz.0.delta"; }, kUnknown, "L1.v.zz.0"},
      {"tensor", [](Files& f) { f.tensors[2].name = "L1.v.dd.0.change"; }, kInvalid,
       "L1.v.dd.0.delta"},
      {"shape", [](Files& f) { f.tensors[2] = FloatTensor("L1.v.dd.0.delta", 32, 16, 0.1f, 0.1f); },
       kOther, "L1.v.dd.0.delta"},
      {"option of another op", [](Files& f) { Replace(f, "\"scale\":2.0", "\"group\":2"); },
       kUnknown, "group"},
      {"shared tensor of another op",
       [](Files& f) { Replace(f, "\"scale\":2.0", "\"z\":\"shared.a\""); }, kUnknown, "'z'"},
      {"one too many", [](Files& f) { f.tensors.push_back(FloatTensor("shared.z", 2, 2, 1, 1)); },
       kInvalid, "shared.z"},
  };
  for (const Hostile& hostile : cases) {
    Files files;
    hostile.spoil(files);
    const Status status = Lower(files).status();
    EXPECT_EQ(status.code(), hostile.code) << hostile.what << ": " << status;
    EXPECT_NE(std::string(status.message()).find(hostile.culprit), std::string::npos)
        << hostile.what << ": " << status;
  }
}

// A 1-bit plane at L1.v, [16, 32], and token rows in int8.
Files Planes() {
  Files files;
  files.config = R"({"zoo_version":1,"family":"bitdelta","base":{"name":"b"},)"
                 R"("sites":{"head.rb.0":{"rows":"shared.ids","val":"shared.rows"}}})";
  const std::string ids("\3\0\0\0\5\0\0\0", 8);
  files.tensors = {
      {"L1.v.sg.0.bits", "I32", {16, 1}, std::string(64, '\x5a')},
      FloatTensor("L1.v.sg.0.coef", 16, 1, 0.1f, 0.01f),
      {"shared.ids", "I32", {2}, ids},
      {"shared.rows", "I8", {2, 32}, std::string(32, '\x7f') + std::string(32, '\x81')},
      {"shared.rows.scale", "F32", {2}, FloatTensor("", 1, 2, 0.5f, 0.25f).bytes}};
  return files;
}

TEST(ZooContainer, RowsOfCodesAreTheirScalesTimesThem) {
  const StatusOr<AdapterProgram> program = Lower(Planes());
  ASSERT_TRUE(program.ok()) << program.status();
  ASSERT_EQ(program->ops.size(), 2u);
  const auto& rows = std::get<DenseRows>(program->ops[0].op);
  const auto* values = static_cast<const float*>(rows.values.data);
  EXPECT_EQ(values[0], 127 * 0.5f);
  EXPECT_EQ(values[32], -127 * 0.75f);
}

TEST(ZooContainer, PlanesAndCodesThatDoNotFitAreRefusedByName) {
  const auto kInvalid = absl::StatusCode::kInvalidArgument;
  const auto kOther = absl::StatusCode::kFailedPrecondition;
  const std::string digest(64, 'a');
  const std::vector<Hostile> cases = {
      {"bits too short",
       [](Files& f) {
         f.tensors[0] = {"L1.v.sg.0.bits", "I32", {15, 1}, std::string(60, 'x')};
       },
       kOther, "L1.v.sg.0.bits"},
      {"bits too wide",
       [](Files& f) {
         f.tensors[0] = {"L1.v.sg.0.bits", "I32", {16, 2}, std::string(128, 'x')};
       },
       kOther, "L1.v.sg.0.bits"},
      {"bits of another type",
       [](Files& f) {
         f.tensors[0] = {"L1.v.sg.0.bits", "I64", {16, 1}, std::string(128, 'x')};
       },
       kOther, "L1.v.sg.0.bits"},
      {"no bits", [](Files& f) { f.tensors.erase(f.tensors.begin()); }, kInvalid, "L1.v.sg.0.bits"},
      {"no scale", [](Files& f) { f.tensors.erase(f.tensors.begin() + 1); }, kInvalid,
       "L1.v.sg.0.coef"},
      {"scales of fewer rows",
       [](Files& f) { f.tensors[1] = FloatTensor("L1.v.sg.0.coef", 15, 1, 1, 1); }, kOther,
       "L1.v.sg.0.coef"},
      {"codes without rows",
       [](Files& f) {
         f.tensors[3] = {"shared.rows", "I8", {2, 31}, std::string(62, 'x')};
       },
       kOther, "shared.rows"},
      {"codes that are floats",
       [](Files& f) { f.tensors[3] = FloatTensor("shared.rows", 2, 32, 1, 1); }, kInvalid,
       "shared.rows"},
      {"codes of another width",
       [](Files& f) {
         f.tensors[3] = {"shared.rows", "I16", {2, 32}, std::string(128, 'x')};
       },
       kInvalid, "shared.rows"},
      {"fewer factors",
       [](Files& f) { f.tensors[4] = FloatTensor("shared.rows.scale", 1, 1, 1, 1); }, kOther,
       "shared.rows.scale"},
      {"codes without factors", [](Files& f) { f.tensors.pop_back(); }, kInvalid, "shared.rows"},
      {"digest", [](Files& f) { Replace(f, "\"name\":\"b\"", "\"weights_sha256\":\"ab\""); },
       kInvalid, "weights_sha256"},
      {"digest and no base",
       [&](Files& f) { Replace(f, "\"name\":\"b\"", "\"weights_sha256\":\"" + digest + "\""); },
       kOther, "base"},
      {"member of base", [](Files& f) { Replace(f, "\"name\"", "\"names\""); },
       absl::StatusCode::kUnimplemented, "names"},
  };
  for (const Hostile& hostile : cases) {
    Files files = Planes();
    hostile.spoil(files);
    const Status status = Lower(files).status();
    EXPECT_EQ(status.code(), hostile.code) << hostile.what << ": " << status;
    EXPECT_NE(std::string(status.message()).find(hostile.culprit), std::string::npos)
        << hostile.what << ": " << status;
  }
}

// Group sizes are held against the inputs where an op is packed.
TEST(ZooContainer, GroupsThatDivideNothingAreNoOp) {
  for (const int64_t groups : {3, 32, 1000}) {
    Files files = Planes();
    files.tensors[1] = FloatTensor("L1.v.sg.0.coef", 16, groups, 0.1f, 0.01f);
    const StatusOr<AdapterProgram> program = Lower(files);
    ASSERT_TRUE(program.ok()) << program.status();
    EXPECT_EQ(CheckDeltaOp(program->ops[1].op).code(), absl::StatusCode::kInvalidArgument);
  }
}

// Three experts at q of layer 0, and a mixture of their scores.
Files MixtureFiles(const std::string& mixture, const std::string& expert) {
  Files files;
  files.config = R"({"zoo_version":1,"family":"test","base":{"name":"b"},"dtype":"f32","sites":{)"
                 R"("L0.q.mx.0":{)" +
                 mixture + R"(},"L0.q.lr.0":{)" + expert + R"(}},"hooks":[]})";
  files.tensors = {FloatTensor("L0.q.mx.0.w", 3, 32, 0.1f, 0.01f),
                   FloatTensor("L0.q.lr.0.a", 2, 32, 0.1f, 0.01f),
                   FloatTensor("L0.q.lr.0.b", 32, 2, -0.2f, 0.03f)};
  return files;
}

TEST(ZooContainer, ExpertsTakeTheCoefficientsOfTheirPlacesMixture) {
  const StatusOr<AdapterProgram> program =
      Lower(MixtureFiles(R"("top_k":2,"temperature":0.5,"absolute":1)", R"("expert":2)"));
  ASSERT_TRUE(program.ok()) << program.status();
  ASSERT_EQ(program->mixtures.size(), 1u);
  const MixtureRule& rule = program->mixtures[0].rule;
  EXPECT_EQ(program->mixtures[0].site, (SiteRef{0, Site::kQ}));
  EXPECT_EQ(rule.num_experts, 3);
  EXPECT_EQ(rule.top_k, 2);
  EXPECT_EQ(rule.temperature, 0.5f);
  EXPECT_TRUE(rule.absolute);
  ASSERT_EQ(program->ops.size(), 1u);
  EXPECT_EQ(program->ops[0].mixture, 0);
  EXPECT_EQ(program->ops[0].expert, 2);
}

TEST(ZooContainer, MixturesThatDoNotFitTheirExpertsAreRefusedByName) {
  struct Case {
    std::string mixture;
    std::string expert;
    std::string message;
  };
  for (const Case& bad :
       {Case{R"("top_k":4)", R"("expert":2)", "top_k"},
        Case{R"("temperature":0)", R"("expert":2)", "temperature"},
        Case{R"("absolute":2)", R"("expert":2)", "absolute"}, Case{"", R"("expert":3)", "expert"},
        Case{"", R"("expert":0.5)", "expert"},
        Case{"", R"("expert":-1)", "key 'expert': expected a whole number in [0, 63], got -1"}}) {
    const StatusOr<AdapterProgram> program = Lower(MixtureFiles(bad.mixture, bad.expert));
    ASSERT_FALSE(program.ok()) << bad.message;
    EXPECT_NE(program.status().message().find(bad.message), std::string::npos) << program.status();
  }
  Files alone = MixtureFiles("", R"("expert":1)");
  alone.config = R"({"zoo_version":1,"family":"test","base":{"name":"b"},"dtype":"f32",)"
                 R"("sites":{"L0.q.lr.0":{"expert":1}},"hooks":[]})";
  alone.tensors.erase(alone.tensors.begin());
  EXPECT_NE(Lower(alone).status().message().find("no mx op"), std::string_view::npos);
}

TEST(ZooContainer, ABottleneckNeedsATapAndAnActivationWeKnow) {
  const auto with = [](const std::string& options) {
    Files files;
    files.config = R"({"zoo_version":1,"family":"test","sites":{"L0.mlp.bn.0":)" + options + "}}";
    files.tensors = {FloatTensor("L0.mlp.bn.0.wd", 4, 32, 0.1f, 0.01f),
                     FloatTensor("L0.mlp.bn.0.wu", 32, 4, 0.1f, 0.01f)};
    const std::string zeros(32 * sizeof(float), '\0');
    files.tensors.push_back({"L0.mlp.bn.0.bu", "F32", {32}, zeros});
    files.tensors.push_back({"L0.mlp.bn.0.bd", "F32", {4}, zeros.substr(0, 4 * sizeof(float))});
    return Lower(files);
  };
  const StatusOr<AdapterProgram> program = with(R"({"tap":"z","act":"gelu","scale":0.5})");
  ASSERT_TRUE(program.ok()) << program.status();
  ASSERT_EQ(program->hooks.size(), 1u);
  EXPECT_EQ(program->hooks[0].input, Tap::kSum);
  EXPECT_EQ(program->hooks[0].sub_layer, SubLayer::kMlp);
  EXPECT_EQ(std::get<Bottleneck>(program->hooks[0].op).activation, ActivationKind::kGeluErf);
  EXPECT_EQ(with(R"({"tap":"in"})").status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(with(R"({"tap":"r","act":"gelo"})").status().code(), absl::StatusCode::kUnimplemented);
}

StatusOr<AdapterProgram> LowerFor(const Files& files, const AdapterOptions& options) {
  POLYAD_ASSIGN_OR_RETURN(AdapterSource source,
                          AdapterSource::FromBytes(files.config, SafetensorsBytes(files.tensors),
                                                   AdapterFormat::kContainer));
  const ModelSpec spec = TinySpec();
  return LowerAdapter(source, LoweringContext{spec, nullptr, options});
}

TEST(ZooContainer, ATasksOpsAreServedAloneAndTheOthersChecked) {
  Files files;
  files.config = R"({"zoo_version":1,"family":"test","sites":{"L0.q.lr.0":{"task":0},)"
                 R"("L0.q.lr.1":{"task":1}}})";
  for (const char* op : {"L0.q.lr.0", "L0.q.lr.1", "L1.q.lr.0"}) {
    files.tensors.push_back(FloatTensor(std::string(op) + ".a", 2, 32, 0.1f, 0.01f));
    files.tensors.push_back(FloatTensor(std::string(op) + ".b", 32, 2, 0.1f, 0.01f));
  }
  files.tensors.erase(files.tensors.begin(), files.tensors.begin() + 3);
  const StatusOr<AdapterProgram> second = LowerFor(files, {{"task", 1}});
  ASSERT_TRUE(second.ok()) << second.status();
  EXPECT_EQ(second->ops.size(), 2u);  // its own, and the one of every task
  EXPECT_EQ(LowerFor(files, {}).status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(LowerFor(files, {{"task", 2}}).status().code(), absl::StatusCode::kInvalidArgument);
  files.tensors[1] = FloatTensor("L0.q.lr.0.b", 31, 2, 0.1f, 0.01f);
  EXPECT_EQ(LowerFor(files, {{"task", 1}}).status().code(), absl::StatusCode::kFailedPrecondition);
}

TEST(ZooContainer, ATaskIsANumberFromZeroAndSomeOpsOwn) {
  const auto with = [](const std::string& first, const std::string& second) {
    Files files;
    files.config = R"({"zoo_version":1,"family":"test","sites":{"L0.q.lr.0":{"task":)" + first +
                   R"(},"L1.v.dd.0":{"task":)" + second + "}}}";
    files.tensors = {FloatTensor("L0.q.lr.0.a", 4, 32, 0.1f, 0.01f),
                     FloatTensor("L0.q.lr.0.b", 32, 4, -0.2f, 0.03f),
                     FloatTensor("L1.v.dd.0.delta", 16, 32, 0.3f, -0.02f)};
    return files;
  };
  for (const char* bad : {"-1", "-2", "0.5", "65536", "1e300"}) {
    const Status status = LowerFor(with("0", bad), {{"task", 0}}).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << bad;
    EXPECT_NE(status.message().find("L1.v.dd.0: key 'task': expected a whole number in [0, 65535]"),
              std::string_view::npos)
        << status;
  }
  const StatusOr<AdapterProgram> third = LowerFor(with("0", "2"), {{"task", 2}});
  ASSERT_TRUE(third.ok()) << third.status();
  EXPECT_EQ(third->ops.size(), 1u);
  for (const int64_t nobodys : {-1, 1, 3}) {
    const Status status = LowerFor(with("0", "2"), {{"task", nobodys}}).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << nobodys;
    EXPECT_NE(status.message().find("option 'task'"), std::string_view::npos) << status;
  }
}

TEST(ZooContainer, ALinearOpBesideASubLayerBecomesItsHook) {
  Files files;
  files.config = R"({"zoo_version":1,"family":"test","sites":{"L1.attn.kr.0":{"tap":"n"}}})";
  files.tensors = {FloatTensor("L1.attn.kr.0.c", 4, 4, 0.1f, 0.01f),
                   FloatTensor("L1.attn.kr.0.d", 8, 8, 0.1f, 0.01f)};
  const StatusOr<AdapterProgram> program = Lower(files);
  ASSERT_TRUE(program.ok()) << program.status();
  EXPECT_TRUE(program->ops.empty());
  ASSERT_EQ(program->hooks.size(), 1u);
  EXPECT_TRUE(std::holds_alternative<Kronecker>(program->hooks[0].op));
  EXPECT_EQ(program->hooks[0].input, Tap::kNormed);
  files.tensors[1].name = "L1.attn.kr.0.e";
  EXPECT_FALSE(Lower(files).ok());
  files.config = R"({"zoo_version":1,"family":"test"})";
  files.tensors = {FloatTensor("L1.attn.dd.0.delta", 32, 32, 0.1f, 0.01f)};
  EXPECT_EQ(Lower(files).status().code(), absl::StatusCode::kUnimplemented);
}

TEST(ZooContainer, VectorsOfAPrefixNeedAGateAndABase) {
  Files files;
  files.config = R"({"zoo_version":1,"family":"test","sites":{"L0.attn.kv.0":{"as":"vectors"}}})";
  files.tensors = {FloatTensor("L0.attn.kv.0.rows", 3, 32, 0.1f, 0.01f)};
  EXPECT_EQ(Lower(files).status().code(), absl::StatusCode::kInvalidArgument);
  Replace(files, "vectors", "states");
  EXPECT_EQ(Lower(files).status().code(), absl::StatusCode::kFailedPrecondition);
  Replace(files, "states", "keys");
  EXPECT_EQ(Lower(files).status().code(), absl::StatusCode::kInvalidArgument);
}

TEST(ZooContainer, WhatReadsTheBaseIsRefusedWithoutOne) {
  Files files;
  files.tensors[2].name = "L1.v.dd.0.replace";
  EXPECT_EQ(Lower(files).status().code(), absl::StatusCode::kFailedPrecondition);
}

}  // namespace
}  // namespace polyad
