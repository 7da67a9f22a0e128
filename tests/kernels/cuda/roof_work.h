#pragma once

// What a launch of a kernel has to move and to multiply, counted from the plan that is launched,
// and how long a card needs for that at the least (Williams et al. 2009, "Roofline"). Bytes from
// and to memory count once, however often a block comes back to them. Test-only.

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "kernels/api/kv_format.h"
#include "kernels/cuda/weight_tiles.h"

namespace polyad::test {

// Of NVIDIA's data sheets, one for each architecture that the plugin has code for: memory, tensor
// cores (bf16, dense) and the others (fp32).
struct Card {
  const char* name;
  double bytes_per_s;
  double tensor_flops_per_s;
  double flops_per_s;
};
std::span<const Card> Cards();

struct Work {
  std::string kernel;  // as resources.tsv has it, without the type of its rows
  std::string shape;
  int64_t blocks = 0;
  double bytes = 0;
  double flops = 0;  // of the numbers that are asked for; a root, quotient or exponential is one
  double done = 0;   // what the kernel does for them, rows that a tile has beyond them included
  bool in_tensors = true;  // on tensor cores
};

struct Bound {
  double seconds;
  bool is_memory;
};
Bound BoundOf(const Work& work, const Card& card);

// A product with one weight; codes have a scale, and where they have offsets one of those, for
// each 32 inputs.
Work ProductWork(cuda::WeightFormat format, int64_t in, int64_t out, int64_t rows,
                 bool has_offsets = false);

// The launches of low-rank deltas of `adapters` adapters with `rows` rows each.
std::vector<Work> LowRankWork(int64_t in, int64_t rank, int64_t out, int64_t adapters,
                              int64_t rows);

Work SignWork(int64_t in, int64_t out, int64_t rows);

struct AttentionWorkShape {
  int64_t heads;
  int64_t kv_heads;
  int64_t dim;
  int64_t context;
  int64_t sequences;
  int64_t rows;  // of each sequence
  KvFormat format = KvFormat::kBF16;
};

// Attention, then the merge of what it leaves.
std::vector<Work> AttentionWork(const AttentionWorkShape& shape);

// Those that take rows one by one, and adapters' other ops, of Llama 3 8B's widths.
std::vector<Work> RowWorks(int64_t rows);

}  // namespace polyad::test
