#include "engine/model/scaling_pass_runner.h"

#include <algorithm>
#include <array>

#include "engine/base/check.h"
#include "engine/model/expert_softmax.h"
#include "engine/model/workspace.h"

namespace polyad {
namespace {

constexpr int64_t kClassifierRows = 32;  // classified at a time

// All but the k largest become zero; of equal ones the first stay.
void KeepLargest(int64_t k, std::span<float> values) {
  ExpertList list;
  std::array<float, static_cast<size_t>(kMaxExperts)> kept = {};
  for (const int64_t expert : LargestOf(values, k, list)) {
    kept[static_cast<size_t>(expert)] = values[static_cast<size_t>(expert)];
  }
  std::copy_n(kept.begin(), values.size(), values.begin());
}

// Those that are not zero, in order.
std::span<const int64_t> NotZero(std::span<const float> values, ExpertList& list) {
  size_t count = 0;
  for (size_t i = 0; i < values.size(); ++i) {
    if (values[i] != 0.0f) list[count++] = static_cast<int64_t>(i);
  }
  return std::span(list).first(count);
}

}  // namespace

void ApplyRule(const CoefficientRule& rule, std::span<const float> logits,
               std::span<float> coefficients) {
  std::copy(logits.begin(), logits.end(), coefficients.begin());
  const auto count = static_cast<size_t>(rule.num_experts);
  ExpertList list;
  for (size_t begin = 0; begin < coefficients.size(); begin += count) {
    const std::span<float> group = coefficients.subspan(begin, count);
    if (rule.softmax) {
      SoftmaxOver(LargestOf(group, rule.num_experts, list), rule.temperature, group);
    }
    if (rule.top_k > 0) KeepLargest(rule.top_k, group);
    if (rule.softmax_of_top) SoftmaxOver(NotZero(group, list), 1.0f, group);
  }
}

Status ScalingPassRunner::AllocateWorkspace(int64_t max_step_tokens) {
  RowCarver carve(backend_, memory_);
  POLYAD_ASSIGN_OR_RETURN(coefficients_, carve.Floats(kMaxCoefficients, max_step_tokens));
  POLYAD_ASSIGN_OR_RETURN(wide_, carve.Floats(kClassifierRows, kMaxClassifierWidth));
  POLYAD_ASSIGN_OR_RETURN(activated_, carve.Activations(kClassifierRows, kMaxClassifierWidth));
  return absl::OkStatus();
}

const StepBatch& ScalingPassRunner::MakeBatch(const StepBatch& step) {
  batch_ = {};
  runs_.clear();
  size_t segment = 0;
  for (const StepSequence& rows : step.sequences) {
    while (step.segments[segment].row_end <= rows.row_begin) ++segment;
    const AdapterVersion* adapter = step.segments[segment].adapter;
    if (adapter == nullptr || adapter->scaling_pass() == nullptr) continue;
    AppendSequence(step, rows, *adapter);
  }
  for (const Run& run : runs_) {
    const CoefficientRule& rule = run.adapter->scaling_pass()->rule;
    const bool acts = rule.first_pass != 0.0f;
    batch_.segments.push_back(
        {acts ? run.adapter : nullptr, run.first_row, run.first_row + run.count});
    if (!acts) continue;
    for (int64_t c = 0; c < rule.size(); ++c) {
      std::fill_n(coefficients_.Row(c) + run.first_row, run.count, rule.first_pass);
    }
    backend_.HostWrote(coefficients_.Slice(0, rule.size()).Columns(run.first_row, run.count));
  }
  return batch_;
}

void ScalingPassRunner::AppendSequence(const StepBatch& step, const StepSequence& rows,
                                       const AdapterVersion& adapter) {
  POLYAD_CHECK(rows.first_pass_begin < rows.first_pass_end, "a first pass without a cache");
  const int64_t count = rows.row_end - rows.row_begin;
  StepSequence own;
  own.row_begin = batch_.num_rows();
  own.row_end = own.row_begin + count;
  own.context_end = rows.context_end;
  own.rope = rows.rope;
  own.rope_choice = rows.rope_choice;
  own.block_begin = static_cast<int64_t>(batch_.block_ids.size());
  const auto table = step.block_ids.begin();
  batch_.block_ids.insert(batch_.block_ids.end(), table + rows.first_pass_begin,
                          table + rows.first_pass_end);
  own.block_end = static_cast<int64_t>(batch_.block_ids.size());
  for (int64_t i = 0; i < count; ++i) {
    const auto row = static_cast<size_t>(rows.row_begin + i);
    const int64_t index = rows.context_end - count + i;
    const auto block = static_cast<size_t>(own.block_begin + index / kBlockTokens);
    batch_.token_ids.push_back(step.token_ids[row]);
    batch_.positions.push_back(step.positions[row]);
    batch_.slots.push_back(int64_t{batch_.block_ids[block]} * kBlockTokens + index % kBlockTokens);
  }
  batch_.sequences.push_back(own);
  const bool goes_on = !runs_.empty() && runs_.back().adapter == &adapter &&
                       runs_.back().step_row + runs_.back().count == rows.row_begin;
  if (!goes_on) runs_.push_back({&adapter, own.row_begin, rows.row_begin, 0});
  runs_.back().count += count;
}

void ScalingPassRunner::Classify(ActivationRows hidden) {
  for (const Run& run : runs_) {
    const ScalingPass& pass = *run.adapter->scaling_pass();
    of_row_.resize(static_cast<size_t>(pass.rule.size()));
    for (int64_t begin = 0; begin < run.count; begin += kClassifierRows) {
      const int64_t end = std::min(begin + kClassifierRows, run.count);
      const FloatRows logits =
          Logits(pass, hidden.Slice(run.first_row + begin, run.first_row + end));
      backend_.Finish();
      for (int64_t row = begin; row < end; ++row) {
        ApplyRule(pass.rule, {logits.Row(row - begin), of_row_.size()}, of_row_);
        for (size_t c = 0; c < of_row_.size(); ++c) {
          coefficients_.Row(static_cast<int64_t>(c))[run.step_row + row] = of_row_[c];
        }
      }
    }
    backend_.HostWrote(coefficients_.Slice(0, pass.rule.size()).Columns(run.step_row, run.count));
  }
}

// The classifier's outputs for at most kClassifierRows rows.
FloatRows ScalingPassRunner::Logits(const ScalingPass& pass, ActivationRows hidden) {
  FloatRows y;
  ActivationRows x = hidden;
  for (size_t i = 0; i < pass.layers.size(); ++i) {
    const ScalingPass::Layer& layer = pass.layers[i];
    if (i > 0) {
      x = {activated_.data, activated_.dtype, y.rows, y.cols, y.cols};
      backend_.Activate(ActivationKind::kRelu, /*gated=*/false, y, x);
    }
    y = {wide_.data, hidden.rows, layer.out, layer.out};
    backend_.Zero(y);
    const DeltaSegment ops[] = {{0, y.rows, 0, layer.weight.get()},
                                {0, y.rows, 0, layer.bias.get()}};
    backend_.Apply(ops, x, y);
  }
  return y;
}

}  // namespace polyad
