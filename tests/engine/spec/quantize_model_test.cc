#include "engine/spec/quantize_model.h"

#include <cmath>
#include <filesystem>
#include <string>
#include <vector>

#include "engine/spec/model_files.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/engine/io/file_builders.h"

// A tiny model through the quantiser and back through the reader.

namespace polyad {
namespace {

using ::testing::HasSubstr;

const std::string kModels = POLYAD_SOURCE_DIR "/tests/golden/models/";

void Ignore(int64_t, int64_t) {}

QuantizeOptions OptionsFor(const std::string& model, const TemporaryDirectory& directory,
                           int bits) {
  return {kModels + model, directory.path() + "/out", bits, 32};
}

std::vector<float> Values(const ModelFiles& files, int64_t layer, WeightKind kind) {
  const auto tensor = files.ReadWeight(layer, kind);
  EXPECT_TRUE(tensor.ok()) << tensor.status();
  return *ToFloats(*tensor);
}

double RelativeError(const std::vector<float>& got, const std::vector<float>& wanted) {
  double error = 0, squares = 0;
  for (size_t i = 0; i < wanted.size(); ++i) {
    error += std::pow(static_cast<double>(got[i]) - wanted[i], 2);
    squares += std::pow(static_cast<double>(wanted[i]), 2);
  }
  return std::sqrt(error / squares);
}

class QuantizeModelTest : public testing::TestWithParam<int> {};

TEST_P(QuantizeModelTest, TheResultOpensAndStandsForTheModel) {
  const int bits = GetParam();
  TemporaryDirectory directory;
  int64_t calls = 0;
  const QuantizeOptions options = OptionsFor("qwen2", directory, bits);
  const auto report = QuantizeModel(options, [&](int64_t done, int64_t total) {
    EXPECT_EQ(done, ++calls);
    EXPECT_LE(done, total);
  });
  ASSERT_TRUE(report.ok()) << report.status();
  EXPECT_EQ(report->num_matrices, 14);
  EXPECT_LT(report->bytes_after, report->bytes_before);
  const auto quantised = OpenModel(options.out);
  const auto original = OpenModel(options.model);
  ASSERT_TRUE(quantised.ok()) << quantised.status();
  ASSERT_TRUE(original.ok()) << original.status();
  EXPECT_EQ(quantised->tokenizer().tokenizer_json, original->tokenizer().tokenizer_json);
  const double most = bits == 8 ? 0.01 : 0.12;
  for (const WeightEntry& entry : original->weights()) {
    const std::vector<float> got = Values(*quantised, entry.layer, entry.kind);
    const std::vector<float> wanted = Values(*original, entry.layer, entry.kind);
    if (entry.kind >= WeightKind::kQ && entry.kind <= WeightKind::kFcOut) {
      EXPECT_LT(RelativeError(got, wanted), most) << entry.tensor_name;
      EXPECT_GT(RelativeError(got, wanted), 0) << entry.tensor_name;
      const auto weight = quantised->ReadWeight(entry.layer, entry.kind);
      ASSERT_EQ(weight->dtype, DType::kGrouped);
      EXPECT_EQ(weight->grouped->bits, bits);
    } else {
      EXPECT_EQ(got, wanted) << entry.tensor_name;
    }
  }
  EXPECT_LT(report->relative_error, most);
}

INSTANTIATE_TEST_SUITE_P(Bits, QuantizeModelTest, testing::Values(4, 8));

TEST(QuantizeModel, RefusesToWriteOverAnything) {
  TemporaryDirectory directory;
  QuantizeOptions options = OptionsFor("qwen2", directory, 4);
  options.out = directory.path();
  EXPECT_THAT(QuantizeModel(options, Ignore).status().ToString(), HasSubstr("exists already"));
}

TEST(QuantizeModel, RefusesWhatItCannotQuantise) {
  TemporaryDirectory directory;
  EXPECT_THAT(QuantizeModel(OptionsFor("gpt2", directory, 4), Ignore).status().ToString(),
              HasSubstr("GPT-2"));
  EXPECT_THAT(QuantizeModel(OptionsFor("llama_polyad8", directory, 4), Ignore).status().ToString(),
              HasSubstr("expected a floating-point matrix"));
  EXPECT_THAT(QuantizeModel(OptionsFor("llama_odd", directory, 4), Ignore).status().ToString(),
              HasSubstr("multiples of 32"));
  EXPECT_THAT(QuantizeModel(OptionsFor("qwen2", directory, 5), Ignore).status().ToString(),
              HasSubstr("expected 4 or 8"));
  EXPECT_FALSE(std::filesystem::exists(directory.path() + "/out"));
}

}  // namespace
}  // namespace polyad
