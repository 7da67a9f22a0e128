#pragma once

// A StepRunner in front of another, which does everything: tests override what they count or spoil.
// Test-only.

#include "engine/model/step_runner.h"

namespace polyad {

class ForwardingRunner : public StepRunner {
 public:
  explicit ForwardingRunner(StepRunner& runner) : runner_(runner) {}  // outlives this

  StatusOr<FloatRows> Run(const StepBatch& batch) override { return runner_.Run(batch); }
  FloatRows hidden_states() const override { return runner_.hidden_states(); }
  int64_t kv_block_bytes() const override { return runner_.kv_block_bytes(); }
  void SaveBlock(int64_t block, std::span<char> to) const override { runner_.SaveBlock(block, to); }
  void RestoreBlock(int64_t block, std::span<const char> from) override {
    runner_.RestoreBlock(block, from);
  }
  void DiscardKv(int64_t begin, int64_t end) override { runner_.DiscardKv(begin, end); }
  void ArgMax(FloatRows logits, std::span<TokenScore> best) override {
    runner_.ArgMax(logits, best);
  }
  void Draw(FloatRows logits, std::span<const DrawArgs> draws, std::span<int32_t> tokens) override {
    runner_.Draw(logits, draws, tokens);
  }

 private:
  StepRunner& runner_;
};

}  // namespace polyad
