#include "engine/model/adapted_linear.h"

#include <algorithm>
#include <utility>

#include "engine/base/check.h"
#include "engine/model/mixture.h"
#include "engine/model/segment_gate.h"
#include "engine/model/workspace.h"

namespace polyad {
namespace {

constexpr int64_t kFusedRows = 32;  // whose keys and values are held at a time

// A segment's rows that a hook is for.
std::pair<int64_t, int64_t> RangeOf(const HookRows& rows, int64_t text_begin, int64_t count) {
  const int64_t last_begin = std::max<int64_t>(0, count - rows.num_last);
  switch (rows.kind) {
    case HookRows::Kind::kAll:
      return {0, count};
    case HookRows::Kind::kFirst: {
      const int64_t begin = std::clamp<int64_t>(-text_begin, 0, last_begin);
      return {begin, std::clamp(rows.num_first - text_begin, begin, last_begin)};
    }
    case HookRows::Kind::kLast:
      return {last_begin, count};
  }
  return {0, count};
}

// The first `cols` columns of `rows` rows.
FloatRows Front(FloatRows buffer, int64_t rows, int64_t cols) {
  return buffer.Slice(0, rows).Columns(0, cols);
}

ActivationRows Front(ActivationRows buffer, int64_t rows, int64_t cols) {
  ActivationRows front = buffer.Slice(0, rows);
  front.cols = cols;
  return front;
}

}  // namespace

Status AdaptedLinear::AllocateWorkspace(const Widths& widths) {
  RowCarver carve(backend_, memory_);
  POLYAD_ASSIGN_OR_RETURN(raw_, carve.Activations(widths.rows, widths.input));
  POLYAD_ASSIGN_OR_RETURN(residual_, carve.Floats(widths.rows, widths.hidden));
  POLYAD_ASSIGN_OR_RETURN(wide_, carve.Floats(widths.rows, widths.output));
  POLYAD_ASSIGN_OR_RETURN(sum_, carve.Floats(widths.rows, widths.hidden));
  POLYAD_ASSIGN_OR_RETURN(tapped_, carve.Floats(widths.rows, widths.hidden));
  POLYAD_ASSIGN_OR_RETURN(total_, carve.Floats(widths.rows, widths.hidden));
  POLYAD_ASSIGN_OR_RETURN(query_, carve.Floats(widths.rows, widths.hidden));
  POLYAD_ASSIGN_OR_RETURN(fused_, carve.Floats(kFusedRows, 2 * kMaxFused * widths.hidden));
  POLYAD_ASSIGN_OR_RETURN(scores_, carve.Floats(widths.rows, kMaxExperts));
  POLYAD_ASSIGN_OR_RETURN(tap_,
                          carve.Activations(widths.rows, std::max(widths.hidden, widths.output)));
  return absl::OkStatus();
}

void AdaptedLinear::Apply(const Product& product, const Target& target,
                          std::span<const StepSegment> segments, ActivationRows x, FloatRows y) {
  FetchOps(target, segments);
  FindDecorated(target, segments);
  GemmArgs gemm = ArgsOf(product, target.accumulate);
  if (decorated_.empty()) {  // nothing comes between the product and the deltas
    CollectDeltas(target, segments, x);
    gemm.deltas = segments_;
    return backend_.Gemm(gemm, x, y);
  }
  for (const Decorated& rows : decorated_) BeforeProduct(rows, target, x, y);
  backend_.Gemm(gemm, x, y);
  for (const Decorated& rows : decorated_) AfterProduct(rows, product, target, x, y);
  CollectDeltas(target, segments, x);
  backend_.Apply(segments_, x, y);
  for (const Decorated& rows : decorated_) Finish(rows, target, y);
}

// After a step's worth of weights an adapter's tables are cold. Fetched in rounds of independent
// reads, those of 32 adapters cost little more than one's; the ops themselves arrive during the
// product.
void AdaptedLinear::FetchOps(const Target& target, std::span<const StepSegment> segments) {
  constexpr int64_t kLine = 64;
  const auto fetch = [](const void* at, int64_t bytes) {
    for (int64_t i = 0; i < bytes; i += kLine) {
      __builtin_prefetch(static_cast<const char*>(at) + i);
    }
  };
  for (const StepSegment& segment : segments) {
    if (segment.adapter == nullptr) continue;
    fetch(&segment.adapter->At(target.layer, target.group), sizeof(GroupOps));
  }
  for (const StepSegment& segment : segments) {
    if (segment.adapter == nullptr) continue;
    const std::vector<SiteDelta>& deltas = segment.adapter->At(target.layer, target.group).deltas;
    fetch(deltas.data(), static_cast<int64_t>(deltas.size() * sizeof(SiteDelta)));
  }
  for (const StepSegment& segment : segments) {
    if (segment.adapter == nullptr) continue;
    for (const SiteDelta& delta : segment.adapter->At(target.layer, target.group).deltas) {
      __builtin_prefetch(delta.op.get());
    }
  }
}

GemmArgs AdaptedLinear::ArgsOf(const Product& product, bool accumulate) const {
  GemmArgs gemm;
  gemm.weight = product.matrix;
  gemm.bias = product.bias == nullptr || product.bias->empty() ? nullptr : product.bias->data();
  gemm.accumulate = accumulate;
  return gemm;
}

void AdaptedLinear::FindDecorated(const Target& target, std::span<const StepSegment> segments) {
  decorated_.clear();
  for (const StepSegment& segment : segments) {
    if (segment.adapter == nullptr) continue;
    const GroupOps& ops = segment.adapter->At(target.layer, target.group);
    if (ops.inputs.empty() && !ops.wants_own_output()) continue;
    decorated_.push_back({&ops, segment.row_begin, segment.row_end, segment.text_begin});
  }
}

void AdaptedLinear::TransformInput(const InputOps& inputs, ActivationRows rows) {
  segments_.clear();
  for (const auto& op : inputs.ops) segments_.push_back({0, rows.rows, 0, op.get()});
  backend_.TransformInput(segments_, rows);
}

// x1 in x's place where all columns read the same x1; the residual set aside where y's own value is
// wanted.
void AdaptedLinear::BeforeProduct(const Decorated& rows, const Target& target, ActivationRows x,
                                  FloatRows y) {
  const GroupOps& ops = *rows.ops;
  if (!ops.inputs.empty() && ops.inputs[0].whole_group) {
    const ActivationRows own = x.Slice(rows.row_begin, rows.row_end);
    ActivationRows kept = raw_.Slice(rows.row_begin, rows.row_end);
    kept.cols = x.cols;
    backend_.Copy(own, kept);
    TransformInput(ops.inputs[0], own);
  }
  if (target.accumulate && ops.wants_own_output()) {
    const FloatRows stream = y.Slice(rows.row_begin, rows.row_end);
    backend_.Copy(stream, residual_.Slice(rows.row_begin, rows.row_end));
    backend_.Zero(stream);
  }
}

// The raw x again; products of columns whose input differs; then the output ops.
void AdaptedLinear::AfterProduct(const Decorated& rows, const Product& product,
                                 const Target& target, ActivationRows x, FloatRows y) {
  const GroupOps& ops = *rows.ops;
  const int64_t count = rows.row_end - rows.row_begin;
  const ActivationRows own = x.Slice(rows.row_begin, rows.row_end);
  for (const InputOps& inputs : ops.inputs) {
    if (inputs.whole_group) {
      ActivationRows kept = raw_.Slice(rows.row_begin, rows.row_end);
      kept.cols = x.cols;
      backend_.Copy(kept, own);
      continue;
    }
    POLYAD_CHECK(!target.accumulate, "groups that end a sub-layer have one site");
    const ActivationRows transformed = Front(raw_, count, x.cols);
    backend_.Copy(own, transformed);
    TransformInput(inputs, transformed);
    const FloatRows wide = Front(wide_, count, y.cols);
    backend_.Gemm(ArgsOf(product, /*accumulate=*/false), transformed, wide);
    const int64_t width = inputs.column_end - inputs.column_begin;
    backend_.Copy(wide.Columns(inputs.column_begin, width),
                  y.Slice(rows.row_begin, rows.row_end).Columns(inputs.column_begin, width));
  }
  segments_.clear();
  for (const SiteDelta& output : ops.outputs) {
    segments_.push_back({rows.row_begin, rows.row_end, output.y_column, output.op.get()});
    if (output.gate == nullptr) continue;
    backend_.TransformOutput(segments_, y);
    segments_.clear();
    backend_.Finish();
    const FloatRows gated =
        y.Slice(rows.row_begin, rows.row_end).Columns(output.gate_column, output.gate_columns);
    ScaleBy(MeanGate(output.gate->weight, output.gate->bias, own), gated);
    backend_.HostWrote(gated);
  }
  if (!segments_.empty()) backend_.TransformOutput(segments_, y);
}

// `x` is the group's raw input, which gates read.
void AdaptedLinear::CollectDeltas(const Target& target, std::span<const StepSegment> segments,
                                  ActivationRows x) {
  segments_.clear();
  num_mixtures_ = 0;
  for (const StepSegment& segment : segments) {
    if (segment.adapter == nullptr) continue;
    const GroupOps& ops = segment.adapter->At(target.layer, target.group);
    for (const SiteDelta& delta : ops.deltas) {
      float scale = delta.scale;
      if (delta.gate != nullptr) {
        backend_.Finish();
        scale *= MeanGate(delta.gate->weight, delta.gate->bias,
                          x.Slice(segment.row_begin, segment.row_end));
      }
      const float* row_scale = delta.coefficient < 0
                                   ? nullptr
                                   : coefficients_.Row(delta.coefficient) + segment.row_begin;
      segments_.push_back(
          {segment.row_begin, segment.row_end, delta.y_column, delta.op.get(), scale, row_scale});
    }
    if (!ops.mixtures.empty()) AddMixtures(ops, segment, x);
  }
}

// Experts are deltas whose rows have coefficients.
void AdaptedLinear::AddMixtures(const GroupOps& ops, const StepSegment& segment, ActivationRows x) {
  const int64_t rows = segment.row_end - segment.row_begin;
  for (const PackedMixture& mixture : ops.mixtures) {
    const FloatRows scores = Front(scores_, rows, mixture.rule.num_experts);
    backend_.Zero(scores);
    const DeltaSegment all{0, rows, 0, mixture.scores.get()};
    backend_.Apply(std::span(&all, 1), x.Slice(segment.row_begin, segment.row_end), scores);
    if (num_mixtures_ == mixtures_.size()) mixtures_.emplace_back();
    std::vector<float>& coefficients = mixtures_[num_mixtures_++];
    coefficients.resize(static_cast<size_t>(rows * scores.cols));
    backend_.Finish();
    MixtureCoefficients(mixture.rule, scores, coefficients);
    for (const PackedMixture::Expert& expert : mixture.experts) {
      segments_.push_back({segment.row_begin, segment.row_end, expert.term.y_column,
                           expert.term.op.get(), expert.term.scale,
                           coefficients.data() + expert.index * rows});
    }
  }
}

// Ops that read the finished output, then the sub-layer's hooks, then back onto the stream.
void AdaptedLinear::Finish(const Decorated& rows, const Target& target, FloatRows y) {
  const GroupOps& ops = *rows.ops;
  const int64_t count = rows.row_end - rows.row_begin;
  const FloatRows own = y.Slice(rows.row_begin, rows.row_end);
  for (const SiteDelta& after : ops.after) {
    const ActivationRows input = Front(tap_, count, after.in);
    backend_.Convert(own.Columns(after.y_column, after.in), input);
    const DeltaSegment segment{0, count, after.y_column, after.op.get(), after.scale};
    backend_.Apply(std::span(&segment, 1), input, own);
  }
  if (!target.accumulate || !ops.wants_own_output()) return;
  const FloatRows residual = residual_.Slice(rows.row_begin, rows.row_end);
  ActivationRows normed = target.normed;
  if (normed.data != nullptr) normed = normed.Slice(rows.row_begin, rows.row_end);
  if (!ops.routers.empty()) backend_.Finish();
  for (const auto& router : ops.routers) RouteRows(*router, normed, own);
  if (!ops.routers.empty()) backend_.HostWrote(own);
  for (size_t begin = 0; begin < ops.hooks.size();) {
    size_t end = begin + 1;
    while (end < ops.hooks.size() && ops.hooks[end].joins) ++end;
    const auto [first, last] = RangeOf(ops.hooks[begin].rows, rows.text_begin, count);
    if (first < last) {
      const ActivationRows n = normed.data == nullptr ? normed : normed.Slice(first, last);
      RunHooks(std::span(ops.hooks).subspan(begin, end - begin),
               {residual.Slice(first, last), n, own.Slice(first, last)});
    }
    begin = end;
  }
  if (ops.hooks.empty() || ops.hooks.back().adds_residual) backend_.Accumulate(residual, own);
}

// Hooks that read the same output, which their sum replaces.
void AdaptedLinear::RunHooks(std::span<const PackedHook> hooks, const HookInputs& inputs) {
  const FloatRows sum = Front(sum_, inputs.output.rows, inputs.output.cols);
  if (hooks.size() == 1) {
    RunHook(hooks[0], inputs, sum);
    backend_.Copy(sum, inputs.output);
    return;
  }
  const FloatRows total = Front(total_, sum.rows, sum.cols);
  backend_.Zero(total);
  for (const PackedHook& hook : hooks) {
    RunHook(hook, inputs, sum);
    backend_.Accumulate(sum, total);
  }
  backend_.Copy(total, inputs.output);
}

void AdaptedLinear::AddTap(Tap tap, const HookInputs& inputs, FloatRows to) {
  if (tap == Tap::kOutput || tap == Tap::kSum) backend_.Accumulate(inputs.output, to);
  if (tap == Tap::kResidual || tap == Tap::kSum) backend_.Accumulate(inputs.residual, to);
}

// What a tap reads, in fp32 in tapped_ and as activations.
ActivationRows AdaptedLinear::ReadTap(Tap tap, const HookInputs& inputs) {
  if (tap == Tap::kNormed) return inputs.normed;
  const FloatRows tapped = Front(tapped_, inputs.output.rows, inputs.output.cols);
  const ActivationRows read = Front(tap_, tapped.rows, tapped.cols);
  backend_.Zero(tapped);
  AddTap(tap, inputs, tapped);
  backend_.Convert(tapped, read);
  return read;
}

// sum = weight (norm(gate f) + skip) + outside, or weight norm(gate f + skip) + outside.
void AdaptedLinear::RunHook(const PackedHook& hook, const HookInputs& inputs, FloatRows sum) {
  if (hook.fusion != nullptr) ReadQuery(*hook.fusion, inputs);
  const ActivationRows input = ReadTap(hook.input, inputs);
  backend_.Zero(sum);
  if (hook.fusion != nullptr) {
    Fuse(hook, input, sum);
  } else {
    float gate = 1.0f;
    if (!hook.gate.weight.empty()) {
      backend_.Finish();
      gate = MeanGate(hook.gate.weight, hook.gate.bias, input);
    }
    segments_.clear();
    segments_.push_back({0, sum.rows, 0, hook.op.get(), hook.scale * gate});
    for (const auto& op : hook.more) {
      segments_.push_back({0, sum.rows, 0, op.get(), hook.scale * gate});
    }
    backend_.Apply(segments_, input, sum);
  }
  if (hook.norm_takes_skip) AddTap(hook.skip, inputs, sum);
  if (!hook.norm_weight.empty()) {
    const NormArgs norm{NormKind::kLayer, hook.norm_eps, hook.norm_weight.data(),
                        hook.norm_bias.empty() ? nullptr : hook.norm_bias.data()};
    backend_.Norm(norm, sum, {sum.data, DType::kF32, sum.rows, sum.cols, sum.stride});
  }
  if (!hook.norm_takes_skip) AddTap(hook.skip, inputs, sum);
  if (hook.weight != 1.0f) {
    backend_.Finish();
    ScaleBy(hook.weight, sum);
    backend_.HostWrote(sum);
  }
  AddTap(hook.outside, inputs, sum);
}

// query_ = map tap + bias
void AdaptedLinear::ReadQuery(const PackedFusion& fusion, const HookInputs& inputs) {
  const ActivationRows input = ReadTap(fusion.query, inputs);
  const FloatRows query = Front(query_, input.rows, input.cols);
  if (fusion.query_map == nullptr) {
    backend_.Copy(Front(tapped_, input.rows, input.cols), query);
  } else {
    backend_.Zero(query);
  }
  segments_.clear();
  for (const PackedDelta* op : {fusion.query_map.get(), fusion.query_bias.get()}) {
    if (op != nullptr) segments_.push_back({0, query.rows, 0, op});
  }
  if (!segments_.empty()) backend_.Apply(segments_, input, query);
}

// sum += scale sum over k of softmax_k(query . key_k) value_k: a row's second attention over its
// own keys and values, which stand side by side in fused_.
void AdaptedLinear::Fuse(const PackedHook& hook, ActivationRows input, FloatRows sum) {
  const auto num_fused = static_cast<int64_t>(hook.fusion->keys.size());
  const int64_t width = sum.cols;
  for (int64_t begin = 0; begin < sum.rows; begin += kFusedRows) {
    const int64_t end = std::min(begin + kFusedRows, sum.rows);
    const FloatRows wide = Front(fused_, end - begin, 2 * num_fused * width);
    backend_.Zero(wide);
    segments_.clear();
    for (int64_t k = 0; k < num_fused; ++k) {
      const auto at = static_cast<size_t>(k);
      const PackedDelta* value = k == 0 ? hook.op.get() : hook.more[at - 1].get();
      segments_.push_back({0, wide.rows, 2 * k * width, hook.fusion->keys[at].get()});
      segments_.push_back({0, wide.rows, (2 * k + 1) * width, value});
    }
    backend_.Apply(segments_, input.Slice(begin, end), wide);
    for (int64_t row = begin; row < end; ++row) {
      GatedPrefixArgs args;
      args.q = Front(query_, sum.rows, width).Slice(row, row + 1);
      args.kv = {wide.Row(row - begin), num_fused, 2 * width, 2 * width};
      args.out = {sum.Row(row), DType::kF32, 1, width, sum.stride};
      args.num_heads = args.num_kv_heads = 1;
      args.head_dim = width;
      args.gate = &hook.scale;
      backend_.AddGatedPrefix(args);
    }
  }
}

// x1 += first(x2), then x2 += second(x1), on the rows of adapters that have it.
void AdaptedLinear::Couple(std::span<const StepSegment> segments, FloatRows rows) {
  for (const StepSegment& segment : segments) {
    if (segment.adapter == nullptr) continue;
    const FloatRows own = rows.Slice(segment.row_begin, segment.row_end);
    const int64_t half = own.cols / 2;
    const FloatRows x1 = own.Columns(0, half);
    const FloatRows x2 = own.Columns(half, own.cols - half);
    const auto add = [this](const PackedDelta& op, FloatRows from, FloatRows to) {
      const ActivationRows input = Front(tap_, from.rows, from.cols);
      backend_.Convert(from, input);
      const DeltaSegment whole{0, from.rows, 0, &op};
      backend_.Apply(std::span(&whole, 1), input, to);
    };
    for (const PackedCoupling& coupling : segment.adapter->couplings()) {
      add(*coupling.first, x2, x1);
      add(*coupling.second, x1, x2);
    }
  }
}

}  // namespace polyad
