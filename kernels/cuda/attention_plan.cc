#include "kernels/cuda/attention_plan.h"

#include <algorithm>
#include <utility>

namespace polyad::cuda {
namespace {

constexpr int32_t kManyTilesRows = kAttentionTile * kAttentionWarps;

int32_t FirstKeyOf(const DeviceSequence& s, const AttentionHeads& heads, int32_t position) {
  return std::max(s.first_key, heads.window > 0 ? position - heads.window + 1 : 0);
}

class Planner {
 public:
  explicit Planner(const AttentionHeads& heads)
      : heads_(heads), group_(heads.num_heads / heads.num_kv_heads) {}

  void Add(DeviceSequence s) {
    const int32_t tokens = s.row_end - s.row_begin;
    const bool few = tokens * group_ <= kAttentionTile;
    const int32_t begin = FirstKeyOf(s, heads_, s.context_end - tokens);
    const int32_t first_span = begin / kAttentionSpan;
    s.slots = few ? (s.context_end - 1) / kAttentionSpan - first_span + 1 : 1;
    s.partial = plan_.num_partials;
    for (int32_t head = 0; head < heads_.num_kv_heads; ++head) {
      if (few) {
        AddSpans(s, head, begin);
      } else {
        AddTiles(s, head);
      }
    }
    for (int32_t i = 0; i < tokens; ++i) {
      plan_.merges.push_back({s.row_begin + i, s.slots, plan_.num_partials});
      plan_.num_partials += static_cast<int64_t>(heads_.num_heads) * s.slots;
    }
    plan_.sequences.push_back(s);
  }

  AttentionPlan Finish() {
    plan_.num_few = static_cast<int64_t>(plan_.items.size());
    plan_.items.insert(plan_.items.end(), many_.begin(), many_.end());
    return std::move(plan_);
  }

 private:
  int32_t Index() const { return static_cast<int32_t>(plan_.sequences.size()); }

  void AddSpans(const DeviceSequence& s, int32_t head, int32_t begin) {
    const int32_t rows = (s.row_end - s.row_begin) * group_;
    const int32_t first_span = begin / kAttentionSpan;
    for (int32_t slot = 0; slot < s.slots; ++slot) {
      const int32_t span_begin = (first_span + slot) * kAttentionSpan;
      plan_.items.push_back({Index(), head, 0, rows, std::max(begin, span_begin),
                             std::min(s.context_end, span_begin + kAttentionSpan), slot});
    }
  }

  void AddTiles(const DeviceSequence& s, int32_t head) {
    const int32_t tokens = s.row_end - s.row_begin;
    const int32_t first_position = s.context_end - tokens;
    for (int32_t row = 0; row < tokens * group_; row += kManyTilesRows) {
      const int32_t rows = std::min(kManyTilesRows, tokens * group_ - row);
      const int32_t first = first_position + row / group_;
      const int32_t last = first_position + (row + rows - 1) / group_;
      many_.push_back({Index(), head, row, rows, FirstKeyOf(s, heads_, first), last + 1, 0});
    }
  }

  const AttentionHeads heads_;
  const int32_t group_;
  AttentionPlan plan_;
  std::vector<AttentionItem> many_;
};

}  // namespace

AttentionPlan PlanAttention(std::span<const DeviceSequence> sequences,
                            const AttentionHeads& heads) {
  Planner planner(heads);
  for (const DeviceSequence& s : sequences) planner.Add(s);
  return planner.Finish();
}

}  // namespace polyad::cuda
