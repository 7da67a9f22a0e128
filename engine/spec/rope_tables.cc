#include "engine/spec/rope_tables.h"

#include <algorithm>
#include <cmath>

#include "engine/base/check.h"
#include "engine/spec/rope_frequencies.h"

namespace polyad {

RopeTables::RopeTables(const RopeSpec& rope, int64_t max_position, int64_t max_context)
    : rope_(rope) {
  for (const int64_t reach : RopeReaches(rope, max_position)) {
    reaches_.push_back(reach);
    const int64_t num_positions = std::min(reach, max_context);
    tables_.push_back(rope.rotary_dim == 0 ? Table{} : Make(rope, reach, num_positions));
    if (reach >= max_context) break;
  }
}

RopeTables::Table RopeTables::Make(const RopeSpec& rope, int64_t reach, int64_t num_positions) {
  const std::vector<float> frequencies = RopeFrequencies(rope, reach);
  const auto attention_factor = static_cast<float>(rope.attention_factor);
  const size_t pairs = frequencies.size();
  Table table;
  table.cos.resize(static_cast<size_t>(num_positions) * pairs);
  table.sin.resize(table.cos.size());
  for (size_t position = 0; position < static_cast<size_t>(num_positions); ++position) {
    for (size_t pair = 0; pair < pairs; ++pair) {
      const float angle =
          static_cast<float>(position) * frequencies[pair];  // fp32, as the original
      const size_t at = position * pairs + pair;
      table.cos[at] = static_cast<float>(std::cos(static_cast<double>(angle))) * attention_factor;
      table.sin[at] = static_cast<float>(std::sin(static_cast<double>(angle))) * attention_factor;
    }
  }
  return table;
}

RopeTable RopeTables::view(int64_t choice) const {
  POLYAD_DCHECK(choice >= 0 && choice < static_cast<int64_t>(tables_.size()), "a rotary choice");
  const Table& table = tables_[static_cast<size_t>(choice)];
  return {table.cos.data(), table.sin.data(), rope_.rotary_dim};
}

int64_t RopeTables::bytes() const {
  int64_t bytes = 0;
  for (const Table& table : tables_) {
    bytes += static_cast<int64_t>((table.cos.size() + table.sin.size()) * sizeof(float));
  }
  return bytes;
}

}  // namespace polyad
