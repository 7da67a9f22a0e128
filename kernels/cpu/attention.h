#pragma once

// Divides one attention call into tiles of query heads that share a kv head (attention_kernel.h)
// and the tiles over the pool. A step with few tiles but long contexts (one decode) is divided by
// spans of keys as well; the sums are the same either way, because spans are merged in the same
// order. Engine thread.

#include <vector>

#include "kernels/cpu/attention_kernel.h"
#include "kernels/cpu/kv_storage.h"
#include "kernels/cpu/thread_pool.h"

namespace polyad::cpu {

class AttentionRunner {
 public:
  AttentionRunner(const AttentionKernels& kernels, ThreadPool& pool);

  void Run(const AttentionArgs& args);

 private:
  // Query heads [first, first + count) of a sequence's rows x heads of one kv head, row by row.
  struct TileRange {
    const AttentionSequence* sequence;
    int64_t kv_head;
    int64_t first;
    int64_t count;
  };
  struct alignas(64) Line {
    float values[16];
  };
  // The call's sizes, shared by its tasks.
  struct Call {
    const AttentionArgs* args;
    const CpuKvStorage* kv;
    int64_t group;  // query heads per kv head
    int64_t head_dim;
    int64_t padded_dim;
  };

  void CutTiles(const Call& call);
  void RunTiles(const Call& call);
  void RunSpans(const Call& call, int64_t num_spans);
  void AttendTile(const Call& call, const TileRange& range, float* memory) const;
  AttentionTile MakeTile(const Call& call, const TileRange& range, float* memory) const;
  void FinishTile(const Call& call, const TileRange& range, const AttentionPartial& total) const;
  float* Reserve(std::vector<Line>& memory, int64_t num_floats) const;

  const AttentionKernels kernels_;
  ThreadPool& pool_;
  std::vector<TileRange> tiles_;                  // reused between calls
  std::vector<std::vector<Line>> worker_memory_;  // one per worker
  std::vector<Line> span_memory_;                 // partials of [tile][span]
};

}  // namespace polyad::cpu
