#pragma once

// Rotary position tables, cos and sin [positions, rotary_dim / 2], in fp32 the way transformers
// computes them: one pair of tables for each reach of a scaling (rope_frequencies.h). A model has
// its own, and so has an adapter that was trained with another scaling. Immutable once made, shared
// freely between threads.

#include <cstdint>
#include <vector>

#include "engine/spec/model_spec.h"
#include "kernels/api/backend.h"

namespace polyad {

class RopeTables {
 public:
  RopeTables() = default;
  // For contexts of up to `max_context` tokens of a model whose own longest is `max_position`: what
  // is served of it changes no frequency.
  RopeTables(const RopeSpec& rope, int64_t max_position, int64_t max_context);

  const RopeSpec& spec() const { return rope_; }
  // The longest context of each choice, ascending.
  const std::vector<int64_t>& reaches() const { return reaches_; }
  // rotary_dim 0 (no rotation) where the model has learned positions. Valid as long as this is.
  RopeTable view(int64_t choice) const;
  int64_t bytes() const;

 private:
  struct Table {
    std::vector<float> cos;
    std::vector<float> sin;
  };
  static Table Make(const RopeSpec& rope, int64_t reach, int64_t num_positions);

  RopeSpec rope_;
  std::vector<int64_t> reaches_;
  std::vector<Table> tables_;  // one for each reach
};

}  // namespace polyad
