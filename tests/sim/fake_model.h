#pragma once

// A model whose logits are a hash of the adapter and of every token in the cache up to the row: any
// block that is shared wrongly, stale, out of order or written by another adapter changes the
// output, and is also reported by name. Keeps a K/V array by slot, as a real one would, and never
// clears it.

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "engine/model/step_runner.h"

namespace polyad {

// The state after one more token; the first token's `before` is 0.
uint64_t FakeChain(uint64_t before, int32_t token, int64_t adapter);
struct FakeKey {
  int32_t token = 0;
  int64_t adapter = -1;
};
// The state of the last of `keys`, which sees `window` of them; 0: all.
uint64_t FakeState(std::span<const FakeKey> keys, int64_t window);
inline constexpr int64_t kFakeHidden = 4;
// [kFakeHidden] values of a state, as its final hidden state.
void FakeHidden(uint64_t state, float* hidden);
// [kFakeVocab] logits of a state.
void FakeLogits(uint64_t state, float* logits);
void FakeArgMax(FloatRows logits, std::span<TokenScore> best);

class FakeModel final : public StepRunner {
 public:
  // Rows see `window` tokens, themselves included; 0: all.
  explicit FakeModel(int64_t num_blocks, int64_t window = 0);

  StatusOr<FloatRows> Run(const StepBatch& batch) override;
  FloatRows hidden_states() const override { return hidden_rows_; }
  void ArgMax(FloatRows logits, std::span<TokenScore> best) override;
  int64_t kv_block_bytes() const override { return kBlockTokens * sizeof(Entry); }
  void SaveBlock(int64_t block, std::span<char> to) const override;
  void RestoreBlock(int64_t block, std::span<const char> from) override;
  void DiscardKv(int64_t begin, int64_t end) override;
  // How far apart blocks lie in memory that is discarded; what was, is noticed when it is read.
  void SetBlockStride(int64_t bytes) { block_stride_ = bytes; }

  void FailNext() { fail_next_ = true; }
  void SpoilNext() { spoil_next_ = true; }  // NaN logits in the first sampled row
  int64_t num_faults() const { return num_faults_; }
  const std::string& violation() const { return violation_; }  // empty: none

 private:
  struct Entry {
    int32_t token = 0;
    int64_t index = -1;  // in its sequence
    int64_t adapter = -1;
    int64_t rope_choice = 0;  // what it was rotated by; -1: nothing
  };

  void CheckShape(const StepBatch& batch);
  void CheckSegments(const StepBatch& batch);
  void StorePrefix(const StepBatch& batch, const StepPrefix& prefix);
  void Store(const StepBatch& batch, const StepSequence& rows);
  void RunFirstPass(const StepBatch& batch, const StepSequence& rows);
  void Read(const StepBatch& batch, const StepSequence& rows);
  void Violate(const std::string& what);
  const AdapterVersion* AdapterOf(const StepBatch& batch, int64_t row);
  // The row's id, or the virtual token's that it stands for.
  static int32_t TokenOf(const StepBatch& batch, int64_t row);

  // A context's first token that the row at `index` sees.
  int64_t FirstSeen(int64_t index) const;

  const int64_t window_;
  int64_t block_stride_ = kBlockTokens * sizeof(Entry);
  std::vector<Entry> entries_;        // by slot
  std::vector<uint64_t> row_states_;  // by row of the batch
  std::vector<float> logits_;
  std::vector<float> hidden_;
  FloatRows hidden_rows_;
  std::string violation_;
  bool fail_next_ = false;
  bool spoil_next_ = false;
  int64_t num_faults_ = 0;
};

}  // namespace polyad
