#include "engine/model/calibrate_planes.h"

#include <cmath>
#include <random>

#include "engine/adapters/compress_model.h"
#include "engine/model/input_grams.h"
#include "gtest/gtest.h"
#include "kernels/backend_factory.h"
#include "tests/engine/adapters/model_edits.h"
#include "tests/engine/adapters/random_matrix.h"
#include "tests/engine/io/file_builders.h"
#include "tests/engine/model/golden_files.h"
#include "tests/engine/model/step_harness.h"

// Calibration in its parts, and whole on a tiny pair.

namespace polyad {
namespace {

SignPlanes Fit(const Matrix& change, const PlaneOptions& options) {
  return FitSignPlanes(change.rows, change.cols, options, [&](int64_t row, float* out) {
    std::copy_n(change.Row(row), change.cols, out);
  });
}

// Rows of few directions, as a model's are.
Matrix Inputs() {
  Matrix inputs = Multiply(RandomMatrix(200, 12, 1), RandomMatrix(12, 96, 2));
  const Matrix noise = RandomMatrix(200, 96, 3);
  for (size_t i = 0; i < inputs.values.size(); ++i) inputs.values[i] += 0.3f * noise.values[i];
  return inputs;
}

Matrix GramOf(const Matrix& inputs) {
  Matrix gram = Multiply(Transposed(inputs), inputs);
  Scale(gram, 1.0 / static_cast<double>(inputs.rows));
  return gram;
}

TEST(RefinePlanes, LeavesSignsAndMeansAloneWhereEveryInputCountsAlike) {
  const auto backend = *MakeBackend("cpu", ExactOptions());
  const Matrix change = RandomMatrix(8, 96, 4);
  Matrix identity(96, 96);
  for (int64_t i = 0; i < 96; ++i) identity.At(i, i) = 1;
  for (const PlaneScale scale : {PlaneScale::kTensor, PlaneScale::kRow, PlaneScale::kGroup}) {
    const SignPlanes before = Fit(change, {1, scale, 32});
    SignPlanes after = before;
    ASSERT_TRUE(RefinePlanes(change, identity, {}, *backend, after).ok());
    EXPECT_EQ(after.planes[0].bits, before.planes[0].bits);
    for (size_t i = 0; i < after.planes[0].scale.size(); ++i) {
      EXPECT_NEAR(after.planes[0].scale[i], before.planes[0].scale[i], 1e-5);
    }
  }
}

TEST(RefinePlanes, DisturbsTheOutputsLess) {
  const auto backend = *MakeBackend("cpu", ExactOptions());
  const Matrix change = RandomMatrix(8, 96, 5);
  const Matrix gram = GramOf(Inputs());
  for (const int64_t num_planes : {1, 2}) {
    for (const PlaneScale scale : {PlaneScale::kTensor, PlaneScale::kRow, PlaneScale::kGroup}) {
      SignPlanes planes = Fit(change, {num_planes, scale, 32});
      const auto error = [&] {
        const auto made = OutputErrorOf(change, gram, *backend, planes);
        EXPECT_TRUE(made.ok()) << made.status();
        return made->squared_error / made->squares;
      };
      const double before = error();
      RefineOptions options;
      options.keep_signs = true;
      ASSERT_TRUE(RefinePlanes(change, gram, options, *backend, planes).ok());
      const double with_scales = error();
      EXPECT_LT(with_scales, before);
      options.keep_signs = false;
      ASSERT_TRUE(RefinePlanes(change, gram, options, *backend, planes).ok());
      EXPECT_LT(error(), 0.3 * with_scales);
    }
  }
}

TEST(InputGrams, AreTheMeansOfWhatTheProductsRead) {
  const auto backend = *MakeBackend("cpu", ExactOptions());
  Matrix rows = Inputs();
  InputGrams grams(*backend, 1, 2);
  for (const auto& [begin, end] : {std::pair<int64_t, int64_t>{0, 70}, {70, 200}}) {
    const ActivationRows part{rows.Row(begin), DType::kF32, end - begin, rows.cols, rows.cols};
    grams.OnInput(0, SiteGroup::kQkv, part);
    grams.OnInput(1, SiteGroup::kMlpOut, part);
  }
  ASSERT_TRUE(grams.status().ok());
  const Matrix mean = grams.Mean(1, SiteGroup::kMlpOut);
  const Matrix expected = GramOf(rows);
  for (size_t i = 0; i < mean.values.size(); ++i) {
    EXPECT_NEAR(mean.values[i], expected.values[i], 1e-3);
  }
}

TEST(TextWindow, GivesTheLogitsOfAPrompt) {
  TestModel test = LoadTestModel(GoldenModel("llama"), "cpu", ExactOptions());
  StepHarness harness(*test.model, 1);
  const std::vector<int32_t> tokens = ReadGoldenPrompts(GoldenModel("llama")).back().tokens;
  const std::vector<float> expected = harness.LogitsAlone(tokens, nullptr);
  const auto logits = RunWindow(*test.model, tokens, nullptr);
  ASSERT_TRUE(logits.ok()) << logits.status();
  ASSERT_EQ(logits->rows * logits->cols, static_cast<int64_t>(expected.size()));
  for (int64_t row = 0; row < logits->rows; ++row) {
    for (int64_t col = 0; col < logits->cols; ++col) {
      EXPECT_EQ(logits->Row(row)[col], expected[static_cast<size_t>(row * logits->cols + col)]);
    }
  }
  EXPECT_FALSE(RunWindow(*test.model, {}, nullptr).ok());
}

// A fine-tune that one plane a matrix cannot say, with pattern enough to be calibrated.
void FineTune(const std::string& name, std::vector<float>& values) {
  if (!name.ends_with("proj.weight")) return;
  std::mt19937_64 source(name.size() * 31 + name[13]);
  std::normal_distribution<float> normal(0, 0.05f);
  for (float& value : values) value += normal(source);
}

std::vector<std::vector<int32_t>> Windows() {
  std::mt19937_64 source(7);
  std::vector<std::vector<int32_t>> windows(6);
  for (auto& window : windows) {
    for (int i = 0; i < 100; ++i) window.push_back(static_cast<int32_t>(source() % 320));
  }
  return windows;
}

class Calibration : public testing::TestWithParam<int64_t> {};

TEST_P(Calibration, BringsOutputsAndLogitsNearerAndLeavesAContainer) {
  const TemporaryDirectory directory;
  const std::string base = GoldenModel("llama");
  WriteEdited(base, directory.path() + "/fine", FineTune);
  auto opened = ModelDelta::Open(base, directory.path() + "/fine");
  ASSERT_TRUE(opened.ok()) << opened.status();
  const auto models = std::make_shared<const ModelDelta>(*std::move(opened));
  const auto backend = *MakeBackend("cpu", ExactOptions());
  CompressOptions options;
  options.out = directory.path() + "/out";
  options.planes.num_planes = GetParam();
  CalibrateOptions calibrate;
  calibrate.distil_tokens = 64;
  calibrate.gram_bytes = 1;  // a layer at a time
  int64_t shown = 0;
  calibrate.progress = [&shown](int64_t done, int64_t total) {
    EXPECT_EQ(done, ++shown);
    EXPECT_LE(done, total);
  };
  CalibrateReport report;
  const auto made = CompressModel(*models, options, nullptr, [&](const std::string& path) {
    const auto ran = PlaneCalibrator(models, *backend, Windows(), calibrate).Run(path);
    if (ran.ok()) report = *ran;
    return ran.status();
  });
  ASSERT_TRUE(made.ok()) << made.status();
  EXPECT_EQ(shown, 14 + 14 * GetParam());
  EXPECT_LT(report.output_error, report.output_error_before);
  EXPECT_LT(report.logit_error, report.logit_error_before);
  EXPECT_FALSE(std::filesystem::exists(options.out + "/zoo.safetensors.old"));
  TestModel test = LoadTestModel(base, "cpu", ExactOptions());
  LoadAdapterSpec spec;
  spec.name = "made";
  spec.path = options.out;
  const auto loaded = test.adapters->Load(spec, nullptr);
  EXPECT_TRUE(loaded.ok()) << loaded.status();
}

INSTANTIATE_TEST_SUITE_P(Planes, Calibration, testing::Values(1, 2));

// Scales that were spoiled by a factor each are found again, for logits are the dense model's then.
TEST(ScaleDistiller, FindsTheFactorsThatMakeTheLogitsEqual) {
  const TemporaryDirectory directory;
  const std::string base = GoldenModel("llama");
  const auto exact = [](const std::string& name, std::vector<float>& values) {
    if (!name.ends_with("proj.weight")) return;
    for (size_t i = 0; i < values.size(); ++i) values[i] += i * 7919 % 13 < 6 ? 0.02f : -0.02f;
  };
  WriteEdited(base, directory.path() + "/fine", exact);
  const auto models = ModelDelta::Open(base, directory.path() + "/fine");
  ASSERT_TRUE(models.ok()) << models.status();
  CompressOptions options;
  options.out = directory.path() + "/out";
  ASSERT_TRUE(CompressModel(*models, options, nullptr).ok());
  auto sites = ReadPlanes(options.out, models->base().spec());
  ASSERT_TRUE(sites.ok()) << sites.status();
  ASSERT_EQ(sites->size(), 14u);
  for (size_t i = 0; i < sites->size(); ++i) {
    for (float& scale : (*sites)[i].planes.planes[0].scale) scale *= i % 2 == 0 ? 0.8f : 1.25f;
  }
  ASSERT_TRUE(WritePlanes(options.out, *sites).ok());
  TestModel test = LoadTestModel(base, "cpu", ExactOptions());
  TestModel dense = LoadTestModel(directory.path() + "/fine", "cpu", ExactOptions());
  LoadAdapterSpec spec;
  spec.name = "made";
  spec.path = options.out;
  ASSERT_TRUE(test.adapters->Load(spec, nullptr).ok());
  DistilTarget target;
  target.tokens = Windows().front();
  target.head_inputs = *HeadInputs(*dense.model, target.tokens, nullptr);
  target.head_gram = Matrix(64, 64);
  for (int64_t i = 0; i < 64; ++i) target.head_gram.At(i, i) = 1;
  ScaleDistiller distiller(*test.model, *test.backend, **test.adapters->Acquire("made", ""), *sites,
                           target);
  const double before = *distiller.Loss();
  ASSERT_TRUE(distiller.Run(3, [] {}).ok());
  EXPECT_LT(*distiller.Loss(), 1e-3 * before);
  for (size_t i = 0; i < sites->size(); ++i) {
    EXPECT_NEAR(distiller.factors()[i], i % 2 == 0 ? 1.25 : 0.8, 0.1) << i;
  }
}

}  // namespace
}  // namespace polyad
