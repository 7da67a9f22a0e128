// Every adapter that is a change of weights, against the dense oracle: what its ops do to a site,
// written out in double precision as one matrix and one bias, and served as a plain dense change,
// gives the original library's logits and greedy tokens too. A transposed factor, a sign or a scale
// that two mistakes hide from each other in the factored form shows here.
#include <algorithm>
#include <filesystem>
#include <map>

#include "engine/adapters/adapter_source.h"
#include "engine/adapters/family_table.h"
#include "engine/adapters/file_base_weights.h"
#include "engine/adapters/program_packing.h"
#include "engine/base/check.h"
#include "gtest/gtest.h"
#include "kernels/backend_factory.h"
#include "tests/engine/model/golden_files.h"
#include "tests/engine/model/step_harness.h"

namespace polyad {
namespace {

// Ops at linear sites, norms and the embedding only: nothing that reads more than a site's own row.
bool IsWeightSpace(const AdapterProgram& program) {
  if (!program.hooks.empty() || !program.stream_ops.empty() || program.soft_prompt ||
      !program.gated_prefixes.empty() || !program.invocation_tokens.empty() ||
      !program.couplings.empty() || !program.mixtures.empty() || !program.routers.empty() ||
      program.scaling_pass || program.reads_whole_prompt || program.reads_positions) {
    return false;
  }
  return std::none_of(program.ops.begin(), program.ops.end(), [](const SiteOp& site_op) {
    return std::holds_alternative<Bottleneck>(site_op.op);
  });
}

// y = matrix x + bias, for a site of [out, in].
struct Affine {
  std::vector<float> matrix;
  std::vector<float> bias;
};

// What a site's ops make of its base weights, by asking for it: the images of the unit vectors and
// of zero.
class SiteProbe {
 public:
  SiteProbe(Backend& backend, SiteShape shape, const Affine& base)
      : backend_(backend),
        shape_(shape),
        num_rows_(shape.in + 1),
        x_(static_cast<size_t>(num_rows_ * shape.in)),
        y_(static_cast<size_t>(num_rows_ * shape.out)) {
    for (int64_t i = 0; i < shape.in; ++i) x_[static_cast<size_t>(i * shape.in + i)] = 1.0f;
    raw_x_ = x_;
    const TensorView view{base.matrix.data(), DType::kF32, shape.out, shape.in};
    weight_ = *backend_.PackMatrix(std::span(&view, 1));
    gemm_.weight = weight_.get();
    gemm_.bias = base.bias.empty() ? nullptr : base.bias.data();
  }

  Affine Run(const std::vector<const SiteOp*>& ops) {
    ForStage(ops, OpStage::kInput,
             [this](const auto& segment) { backend_.TransformInput(segment, Inputs(x_)); });
    backend_.Gemm(gemm_, Inputs(x_), Outputs());
    ForStage(ops, OpStage::kOutput,
             [this](const auto& segment) { backend_.TransformOutput(segment, Outputs()); });
    ForStage(ops, OpStage::kDelta,
             [this](const auto& segment) { backend_.Apply(segment, Inputs(raw_x_), Outputs()); });
    ForStage(ops, OpStage::kAfter, [this](const auto& segment) {
      std::vector<float> finished = y_;
      const ActivationRows input{finished.data(), DType::kF32, num_rows_, shape_.out, shape_.out};
      backend_.Apply(segment, input, Outputs());
    });
    return Images();
  }

 private:
  template <typename RunOp>
  void ForStage(const std::vector<const SiteOp*>& ops, OpStage stage, RunOp run) {
    for (const SiteOp* site_op : ops) {
      if (site_op->stage != stage) continue;
      PackShare share;
      const auto packed = *backend_.PackDelta(site_op->op, share);
      const DeltaSegment segment{0, num_rows_, 0, packed.get()};
      run(std::span(&segment, 1));
    }
  }

  Affine Images() const {
    Affine result;
    const float* zero = y_.data() + shape_.in * shape_.out;
    result.bias.assign(zero, zero + shape_.out);
    for (int64_t o = 0; o < shape_.out; ++o) {
      for (int64_t i = 0; i < shape_.in; ++i) {
        result.matrix.push_back(y_[static_cast<size_t>(i * shape_.out + o)] - zero[o]);
      }
    }
    return result;
  }

  ActivationRows Inputs(std::vector<float>& rows) {
    return {rows.data(), DType::kF32, num_rows_, shape_.in, shape_.in};
  }
  FloatRows Outputs() { return {y_.data(), num_rows_, shape_.out, shape_.out}; }

  Backend& backend_;
  SiteShape shape_;
  int64_t num_rows_;
  std::vector<float> x_;  // the unit vectors, then zero; after the input ops what they made of them
  std::vector<float> raw_x_;  // as they were: what deltas read
  std::vector<float> y_;
  std::unique_ptr<PackedMatrix> weight_;
  GemmArgs gemm_;
};

// The same adapter with one dense change and one bias for each site it touches.
AdapterProgram Merged(const AdapterProgram& program, const ModelSpec& spec,
                      const BaseWeights& base) {
  BackendOptions exact;
  exact.mode = ComputeMode::kF32;
  const std::unique_ptr<Backend> oracle = *MakeBackend("reference", exact);
  std::map<SiteRef, std::vector<const SiteOp*>> sites;
  for (const SiteOp& site_op : program.ops) sites[site_op.site].push_back(&site_op);
  AdapterProgram merged;
  for (const auto& [site, ops] : sites) {
    const SiteShape shape = ShapeOf(spec, site.site);
    Affine before{*base.Matrix(site), *base.Bias(site)};
    Affine after = SiteProbe(*oracle, shape, before).Run(ops);
    for (size_t i = 0; i < after.matrix.size(); ++i) after.matrix[i] -= before.matrix[i];
    for (size_t i = 0; i < before.bias.size(); ++i) after.bias[i] -= before.bias[i];
    const TensorView delta = merged.arena.KeepMatrix(std::move(after.matrix), shape.out, shape.in);
    merged.ops.push_back({site, Dense{delta}});
    merged.ops.push_back({site, Bias{merged.arena.Keep(std::move(after.bias))}});
  }
  merged.embedding_ops = program.embedding_ops;
  merged.norms = program.norms;
  merged.rope = program.rope;
  return merged;
}

class MergedOracle : public testing::TestWithParam<std::string> {};

TEST_P(MergedOracle, ADenseChangeGivesTheOriginalsLogits) {
  namespace fs = std::filesystem;
  BackendOptions exact;
  exact.mode = ComputeMode::kF32;
  exact.num_threads = 2;
  const std::string directory = GoldenPath("models/" + GetParam());
  const std::string gguf = directory + "/model.gguf";
  TestModel test = LoadTestModel(fs::exists(gguf) ? gguf : directory, "cpu", exact);
  const FileBaseWeights base(test.files);
  const ModelSpec& spec = test.model->spec();
  StepHarness harness(*test.model, 1);
  int64_t num_merged = 0;
  for (const auto& entry : fs::directory_iterator(GoldenPath("adapters/" + GetParam()))) {
    const std::string path = entry.path().string();
    SCOPED_TRACE(path);
    const StatusOr<Directory> opened = Directory::OpenBeneath(entry.path().parent_path().string(),
                                                              entry.path().filename().string());
    ASSERT_TRUE(opened.ok()) << opened.status();
    StatusOr<AdapterSource> source = AdapterSource::Open(*opened, int64_t{1} << 30);
    ASSERT_TRUE(source.ok()) << source.status();
    const StatusOr<AdapterProgram> program =
        LowerAdapter(*source, {spec, &base, GoldenOptions(path), {}});
    ASSERT_TRUE(program.ok()) << program.status();
    if (!IsWeightSpace(*program)) continue;  // the goldens of its hooks and prefixes are all it has
    ++num_merged;
    const AdapterProgram merged = Merged(*program, spec, base);
    auto version = std::make_shared<AdapterVersion>(
        AdapterVersion::Identity{
            AdapterVersionId(static_cast<uint32_t>(num_merged)), "merged", 1, {}},
        spec.num_layers);
    const auto packed = PackProgram(merged, spec, *test.backend, *version);
    ASSERT_TRUE(packed.ok()) << packed.status();
    for (const GoldenPrompt& prompt : ReadGoldenPrompts(path)) {
      EXPECT_LE(LogitError(harness.LogitsAlone(prompt.tokens, version), prompt.logits),
                kGoldenTolerance);
      EXPECT_EQ(harness.Greedy(prompt.tokens, version, static_cast<int64_t>(prompt.greedy.size())),
                prompt.greedy);
    }
  }
  EXPECT_GT(num_merged, 0);
  RecordProperty("merged", std::to_string(num_merged));
}

std::vector<std::string> ModelsWithAdapters() {
  std::vector<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(GoldenPath("adapters"))) {
    names.push_back(entry.path().filename().string());
  }
  std::sort(names.begin(), names.end());
  return names;
}

INSTANTIATE_TEST_SUITE_P(Models, MergedOracle, testing::ValuesIn(ModelsWithAdapters()),
                         [](const auto& model) { return model.param; });

}  // namespace
}  // namespace polyad
