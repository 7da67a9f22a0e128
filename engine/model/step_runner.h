#pragma once

// The seam between the step loop and the arithmetic: a batch in, logits out. Model is the real one;
// the deterministic simulator puts a fake here and keeps everything above it real. Called by the
// engine thread only.

#include <algorithm>
#include <span>

#include "engine/base/status.h"
#include "engine/model/step_batch.h"
#include "kernels/api/backend.h"

namespace polyad {

class StepRunner {
 public:
  virtual ~StepRunner() = default;
  // Runs every row, writes K/V to the batch's slots, and returns logits [sample_rows.size(),
  // vocab_size], valid until the next call. An error is a fault of the device: the step's requests
  // end with it.
  virtual StatusOr<FloatRows> Run(const StepBatch& batch) = 0;
  // Of the last Run: [hidden_rows.size(), hidden_size], behind the final norm and before the head,
  // as valid as its logits.
  virtual FloatRows hidden_states() const = 0;
  // A block's keys and values of all layers, as the device keeps them, kv_block_bytes() long. What
  // is restored, to whichever block, is what was saved.
  virtual int64_t kv_block_bytes() const = 0;
  virtual void SaveBlock(int64_t block, std::span<char> to) const = 0;
  virtual void RestoreBlock(int64_t block, std::span<const char> from) = 0;
  // Gives the memory of K/V's bytes [begin, end) back (KvStorage::Discard).
  virtual void DiscardKv(int64_t begin, int64_t end) = 0;
  // best[i] = the largest logit of row i, lowest id on ties.
  virtual void ArgMax(FloatRows logits, std::span<TokenScore> best) = 0;
  // tokens[i] = the token of draws[i], or -1: the caller draws it (Backend::Draw).
  virtual void Draw(FloatRows logits, std::span<const DrawArgs> draws, std::span<int32_t> tokens) {
    static_cast<void>(logits);
    static_cast<void>(draws);
    std::fill(tokens.begin(), tokens.end(), -1);
  }
};

}  // namespace polyad
