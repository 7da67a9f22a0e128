// A row's bits never depend on its batch mates, the chunking, cache hits, preemption or the number
// of threads: random mixes of tenants against each request run alone, in the fast mode and in the
// exact one.
#include <algorithm>
#include <filesystem>
#include <random>
#include <set>

#include "gtest/gtest.h"
#include "kernels/backend_factory.h"
#include "tests/engine/model/step_harness.h"

namespace polyad {
namespace {

constexpr int kNumMixes = 200;
constexpr int kNumCodedMixes = 60;  // of each format with codes: the steps around them are the same
constexpr int64_t kGenerated = 3;

// Then its prompt runs in one step and each later token alone, as the scheduler has it.
bool ReadsWholePrompt(const TestSequence& sequence) {
  return sequence.adapter != nullptr && sequence.adapter->reads_whole_prompt();
}

// kAuto: K/V as activations are.
struct Numbers {
  ComputeMode mode;
  KvFormat kv_format;
};

class Invariance : public testing::TestWithParam<std::tuple<std::string, Numbers>> {
 protected:
  void Load(const std::string& model) {
    const auto& [isa, numbers] = GetParam();
    for (int threads : {1, 2}) {
      BackendOptions options;
      options.mode = numbers.mode;
      options.isa = isa;
      options.num_threads = threads;
      models_.push_back(LoadTestModel(GoldenPath("models/" + model), "cpu", options, 16 << 20,
                                      numbers.kv_format));
    }
    leases_.resize(2, {nullptr});
    const std::filesystem::path root = GoldenPath("adapters/" + model);
    std::set<std::filesystem::path> paths;  // a directory's own order is not the same everywhere
    for (const auto& entry : std::filesystem::directory_iterator(root)) paths.insert(entry.path());
    for (const std::filesystem::path& path : paths) {
      LoadAdapterSpec spec;
      spec.name = path.filename().string();
      spec.path = path.string();
      spec.options = GoldenOptions(spec.path);
      for (size_t i = 0; i < 2; ++i) {
        ASSERT_TRUE(models_[i].adapters->Load(spec, nullptr).ok());
        leases_[i].push_back(*models_[i].adapters->Acquire(spec.name, ""));
      }
    }
  }

  // Prompts share a few long heads, so that prefix hits happen.
  std::vector<int32_t> RandomTokens(std::mt19937_64& rng, int64_t vocab) {
    std::mt19937_64 head_rng(rng() % 4);
    const size_t head = 16 * (rng() % 3);
    const size_t tail = 1 + rng() % 40;
    std::vector<int32_t> tokens;
    for (size_t i = 0; i < head; ++i)
      tokens.push_back(static_cast<int32_t>(head_rng() % static_cast<uint64_t>(vocab)));
    for (size_t i = 0; i < tail + kGenerated; ++i) {
      tokens.push_back(static_cast<int32_t>(rng() % static_cast<uint64_t>(vocab)));
    }
    return tokens;
  }

  std::vector<TestModel> models_;  // one thread, two threads
  std::vector<std::vector<std::shared_ptr<const AdapterVersion>>> leases_;
};

TEST_P(Invariance, ARequestsLogitsAreItsOwnInEveryMix) {
  Load("llama");
  const int64_t vocab = models_[0].model->spec().vocab_size;
  std::mt19937_64 rng(7);
  const bool coded = IsCoded(std::get<1>(GetParam()).kv_format);
  const int num_mixes = coded ? kNumCodedMixes : kNumMixes;
  for (int mix = 0; mix < num_mixes; ++mix) {
    const size_t threads_index = rng() % 2;
    Model& model = *models_[threads_index].model;
    StepHarness alone(*models_[1 - threads_index].model, rng());
    StepHarness mixed(model, rng());
    const size_t size = 1 + rng() % 64;
    std::vector<TestSequence> sequences(size);
    std::vector<size_t> adapter_of(size);
    for (size_t i = 0; i < size; ++i) {
      adapter_of[i] = rng() % leases_[0].size();
      sequences[i] = MakeSequence(RandomTokens(rng, vocab), leases_[threads_index][adapter_of[i]]);
    }
    const size_t watched = rng() % size;
    TestSequence lonely = sequences[watched];
    lonely.adapter = leases_[1 - threads_index][adapter_of[watched]];
    const auto total = static_cast<int64_t>(lonely.tokens.size());
    std::vector<std::vector<float>> expected;
    expected.push_back(alone.Step({{&lonely, total - kGenerated, 1}})[0]);
    for (int64_t i = 0; i < kGenerated; ++i) expected.push_back(alone.Step({{&lonely, 1, 1}})[0]);

    bool preempted = false;
    while (sequences[watched].num_computed < total) {
      std::vector<TestChunk> chunks;
      int64_t rows = 0;
      size_t watched_chunk = 0;
      for (size_t i = 0; i < size; ++i) {
        TestSequence& sequence = sequences[i];
        const int64_t left = static_cast<int64_t>(sequence.tokens.size()) - sequence.num_computed;
        if (left == 0 || (i != watched && rng() % 4 == 0)) continue;
        // A prefix hit where somebody has it.
        if (sequence.num_computed == 0 && !ReadsWholePrompt(sequence) && rng() % 2 == 0) {
          for (TestSequence& other : sequences) {
            if (&other == &sequence || other.adapter != sequence.adapter) continue;
            if (other.adapter_begin != sequence.adapter_begin) continue;
            if (other.prompt_choice.first != sequence.prompt_choice.first ||
                other.prompt_choice.scale != sequence.prompt_choice.scale) {
              continue;
            }
            int64_t shared = 0;
            while (shared + 16 < static_cast<int64_t>(sequence.tokens.size()) - kGenerated &&
                   shared + 16 <= other.num_computed &&
                   std::equal(sequence.tokens.begin() + shared,
                              sequence.tokens.begin() + shared + 16,
                              other.tokens.begin() + shared)) {
              shared += 16;
            }
            if (shared > 0) {
              mixed.SharePrefix(other, sequence, shared);
              break;
            }
          }
        }
        const int64_t rest = static_cast<int64_t>(sequence.tokens.size()) - sequence.num_computed;
        const int64_t wanted = ReadsWholePrompt(sequence) ? std::max<int64_t>(rest - kGenerated, 1)
                                                          : 1 + static_cast<int64_t>(rng() % 24);
        if (wanted > 500 - rows && ReadsWholePrompt(sequence)) break;
        const int64_t count = std::min<int64_t>({rest, wanted, 500 - rows});
        if (count <= 0) break;
        if (i == watched) watched_chunk = chunks.size();
        chunks.push_back({&sequence, count, count});
        rows += count;
      }
      const int64_t before = sequences[watched].num_computed;
      if (std::none_of(chunks.begin(), chunks.end(), [&](const TestChunk& chunk) {
            return chunk.sequence == &sequences[watched];
          })) {
        continue;
      }
      const std::vector<std::vector<float>> logits = mixed.Step(chunks);
      for (int64_t position = before; position < sequences[watched].num_computed; ++position) {
        const int64_t index = position - (total - kGenerated - 1);
        if (index < 0) continue;
        const float* row = logits[watched_chunk].data() + (position - before) * vocab;
        ASSERT_EQ(std::vector<float>(row, row + vocab), expected[static_cast<size_t>(index)])
            << "mix " << mix << ", position " << position;
      }
      if (!preempted && rng() % 3 == 0 && sequences[watched].num_computed < total) {
        preempted = true;
        if (rng() % 2 == 0) {
          mixed.Release(sequences[watched]);  // recomputed from the start
        } else {
          mixed.SpillAndRestore(sequences[watched]);
        }
      }
    }
  }
}

std::vector<std::string> Isas() {
  std::vector<std::string> isas;
  for (const char* isa : {"scalar", "avx2", "avx512", "amx"}) {
    BackendOptions options;
    options.isa = isa;
    if (MakeBackend("cpu", options).ok()) isas.push_back(isa);
  }
  return isas;
}

INSTANTIATE_TEST_SUITE_P(
    Paths, Invariance,
    testing::Combine(testing::ValuesIn(Isas()),
                     testing::Values(Numbers{ComputeMode::kAuto, KvFormat::kAuto},
                                     Numbers{ComputeMode::kF32, KvFormat::kAuto},
                                     Numbers{ComputeMode::kAuto, KvFormat::kInt8},
                                     Numbers{ComputeMode::kAuto, KvFormat::kInt4})),
    [](const auto& test) {
      const Numbers& numbers = std::get<1>(test.param);
      const bool fast = numbers.mode == ComputeMode::kAuto;
      return std::get<0>(test.param) + (fast ? "_auto_" : "_f32_") +
             std::string(NameOf(numbers.kv_format));
    });

}  // namespace
}  // namespace polyad
