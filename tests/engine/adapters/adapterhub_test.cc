// What AdapterHub directories lower to, in every dialect their files have been written in, and the
// hostile ones that must be refused with a precise status.
#include <limits>

#include "engine/adapters/adapterhub_config.h"
#include "engine/adapters/family_table.h"
#include "gtest/gtest.h"
#include "tests/engine/adapters/adapter_bytes.h"
#include "tests/engine/adapters/tiny_spec.h"

namespace polyad {
namespace {

TestTensor Vector(const std::string& name, int64_t size, float first) {
  TestTensor tensor = FloatTensor(name, 1, size, first, 0.01f);
  tensor.shape = {size};
  return tensor;
}

std::vector<TestTensor> BottleneckAt(const std::string& prefix, int64_t width = 4) {
  return {FloatTensor(prefix + "adapter_down.0.weight", width, 32, 0.1f, 0.01f),
          Vector(prefix + "adapter_down.0.bias", width, 0.2f),
          FloatTensor(prefix + "adapter_up.weight", 32, width, -0.2f, 0.02f),
          Vector(prefix + "adapter_up.bias", 32, 0.3f)};
}

struct Files {
  std::string options = R"({"mh_adapter":false,"output_adapter":true,"reduction_factor":8.0,)"
                        R"("non_linearity":"relu","original_ln_before":true,"scaling":2.0})";
  std::string version = R"(,"version":"adapters.1.3.0")";
  std::vector<TestTensor> tensors;

  Files() {
    for (const char* layer : {"0", "1"}) {
      Add(BottleneckAt(std::string("model.layers.") + layer + ".output_adapters.adapters.task."));
    }
  }
  void Add(const std::vector<TestTensor>& more) {
    tensors.insert(tensors.end(), more.begin(), more.end());
  }
  TestTensor& Named(const std::string& part) {
    for (TestTensor& tensor : tensors) {
      if (tensor.name.find(part) != std::string::npos) return tensor;
    }
    ADD_FAILURE() << part;
    return tensors[0];
  }
  void Rename(const std::string& from, const std::string& to) {
    for (TestTensor& tensor : tensors) {
      const size_t at = tensor.name.find(from);
      if (at != std::string::npos) tensor.name.replace(at, from.size(), to);
    }
  }
  std::string Config() const {
    return R"({"name":"task","model_type":"llama","config":)" + options + version + "}";
  }
};

struct Lowered {
  AdapterSource source;
  AdapterProgram program;
};

StatusOr<Lowered> Lower(const Files& files) {
  Lowered lowered;
  POLYAD_ASSIGN_OR_RETURN(lowered.source,
                          AdapterSource::FromBytes(files.Config(), SafetensorsBytes(files.tensors),
                                                   AdapterFormat::kAdapterHub));
  const ModelSpec spec = TinySpec();
  POLYAD_ASSIGN_OR_RETURN(lowered.program, LowerAdapter(lowered.source, LoweringContext{spec}));
  return lowered;
}

const Bottleneck& OpOf(const SubLayerHook& hook) { return std::get<Bottleneck>(hook.op); }

float UpAt(const SubLayerHook& hook, int64_t row, int64_t col) {
  return static_cast<const float*>(OpOf(hook).up.data)[row * OpOf(hook).up.cols + col];
}

TEST(AdapterHub, ASequentialBottleneckReadsTheSumAndKeepsTheOutput) {
  const StatusOr<Lowered> lowered = Lower(Files());
  ASSERT_TRUE(lowered.ok()) << lowered.status();
  EXPECT_EQ(lowered->program.family, "bottleneck");
  ASSERT_EQ(lowered->program.hooks.size(), 2u);
  const SubLayerHook& hook = lowered->program.hooks[1];
  EXPECT_EQ(hook.layer, 1);
  EXPECT_EQ(hook.sub_layer, SubLayer::kMlp);
  EXPECT_EQ(hook.input, Tap::kSum);
  EXPECT_EQ(hook.skip, Tap::kOutput);
  EXPECT_TRUE(hook.adds_residual);
  EXPECT_EQ(OpOf(hook).down.rows, 4);
  EXPECT_FLOAT_EQ(UpAt(hook, 0, 0), 2 * -0.2f) << "the scale is folded in";
  EXPECT_FLOAT_EQ(OpOf(hook).up_bias[0], 2 * 0.3f);
}

TEST(AdapterHub, ANameStandsForItsOptions) {
  Files files;
  files.options = R"("parallel")";
  files.tensors.clear();
  for (const char* layer : {"0", "1"}) {
    files.Add(BottleneckAt(std::string("layers.") + layer + ".output_adapters.adapters.task.", 16));
  }
  const StatusOr<Lowered> lowered = Lower(files);
  ASSERT_TRUE(lowered.ok()) << lowered.status();
  const SubLayerHook& hook = lowered->program.hooks[0];
  EXPECT_EQ(hook.input, Tap::kResidual);
  EXPECT_FLOAT_EQ(UpAt(hook, 0, 0), 4 * -0.2f);
}

TEST(AdapterHub, OldKeysAndOptionsMeanWhatTheyMeant) {
  Files files;
  files.options = R"({"MH_Adapter":false,"Output_Adapter":true,"LN_before":false,"LN_after":false,)"
                  R"("reduction_factor":8,"non_linearity":"gelu","original_ln_before":true,)"
                  R"("original_ln_after":true,"residual_before_ln":true,)"
                  R"("attention_type":"sent-lvl-dynamic","new_attention_norm":false})";
  files.version = "";
  files.Rename("output_adapters.adapters", "output_adapters.layer_text_task_adapters");
  const StatusOr<Lowered> lowered = Lower(files);
  ASSERT_TRUE(lowered.ok()) << lowered.status();
  EXPECT_EQ(OpOf(lowered->program.hooks[0]).activation, ActivationKind::kGeluTanh);
}

TEST(AdapterHub, LoraOfVersionsBefore110IsUnscaled) {
  const auto scale_of = [](const char* version) {
    Files files;
    files.options = R"({"architecture":"lora","r":4,"alpha":8,"attn_matrices":["q"]})";
    files.version = std::string(R"(,"version":")") + version + "\"";
    files.tensors.clear();
    for (const char* layer : {"0", "1"}) {
      const std::string prefix =
          std::string("model.layers.") + layer + ".self_attn.q_proj.loras.task.";
      files.Add({FloatTensor(prefix + "lora_A", 4, 32, 0.1f, 0.01f),
                 FloatTensor(prefix + "lora_B", 32, 4, 0.5f, 0.01f)});
    }
    const StatusOr<Lowered> lowered = Lower(files);
    EXPECT_TRUE(lowered.ok()) << lowered.status();
    const auto& op = std::get<LowRank>(lowered->program.ops[0].op);
    return static_cast<const float*>(op.b.data)[0] * op.scale / 0.5f;
  };
  EXPECT_FLOAT_EQ(scale_of("adapters.1.0.1"), 1.0f);
  EXPECT_FLOAT_EQ(scale_of("adapters.1.1.0"), 2.0f);
  EXPECT_FLOAT_EQ(scale_of("3.2.1"), 2.0f);
}

TEST(AdapterHub, EveryNameTheLibraryKnowsResolvesOrIsRefusedAsUnserved) {
  for (const char* name : {"pfeiffer",     "houlsby",       "parallel",      "scaled_parallel",
                           "pfeiffer+inv", "houlsby+inv",   "seq_bn",        "double_seq_bn",
                           "par_bn",       "scaled_par_bn", "seq_bn_inv",    "double_seq_bn_inv",
                           "compacter++",  "compacter",     "prefix_tuning", "prefix_tuning_flat",
                           "lora",         "ia3",           "vera",          "dora",
                           "dvora",        "loreft",        "noreft",        "direft",
                           "mam",          "unipelt"}) {
    const OrderedJson json = {{"name", "task"}, {"config", name}, {"version", "adapters.1.3.0"}};
    EXPECT_TRUE(ParseHubConfig(json).ok()) << name;
  }
  const OrderedJson json = {{"name", "task"}, {"config", "prompt_tuning"}};
  EXPECT_EQ(ParseHubConfig(json).status().code(), absl::StatusCode::kUnimplemented);
}

struct Hostile {
  std::string name;
  void (*spoil)(Files& files);
  absl::StatusCode code;
  std::string message;  // a part of it
};

class HostileAdapterHub : public testing::TestWithParam<Hostile> {};

TEST_P(HostileAdapterHub, IsRefusedByName) {
  Files files;
  GetParam().spoil(files);
  const absl::Status status = Lower(files).status();
  EXPECT_EQ(status.code(), GetParam().code) << status;
  EXPECT_NE(status.message().find(GetParam().message), std::string::npos) << status;
}

constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;
constexpr auto kUnimplemented = absl::StatusCode::kUnimplemented;

INSTANTIATE_TEST_SUITE_P(
    Files, HostileAdapterHub,
    testing::Values(
        Hostile{"MissingHalf", [](Files& f) { f.tensors.pop_back(); }, kInvalid, "adapter_up.bias"},
        Hostile{"Transposed",
                [](Files& f) {
                  f.Named("1.output_adapters.adapters.task.adapter_up.weight").shape = {4, 32};
                },
                kInvalid, "expected [32, 4], got [4, 32]"},
        Hostile{"OtherWidth", [](Files& f) { f.options.replace(f.options.find("8.0"), 3, "4.0"); },
                kInvalid, "expected [8, 32], got [4, 32]"},
        Hostile{"Extra",
                [](Files& f) {
                  f.Add({Vector("model.layers.1.output_adapters.adapters.task.scaling", 1, 1.0f)});
                },
                kInvalid, "adapters.task.scaling"},
        Hostile{"OtherAdapters",
                [](Files& f) {
                  f.Rename("1.output_adapters.adapters.task", "1.output_adapters.adapters.other");
                },
                kInvalid, "missing"},
        Hostile{"NotANumber",
                [](Files& f) {
                  const float nan = std::numeric_limits<float>::quiet_NaN();
                  f.Named("adapter_up.bias")
                      .bytes.replace(0, 4, reinterpret_cast<const char*>(&nan), 4);
                },
                kInvalid, "NaN"},
        Hostile{"IntegerScaling",
                [](Files& f) { f.options.replace(f.options.find("2.0"), 3, "2"); }, kInvalid,
                "scaling"},
        Hostile{"ZeroReduction",
                [](Files& f) { f.options.replace(f.options.find("8.0"), 3, "0.0"); }, kInvalid,
                "reduction_factor"},
        Hostile{"PostAdd",
                [](Files& f) {
                  f.options.back() = ',';
                  f.options += R"("residual_before_ln":"post_add"})";
                },
                kUnimplemented, "post_add"},
        Hostile{"UnknownOption",
                [](Files& f) {
                  f.options.back() = ',';
                  f.options += R"("warp":3})";
                },
                kUnimplemented, "warp"},
        Hostile{"UnknownActivation",
                [](Files& f) { f.options.replace(f.options.find("relu"), 4, "mish"); },
                kUnimplemented, "mish"},
        Hostile{"Gated",
                [](Files& f) {
                  f.options.back() = ',';
                  f.options += R"("use_gating":true})";
                },
                kInvalid, "gate.weight"},
        Hostile{"Glow",
                [](Files& f) {
                  f.options.back() = ',';
                  f.options += R"("inv_adapter":"glow","inv_adapter_reduction_factor":2.0})";
                },
                kUnimplemented, "inv_adapter"},
        Hostile{"UnknownName", [](Files& f) { f.options = R"("frobnicate")"; }, kUnimplemented,
                "frobnicate"},
        Hostile{"NoConfig", [](Files& f) { f.options = "null"; }, kInvalid, "config"},
        Hostile{"HugeLeaveOut",
                [](Files& f) {
                  f.options.back() = ',';
                  f.options += R"("leave_out":"all"})";
                },
                kInvalid, "leave_out"},
        Hostile{"LeavesOutTheLayerBeforeTheFirst",
                [](Files& f) {
                  f.options.back() = ',';
                  f.options += R"("leave_out":[0,-1]})";
                },
                kInvalid, "leave_out: expected layer numbers from 0, got -1"},
        Hostile{"ReftAtTheLayerBeforeTheFirst",
                [](Files& f) {
                  f.options = R"({"architecture":"reft","r":1,"prefix_positions":1,"layers":[-1]})";
                },
                kInvalid, "layers: expected layer numbers from 0, got -1"}),
    [](const auto& test) { return test.param.name; });

TEST(AdapterHub, APrefixIsOneTensorHoweverOftenItIsStored) {
  const auto files_with = [](float copy_first) {
    Files files;
    files.options = R"({"architecture":"prefix_tuning","flat":true,"prefix_length":3})";
    files.tensors = {
        Vector("model.prefix_tuning.prefix_tunings.task.self_prefix.control_trans", 192, 0.5f),
        Vector("model.layers.0.self_attn.prefix_tuning.pool.prefix_tunings.task."
               "self_prefix.control_trans",
               192, copy_first)};
    return files;
  };
  const StatusOr<Lowered> lowered = Lower(files_with(0.5f));
  ASSERT_TRUE(lowered.ok()) << lowered.status();
  ASSERT_TRUE(lowered->program.soft_prompt.has_value());
  EXPECT_EQ(lowered->program.soft_prompt->num_tokens, 3);
  EXPECT_FALSE(lowered->program.soft_prompt->shifts_positions);
  EXPECT_EQ(Lower(files_with(0.75f)).status().code(), kInvalid);
}

}  // namespace
}  // namespace polyad
