#include "engine/model/text_window.h"

#include <numeric>

#include "engine/spec/rope_frequencies.h"

namespace polyad {

StatusOr<FloatRows> RunWindow(Model& model, std::span<const int32_t> tokens,
                              const AdapterVersion* adapter) {
  const auto count = static_cast<int64_t>(tokens.size());
  const int64_t num_blocks = (count + kBlockTokens - 1) / kBlockTokens;
  if (count < 1 || count > model.max_context() || num_blocks > model.num_kv_blocks()) {
    return InvalidArgument("window: expected 1 to %d tokens, got %d", model.max_context(), count);
  }
  StepBatch batch;
  batch.token_ids.assign(tokens.begin(), tokens.end());
  batch.positions.resize(tokens.size());
  std::iota(batch.positions.begin(), batch.positions.end(), 0);
  batch.sample_rows = batch.positions;
  batch.slots.assign(batch.positions.begin(), batch.positions.end());  // blocks from the first on
  batch.block_ids.resize(static_cast<size_t>(num_blocks));
  std::iota(batch.block_ids.begin(), batch.block_ids.end(), 0);
  StepSequence rows{0, count, count, 0, num_blocks, nullptr};
  if (adapter != nullptr) rows.rope = adapter->rope();
  rows.rope_choice =
      RopeChoice(rows.rope == nullptr ? model.rope_reaches() : rows.rope->reaches(), count);
  batch.sequences.push_back(rows);
  batch.segments.push_back({adapter, 0, count, 0});
  return model.Run(batch);
}

}  // namespace polyad
