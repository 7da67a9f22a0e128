#include "engine/model/adapted_linear.h"

#include <algorithm>

#include "engine/base/check.h"
#include "engine/model/workspace.h"

namespace polyad {
namespace {

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
    CollectDeltas(target, segments);
    gemm.deltas = segments_;
    return backend_.Gemm(gemm, x, y);
  }
  for (const Decorated& rows : decorated_) BeforeProduct(rows, target, x, y);
  backend_.Gemm(gemm, x, y);
  for (const Decorated& rows : decorated_) AfterProduct(rows, product, target, x, y);
  CollectDeltas(target, segments);
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
    decorated_.push_back({&ops, segment.row_begin, segment.row_end});
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
  }
  if (!segments_.empty()) backend_.TransformOutput(segments_, y);
}

void AdaptedLinear::CollectDeltas(const Target& target, std::span<const StepSegment> segments) {
  segments_.clear();
  for (const StepSegment& segment : segments) {
    if (segment.adapter == nullptr) continue;
    for (const SiteDelta& delta : segment.adapter->At(target.layer, target.group).deltas) {
      segments_.push_back(
          {segment.row_begin, segment.row_end, delta.y_column, delta.op.get(), delta.scale});
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
  for (const PackedHook& hook : ops.hooks) RunHook(hook, residual, normed, own);
  if (ops.hooks.empty() || ops.hooks.back().adds_residual) backend_.Accumulate(residual, own);
}

// output = norm(op(tap)) + skip, or norm(op(tap) + skip).
void AdaptedLinear::RunHook(const PackedHook& hook, FloatRows residual, ActivationRows normed,
                            FloatRows output) {
  const FloatRows tapped = Front(tapped_, output.rows, output.cols);
  const FloatRows sum = Front(sum_, output.rows, output.cols);
  const auto add_tap = [&](Tap tap, FloatRows to) {
    if (tap == Tap::kOutput || tap == Tap::kSum) backend_.Accumulate(output, to);
    if (tap == Tap::kResidual || tap == Tap::kSum) backend_.Accumulate(residual, to);
  };
  ActivationRows input = normed;
  if (hook.input != Tap::kNormed) {
    backend_.Zero(tapped);
    add_tap(hook.input, tapped);
    input = Front(tap_, output.rows, output.cols);
    backend_.Convert(tapped, input);
  }
  backend_.Zero(sum);
  const DeltaSegment segment{0, output.rows, 0, hook.op.get(), hook.scale};
  backend_.Apply(std::span(&segment, 1), input, sum);
  if (hook.norm_takes_skip) add_tap(hook.skip, sum);
  if (!hook.norm_weight.empty()) {
    const NormArgs norm{NormKind::kLayer, hook.norm_eps, hook.norm_weight.data(),
                        hook.norm_bias.empty() ? nullptr : hook.norm_bias.data()};
    backend_.Norm(norm, sum, {sum.data, DType::kF32, sum.rows, sum.cols, sum.stride});
  }
  if (!hook.norm_takes_skip) add_tap(hook.skip, sum);
  backend_.Copy(sum, output);
}

}  // namespace polyad
