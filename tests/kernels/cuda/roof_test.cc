// kernels/cuda/roof.tsv says of each launch of a step of Llama 3 8B what it moves and multiplies
// and how long each card needs for it at the least. Held here to what the plans say now (tools/dev
// roof writes it and the part of it that docs/cuda.md shows), and what the plans say to what the
// emulated tensor cores are seen to do.

#include <cctype>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "absl/strings/str_format.h"
#include "gtest/gtest.h"
#include "kernels/simt/emulated_matrix.h"
#include "tests/kernels/attention_cases.h"
#include "tests/kernels/cuda/emulated_backend.h"
#include "tests/kernels/cuda/mutant_work.h"
#include "tests/kernels/cuda/roof_work.h"
#include "tests/kernels/cuda/weight_products.h"
#include "tests/kernels/op_inputs.h"

namespace polyad::test {
namespace {

using cuda::WeightFormat;

constexpr int64_t kHidden = 4096;
constexpr int64_t kInner = 14336;

std::vector<Work> Works() {
  std::vector<Work> works;
  for (const int64_t rows : {1, 8, 512}) {
    for (const WeightFormat format :
         {WeightFormat::kBf16, WeightFormat::kInteger8, WeightFormat::kInteger4,
          WeightFormat::kLevels4, WeightFormat::kFloat8}) {
      works.push_back(ProductWork(format, kHidden, 2 * kInner, rows));
      works.push_back(ProductWork(format, kInner, kHidden, rows));
    }
    works.push_back(ProductWork(WeightFormat::kInteger4, kHidden, 2 * kInner, rows, true));
    works.push_back(SignWork(kHidden, kHidden, rows));
  }
  const auto add = [&works](const std::vector<Work>& more) {
    works.insert(works.end(), more.begin(), more.end());
  };
  for (const int64_t rank : {16, 64}) {
    add(LowRankWork(kHidden, rank, kHidden, 1, 1));
    add(LowRankWork(kHidden, rank, kHidden, 32, 1));
    add(LowRankWork(kHidden, rank, kHidden, 4, 128));
    add(LowRankWork(kHidden, rank, kHidden, 1, 512));
  }
  for (const KvFormat format : {KvFormat::kBF16, KvFormat::kInt8, KvFormat::kInt4}) {
    add(AttentionWork({32, 8, 128, 2048, 1, 1, format}));
    add(AttentionWork({32, 8, 128, 2048, 32, 1, format}));
    add(AttentionWork({32, 8, 128, 2048, 1, 512, format}));
  }
  add(RowWorks(32));
  add(RowWorks(512));
  return works;
}

std::string TimeOn(const Work& work, const Card& card) {
  const Bound bound = BoundOf(work, card);
  return absl::StrFormat("%.3g %s", 1e6 * bound.seconds, bound.is_memory ? "memory" : "math");
}

std::string Table() {
  std::string table = "kernel\tshape\tblocks\tbytes\tflops\tdone\tflops/byte";
  for (const Card& card : Cards()) absl::StrAppendFormat(&table, "\t%s us", card.name);
  for (const Work& work : Works()) {
    absl::StrAppendFormat(&table, "\n%s\t%s\t%d\t%.3g\t%.3g\t%.3g\t%.2f", work.kernel, work.shape,
                          work.blocks, work.bytes, work.flops, work.done, work.flops / work.bytes);
    for (const Card& card : Cards()) table += "\t" + TimeOn(work, card);
  }
  return table + "\n";
}

// Each kernel once for a step that decodes and once for one that prefills, on two cards.
std::string ShortTable() {
  std::vector<Work> works;
  const auto add = [&works](const std::vector<Work>& more) {
    works.insert(works.end(), more.begin(), more.end());
  };
  for (const int64_t rows : {8, 512}) {
    for (const WeightFormat format : {WeightFormat::kBf16, WeightFormat::kInteger4}) {
      works.push_back(ProductWork(format, kHidden, 2 * kInner, rows));
    }
    works.push_back(SignWork(kHidden, kHidden, rows));
  }
  add(LowRankWork(kHidden, 16, kHidden, 32, 1));
  add(LowRankWork(kHidden, 16, kHidden, 4, 128));
  for (const KvFormat format : {KvFormat::kBF16, KvFormat::kInt4}) {
    add(AttentionWork({32, 8, 128, 2048, 32, 1, format}));
    add(AttentionWork({32, 8, 128, 2048, 1, 512, format}));
  }
  add(RowWorks(512));
  std::string table = "| kernel | shape | MB | GFLOP | done for each | L4, us | H100, us |\n";
  table += "|---|---|---|---|---|---|---|\n";
  for (const Work& work : works) {
    const double extra = work.flops == 0 ? 1 : work.done / work.flops;
    absl::StrAppendFormat(&table, "| `%s` | %s | %.3g | %.3g | %.3g | %s | %s |\n", work.kernel,
                          work.shape, work.bytes / 1e6, work.flops / 1e9, extra,
                          TimeOn(work, Cards()[2]), TimeOn(work, Cards()[3]));
  }
  return table;
}

std::string PathOf(const char* file) { return std::string(POLYAD_SOURCE_DIR) + "/" + file; }

std::string TextOf(const std::string& path) {
  std::ifstream file(path);
  return {std::istreambuf_iterator<char>(file), {}};
}

constexpr std::string_view kBegin = "<!-- tools/dev roof writes this -->\n";
constexpr std::string_view kEnd = "<!-- to here -->\n";

TEST(RoofTest, TheTablesSayWhatThePlansSay) {
  const std::string table_path = PathOf("kernels/cuda/roof.tsv");
  const std::string docs_path = PathOf("docs/cuda.md");
  std::string docs = TextOf(docs_path);
  const size_t begin = docs.find(kBegin) + kBegin.size();
  const size_t end = docs.find(kEnd);
  ASSERT_LE(begin, end);
  ASSERT_NE(end, std::string::npos);
  if (std::getenv("POLYAD_UPDATE_ROOF") != nullptr) {
    std::ofstream(table_path) << Table();
    std::ofstream(docs_path) << docs.replace(begin, end - begin, ShortTable());
    return;
  }
  EXPECT_EQ(TextOf(table_path), Table()) << "tools/dev roof writes it";
  EXPECT_EQ(docs.substr(begin, end - begin), ShortTable()) << "tools/dev roof writes it";
}

std::string_view BaseName(std::string_view kernel) { return kernel.substr(0, kernel.find('<')); }

// The exact forms are for tests: they are bound by nothing that anybody waits for.
TEST(RoofTest, EveryKernelOfTheResourceTableHasARow) {
  std::set<std::string> built;
  std::ifstream resources(PathOf("kernels/cuda/resources.tsv"));
  std::string line;
  std::getline(resources, line);
  while (std::getline(resources, line)) {
    const size_t from = line.find('\t') + 1;
    const std::string_view kernel =
        BaseName(std::string_view(line).substr(from, line.find('\t', from) - from));
    if (!kernel.ends_with("Exact")) built.insert(std::string(kernel));
  }
  std::set<std::string> counted;
  for (const Work& work : Works()) counted.insert(work.kernel);
  EXPECT_EQ(built, counted);
}

// What the emulated tensor cores do meanwhile: 16 x 16 by 16 x 8 at a time.
template <typename Call>
double TensorFlopsOf(const Call& call) {
  const int64_t before = simt::NumMatrixProducts();
  call();
  return 2.0 * 16 * 16 * 8 * static_cast<double>(simt::NumMatrixProducts() - before);
}

TEST(RoofTest, ProductsDoWhatIsCounted) {
  EmulatedBackend backend(ComputeMode::kAuto, {});
  struct Case {
    StoredWeight weight;
    WeightFormat format;
    bool has_offsets;
  };
  const Case cases[] = {{MakeWeight(DType::kBF16, 70, 200, 1), WeightFormat::kBf16, false},
                        {MakeCoded("minima", 70, 192), WeightFormat::kInteger8, true},
                        {MakeCoded("groups", 70, 192), WeightFormat::kInteger4, true},
                        {MakeCoded("levels", 70, 192), WeightFormat::kLevels4, false},
                        {MakeCoded("float8", 70, 192), WeightFormat::kFloat8, false}};
  for (const Case& one : cases) {
    for (const int64_t rows : {1, 9, 70}) {
      const Work work =
          ProductWork(one.format, one.weight.cols, one.weight.rows, rows, one.has_offsets);
      EXPECT_EQ(TensorFlopsOf([&] { ProductOf(backend, one.weight, rows); }), work.done)
          << work.kernel << " " << work.shape;
    }
  }
  EXPECT_EQ(backend.fault(), "");
}

TEST(RoofTest, LowRankDeltasDoWhatIsCounted) {
  EmulatedBackend backend(ComputeMode::kAuto, {});
  const auto counted = [](int64_t rows) {  // LowRankOfRows' of mutant_work.cc
    double done = 0;
    for (const Work& work : LowRankWork(200, 150, 70, 1, rows)) done += work.done;
    return done;
  };
  EXPECT_EQ(TensorFlopsOf([&] { DoWork("low_rank_few", backend); }), counted(5));
  EXPECT_EQ(TensorFlopsOf([&] { DoWork("low_rank_many", backend); }), counted(70));
  EXPECT_EQ(backend.fault(), "");
}

TEST(RoofTest, SignsDoWhatIsCounted) {
  EmulatedBackend backend(ComputeMode::kAuto, {});
  constexpr int64_t kIn = 100;
  constexpr int64_t kOut = 70;
  const std::vector<uint32_t> bits(kOut * 4, 0x5a5a5a5au);
  const float scale = 0.5f;
  SignBits op;
  op.bits = bits;
  op.scale = {&scale, 1};
  op.out = kOut;
  op.in = kIn;
  PackShare share;
  const std::unique_ptr<PackedDelta> packed = *backend.PackDelta(op, share);
  for (const int64_t rows : {1, 9}) {
    ActivationBuffer x(backend, rows, kIn, RandomValues(rows * kIn, 3));
    FloatBuffer y(rows, kOut);
    const DeltaSegment segments[] = {{0, rows, 0, packed.get()}};
    EXPECT_EQ(TensorFlopsOf([&] { backend.Apply(segments, x.rows(), y.view()); }),
              SignWork(kIn, kOut, rows).done);
  }
  EXPECT_EQ(backend.fault(), "");
}

TEST(RoofTest, AttentionDoesWhatIsCounted) {
  EmulatedBackend backend(ComputeMode::kAuto, {});
  for (const KvFormat format : {KvFormat::kBF16, KvFormat::kInt8, KvFormat::kInt4}) {
    for (const int64_t rows : {1, 20}) {
      const std::unique_ptr<OpRun> run = AttentionCase({.num_heads = 6,
                                                        .num_kv_heads = 2,
                                                        .head_dim = 40,
                                                        .contexts = {{270, rows}},
                                                        .format = format,
                                                        .num_layers = 1})
                                             .make(backend);
      const Work work = AttentionWork({6, 2, 40, 270, 1, rows, format})[0];
      EXPECT_EQ(TensorFlopsOf([&] { run->Run(); }), work.done) << work.shape;
    }
  }
  EXPECT_EQ(backend.fault(), "");
}

TEST(RoofTest, NoPlanDoesLessThanItIsAsked) {
  for (const Work& work : Works()) {
    EXPECT_GE(work.done, work.flops) << work.kernel << " " << work.shape;
    EXPECT_GT(work.bytes, 0) << work.kernel << " " << work.shape;
    EXPECT_GT(work.blocks, 0) << work.kernel << " " << work.shape;
  }
}

}  // namespace
}  // namespace polyad::test
