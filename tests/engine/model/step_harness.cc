#include "tests/engine/model/step_harness.h"

#include <algorithm>
#include <numeric>
#include <random>

#include "engine/base/check.h"
#include "engine/model/file_base_weights.h"
#include "kernels/backend_factory.h"

namespace polyad {
namespace {

struct OrderedChunk {
  const TestChunk* chunk;
  size_t index;
};

}  // namespace

std::string GoldenPath(const std::string& relative) {
  return std::string(POLYAD_SOURCE_DIR) + "/tests/golden/" + relative;
}

TestModel LoadTestModel(const std::string& path, const std::string& backend_name,
                        const BackendOptions& options, int64_t kv_bytes) {
  TestModel loaded;
  StatusOr<std::unique_ptr<Backend>> backend = MakeBackend(backend_name, options);
  POLYAD_CHECK(backend.ok(), backend.status().ToString().c_str());
  loaded.backend = std::move(*backend);
  StatusOr<ModelFiles> files = OpenModel(path);
  POLYAD_CHECK(files.ok(), files.status().ToString().c_str());
  loaded.files = std::make_shared<const ModelFiles>(std::move(*files));
  ModelOptions model_options;
  model_options.kv_bytes = kv_bytes;
  StatusOr<std::unique_ptr<Model>> model =
      Model::Load(*loaded.files, *loaded.backend, model_options);
  POLYAD_CHECK(model.ok(), model.status().ToString().c_str());
  loaded.model = std::move(*model);
  AdapterStoreOptions store_options;
  store_options.base = std::make_shared<FileBaseWeights>(loaded.files);
  loaded.adapters =
      std::make_unique<AdapterStore>(loaded.model->spec(), *loaded.backend, store_options);
  return loaded;
}

StepHarness::StepHarness(Model& model, uint64_t shuffle_seed) : model_(model) {
  free_blocks_.resize(static_cast<size_t>(model.num_kv_blocks()));
  std::iota(free_blocks_.begin(), free_blocks_.end(), 0);
  std::shuffle(free_blocks_.begin(), free_blocks_.end(), std::mt19937_64(shuffle_seed));
  share_count_.assign(free_blocks_.size(), 0);
}

void StepHarness::Grow(TestSequence& sequence, int64_t num_tokens) {
  while (static_cast<int64_t>(sequence.blocks.size()) * kBlockTokens < num_tokens) {
    POLYAD_CHECK(!free_blocks_.empty(), "the test's K/V pool is too small");
    sequence.blocks.push_back(free_blocks_.back());
    ++share_count_[static_cast<size_t>(free_blocks_.back())];
    free_blocks_.pop_back();
  }
}

void StepHarness::SharePrefix(const TestSequence& from, TestSequence& to, int64_t num_tokens) {
  POLYAD_CHECK(
      num_tokens % kBlockTokens == 0 && num_tokens <= from.num_computed && to.blocks.empty(),
      "a shared prefix is whole computed blocks");
  for (int64_t i = 0; i < num_tokens / kBlockTokens; ++i) {
    to.blocks.push_back(from.blocks[static_cast<size_t>(i)]);
    ++share_count_[static_cast<size_t>(to.blocks.back())];
  }
  to.num_computed = num_tokens;
}

void StepHarness::Release(TestSequence& sequence) {
  for (const int32_t block : sequence.blocks) {
    if (--share_count_[static_cast<size_t>(block)] == 0) free_blocks_.push_back(block);
  }
  sequence.blocks.clear();
  sequence.num_computed = 0;
}

std::vector<std::vector<float>> StepHarness::Step(const std::vector<TestChunk>& chunks) {
  std::vector<OrderedChunk> ordered;
  for (size_t i = 0; i < chunks.size(); ++i) ordered.push_back({&chunks[i], i});
  std::stable_sort(ordered.begin(), ordered.end(), [](const auto& a, const auto& b) {
    return a.chunk->sequence->adapter < b.chunk->sequence->adapter;  // the base (null) first
  });
  StepBatch batch;
  for (const OrderedChunk& entry : ordered) {
    TestSequence& sequence = *entry.chunk->sequence;
    const int64_t begin = batch.num_rows();
    const int64_t end = begin + entry.chunk->count;
    Grow(sequence, sequence.num_computed + entry.chunk->count);
    for (int64_t i = 0; i < entry.chunk->count; ++i) {
      const int64_t position = sequence.num_computed + i;
      batch.token_ids.push_back(sequence.tokens[static_cast<size_t>(position)]);
      batch.positions.push_back(static_cast<int32_t>(position));
      const int64_t block = sequence.blocks[static_cast<size_t>(position / kBlockTokens)];
      batch.slots.push_back(block * kBlockTokens + position % kBlockTokens);
      if (i >= entry.chunk->count - entry.chunk->num_logits) {
        batch.sample_rows.push_back(static_cast<int32_t>(begin + i));
      }
    }
    sequence.num_computed += entry.chunk->count;
    const auto block_begin = static_cast<int64_t>(batch.block_ids.size());
    batch.block_ids.insert(batch.block_ids.end(), sequence.blocks.begin(), sequence.blocks.end());
    batch.sequences.push_back({begin, end, sequence.num_computed, block_begin,
                               static_cast<int64_t>(batch.block_ids.size())});
    if (!batch.segments.empty() && batch.segments.back().adapter == sequence.adapter.get()) {
      batch.segments.back().row_end = end;
    } else {
      batch.segments.push_back({sequence.adapter.get(), begin, end});
    }
  }
  const StatusOr<FloatRows> logits = model_.Run(batch);
  POLYAD_CHECK(logits.ok(), "the step failed");
  std::vector<std::vector<float>> result(chunks.size());
  int64_t row = 0;
  for (const OrderedChunk& entry : ordered) {
    for (int64_t i = 0; i < entry.chunk->num_logits; ++i, ++row) {
      const float* data = logits->Row(row);
      result[entry.index].insert(result[entry.index].end(), data, data + logits->cols);
    }
  }
  return result;
}

std::vector<float> StepHarness::LogitsAlone(const std::vector<int32_t>& tokens,
                                            std::shared_ptr<const AdapterVersion> adapter) {
  TestSequence sequence{tokens, std::move(adapter), {}, 0};
  const auto count = static_cast<int64_t>(tokens.size());
  std::vector<float> logits = Step({{&sequence, count, count}})[0];
  Release(sequence);
  return logits;
}

std::vector<int32_t> StepHarness::Greedy(const std::vector<int32_t>& prompt,
                                         std::shared_ptr<const AdapterVersion> adapter,
                                         int64_t num_tokens) {
  TestSequence sequence{prompt, std::move(adapter), {}, 0};
  std::vector<int32_t> generated;
  while (static_cast<int64_t>(generated.size()) < num_tokens) {
    const int64_t count = static_cast<int64_t>(sequence.tokens.size()) - sequence.num_computed;
    const std::vector<float> logits = Step({{&sequence, count, 1}})[0];
    generated.push_back(ArgMaxOf(logits.data(), static_cast<int64_t>(logits.size())));
    sequence.tokens.push_back(generated.back());
  }
  Release(sequence);
  return generated;
}

int32_t ArgMaxOf(const float* logits, int64_t vocab_size) {
  return static_cast<int32_t>(std::max_element(logits, logits + vocab_size) - logits);
}

}  // namespace polyad
