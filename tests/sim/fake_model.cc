#include "tests/sim/fake_model.h"

#include <limits>

#include "tests/sim/fake_tokenizer.h"

namespace polyad {
namespace {

uint64_t Mix(uint64_t x) {  // splitmix64's finaliser
  x ^= x >> 30;
  x *= 0xbf58476d1ce4e5b9u;
  x ^= x >> 27;
  x *= 0x94d049bb133111ebu;
  return x ^ (x >> 31);
}

}  // namespace

uint64_t FakeChain(uint64_t before, int32_t token, int64_t adapter) {
  return Mix(before * 0x9e3779b97f4a7c15u + static_cast<uint64_t>(token) * 1000003u +
             static_cast<uint64_t>(adapter) + 12345u);
}

void FakeLogits(uint64_t state, float* logits) {
  for (int64_t id = 0; id < kFakeVocab; ++id) {
    const uint64_t bits = Mix(state + static_cast<uint64_t>(id) * 0x9e3779b97f4a7c15u);
    logits[id] = static_cast<float>(bits % 4096) / 512.0f - 4.0f;
  }
}

void FakeArgMax(FloatRows logits, std::span<TokenScore> best) {
  for (int64_t row = 0; row < logits.rows; ++row) {
    TokenScore& pick = best[static_cast<size_t>(row)];
    pick = {0, -std::numeric_limits<float>::infinity()};
    for (int64_t id = 0; id < logits.cols; ++id) {
      const float logit = logits.Row(row)[id];
      if (logit > pick.logit) pick = {static_cast<int32_t>(id), logit};
    }
  }
}

FakeModel::FakeModel(int64_t num_blocks)
    : entries_(static_cast<size_t>(num_blocks * kBlockTokens)) {}

void FakeModel::Violate(const std::string& what) {
  if (violation_.empty()) violation_ = what;
}

StatusOr<FloatRows> FakeModel::Run(const StepBatch& batch) {
  if (fail_next_) {
    fail_next_ = false;
    ++num_faults_;
    return Internal("the device failed");
  }
  CheckShape(batch);
  row_states_.assign(static_cast<size_t>(batch.num_rows()), 0);
  for (const StepSequence& rows : batch.sequences) Store(batch, rows, AdapterOf(batch, rows));
  for (const StepSequence& rows : batch.sequences) Read(batch, rows, AdapterOf(batch, rows));
  const auto num_samples = static_cast<int64_t>(batch.sample_rows.size());
  logits_.resize(static_cast<size_t>(num_samples * kFakeVocab));
  for (int64_t i = 0; i < num_samples; ++i) {
    const auto row = static_cast<size_t>(batch.sample_rows[static_cast<size_t>(i)]);
    FakeLogits(row_states_[row], &logits_[static_cast<size_t>(i * kFakeVocab)]);
  }
  if (spoil_next_ && num_samples > 0) {
    spoil_next_ = false;
    ++num_faults_;
    std::fill_n(logits_.begin(), kFakeVocab, std::numeric_limits<float>::quiet_NaN());
  }
  return FloatRows{logits_.data(), num_samples, kFakeVocab, kFakeVocab};
}

void FakeModel::ArgMax(FloatRows logits, std::span<TokenScore> best) { FakeArgMax(logits, best); }

void FakeModel::CheckShape(const StepBatch& batch) {
  const int64_t num_rows = batch.num_rows();
  int64_t row = 0;
  int64_t last_adapter = -2;
  for (const StepSegment& segment : batch.segments) {
    const int64_t adapter = segment.adapter == nullptr ? -1 : segment.adapter->id().value();
    if (segment.row_begin != row || segment.row_end <= row)
      Violate("segments do not tile the rows");
    if (adapter <= last_adapter) Violate("an adapter has more than one segment");
    last_adapter = adapter;
    row = segment.row_end;
  }
  if (row != num_rows) Violate("segments do not cover the rows");
  row = 0;
  for (const StepSequence& rows : batch.sequences) {
    if (rows.row_begin != row || rows.row_end <= row) Violate("sequences do not tile the rows");
    row = rows.row_end;
  }
  if (row != num_rows) Violate("sequences do not cover the rows");
  int32_t last = -1;
  for (const int32_t sample : batch.sample_rows) {
    if (sample <= last || sample >= num_rows) Violate("sample rows are not ascending");
    last = sample;
  }
}

int64_t FakeModel::AdapterOf(const StepBatch& batch, const StepSequence& rows) {
  for (const StepSegment& segment : batch.segments) {
    if (rows.row_begin < segment.row_begin || rows.row_begin >= segment.row_end) continue;
    if (rows.row_end > segment.row_end) Violate("a sequence straddles two segments");
    return segment.adapter == nullptr ? -1 : segment.adapter->id().value();
  }
  return -1;
}

void FakeModel::Store(const StepBatch& batch, const StepSequence& rows, int64_t adapter) {
  for (int64_t row = rows.row_begin; row < rows.row_end; ++row) {
    const auto r = static_cast<size_t>(row);
    const int32_t position = batch.positions[r];
    if (position != rows.context_end - (rows.row_end - row))
      Violate("positions do not end the context");
    const int64_t block =
        batch.block_ids[static_cast<size_t>(rows.block_begin + position / kBlockTokens)];
    if (batch.slots[r] != block * kBlockTokens + position % kBlockTokens)
      Violate("a slot is not its block's");
    entries_[static_cast<size_t>(batch.slots[r])] = {batch.token_ids[r], position, adapter};
  }
}

// Reads the whole context through the block table, as attention does.
void FakeModel::Read(const StepBatch& batch, const StepSequence& rows, int64_t adapter) {
  uint64_t state = 0;
  const int64_t first_row_position = rows.context_end - (rows.row_end - rows.row_begin);
  for (int64_t position = 0; position < rows.context_end; ++position) {
    const int64_t block =
        batch.block_ids[static_cast<size_t>(rows.block_begin + position / kBlockTokens)];
    const Entry& entry =
        entries_[static_cast<size_t>(block * kBlockTokens + position % kBlockTokens)];
    if (entry.position != position) Violate("a cached key stands at another position");
    if (entry.adapter != adapter) Violate("a cached key was computed with another adapter");
    state = FakeChain(state, entry.token, entry.adapter);
    if (position >= first_row_position) {
      row_states_[static_cast<size_t>(rows.row_begin + position - first_row_position)] = state;
    }
  }
}

}  // namespace polyad
