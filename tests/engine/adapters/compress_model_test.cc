#include "engine/adapters/compress_model.h"

#include <cmath>
#include <filesystem>
#include <map>

#include "engine/adapters/adapter_source.h"
#include "engine/adapters/family_table.h"
#include "engine/adapters/file_base_weights.h"
#include "engine/io/safetensors.h"
#include "engine/spec/weights_digest.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/engine/adapters/model_edits.h"
#include "tests/engine/io/file_builders.h"

// A fine-tune becomes a container: what is in it, what is left out, and that it is its base's
// alone.

namespace polyad {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

// Pluses and minuses that no short period explains.
float Sign(size_t i) { return (i * 2654435761u >> 7) % 2 == 0 ? 1.0f : -1.0f; }

struct Made {
  std::string fine_tuned;
  std::string out;
  Status status;
  CompressReport report;
};

class CompressModelTest : public testing::Test {
 protected:
  Made Compress(const std::string& model, const TensorEdit& edit, CompressOptions options = {},
                bool as_bf16 = false) {
    Made made;
    made.fine_tuned = directory_.path() + "/fine" + std::to_string(++count_);
    made.out = options.out = directory_.path() + "/out" + std::to_string(count_);
    WriteEdited(GoldenModel(model), made.fine_tuned, edit, as_bf16);
    const auto models = ModelDelta::Open(GoldenModel(model), made.fine_tuned);
    EXPECT_TRUE(models.ok()) << models.status();
    int64_t last = 0;
    auto report = CompressModel(*models, options, [&last](int64_t done, int64_t total) {
      EXPECT_GE(done, last);
      EXPECT_LE(done, total);
      last = done;
    });
    made.status = report.status();
    if (report.ok()) made.report = *std::move(report);
    return made;
  }

  static std::map<std::string, OwnedTensor> Tensors(const Made& made) {
    std::map<std::string, OwnedTensor> tensors;
    const auto file = SafetensorsFile::Open(made.out + "/zoo.safetensors");
    EXPECT_TRUE(file.ok()) << file.status();
    for (const TensorInfo& info : file->tensors()) tensors[info.name] = *file->Read(info.name);
    return tensors;
  }

  static StatusOr<AdapterProgram> Lower(const std::string& path, const std::string& base) {
    auto files = OpenModel(base);
    EXPECT_TRUE(files.ok()) << files.status();
    const auto shared = std::make_shared<const ModelFiles>(*std::move(files));
    const FileBaseWeights weights(shared);
    const std::filesystem::path full(path);
    POLYAD_ASSIGN_OR_RETURN(
        const Directory opened,
        Directory::OpenBeneath(full.parent_path().string(), full.filename().string()));
    POLYAD_ASSIGN_OR_RETURN(AdapterSource source, AdapterSource::Open(opened, 1 << 24));
    return LowerAdapter(source, {shared->spec(), &weights, {}, {}});
  }

  TemporaryDirectory directory_;
  int count_ = 0;
};

TEST_F(CompressModelTest, SignsTimesAScaleComeBackExactlyAndTheRestIsLeftOut) {
  for (const PlaneScale scale : {PlaneScale::kTensor, PlaneScale::kRow, PlaneScale::kGroup}) {
    CompressOptions options;
    options.planes.scale = scale;
    options.planes.group = 32;
    const Made made = Compress(
        "llama",
        [](const std::string& name, std::vector<float>& values) {
          if (name != "model.layers.1.self_attn.o_proj.weight") return;
          for (size_t i = 0; i < values.size(); ++i) values[i] += 0.25f * Sign(i);
        },
        options);
    ASSERT_TRUE(made.status.ok()) << made.status;
    const auto tensors = Tensors(made);
    ASSERT_EQ(tensors.size(), 2u);
    const OwnedTensor& bits = tensors.at("L1.o.sg.0.bits");
    EXPECT_THAT(bits.shape, ElementsAre(64, 2));
    for (int64_t i = 0; i < 64 * 64; ++i) {
      const bool plus = bits.bytes.data()[i / 8] >> (i % 8) & 1;
      ASSERT_EQ(plus, Sign(static_cast<size_t>(i)) > 0) << i;
    }
    const std::vector<float> scales = *ToFloats(tensors.at("L1.o.sg.0.coef"));
    for (const float coef : scales) {
      EXPECT_NEAR(coef, 0.25f, 1e-6f);  // the weights it was added to rounded it
    }
    EXPECT_EQ(made.report.num_matrices, 1);
    EXPECT_LT(made.report.layers.at(1).squared_error, 1e-10 * made.report.layers.at(1).squares);
    const auto program = Lower(made.out, GoldenModel("llama"));
    ASSERT_TRUE(program.ok()) << program.status();
    EXPECT_EQ(program->family, "bitdelta");
    EXPECT_EQ(program->ops.size(), 1u);
    EXPECT_FALSE(program->read_base);
  }
}

TEST_F(CompressModelTest, EveryPlaneCutsTheError) {
  double last = 1;
  for (int64_t planes = 1; planes <= kMaxPlanes; ++planes) {
    CompressOptions options;
    options.planes.num_planes = planes;
    const Made made = Compress(
        "qwen2",
        [](const std::string& name, std::vector<float>& values) {
          if (!name.ends_with("proj.weight")) return;
          for (size_t i = 0; i < values.size(); ++i) {
            values[i] += 0.02f * std::sin(static_cast<float>(i * i % 1009));
          }
        },
        options);
    ASSERT_TRUE(made.status.ok()) << made.status;
    EXPECT_EQ(made.report.num_matrices, 14);
    for (const CompressReport::Layer& layer : made.report.layers) {
      EXPECT_LT(layer.squared_error, 0.6 * last * layer.squares);
    }
    last = made.report.layers.at(0).squared_error / made.report.layers.at(0).squares;
    EXPECT_EQ(Tensors(made).size(), static_cast<size_t>(28 * planes));
  }
}

// Norms, biases, and rows of a tied table, in every format of rows.
TEST_F(CompressModelTest, WhatIsNoMatrixIsCarriedAsItIs) {
  const TensorEdit edit = [](const std::string& name, std::vector<float>& values) {
    if (name == "model.norm.weight" || name == "model.layers.0.input_layernorm.weight" ||
        name == "model.layers.1.self_attn.k_proj.bias") {
      for (float& value : values) value += 0.5f;
    }
    if (name != "model.embed_tokens.weight") return;
    for (size_t i = 0; i < 64; ++i) {
      values[5 * 64 + i] += 0.01f * static_cast<float>(i);
      values[300 * 64 + i] -= 0.02f;
    }
  };
  const std::pair<RestFormat, double> formats[] = {
      {RestFormat::kF32, 1e-5}, {RestFormat::kBF16, 4e-3}, {RestFormat::kInt8, 4e-3}};
  for (const auto& [rest, tolerance] : formats) {
    CompressOptions options;
    options.rest = rest;
    const Made made = Compress("qwen2", edit, options);
    ASSERT_TRUE(made.status.ok()) << made.status;
    EXPECT_EQ(made.report.num_token_rows, 2);
    EXPECT_EQ(made.report.num_matrices, 0);
    const auto program = Lower(made.out, GoldenModel("qwen2"));
    ASSERT_TRUE(program.ok()) << program.status();
    EXPECT_EQ(program->norms.size(), 2u);
    ASSERT_EQ(program->ops.size(), 2u);  // the bias, and the head's rows
    ASSERT_EQ(program->embedding_ops.size(), 1u);
    const auto& rows = std::get<EmbeddingRows>(program->embedding_ops[0]);
    EXPECT_THAT(rows.ids, ElementsAre(5, 300));
    const auto fine = OpenModel(made.fine_tuned);
    const auto table = *ToFloats(*fine->ReadWeight(-1, WeightKind::kEmbed));
    for (int64_t i = 0; i < 64; ++i) {
      const float* first = static_cast<const float*>(rows.rows.data);
      EXPECT_NEAR(first[i], table[static_cast<size_t>(5 * 64 + i)], tolerance * 0.64);
      EXPECT_NEAR(first[64 + i], table[static_cast<size_t>(300 * 64 + i)], tolerance * 0.02);
    }
  }
}

TEST_F(CompressModelTest, AFineTuneThatRoundedTheBaseChangedNothing) {
  const Made made = Compress(
      "llama", [](const std::string&, std::vector<float>&) {}, {}, /*as_bf16=*/true);
  EXPECT_EQ(made.status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(made.status.message()), HasSubstr("every weight is the base's"));
  EXPECT_FALSE(std::filesystem::exists(made.out));
  EXPECT_FALSE(std::filesystem::exists(made.out + ".part"));
}

TEST_F(CompressModelTest, ItIsServedByItsOwnBaseAlone) {
  const Made made = Compress("llama", [](const std::string& name, std::vector<float>& values) {
    if (name.ends_with("q_proj.weight")) values[7] += 1;
  });
  ASSERT_TRUE(made.status.ok()) << made.status;
  EXPECT_TRUE(Lower(made.out, GoldenModel("llama")).ok());
  const auto refused = Lower(made.out, made.fine_tuned).status();
  EXPECT_EQ(refused.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(refused.message()), HasSubstr("SHA-256"));
}

TEST_F(CompressModelTest, NothingStaysBehindWhereItFails) {
  const Made made = Compress("llama", [](const std::string& name, std::vector<float>& values) {
    if (name == "model.layers.0.mlp.down_proj.weight") values[9] = NAN;
  });
  EXPECT_EQ(made.status.code(), absl::StatusCode::kInvalidArgument) << made.status;
  EXPECT_THAT(std::string(made.status.message()), HasSubstr("L0.down"));
  EXPECT_FALSE(std::filesystem::exists(made.out));
  EXPECT_FALSE(std::filesystem::exists(made.out + ".part"));
  std::filesystem::create_directories(directory_.path() + "/there");
  const auto models = ModelDelta::Open(GoldenModel("llama"), made.fine_tuned);
  ASSERT_TRUE(models.ok()) << models.status();
  CompressOptions options;
  options.out = directory_.path() + "/there";
  EXPECT_EQ(CompressModel(*models, options, nullptr).status().code(),
            absl::StatusCode::kInvalidArgument);
}

TEST(WeightsDigest, IsOfTheWeightsAndNotOfTheirNames) {
  const TemporaryDirectory directory;
  const auto digest = [](const std::string& path) {
    const auto files = OpenModel(path);
    EXPECT_TRUE(files.ok()) << files.status();
    return *WeightsDigest(*files);
  };
  WriteEdited(GoldenModel("llama"), directory.path() + "/same", [](const auto&, auto&) {});
  WriteEdited(GoldenModel("llama"), directory.path() + "/other",
              [](const std::string& name, std::vector<float>& values) {
                if (name == "model.norm.weight") values[3] += 0.001f;
              });
  EXPECT_EQ(digest(directory.path() + "/same"), digest(GoldenModel("llama")));
  EXPECT_NE(digest(directory.path() + "/other"), digest(GoldenModel("llama")));
  EXPECT_NE(digest(GoldenModel("llama_nf4_double")), digest(GoldenModel("llama_awq")));
}

}  // namespace
}  // namespace polyad
