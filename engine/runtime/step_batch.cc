#include "engine/runtime/step_batch.h"

#include <algorithm>

#include "engine/base/check.h"

namespace polyad {
namespace {

const AdapterVersion* AdapterOf(const Sequence& sequence) {
  return sequence.owner->request->adapter.get();
}

const SoftPrompt* PromptOf(const Sequence& sequence) {
  const AdapterVersion* adapter = AdapterOf(sequence);
  return adapter == nullptr ? nullptr : adapter->soft_prompt();
}

// Rows that all precede the adapter's invocation go with the base model's.
int64_t AdapterRank(const FlatStep::Item& item) {
  const AdapterVersion* adapter = AdapterOf(*item.sequence);
  const int64_t adapter_begin = item.sequence->owner->request->adapter_begin;
  const bool acts = item.work.first + item.work.count > adapter_begin;
  return adapter == nullptr || !acts ? -1 : adapter->id().value();
}

int64_t SlotOf(const Sequence& sequence, int64_t index) {
  const int64_t at = index / kBlockTokens * sequence.num_caches();
  const BlockId block = sequence.blocks[static_cast<size_t>(at)];
  return block.value() * kBlockTokens + index % kBlockTokens;
}

// The virtual tokens among [first, end) of a sequence: a store of the padding and of keys and
// values that the prompt brings, rows of its embeddings. Returns the index of the first row.
int64_t AppendVirtual(const Sequence& sequence, int64_t first, int64_t end, StepBatch& batch) {
  const SoftPrompt* prompt = PromptOf(sequence);
  const int64_t stop = std::min(end, sequence.prompt_begin());
  if (prompt == nullptr || first >= stop) return first;
  const int64_t stored_end = prompt->stores_kv ? stop : std::min(stop, prompt->padding);
  if (first < stored_end) {
    const auto slot_begin = static_cast<int64_t>(batch.prefix_slots.size());
    for (int64_t i = first; i < stored_end; ++i) batch.prefix_slots.push_back(SlotOf(sequence, i));
    batch.prefixes.push_back({prompt, first, slot_begin, slot_begin + stored_end - first});
    first = stored_end;
  }
  if (first < stop) {
    const Request& request = *sequence.owner->request;
    batch.prompts.push_back({prompt, request.prompt_row + first - prompt->padding, batch.num_rows(),
                             batch.num_rows() + stop - first, request.prompt_scale});
  }
  return first;
}

void AppendRow(const Sequence& sequence, int64_t index, StepBatch& batch) {
  const SoftPrompt* prompt = PromptOf(sequence);
  const int64_t position = prompt == nullptr ? index : prompt->PositionOf(index);
  batch.token_ids.push_back(std::max(sequence.tokens[static_cast<size_t>(index)], 0));
  batch.positions.push_back(static_cast<int32_t>(position));
  batch.slots.push_back(SlotOf(sequence, index));
}

// A cache's block table; returns its end among the batch's. Places behind the window name any
// block: no row reads them.
int64_t AppendTable(const Sequence& sequence, int64_t cache, StepBatch& batch) {
  const auto stride = static_cast<size_t>(sequence.num_caches());
  for (size_t i = static_cast<size_t>(cache); i < sequence.blocks.size(); i += stride) {
    const BlockId block = sequence.blocks[i];
    batch.block_ids.push_back(block.valid() ? static_cast<int32_t>(block.value()) : 0);
  }
  return static_cast<int64_t>(batch.block_ids.size());
}

void AppendSequence(const FlatStep::Item& item, int64_t row_begin, StepBatch& batch) {
  StepSequence rows;
  rows.row_begin = row_begin;
  rows.row_end = batch.num_rows();
  rows.context_end = item.work.first + item.work.count;
  rows.block_begin = static_cast<int64_t>(batch.block_ids.size());
  rows.block_end = AppendTable(*item.sequence, 0, batch);
  rows.soft_prompt = PromptOf(*item.sequence);
  const AdapterVersion* adapter = AdapterOf(*item.sequence);
  rows.rope = adapter == nullptr ? nullptr : adapter->rope();
  rows.rope_choice = item.sequence->owner->request->rope_choice;
  if (item.sequence->num_caches() > 1) {
    rows.first_pass_begin = rows.block_end;
    rows.first_pass_end = AppendTable(*item.sequence, 1, batch);
  }
  batch.sequences.push_back(rows);
}

void AppendRows(FlatStep::Item& item, StepBatch& batch) {
  const Sequence& sequence = *item.sequence;
  const int64_t end = item.work.first + item.work.count;
  const int64_t row_begin = batch.num_rows();
  const bool embeds = sequence.embeds();
  std::vector<int32_t>& wanted = embeds ? batch.hidden_rows : batch.sample_rows;
  item.first_sampled =
      std::max(item.work.first, embeds ? sequence.first_hidden() : sequence.first_logits());
  item.sample_begin = static_cast<int64_t>(wanted.size());
  for (int64_t i = AppendVirtual(sequence, item.work.first, end, batch); i < end; ++i) {
    if (i >= item.first_sampled) {
      wanted.push_back(static_cast<int32_t>(batch.num_rows()));
    }
    AppendRow(sequence, i, batch);
  }
  item.sample_end = static_cast<int64_t>(wanted.size());
  if (batch.num_rows() > row_begin) AppendSequence(item, row_begin, batch);
}

void ExtendSegment(const StepSegment& rows, StepBatch& batch) {
  if (rows.row_begin == rows.row_end) return;
  const bool alone = rows.adapter != nullptr && rows.adapter->wants_own_segments();
  if (batch.segments.empty() || batch.segments.back().adapter != rows.adapter || alone) {
    batch.segments.push_back(rows);
  }
  batch.segments.back().row_end = rows.row_end;
}

// The rows just appended: the base model's up to where the adapter begins, then the adapter's.
void AppendSegments(const FlatStep::Item& item, StepBatch& batch) {
  const int64_t end = batch.num_rows();
  const int64_t begin = batch.segments.empty() ? 0 : batch.segments.back().row_end;
  const Sequence& sequence = *item.sequence;
  const int64_t adapter_begin = sequence.owner->request->adapter_begin;
  const int64_t num_base = std::clamp<int64_t>(adapter_begin - item.work.first, 0, end - begin);
  const int64_t first = item.work.first + item.work.count - (end - begin);  // of the rows
  ExtendSegment({nullptr, begin, begin + num_base}, batch);
  ExtendSegment(
      {AdapterOf(sequence), begin + num_base, end, first + num_base - sequence.prompt_begin()},
      batch);
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
    const int64_t rank_a = AdapterRank(a);
    const int64_t rank_b = AdapterRank(b);
    if (rank_a != rank_b) return rank_a < rank_b;
    const int64_t rope_a = a.sequence->owner->request->rope_choice;
    const int64_t rope_b = b.sequence->owner->request->rope_choice;
    return rope_a != rope_b ? rope_a < rope_b : a.work.id < b.work.id;
  });
  for (FlatStep::Item& item : flat.items) {
    AppendRows(item, flat.batch);
    AppendSegments(item, flat.batch);
  }
  return flat;
}

}  // namespace polyad
