#include "tests/engine/model/step_harness.h"

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <numeric>
#include <random>

#include "engine/base/check.h"
#include "engine/io/json.h"
#include "engine/model/served_base_weights.h"
#include "engine/spec/rope_frequencies.h"
#include "kernels/backend_factory.h"

namespace polyad {
namespace {

struct OrderedChunk {
  const TestChunk* chunk;
  size_t index;
};

// What is stored and has no row.
bool StoredAt(const TestSequence& sequence, int64_t index) {
  const SoftPrompt* prompt = sequence.adapter ? sequence.adapter->soft_prompt() : nullptr;
  if (prompt == nullptr) return false;
  return index < (prompt->stores_kv ? prompt->num_slots() : prompt->padding);
}

}  // namespace

TestSequence MakeSequence(const std::vector<int32_t>& prompt,
                          std::shared_ptr<const AdapterVersion> adapter) {
  TestSequence sequence;
  if (adapter != nullptr) {
    for (int64_t i = 0; i < adapter->num_virtual_tokens(); ++i) {
      sequence.tokens.push_back(VirtualToken(i));
    }
    sequence.adapter_begin = adapter->BeginIn(prompt);
    sequence.prompt_choice = adapter->ChooseIn(prompt);
  }
  sequence.tokens.insert(sequence.tokens.end(), prompt.begin(), prompt.end());
  sequence.adapter = std::move(adapter);
  return sequence;
}

std::string GoldenPath(const std::string& relative) {
  return std::string(POLYAD_SOURCE_DIR) + "/tests/golden/" + relative;
}

std::vector<std::string> GoldenNamesIn(const std::string& relative) {
  std::vector<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(GoldenPath(relative))) {
    if (entry.is_directory()) names.push_back(entry.path().filename().string());
  }
  std::sort(names.begin(), names.end());
  return names;
}

std::string GoldenModelFile(const std::string& name) {
  const std::string directory = GoldenPath("models/" + name);
  const std::string gguf = directory + "/model.gguf";
  return std::filesystem::exists(gguf) ? gguf : directory;
}

AdapterOptions GoldenOptions(const std::string& directory) {
  std::ifstream file(directory + "/golden.json");
  const std::string text((std::istreambuf_iterator<char>(file)), {});
  const StatusOr<Json> golden = ParseJson(text, "golden.json", JsonLimits{});
  POLYAD_CHECK(golden.ok(), golden.status().ToString().c_str());
  AdapterOptions options;
  if (!golden->contains("options")) return options;
  for (const auto& [key, value] : (*golden)["options"].items()) {
    options[key] = value.get<int64_t>();
  }
  return options;
}

TestModel LoadTestModel(const std::string& path, const std::string& backend_name,
                        const BackendOptions& options, int64_t kv_bytes, KvFormat kv_format,
                        KvPlacement placement) {
  StatusOr<std::unique_ptr<Backend>> backend = MakeBackend(backend_name, options);
  POLYAD_CHECK(backend.ok(), backend.status().ToString().c_str());
  return LoadTestModel(path, *std::move(backend), kv_bytes, kv_format, placement);
}

TestModel LoadTestModel(const std::string& path, std::unique_ptr<Backend> backend, int64_t kv_bytes,
                        KvFormat kv_format, KvPlacement placement) {
  TestModel loaded;
  loaded.backend = std::move(backend);
  StatusOr<ModelFiles> files = OpenModel(path);
  POLYAD_CHECK(files.ok(), files.status().ToString().c_str());
  loaded.files = std::make_shared<const ModelFiles>(std::move(*files));
  ModelOptions model_options;
  model_options.kv_bytes = kv_bytes;
  model_options.kv_format = kv_format;
  model_options.kv_placement = placement;
  StatusOr<std::unique_ptr<Model>> model =
      Model::Load(*loaded.files, *loaded.backend, model_options);
  POLYAD_CHECK(model.ok(), model.status().ToString().c_str());
  loaded.model = std::move(*model);
  AdapterStoreOptions store_options;
  store_options.base =
      std::make_shared<ServedBaseWeights>(loaded.files, *loaded.model, *loaded.backend);
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

void StepHarness::Grow(std::vector<int32_t>& blocks, int64_t num_tokens) {
  while (static_cast<int64_t>(blocks.size()) * kBlockTokens < num_tokens) {
    POLYAD_CHECK(!free_blocks_.empty(), "the test's K/V pool is too small");
    blocks.push_back(free_blocks_.back());
    ++share_count_[static_cast<size_t>(free_blocks_.back())];
    free_blocks_.pop_back();
  }
}

void StepHarness::SharePrefix(const TestSequence& from, TestSequence& to, int64_t num_tokens) {
  POLYAD_CHECK(
      num_tokens % kBlockTokens == 0 && num_tokens <= from.num_computed && to.blocks.empty(),
      "a shared prefix is whole computed blocks");
  const auto share = [&](const std::vector<int32_t>& theirs, std::vector<int32_t>& own) {
    if (theirs.empty()) return;
    own.assign(theirs.begin(), theirs.begin() + num_tokens / kBlockTokens);
    for (const int32_t block : own) ++share_count_[static_cast<size_t>(block)];
  };
  share(from.blocks, to.blocks);
  share(from.first_pass_blocks, to.first_pass_blocks);
  to.num_computed = num_tokens;
}

void StepHarness::Release(TestSequence& sequence) {
  for (auto* blocks : {&sequence.blocks, &sequence.first_pass_blocks}) {
    for (const int32_t block : *blocks) {
      if (--share_count_[static_cast<size_t>(block)] == 0) free_blocks_.push_back(block);
    }
    blocks->clear();
  }
  sequence.num_computed = 0;
}

void StepHarness::SpillAndRestore(TestSequence& sequence) {
  const auto bytes = static_cast<size_t>(model_.kv_block_bytes());
  const std::vector<char> garbage(bytes, static_cast<char>(0xff));
  std::vector<char> content(bytes);
  for (auto* blocks : {&sequence.blocks, &sequence.first_pass_blocks}) {
    for (int32_t& block : *blocks) {
      model_.SaveBlock(block, content);
      if (--share_count_[static_cast<size_t>(block)] == 0) {
        model_.RestoreBlock(block, garbage);
        free_blocks_.push_back(block);
      }
      block = free_blocks_.front();
      free_blocks_.erase(free_blocks_.begin());
      ++share_count_[static_cast<size_t>(block)];
      model_.RestoreBlock(block, content);
    }
  }
}

std::vector<std::vector<float>> StepHarness::Step(const std::vector<TestChunk>& chunks) {
  std::vector<OrderedChunk> ordered;
  for (size_t i = 0; i < chunks.size(); ++i) ordered.push_back({&chunks[i], i});
  std::stable_sort(ordered.begin(), ordered.end(), [](const auto& a, const auto& b) {
    return a.chunk->sequence->adapter < b.chunk->sequence->adapter;  // the base (null) first
  });
  StepBatch batch;
  for (const OrderedChunk& entry : ordered) AppendChunk(*entry.chunk, batch);
  const StatusOr<FloatRows> logits = model_.Run(batch);
  POLYAD_CHECK(logits.ok(), "the step failed");
  std::vector<std::vector<float>> result(chunks.size());
  int64_t row = 0;
  for (const OrderedChunk& entry : ordered) {
    const TestSequence& sequence = *entry.chunk->sequence;
    for (int64_t i = entry.chunk->num_logits; i > 0; --i) {
      if (StoredAt(sequence, sequence.num_computed - i)) {
        result[entry.index].resize(result[entry.index].size() + static_cast<size_t>(logits->cols));
        continue;
      }
      const float* data = logits->Row(row);
      result[entry.index].insert(result[entry.index].end(), data, data + logits->cols);
      ++row;
    }
  }
  return result;
}

// One sequence's tokens of this step: rows, or stores of a prefix.
void StepHarness::AppendChunk(const TestChunk& chunk, StepBatch& batch) {
  TestSequence& sequence = *chunk.sequence;
  const int64_t first = sequence.num_computed;
  const int64_t end = first + chunk.count;
  const int64_t row_begin = batch.num_rows();
  Grow(sequence.blocks, end);
  const bool twice = sequence.adapter != nullptr && sequence.adapter->num_caches() > 1;
  if (twice) Grow(sequence.first_pass_blocks, end);
  const SoftPrompt* prompt = sequence.adapter ? sequence.adapter->soft_prompt() : nullptr;
  for (int64_t i = first; i < end; ++i) {
    const int32_t token = sequence.tokens[static_cast<size_t>(i)];
    const int64_t slot =
        sequence.blocks[static_cast<size_t>(i / kBlockTokens)] * kBlockTokens + i % kBlockTokens;
    if (StoredAt(sequence, i)) {
      const auto at = static_cast<int64_t>(batch.prefix_slots.size());
      batch.prefixes.push_back({prompt, i, at, at + 1});
      batch.prefix_slots.push_back(slot);
      continue;
    }
    const int64_t row = batch.num_rows();
    const PromptChoice& choice = sequence.prompt_choice;
    if (token < 0) {
      batch.prompts.push_back(
          {prompt, choice.first + i - prompt->padding, row, row + 1, choice.scale});
    }
    if (i >= end - chunk.num_logits) batch.sample_rows.push_back(static_cast<int32_t>(row));
    batch.token_ids.push_back(std::max(token, 0));
    batch.positions.push_back(static_cast<int32_t>(prompt ? prompt->PositionOf(i) : i));
    batch.slots.push_back(slot);
  }
  sequence.num_computed = end;
  if (batch.num_rows() == row_begin) return;
  const auto block_begin = static_cast<int64_t>(batch.block_ids.size());
  batch.block_ids.insert(batch.block_ids.end(), sequence.blocks.begin(), sequence.blocks.end());
  batch.sequences.push_back({row_begin, batch.num_rows(), end, block_begin,
                             static_cast<int64_t>(batch.block_ids.size()), prompt});
  StepSequence& rows = batch.sequences.back();
  if (sequence.adapter != nullptr) rows.rope = sequence.adapter->rope();
  rows.rope_choice =
      RopeChoice(rows.rope == nullptr ? model_.rope_reaches() : rows.rope->reaches(),
                 std::max<int64_t>(sequence.reach, static_cast<int64_t>(sequence.tokens.size())));
  if (twice) {
    rows.first_pass_begin = rows.block_end;
    batch.block_ids.insert(batch.block_ids.end(), sequence.first_pass_blocks.begin(),
                           sequence.first_pass_blocks.end());
    rows.first_pass_end = static_cast<int64_t>(batch.block_ids.size());
  }
  AppendSegments(sequence, first, batch);
}

void StepHarness::AppendSegments(const TestSequence& sequence, int64_t first, StepBatch& batch) {
  const StepSequence& rows = batch.sequences.back();
  const int64_t num_rows = rows.row_end - rows.row_begin;
  const int64_t num_base = std::clamp<int64_t>(sequence.adapter_begin - first, 0, num_rows);
  const int64_t num_virtual = sequence.adapter ? sequence.adapter->num_virtual_tokens() : 0;
  const auto extend = [&batch](const StepSegment& segment) {
    if (segment.row_begin == segment.row_end) return;
    const bool alone = segment.adapter != nullptr && segment.adapter->wants_own_segments();
    if (batch.segments.empty() || batch.segments.back().adapter != segment.adapter || alone) {
      batch.segments.push_back(segment);
    }
    batch.segments.back().row_end = segment.row_end;
  };
  const int64_t first_row = rows.context_end - num_rows;
  extend({nullptr, rows.row_begin, rows.row_begin + num_base});
  extend({sequence.adapter.get(), rows.row_begin + num_base, rows.row_end,
          first_row + num_base - num_virtual});
}

std::vector<float> StepHarness::LogitsAlone(const std::vector<int32_t>& tokens,
                                            std::shared_ptr<const AdapterVersion> adapter) {
  TestSequence sequence = MakeSequence(tokens, std::move(adapter));
  std::vector<float> logits = Step({{&sequence, static_cast<int64_t>(sequence.tokens.size()),
                                     static_cast<int64_t>(tokens.size())}})[0];
  Release(sequence);
  return logits;
}

std::vector<int32_t> StepHarness::Greedy(const std::vector<int32_t>& prompt,
                                         std::shared_ptr<const AdapterVersion> adapter,
                                         int64_t num_tokens) {
  TestSequence sequence = MakeSequence(prompt, std::move(adapter));
  sequence.reach = static_cast<int64_t>(sequence.tokens.size()) + num_tokens - 1;
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
