// Products with the packed weights of every site against products with its matrix from the file,
// and what the weights occupy.
#include "engine/model/served_base_weights.h"

#include <gtest/gtest.h>

#include <cmath>
#include <random>
#include <string>
#include <vector>

#include "engine/adapters/dense_math.h"
#include "tests/engine/model/step_harness.h"

namespace polyad {
namespace {

constexpr int64_t kInputs = 3;

class ServedBaseWeightsTest : public ::testing::TestWithParam<const char*> {};

TEST_P(ServedBaseWeightsTest, GivesEverySitesOwnRows) {
  BackendOptions options;
  options.mode = ComputeMode::kF32;
  const TestModel test =
      LoadTestModel(GoldenPath(std::string("models/") + GetParam()), "cpu", options);
  const ModelSpec& spec = test.model->spec();
  const ServedBaseWeights served(test.files, *test.model, *test.backend);
  const FileBaseWeights from_file(test.files);
  std::vector<SiteRef> sites = {{-1, Site::kHead}, {-1, Site::kEmbed}};
  for (const Site site : LayerSites(spec)) sites.push_back({spec.num_layers - 1, site});
  std::mt19937 random(1);
  std::normal_distribution<float> normal;
  for (const SiteRef site : sites) {
    Matrix x(kInputs, ShapeOf(spec, site.site).in);
    for (float& value : x.values) value = normal(random);
    const TensorView inputs{x.values.data(), DType::kF32, x.rows, x.cols};
    const auto got = served.Products(site, inputs);
    const auto expected = from_file.Products(site, inputs);
    const auto squares = from_file.RowSquares(site, x.cols);
    ASSERT_TRUE(got.ok() && expected.ok() && squares.ok());
    ASSERT_EQ(got->size(), expected->size());
    for (size_t i = 0; i < got->size(); ++i) {
      const size_t out = i % squares->size();
      const double length = std::sqrt((*squares)[out] * SumOfSquares(x.Row(0), x.rows * x.cols));
      EXPECT_NEAR((*got)[i], (*expected)[i], 8 * 0x1p-24 * length) << SiteName(site.site);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Models, ServedBaseWeightsTest,
                         ::testing::Values("llama", "mistral", "qwen2", "gpt2"));

// Bit for bit: DoRA's lengths on a quantised base are those of the whole matrix.
TEST(RowSquaresTest, AreThoseOfTheMatrixWhateverItIsStoredAs) {
  for (const char* name : {"llama", "gpt2", "llama_nf4_double", "llama_gptq_act_order",
                           "llama_polyad4", "llama_gguf_q4_0/model.gguf"}) {
    auto files = OpenModel(GoldenPath(std::string("models/") + name));
    ASSERT_TRUE(files.ok()) << name << ": " << files.status();
    const auto shared = std::make_shared<const ModelFiles>(*std::move(files));
    const FileBaseWeights from_file(shared);
    for (const Site site : LayerSites(shared->spec())) {
      const SiteRef ref{0, site};
      const auto matrix = from_file.Matrix(ref);
      const int64_t in = ShapeOf(shared->spec(), site).in;
      const auto squares = from_file.RowSquares(ref, in);
      ASSERT_TRUE(matrix.ok() && squares.ok()) << name;
      ASSERT_EQ(static_cast<int64_t>(squares->size()) * in, std::ssize(*matrix)) << name;
      for (size_t i = 0; i < squares->size(); ++i) {
        EXPECT_EQ((*squares)[i], SumOfSquares(matrix->data() + static_cast<int64_t>(i) * in, in))
            << name << " row " << i;
      }
    }
  }
}

TEST(WeightBytesTest, AreMeasuredAsALoadedModelHoldsThem) {
  for (const char* name : {"llama", "gpt2", "llama_nf4_double", "llama_polyad4"}) {
    const TestModel test =
        LoadTestModel(GoldenPath(std::string("models/") + name), "cpu", BackendOptions());
    const auto measured = MeasureWeights(*test.files, *test.backend);
    ASSERT_TRUE(measured.ok()) << measured.status();
    EXPECT_EQ(measured->embeddings, test.model->weight_bytes().embeddings) << name;
    EXPECT_EQ(measured->layers, test.model->weight_bytes().layers) << name;
    const ModelSpec& spec = test.model->spec();
    int64_t weights = 0;
    for (const Site site : LayerSites(spec)) {
      weights += spec.num_layers * ShapeOf(spec, site).out * ShapeOf(spec, site).in;
    }
    const bool four_bits = std::string(name) != "llama" && std::string(name) != "gpt2";
    const Precision held = four_bits ? Precision::k4Bit : Precision::kBF16;
    EXPECT_GE(measured->layers[held], four_bits ? weights / 2 : weights * 2) << name;
    EXPECT_EQ(measured->layers[four_bits ? Precision::kBF16 : Precision::k4Bit], 0) << name;
    EXPECT_EQ(measured->embeddings[Precision::k4Bit], 0) << name;
  }
}

}  // namespace
}  // namespace polyad
