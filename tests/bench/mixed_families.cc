#include "tests/bench/mixed_families.h"

#include <cstdlib>
#include <random>
#include <span>
#include <utility>

namespace polyad {
namespace {

constexpr int64_t kBottleneckWidth = 70;  // two to a layer: a LoRA's bytes at rank 16
constexpr uint32_t kSparseStep = 129;     // one input of 65 on average: likewise, at 6 bytes each
constexpr int64_t kKroneckerFactor = 6;   // C is 6 x 6 where that divides the site, else 4 x 4

struct Site {
  SiteGroup group;
  int64_t y_column;
  int64_t in;
  int64_t out;
};

std::vector<Site> SitesOf(const ModelSpec& spec) {
  const int64_t hidden = spec.hidden_size;
  const int64_t query = spec.QueryWidth();
  const int64_t kv = spec.KvWidth();
  const int64_t middle = spec.intermediate_size;
  return {{SiteGroup::kQkv, 0, hidden, query},       {SiteGroup::kQkv, query, hidden, kv},
          {SiteGroup::kQkv, query + kv, hidden, kv}, {SiteGroup::kAttentionOut, 0, query, hidden},
          {SiteGroup::kMlpIn, 0, hidden, middle},    {SiteGroup::kMlpIn, middle, hidden, middle},
          {SiteGroup::kMlpOut, 0, middle, hidden}};
}

// Fills one version; tensors live until their op is packed.
class Builder {
 public:
  Builder(Backend& backend, const ModelSpec& spec, const char* name, uint32_t seed)
      : backend_(backend),
        spec_(spec),
        random_(seed),
        version_(std::make_shared<AdapterVersion>(
            AdapterVersion::Identity{AdapterVersionId(seed), name, 1, {}}, spec.num_layers)) {}

  std::shared_ptr<const AdapterVersion> Build(BenchFamily family, int64_t rank) {
    for (int64_t layer = 0; layer < spec_.num_layers; ++layer) {
      for (const Site& site : SitesOf(spec_)) AddSite(family, rank, layer, site);
      if (family != BenchFamily::kBottleneck) continue;
      AddHook(layer, SiteGroup::kAttentionOut);
      AddHook(layer, SiteGroup::kMlpOut);
    }
    return version_;
  }

 private:
  void AddSite(BenchFamily family, int64_t rank, int64_t layer, const Site& site) {
    GroupOps& ops = version_->MutableAt(layer, site.group);
    const bool kv = site.group == SiteGroup::kQkv && site.y_column > 0;
    switch (family) {
      case BenchFamily::kDora:
        ops.outputs.push_back({site.y_column, Pack(OutputScale{Vector(site.out, 1.0f)})});
        [[fallthrough]];
      case BenchFamily::kLora:
        ops.deltas.push_back(
            {site.y_column, Pack(LowRank{Matrix(rank, site.in), Matrix(site.out, rank)})});
        return;
      case BenchFamily::kIa3:
        if (kv) ops.outputs.push_back({site.y_column, Pack(OutputScale{Vector(site.out, 1.0f)})});
        if (site.group == SiteGroup::kMlpOut) {
          ops.inputs.push_back({0, site.out, true, {Pack(InputScale{Vector(site.in, 1.0f)})}});
        }
        return;
      case BenchFamily::kSparse:
        ops.deltas.push_back({site.y_column, PackSparse(site)});
        return;
      case BenchFamily::kKronecker:
        ops.deltas.push_back({site.y_column, PackKronecker(site)});
        return;
      case BenchFamily::kBottleneck:
      case BenchFamily::kSoftPrompt:
        return;
    }
  }

  void AddHook(int64_t layer, SiteGroup group) {
    Bottleneck op;
    op.down = Matrix(kBottleneckWidth, spec_.hidden_size);
    op.up = Matrix(spec_.hidden_size, kBottleneckWidth);
    op.down_bias = Vector(kBottleneckWidth, 0.0f);
    op.up_bias = Vector(spec_.hidden_size, 0.0f);
    op.activation = ActivationKind::kSilu;
    PackedHook hook;
    hook.op = Pack(op);
    hook.input = Tap::kOutput;
    hook.skip = Tap::kOutput;
    version_->MutableAt(layer, group).hooks.push_back(std::move(hook));
  }

  std::shared_ptr<const PackedDelta> PackSparse(const Site& site) {
    std::vector<int32_t> row_begin = {0};
    std::vector<int32_t> columns;
    for (int64_t row = 0; row < site.out; ++row) {
      for (int64_t col = random_() % kSparseStep; col < site.in;
           col += 1 + random_() % kSparseStep) {
        columns.push_back(static_cast<int32_t>(col));
      }
      row_begin.push_back(static_cast<int32_t>(columns.size()));
    }
    const auto nnz = static_cast<int64_t>(columns.size());
    return Pack(Sparse{row_begin, columns, Vector(nnz, 0.0f), site.in});
  }

  std::shared_ptr<const PackedDelta> PackKronecker(const Site& site) {
    const bool wide =
        site.in != site.out && site.out % kKroneckerFactor == 0 && site.in % kKroneckerFactor == 0;
    const int64_t factor = wide ? kKroneckerFactor : 4;
    return Pack(Kronecker{Matrix(factor, factor), Matrix(site.out / factor, site.in / factor)});
  }

  std::shared_ptr<const PackedDelta> Pack(const DeltaOp& op) {
    PackShare share;
    auto packed = backend_.PackDelta(op, share);
    if (!packed.ok()) std::abort();
    version_->AddCost((*packed)->cost());
    tensors_.clear();
    return *std::move(packed);
  }

  std::span<const float> Vector(int64_t size, float mean) {
    std::vector<float> values(static_cast<size_t>(size));
    for (float& value : values) {
      value = mean + 0.01f * (static_cast<float>(random_() % 2048) / 1024.0f - 1.0f);
    }
    tensors_.push_back(std::move(values));
    return tensors_.back();
  }
  TensorView Matrix(int64_t rows, int64_t cols) {
    return {Vector(rows * cols, 0.0f).data(), DType::kF32, rows, cols};
  }

  Backend& backend_;
  const ModelSpec& spec_;
  std::mt19937 random_;
  std::shared_ptr<AdapterVersion> version_;
  std::vector<std::vector<float>> tensors_;  // of the op being packed
};

}  // namespace

const char* NameOf(BenchFamily family) {
  switch (family) {
    case BenchFamily::kLora:
      return "lora";
    case BenchFamily::kDora:
      return "dora";
    case BenchFamily::kIa3:
      return "ia3";
    case BenchFamily::kBottleneck:
      return "bottleneck";
    case BenchFamily::kSparse:
      return "sparse";
    case BenchFamily::kKronecker:
      return "kronecker";
    case BenchFamily::kSoftPrompt:
      return "soft prompt";
  }
  return "?";
}

std::shared_ptr<const AdapterVersion> MakeBenchAdapter(Backend& backend, const ModelSpec& spec,
                                                       BenchFamily family, int64_t rank,
                                                       uint32_t seed) {
  if (family == BenchFamily::kSoftPrompt) return nullptr;
  return Builder(backend, spec, NameOf(family), seed).Build(family, rank);
}

}  // namespace polyad
