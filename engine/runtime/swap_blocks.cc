#include "engine/runtime/swap_blocks.h"

#include <utility>
#include <vector>

#include "engine/runtime/sequence.h"

namespace polyad {
void SaveEvicted(EngineState& state, const StepRunner& runner) {
  const std::vector<BlockPool::Evicted> evicted = state.pool.TakeEvicted();
  if (state.spill == nullptr) return;
  for (const BlockPool::Evicted& old : evicted) {
    const std::span<char> room = state.spill->Reserve(old.key);
    if (room.empty()) continue;
    runner.SaveBlock(old.block.value(), room);
    ++state.counters.num_kv_blocks_saved;
  }
}

void SwapBlocks(EngineState& state, StepRunner& runner, Clock& clock) {
  SaveEvicted(state, runner);
  const std::vector<EngineState::Restore> restores = std::exchange(state.restores, {});
  if (state.spill == nullptr) return;
  const int64_t begin_us = clock.NowMicros();
  std::vector<char> content(restores.empty() ? 0 : static_cast<size_t>(runner.kv_block_bytes()));
  for (const EngineState::Restore& restore : restores) {
    const Status read = state.spill->Read(restore.key, content);
    if (read.ok()) {
      runner.RestoreBlock(restore.block.value(), content);
      ++state.counters.num_kv_blocks_restored;
    } else {
      state.FinishRequest(NumberOf(restore.sequence), FinishReason::kError, read,
                          clock.NowMicros());
    }
  }
  state.swap_cost.SawRestore(static_cast<int64_t>(restores.size()), clock.NowMicros() - begin_us);
}

}  // namespace polyad
