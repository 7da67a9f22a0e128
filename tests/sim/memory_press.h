#pragma once

// The adapters' side of a simulated server's one memory, as K/V sees it: some are registered, take
// pages, wait for them, give up or are let go, at random. Also what has to hold of the ledger after
// every step. A seed of its own: without it a history is what it was.

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "engine/base/clock.h"
#include "engine/base/memory_ledger.h"
#include "engine/runtime/engine_loop.h"
#include "tests/sim/record.h"

namespace polyad {

class MemoryPress {
 public:
  // For a pool of so many blocks, which lie on pages of other sizes.
  MemoryPress(uint64_t seed, int64_t num_blocks, const Clock& clock);

  MemoryLedger* memory() { return memory_.get(); }
  const BlockPages::Layout& layout() const { return layout_; }
  int64_t max_request_blocks() const { return max_request_blocks_; }

  void Act();
  // What is wrong after a step; empty: nothing.
  std::string Check(const EngineLoop& loop);
  // The same once nothing runs: adapters can have all but K/V's floor. Steps the loop.
  std::string CheckEnd(EngineLoop& loop);

  int64_t num_grown = 0;      // pages of K/V, seen between two steps
  int64_t num_given = 0;      // likewise
  int64_t num_placed = 0;     // adapters, after K/V was asked
  int64_t num_condemned = 0;  // pages, seen after a step

 private:
  void StopWaiting();

  Dice dice_;
  BlockPages::Layout layout_;
  int64_t max_request_blocks_ = 0;
  std::shared_ptr<MemoryLedger> memory_;
  const Clock& clock_;
  std::vector<std::unique_ptr<MemoryCharge>> placed_;
  std::optional<MemoryLedger::Need> need_;
  bool has_asked_ = false;
  int64_t last_present_ = 0;
};

}  // namespace polyad
