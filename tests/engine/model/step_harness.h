#pragma once

// Runs sequences through a Model by hand, without scheduler or engine: tests say which rows make a
// step. Owns the block tables; blocks are dealt from a shuffled list so that physical placement
// differs between runs. Test-only.

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "engine/adapters/adapter_store.h"
#include "engine/model/model.h"

namespace polyad {

// What goldens are held against: fp32 throughout, on two threads.
inline BackendOptions ExactOptions() {
  BackendOptions options;
  options.mode = ComputeMode::kF32;
  options.num_threads = 2;
  return options;
}

struct TestSequence {
  std::vector<int32_t> tokens;  // virtual ones, prompt, then whatever was generated
  std::shared_ptr<const AdapterVersion> adapter;
  std::vector<int32_t> blocks;
  int64_t num_computed = 0;   // tokens whose K/V are in the cache
  int64_t adapter_begin = 0;  // tokens before it are the base model's
  PromptChoice prompt_choice = {};
  std::vector<int32_t> first_pass_blocks = {};  // of an adapter that has a second cache
  int64_t reach = 0;  // how long it is said to get, where that is longer than it is
};
// A sequence that begins with the adapter's virtual tokens, if it has any.
TestSequence MakeSequence(const std::vector<int32_t>& prompt,
                          std::shared_ptr<const AdapterVersion> adapter);

// Tokens [first computed .. +count) of one sequence; logits of the last `num_logits` of them are
// wanted (zeros for virtual tokens that have no row).
struct TestChunk {
  TestSequence* sequence = nullptr;
  int64_t count = 0;
  int64_t num_logits = 0;
};

class StepHarness {
 public:
  StepHarness(Model& model, uint64_t shuffle_seed);

  // Runs one step; returns each chunk's logits rows in the chunks' order, [num_logits * vocab]
  // each.
  std::vector<std::vector<float>> Step(const std::vector<TestChunk>& chunks);
  // Hands a sequence's first `num_tokens` tokens (whole blocks) to another as a cached prefix.
  void SharePrefix(const TestSequence& from, TestSequence& to, int64_t num_tokens);
  void Release(TestSequence& sequence);  // its blocks return to the pile, unless shared
  // Spills a sequence's blocks, overwrites those that nobody shares, and brings them back into
  // others.
  void SpillAndRestore(TestSequence& sequence);

  // Of the given tokens, not of virtual ones.
  std::vector<float> LogitsAlone(const std::vector<int32_t>& tokens,
                                 std::shared_ptr<const AdapterVersion> adapter);
  std::vector<int32_t> Greedy(const std::vector<int32_t>& prompt,
                              std::shared_ptr<const AdapterVersion> adapter, int64_t num_tokens);

 private:
  void Grow(std::vector<int32_t>& blocks, int64_t num_tokens);
  void AppendChunk(const TestChunk& chunk, StepBatch& batch);
  static void AppendSegments(const TestSequence& sequence, int64_t first, StepBatch& batch);

  Model& model_;
  std::vector<int32_t> free_blocks_;
  std::vector<int32_t> share_count_;  // per block, sequences that hold it
};

int32_t ArgMaxOf(const float* logits, int64_t vocab_size);

// A model loaded for a test, with the backend it lives on.
struct TestModel {
  std::unique_ptr<Backend> backend;
  std::shared_ptr<const ModelFiles> files;
  std::unique_ptr<Model> model;
  std::unique_ptr<AdapterStore> adapters;
};
TestModel LoadTestModel(const std::string& path, std::unique_ptr<Backend> backend,
                        int64_t kv_bytes = 16 << 20, KvFormat kv_format = KvFormat::kAuto,
                        KvPlacement placement = KvPlacement::kByLayer);
TestModel LoadTestModel(const std::string& path, const std::string& backend_name,
                        const BackendOptions& options, int64_t kv_bytes = 16 << 20,
                        KvFormat kv_format = KvFormat::kAuto,
                        KvPlacement placement = KvPlacement::kByLayer);
std::string GoldenPath(const std::string& relative);  // under tests/golden
// Of the folders in one of them, in order; and the model of tests/golden/models to open: a GGUF
// file or the folder.
std::vector<std::string> GoldenNamesIn(const std::string& relative);
std::string GoldenModelFile(const std::string& name);
// What golden.json says a load must choose of the file: {"options": {"task": 1}}.
AdapterOptions GoldenOptions(const std::string& directory);

}  // namespace polyad
