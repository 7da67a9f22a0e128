#include "engine/runtime/step_batch.h"

#include <algorithm>

#include "engine/base/check.h"

namespace polyad {
namespace {

const AdapterVersion* AdapterOf(const Sequence& sequence) {
  return sequence.owner->request->adapter.get();
}

int64_t AdapterRank(const Sequence& sequence) {
  const AdapterVersion* adapter = AdapterOf(sequence);
  return adapter == nullptr ? -1 : adapter->id().value();
}

void AppendRows(FlatStep::Item& item, StepBatch& batch) {
  const Sequence& sequence = *item.sequence;
  const StepPlan::Work& work = item.work;
  StepSequence rows;
  rows.row_begin = batch.num_rows();
  rows.block_begin = static_cast<int64_t>(batch.block_ids.size());
  for (const BlockId block : sequence.blocks) {
    batch.block_ids.push_back(static_cast<int32_t>(block.value()));
  }
  rows.block_end = static_cast<int64_t>(batch.block_ids.size());
  item.first_sampled = std::max(work.first, sequence.first_logits());
  item.sample_begin = static_cast<int64_t>(batch.sample_rows.size());
  for (int64_t position = work.first; position < work.first + work.count; ++position) {
    if (position >= item.first_sampled) {
      batch.sample_rows.push_back(static_cast<int32_t>(batch.num_rows()));
    }
    const BlockId block = sequence.blocks[static_cast<size_t>(position / kBlockTokens)];
    batch.token_ids.push_back(sequence.tokens[static_cast<size_t>(position)]);
    batch.positions.push_back(static_cast<int32_t>(position));
    batch.slots.push_back(block.value() * kBlockTokens + position % kBlockTokens);
  }
  item.sample_end = static_cast<int64_t>(batch.sample_rows.size());
  rows.row_end = batch.num_rows();
  rows.context_end = work.first + work.count;
  batch.sequences.push_back(rows);
}

}  // namespace

FlatStep Flatten(const StepPlan& plan, EngineState& state) {
  FlatStep flat;
  for (const StepPlan::Work& work : plan.work) {
    FlatStep::Item item;
    item.sequence = state.Find(work.id);
    item.work = work;
    POLYAD_CHECK(item.sequence != nullptr && item.sequence->running, "only running sequences run");
    POLYAD_CHECK(item.sequence->num_computed == work.first, "work goes on where the cache ends");
    flat.items.push_back(item);
  }
  std::sort(flat.items.begin(), flat.items.end(), [](const auto& a, const auto& b) {
    const int64_t rank_a = AdapterRank(*a.sequence);
    const int64_t rank_b = AdapterRank(*b.sequence);
    return rank_a != rank_b ? rank_a < rank_b : a.work.id < b.work.id;
  });
  for (FlatStep::Item& item : flat.items) {
    const AdapterVersion* adapter = AdapterOf(*item.sequence);
    const int64_t row = flat.batch.num_rows();
    if (flat.batch.segments.empty() || flat.batch.segments.back().adapter != adapter) {
      flat.batch.segments.push_back({adapter, row, row});
    }
    AppendRows(item, flat.batch);
    flat.batch.segments.back().row_end = flat.batch.num_rows();
  }
  return flat;
}

}  // namespace polyad
