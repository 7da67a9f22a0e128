#pragma once

// Divides one attention call into tiles of query heads that share a kv head (attention_kernel.h)
// and the tiles over the pool. A tile that is a large part of the call's work (one decode over a
// long context, alone or among short ones) is divided by spans of keys as well; the sums are the
// same either way, because spans are merged in the same order. Engine thread.

#include <vector>

#include "kernels/cpu/attention_kernel.h"
#include "kernels/cpu/kv_storage.h"
#include "kernels/cpu/thread_pool.h"

namespace polyad::cpu {

class AttentionRunner {
 public:
  // Kernels for plain pages and for pages of codes.
  AttentionRunner(const AttentionKernels& plain, const AttentionKernels& coded, ThreadPool& pool);

  void Run(const AttentionArgs& args);

 private:
  // Query heads [first, first + count) of a sequence's rows x heads of one kv head, row by row, and
  // the spans of keys that some of them see.
  struct TileRange {
    const AttentionSequence* sequence;
    int64_t kv_head;
    int64_t first;
    int64_t count;
    int64_t first_span;
    int64_t num_spans;
    int64_t first_partial;  // of its spans in span_memory_; -1: the tile is one task
  };
  struct Task {
    const TileRange* range;
    int64_t first_span;
    int64_t num_spans;
  };
  struct alignas(64) Line {
    float values[16];
  };
  // The call's sizes, shared by its tasks.
  struct Call {
    const AttentionArgs* args;
    const CpuKvStorage* kv;
    const AttentionKernels* kernels;
    int64_t group;  // query heads per kv head
    int64_t head_dim;
    int64_t padded_dim;
  };

  void CutTiles(const Call& call);
  void CutTasks();
  void RunTask(const Call& call, const Task& task, float* memory, float* partials) const;
  void MergeSpans(const Call& call, const TileRange& range, float* partials) const;
  AttentionTile MakeTile(const Call& call, const TileRange& range, float* memory) const;
  void FinishTile(const Call& call, const TileRange& range, const AttentionPartial& total) const;
  float* Reserve(std::vector<Line>& memory, int64_t num_floats) const;

  const AttentionKernels plain_;
  const AttentionKernels coded_;
  ThreadPool& pool_;
  std::vector<TileRange> tiles_;                  // reused between calls
  std::vector<Task> tasks_;                       // likewise
  std::vector<std::vector<Line>> worker_memory_;  // one per worker
  std::vector<Line> span_memory_;                 // partials of tiles that are several tasks
  int64_t num_partials_ = 0;
};

}  // namespace polyad::cpu
