#include "tests/bench/delta_benchmarks.h"

#include <benchmark/benchmark.h>

#include <memory>
#include <utility>
#include <vector>

#include "absl/strings/str_format.h"
#include "kernels/api/delta_check.h"
#include "tests/kernels/delta_specs.h"
#include "tests/kernels/op_inputs.h"

namespace polyad::test {
namespace {

constexpr int64_t kHidden = 576;
constexpr int64_t kMiddle = 1536;
constexpr int64_t kVocab = 49152;
constexpr int64_t kRank = 16;
constexpr int64_t kBlock = 32;        // of a rotation
constexpr int64_t kHeadDim = 64;      // the group of RoAd's pairs
constexpr int64_t kTrainedRows = 64;  // of a head or an embedding
constexpr double kDensity = 0.02;

class DeltaBenchmark {
 public:
  DeltaBenchmark(Backend& backend, const DeltaSpec& spec, int64_t rows)
      : backend_(backend),
        stage_(spec.stage),
        op_(spec.make(tensors_)),
        widths_(WidthsOf(spec)),
        x_(backend, rows, widths_.in, RandomValues(rows * widths_.in, 1)),
        y_(rows, widths_.out) {
    PackShare share;
    packed_ = *backend.PackDelta(op_, share);
    segments_ = {{0, rows, 0, packed_.get()}};
    for (int64_t row = 0; row < rows; ++row) {
      ids_.push_back(static_cast<int32_t>(row * 997 % kVocab));
    }
  }

  void Run() {
    switch (stage_) {
      case DeltaStage::kApply:
        return backend_.Apply(segments_, x_.rows(), y_.view());
      case DeltaStage::kInput:
        return backend_.TransformInput(segments_, x_.rows());
      case DeltaStage::kOutput:
        return backend_.TransformOutput(segments_, y_.view());
      case DeltaStage::kEmbedding:
        return backend_.TransformEmbedding(segments_, ids_, y_.view());
    }
  }
  DeltaCost cost() const { return packed_->cost(); }

 private:
  Backend& backend_;
  const DeltaStage stage_;
  DeltaTensors tensors_{false};
  const DeltaOp op_;
  const DeltaWidths widths_;
  ActivationBuffer x_;
  FloatBuffer y_;
  std::vector<int32_t> ids_;
  std::unique_ptr<PackedDelta> packed_;
  std::vector<DeltaSegment> segments_;
};

std::span<const float> Ones(DeltaTensors& tensors, int64_t size) {
  return tensors.Keep(std::vector<float>(static_cast<size_t>(size), 1.0f));
}

void AddMatrices(std::vector<DeltaSpec>& specs) {
  specs.push_back({"low_rank", DeltaStage::kApply, [](DeltaTensors& tensors) {
                     return LowRank{tensors.Matrix(DType::kBF16, kRank, kHidden),
                                    tensors.Matrix(DType::kBF16, kMiddle, kRank)};
                   }});
  specs.push_back({"low_rank_vectors", DeltaStage::kApply, [](DeltaTensors& tensors) {
                     return LowRank{tensors.Matrix(DType::kBF16, 16 * kRank, kHidden),
                                    tensors.Matrix(DType::kBF16, kMiddle, 16 * kRank), 1.0f,
                                    tensors.Vector(16 * kRank), tensors.Vector(kMiddle)};
                   }});
  specs.push_back({"dense", DeltaStage::kApply, [](DeltaTensors& tensors) {
                     return Dense{tensors.Matrix(DType::kBF16, kHidden, kHidden)};
                   }});
  specs.push_back({"dense_rows", DeltaStage::kApply, [](DeltaTensors& tensors) {
                     std::vector<int32_t> rows;
                     for (int32_t i = 0; i < kTrainedRows; ++i) rows.push_back(i * 700);
                     return DenseRows{tensors.Indices(std::move(rows)),
                                      tensors.Matrix(DType::kBF16, kTrainedRows, kHidden), kVocab};
                   }});
  specs.push_back({"kronecker", DeltaStage::kApply, [](DeltaTensors& tensors) {
                     return Kronecker{tensors.Matrix(DType::kBF16, 8, 8),
                                      tensors.Matrix(DType::kBF16, kMiddle / 8, kHidden / 8)};
                   }});
}

void AddBits(std::vector<DeltaSpec>& specs) {
  specs.push_back({"sparse", DeltaStage::kApply, [](DeltaTensors& tensors) {
                     std::vector<int32_t> row_begin = {0};
                     std::vector<int32_t> columns;
                     for (int64_t row = 0; row < kMiddle; ++row) {
                       const auto subset = tensors.Subset(kHidden, kDensity);
                       columns.insert(columns.end(), subset.begin(), subset.end());
                       row_begin.push_back(static_cast<int32_t>(columns.size()));
                     }
                     const auto nnz = static_cast<int64_t>(columns.size());
                     return Sparse{tensors.Indices(std::move(row_begin)),
                                   tensors.Indices(std::move(columns)), tensors.Vector(nnz),
                                   kHidden};
                   }});
  specs.push_back({"sign_bits", DeltaStage::kApply, [](DeltaTensors& tensors) {
                     return SignBits{tensors.Words(kMiddle * kHidden / 32), tensors.Vector(1),
                                     kMiddle, kHidden};
                   }});
}

void AddVectors(std::vector<DeltaSpec>& specs) {
  specs.push_back({"bias", DeltaStage::kApply,
                   [](DeltaTensors& tensors) { return Bias{tensors.Vector(kMiddle)}; }});
  specs.push_back({"input_scale", DeltaStage::kInput,
                   [](DeltaTensors& tensors) { return InputScale{Ones(tensors, kMiddle)}; }});
  specs.push_back({"output_scale", DeltaStage::kOutput,
                   [](DeltaTensors& tensors) { return OutputScale{Ones(tensors, kMiddle)}; }});
  specs.push_back({"pair_rotation", DeltaStage::kOutput, [](DeltaTensors& tensors) {
                     const auto nothing = std::vector<float>(static_cast<size_t>(kHidden));
                     return PairRotation{Ones(tensors, kHidden), tensors.Keep(nothing), kHeadDim};
                   }});
  specs.push_back({"block_rotation", DeltaStage::kInput, [](DeltaTensors& tensors) {
                     std::vector<float> blocks(static_cast<size_t>(kHidden * kBlock));
                     for (int64_t i = 0; i < kHidden; ++i) {
                       blocks[static_cast<size_t>(i * kBlock + i % kBlock)] = 1.0f;
                     }
                     return BlockRotation{{}, tensors.Keep(std::move(blocks)), kBlock, kHidden};
                   }});
}

void AddHooksAndEmbeddings(std::vector<DeltaSpec>& specs) {
  specs.push_back({"bottleneck", DeltaStage::kApply, [](DeltaTensors& tensors) {
                     Bottleneck op;
                     op.norm = {tensors.Vector(kHidden), tensors.Vector(kHidden)};
                     op.down = tensors.Matrix(DType::kBF16, kHeadDim, kHidden);
                     op.down_bias = tensors.Vector(kHeadDim);
                     op.activation = ActivationKind::kGeluTanh;
                     op.up = tensors.Matrix(DType::kBF16, kHidden, kHeadDim);
                     op.up_bias = tensors.Vector(kHidden);
                     return op;
                   }});
  specs.push_back({"embedding_rows", DeltaStage::kEmbedding, [](DeltaTensors& tensors) {
                     std::vector<int32_t> ids;
                     for (int32_t i = 0; i < kTrainedRows; ++i) ids.push_back(i * 700);
                     return EmbeddingRows{tensors.Indices(std::move(ids)),
                                          tensors.Matrix(DType::kBF16, kTrainedRows, kHidden)};
                   }});
  specs.push_back({"embedding_low_rank", DeltaStage::kEmbedding, [](DeltaTensors& tensors) {
                     EmbeddingLowRank op;
                     op.a = tensors.Matrix(DType::kBF16, kRank, kVocab);
                     op.b = tensors.Matrix(DType::kBF16, kHidden, kRank);
                     return op;
                   }});
}

void RunDelta(benchmark::State& state, const DeltaSpec& spec, Backend& backend) {
  const int64_t rows = state.range(0);
  DeltaBenchmark delta(backend, spec, rows);
  for (auto _ : state) delta.Run();
  const auto flags = benchmark::Counter::kIsIterationInvariantRate;
  const auto flops = static_cast<double>(rows * delta.cost().flops_per_token);
  state.counters["GFLOP/s"] = benchmark::Counter(flops * 1e-9, flags);
  if (spec.stage == DeltaStage::kEmbedding) return;  // reads a few rows of a table
  const auto bytes = static_cast<double>(delta.cost().bytes.total());
  state.counters["GB/s"] = benchmark::Counter(bytes * 1e-9, flags);
}

}  // namespace

void RegisterDeltaBenchmarks(Backend& backend) {
  std::vector<DeltaSpec> specs;
  AddMatrices(specs);
  AddBits(specs);
  AddVectors(specs);
  AddHooksAndEmbeddings(specs);
  for (const DeltaSpec& spec : specs) {
    benchmark::RegisterBenchmark(
        absl::StrFormat("delta_%s", spec.name).c_str(),
        [spec, &backend](benchmark::State& state) { RunDelta(state, spec, backend); })
        ->ArgName("rows")
        ->Arg(1)
        ->Arg(32)
        ->Arg(128)
        ->UseRealTime()
        ->Unit(benchmark::kMicrosecond);
  }
}

}  // namespace polyad::test
