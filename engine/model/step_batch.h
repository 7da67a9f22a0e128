#pragma once

// One step's work as device-ready arrays: the rows of several sequences (prefill chunks and decodes
// alike), sorted by adapter so that each adapter is one segment. Made by runtime's Flatten, read by
// Model::Forward, dies with the step. Worked example: sequence A (adapter 7) decodes at position 9,
// sequence B (base) prefills positions 0..2:
//   token_ids [b0 b1 b2 a9]  positions [0 1 2 9]  segments [{base, 0, 3}, {7, 3, 4}]  sample_rows
//   [2, 3]

#include <cstdint>
#include <vector>

#include "engine/adapters/adapter_version.h"

namespace polyad {

struct StepSegment {
  const AdapterVersion* adapter = nullptr;  // null: the base model, which runs no delta at all
  int64_t row_begin = 0;
  int64_t row_end = 0;
};

struct StepSequence {
  int64_t row_begin = 0;
  int64_t row_end = 0;
  int64_t context_end = 0;  // tokens in the cache after this step
  int64_t block_begin = 0;  // range of block_ids: the whole block table
  int64_t block_end = 0;
};

struct StepBatch {
  std::vector<int32_t> token_ids;  // [num_rows]
  std::vector<int32_t> positions;  // [num_rows]
  std::vector<int64_t> slots;      // [num_rows] block * kBlockTokens + offset
  std::vector<StepSequence> sequences;
  std::vector<int32_t> block_ids;  // block tables, one after another
  std::vector<StepSegment> segments;
  std::vector<int32_t> sample_rows;  // rows whose logits are wanted, ascending

  int64_t num_rows() const { return static_cast<int64_t>(token_ids.size()); }
};

}  // namespace polyad
