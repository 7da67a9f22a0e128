#pragma once

// One step's work as device-ready arrays: the rows of several sequences (prefill chunks and decodes
// alike), sorted by adapter so that each adapter is one segment (an activated adapter's sequence
// may begin with a segment of the base). A sequence of which only prefixes are stored has no rows.
// Made by runtime's Flatten, read by Model::Forward, dies with the step. Worked example: sequence A
// (adapter 7) decodes at position 9, sequence B (base) prefills positions 0..2:
//   token_ids [b0 b1 b2 a9]  positions [0 1 2 9]  segments [{base, 0, 3}, {7, 3, 4}]  sample_rows
//   [2, 3]

#include <cstdint>
#include <vector>

#include "engine/adapters/adapter_version.h"

namespace polyad {

// An adapter that wants its own segments has one for each of its sequences; where it reads whole
// prompts, that is the sequence's whole prompt or one later token.
struct StepSegment {
  const AdapterVersion* adapter = nullptr;  // null: the base model, which runs no delta at all
  int64_t row_begin = 0;
  int64_t row_end = 0;
  int64_t text_begin = 0;  // own segments: the first row's place in the request's text, virtual
                           // tokens before it
};

struct StepSequence {
  int64_t row_begin = 0;
  int64_t row_end = 0;
  int64_t context_end = 0;  // tokens in the cache after this step
  int64_t block_begin = 0;  // range of block_ids: the whole block table
  int64_t block_end = 0;
  const SoftPrompt* soft_prompt = nullptr;
  // Range of block_ids too: the table of the first pass's cache, where the adapter has one.
  int64_t first_pass_begin = 0;
  int64_t first_pass_end = 0;
  // What its queries and keys turn by: an adapter's own tables, or the model's (null), and which of
  // them. The same in every step of a sequence.
  const RopeTables* rope = nullptr;
  int64_t rope_choice = 0;
};

// Rows of virtual tokens: row_begin + i is the soft prompt's embedding first + i, times scale.
struct StepPrompt {
  const SoftPrompt* prompt = nullptr;
  int64_t first = 0;
  int64_t row_begin = 0;
  int64_t row_end = 0;
  float scale = 1.0f;
};

// Virtual tokens whose keys and values are only stored: no rows, nothing is computed for them.
// What stands at first + i of the sequence goes to prefix_slots[slot_begin + i]: nothing (zeros)
// within the soft prompt's padding, then its own keys and values.
struct StepPrefix {
  const SoftPrompt* prompt = nullptr;
  int64_t first = 0;
  int64_t slot_begin = 0;
  int64_t slot_end = 0;
};

struct StepBatch {
  std::vector<int32_t> token_ids;  // [num_rows]; 0 for virtual tokens
  std::vector<int32_t> positions;  // [num_rows]
  std::vector<int64_t> slots;      // [num_rows] block * kBlockTokens + offset
  std::vector<StepSequence> sequences;
  std::vector<int32_t> block_ids;  // block tables, one after another
  std::vector<StepSegment> segments;
  std::vector<int32_t> sample_rows;  // rows whose logits are wanted, ascending
  std::vector<int32_t> hidden_rows;  // rows whose final hidden states are wanted, ascending
  std::vector<StepPrompt> prompts;
  std::vector<StepPrefix> prefixes;
  std::vector<int64_t> prefix_slots;

  int64_t num_rows() const { return static_cast<int64_t>(token_ids.size()); }
};

}  // namespace polyad
