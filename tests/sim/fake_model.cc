#include "tests/sim/fake_model.h"

#include <algorithm>
#include <cstring>
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

void FakeHidden(uint64_t state, float* hidden) {
  for (int64_t i = 0; i < kFakeHidden; ++i) {
    const uint64_t bits = Mix(state + static_cast<uint64_t>(i) * 0xd1342543de82ef95u + 1);
    hidden[i] = static_cast<float>(bits % 4096) / 512.0f - 4.0f;
  }
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

uint64_t FakeState(std::span<const FakeKey> keys, int64_t window) {
  if (window > 0 && static_cast<size_t>(window) < keys.size()) {
    keys = keys.last(static_cast<size_t>(window));
  }
  uint64_t state = 0;
  for (const FakeKey& key : keys) state = FakeChain(state, key.token, key.adapter);
  return state;
}

FakeModel::FakeModel(int64_t num_blocks, int64_t window)
    : window_(window), entries_(static_cast<size_t>(num_blocks * kBlockTokens)) {}

int64_t FakeModel::FirstSeen(int64_t index) const {
  return window_ == 0 ? 0 : std::max<int64_t>(index - window_ + 1, 0);
}

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
  for (const StepPrefix& prefix : batch.prefixes) StorePrefix(batch, prefix);
  for (const StepSequence& rows : batch.sequences) Store(batch, rows);
  for (const StepSequence& rows : batch.sequences) RunFirstPass(batch, rows);
  for (const StepSequence& rows : batch.sequences) Read(batch, rows);
  const auto num_samples = static_cast<int64_t>(batch.sample_rows.size());
  logits_.resize(static_cast<size_t>(num_samples * kFakeVocab));
  for (int64_t i = 0; i < num_samples; ++i) {
    const auto row = static_cast<size_t>(batch.sample_rows[static_cast<size_t>(i)]);
    FakeLogits(row_states_[row], &logits_[static_cast<size_t>(i * kFakeVocab)]);
  }
  const auto num_hidden = static_cast<int64_t>(batch.hidden_rows.size());
  hidden_.resize(static_cast<size_t>(num_hidden * kFakeHidden));
  for (int64_t i = 0; i < num_hidden; ++i) {
    const auto row = static_cast<size_t>(batch.hidden_rows[static_cast<size_t>(i)]);
    FakeHidden(row_states_[row], &hidden_[static_cast<size_t>(i * kFakeHidden)]);
  }
  hidden_rows_ = {hidden_.data(), num_hidden, kFakeHidden, kFakeHidden};
  if (spoil_next_ && num_samples > 0) {
    spoil_next_ = false;
    ++num_faults_;
    std::fill_n(logits_.begin(), kFakeVocab, std::numeric_limits<float>::quiet_NaN());
  }
  return FloatRows{logits_.data(), num_samples, kFakeVocab, kFakeVocab};
}

void FakeModel::SaveBlock(int64_t block, std::span<char> to) const {
  std::memcpy(to.data(), &entries_[static_cast<size_t>(block * kBlockTokens)], to.size());
}

void FakeModel::RestoreBlock(int64_t block, std::span<const char> from) {
  std::memcpy(&entries_[static_cast<size_t>(block * kBlockTokens)], from.data(), from.size());
}

void FakeModel::DiscardKv(int64_t begin, int64_t end) {
  const auto num_blocks = static_cast<int64_t>(entries_.size()) / kBlockTokens;
  const int64_t last = std::min((end + block_stride_ - 1) / block_stride_, num_blocks);
  for (int64_t slot = begin / block_stride_ * kBlockTokens; slot < last * kBlockTokens; ++slot) {
    entries_[static_cast<size_t>(slot)] = {};
  }
}

void FakeModel::ArgMax(FloatRows logits, std::span<TokenScore> best) { FakeArgMax(logits, best); }

void FakeModel::CheckShape(const StepBatch& batch) {
  CheckSegments(batch);
  const int64_t num_rows = batch.num_rows();
  int64_t row = 0;
  for (const StepSequence& rows : batch.sequences) {
    if (rows.row_begin != row || rows.row_end <= row) Violate("sequences do not tile the rows");
    row = rows.row_end;
  }
  if (row != num_rows) Violate("sequences do not cover the rows");
  for (const auto* wanted : {&batch.sample_rows, &batch.hidden_rows}) {
    int32_t last = -1;
    for (const int32_t row_index : *wanted) {
      if (row_index <= last || row_index >= num_rows) Violate("wanted rows are not ascending");
      if (TokenOf(batch, row_index) < 0) Violate("a virtual token is sampled from");
      last = row_index;
    }
  }
}

// One segment for an adapter, but that each sequence of an activated one may begin with the base's.
void FakeModel::CheckSegments(const StepBatch& batch) {
  int64_t row = 0;
  int64_t last_adapter = -1;
  for (size_t i = 0; i < batch.segments.size(); ++i) {
    const StepSegment& segment = batch.segments[i];
    if (segment.row_begin != row || segment.row_end <= row)
      Violate("segments do not tile the rows");
    row = segment.row_end;
    if (segment.adapter == nullptr) {
      const bool activates = i + 1 < batch.segments.size() &&
                             !batch.segments[i + 1].adapter->invocation_tokens().empty();
      if (i > 0 && !activates) Violate("the base has more than one segment");
      continue;
    }
    const int64_t adapter = segment.adapter->id().value();
    const bool again = adapter == last_adapter && !segment.adapter->invocation_tokens().empty();
    if (adapter <= last_adapter && !again) Violate("an adapter has more than one segment");
    last_adapter = adapter;
  }
  if (row != batch.num_rows()) Violate("segments do not cover the rows");
}

const AdapterVersion* FakeModel::AdapterOf(const StepBatch& batch, int64_t row) {
  for (const StepSegment& segment : batch.segments) {
    if (row >= segment.row_begin && row < segment.row_end) return segment.adapter;
  }
  Violate("a row has no segment");
  return nullptr;
}

int32_t FakeModel::TokenOf(const StepBatch& batch, int64_t row) {
  for (const StepPrompt& rows : batch.prompts) {
    if (row < rows.row_begin || row >= rows.row_end) continue;
    return VirtualToken(rows.prompt->padding + rows.first + row - rows.row_begin);
  }
  return batch.token_ids[static_cast<size_t>(row)];
}

void FakeModel::StorePrefix(const StepBatch& batch, const StepPrefix& prefix) {
  const SoftPrompt& prompt = *prefix.prompt;
  const int64_t end = prompt.stores_kv ? prompt.num_slots() : prompt.padding;
  for (int64_t i = prefix.slot_begin; i < prefix.slot_end; ++i) {
    const int64_t index = prefix.first + i - prefix.slot_begin;
    if (index >= end) Violate("a prefix is stored past its end, or embeddings are stored");
    Entry& entry = entries_[static_cast<size_t>(batch.prefix_slots[static_cast<size_t>(i)])];
    entry = {VirtualToken(index), index, prefix.prompt->bytes, -1};  // the simulation's adapter id
  }
}

void FakeModel::Store(const StepBatch& batch, const StepSequence& rows) {
  for (int64_t row = rows.row_begin; row < rows.row_end; ++row) {
    const auto r = static_cast<size_t>(row);
    const int64_t index = rows.context_end - (rows.row_end - row);
    const AdapterVersion* adapter = AdapterOf(batch, row);
    const SoftPrompt* prompt = adapter == nullptr ? nullptr : adapter->soft_prompt();
    if (batch.positions[r] != (prompt == nullptr ? index : prompt->PositionOf(index)))
      Violate("a row stands at another position");
    const int64_t block =
        batch.block_ids[static_cast<size_t>(rows.block_begin + index / kBlockTokens)];
    if (batch.slots[r] != block * kBlockTokens + index % kBlockTokens)
      Violate("a slot is not its block's");
    entries_[static_cast<size_t>(batch.slots[r])] = {
        TokenOf(batch, row), index, adapter ? adapter->id().value() : -1, rows.rope_choice};
  }
}

// A first pass's keys are marked as such, and every earlier one must still be there.
void FakeModel::RunFirstPass(const StepBatch& batch, const StepSequence& rows) {
  const AdapterVersion* adapter = AdapterOf(batch, rows.row_end - 1);
  const bool has_one = adapter != nullptr && adapter->scaling_pass() != nullptr;
  if (has_one != (rows.first_pass_begin < rows.first_pass_end)) Violate("a first pass's cache");
  if (!has_one) return;
  const int64_t mark = -2 - adapter->id().value();
  const int64_t first = rows.context_end - (rows.row_end - rows.row_begin);
  for (int64_t index = FirstSeen(first); index < rows.context_end; ++index) {
    const auto at = static_cast<size_t>(rows.first_pass_begin + index / kBlockTokens);
    Entry& entry = entries_[static_cast<size_t>(int64_t{batch.block_ids[at]} * kBlockTokens +
                                                index % kBlockTokens)];
    if (index >= first) entry = {TokenOf(batch, rows.row_begin + index - first), index, mark};
    if (entry.index != index || entry.adapter != mark) Violate("a first pass's key is lost");
  }
}

// Reads what the rows see through the block table, as attention does. Keys are those of the row's
// adapter; before an invocation, the base's.
void FakeModel::Read(const StepBatch& batch, const StepSequence& rows) {
  const AdapterVersion* adapter = AdapterOf(batch, rows.row_end - 1);
  const int64_t expected = adapter == nullptr ? -1 : adapter->id().value();
  bool may_be_base = adapter != nullptr && !adapter->invocation_tokens().empty();
  const int64_t num_virtual = adapter == nullptr ? 0 : adapter->num_virtual_tokens();
  uint64_t state = 0;
  std::vector<FakeKey> keys;
  const int64_t first_row = rows.context_end - (rows.row_end - rows.row_begin);
  for (int64_t index = FirstSeen(first_row); index < rows.context_end; ++index) {
    const int64_t block =
        batch.block_ids[static_cast<size_t>(rows.block_begin + index / kBlockTokens)];
    const Entry& entry = entries_[static_cast<size_t>(block * kBlockTokens + index % kBlockTokens)];
    if (entry.index != index) Violate("a cached key stands at another place");
    if ((entry.token < 0) != (index < num_virtual)) Violate("a soft prompt is not at the head");
    may_be_base = may_be_base && entry.adapter == -1;
    if (entry.adapter != expected && !may_be_base)
      Violate("a cached key was computed with another adapter");
    if (entry.rope_choice != rows.rope_choice && entry.rope_choice != -1)
      Violate("a cached key was rotated otherwise");
    state = FakeChain(state, entry.token, entry.adapter);
    keys.push_back({entry.token, entry.adapter});
    if (index >= first_row) {
      row_states_[static_cast<size_t>(rows.row_begin + index - first_row)] =
          window_ == 0 ? state : FakeState(keys, window_);
    }
  }
}

}  // namespace polyad
