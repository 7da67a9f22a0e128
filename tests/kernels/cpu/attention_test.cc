// The promise of kernels/api/backend.h for attention: a row's bits depend on its own context alone.
// Every test compares with the same tokens taken one at a time, alone, on one thread, with blocks
// in order. covers: kernels/cpu/attention_kernel.cc covers: kernels/cpu/attention_amx.cc

#include "kernels/cpu/attention.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <numeric>
#include <random>
#include <string>

#include "gtest/gtest.h"
#include "kernels/cpu/cpu_backend.h"

namespace polyad::cpu {
namespace {

struct Shape {
  int64_t num_heads;
  int64_t num_kv_heads;
  int64_t head_dim;
  int64_t window;
  int64_t context;
  int64_t num_gates = 0;  // a multiple of kBlockTokens
  KvFormat format = KvFormat::kAuto;
};

// One sequence's q|k|v rows, before rotation (there is none), its rows' gates of the first keys,
// and where its blocks lie.
struct Context {
  std::vector<float> qkv;    // [context, width]
  std::vector<float> gates;  // [context, num_gates]
  std::vector<int32_t> blocks;
};

struct Piece {
  size_t context;
  int64_t begin;
  int64_t end;
};

class World {
 public:
  World(const Shape& shape, const BackendOptions& options, size_t num_contexts)
      : shape_(shape), backend_(*CpuBackend::Create(options)) {
    const int64_t blocks_each = (shape.context + kBlockTokens - 1) / kBlockTokens;
    num_blocks_ = blocks_each * static_cast<int64_t>(num_contexts) + 3;
    std::mt19937 random(7);
    std::normal_distribution<float> normal;
    contexts_.resize(num_contexts);
    for (size_t c = 0; c < num_contexts; ++c) {
      contexts_[c].qkv.resize(static_cast<size_t>(shape.context * width()));
      for (float& value : contexts_[c].qkv) value = normal(random);
      contexts_[c].gates.resize(static_cast<size_t>(shape.context * shape.num_gates));
      for (float& gate : contexts_[c].gates) gate = normal(random);
      contexts_[c].blocks.resize(static_cast<size_t>(blocks_each));
      std::iota(contexts_[c].blocks.begin(), contexts_[c].blocks.end(),
                static_cast<int32_t>(static_cast<int64_t>(c) * blocks_each));
    }
    Clear();
  }

  int64_t width() const { return (shape_.num_heads + 2 * shape_.num_kv_heads) * shape_.head_dim; }
  int64_t out_width() const { return shape_.num_heads * shape_.head_dim; }

  // New pages; `poison` fills every one with NaN, as a broken earlier tenant might have left them.
  void Clear(bool poison = false) {
    kv_ = *backend_->AllocateKv({2, shape_.num_kv_heads, shape_.head_dim, shape_.format},
                                num_blocks_);
    if (!poison) return;
    auto& kv = static_cast<CpuKvStorage&>(*kv_);
    const std::vector<float> nan(static_cast<size_t>(shape_.head_dim),
                                 std::numeric_limits<float>::quiet_NaN());
    for (int64_t page = 0; page < num_blocks_ * shape_.num_kv_heads; ++page) {
      for (int64_t token = 0; token < kBlock; ++token) {
        const PageToken at{kv.layout(), shape_.head_dim, token};
        scalar::MakeRowKernels().store_token(at, nan.data(), nan.data(),
                                             kv.Page(1, 0) + page * kv.page_bytes());
      }
    }
  }

  void Permute(uint32_t seed) {
    std::vector<int32_t> all(static_cast<size_t>(num_blocks_));
    std::iota(all.begin(), all.end(), 0);
    std::shuffle(all.begin(), all.end(), std::mt19937(seed));
    size_t next = 0;
    for (Context& context : contexts_) {
      for (int32_t& block : context.blocks) block = all[next++];
    }
  }

  // One step over the pieces; results land in `out` of each context, [context, out_width] raw
  // activations.
  void Step(const std::vector<Piece>& pieces, std::vector<std::vector<char>>& out) {
    int64_t rows = 0;
    for (const Piece& piece : pieces) rows += piece.end - piece.begin;
    std::vector<float> qkv;
    std::vector<int32_t> positions;
    std::vector<int64_t> slots;
    std::vector<AttentionSequence> sequences;
    for (const Piece& piece : pieces) {
      Context& context = contexts_[piece.context];
      const auto row_begin = static_cast<int64_t>(positions.size());
      for (int64_t p = piece.begin; p < piece.end; ++p) {
        positions.push_back(static_cast<int32_t>(p));
        slots.push_back(context.blocks[static_cast<size_t>(p / kBlockTokens)] * kBlockTokens +
                        p % kBlockTokens);
      }
      const auto row = context.qkv.begin() + piece.begin * width();
      qkv.insert(qkv.end(), row, row + (piece.end - piece.begin) * width());
      sequences.push_back(
          {row_begin, row_begin + piece.end - piece.begin, piece.end, context.blocks});
      if (shape_.num_gates == 0) continue;
      sequences.back().key_gates = {context.gates.data() + piece.begin * shape_.num_gates,
                                    piece.end - piece.begin, shape_.num_gates, shape_.num_gates};
    }
    const FloatRows qkv_rows{qkv.data(), rows, width(), width()};
    QkvArgs store;
    store.qkv = qkv_rows;
    store.num_heads = shape_.num_heads;
    store.positions = positions;
    store.slots = slots;
    store.kv = kv_.get();
    store.layer = 1;
    backend_->RotateAndStore(store);
    const DType dtype = backend_->activation_dtype();
    const int64_t row_bytes = RowBytes(dtype, out_width());
    std::vector<char> result(static_cast<size_t>(rows * row_bytes));
    AttentionArgs args;
    args.qkv = qkv_rows;
    args.out = {result.data(), dtype, rows, out_width(), out_width()};
    args.num_heads = shape_.num_heads;
    args.scale = 1.0f / std::sqrt(static_cast<float>(shape_.head_dim));
    args.sliding_window = shape_.window;
    args.sequences = sequences;
    args.kv = kv_.get();
    args.layer = 1;
    backend_->Attention(args);
    int64_t row = 0;
    for (const Piece& piece : pieces) {
      for (int64_t p = piece.begin; p < piece.end; ++p, ++row) {
        std::memcpy(out[piece.context].data() + p * row_bytes, result.data() + row * row_bytes,
                    static_cast<size_t>(row_bytes));
      }
    }
  }

  std::vector<std::vector<char>> NewOutputs() const {
    const auto bytes =
        static_cast<size_t>(shape_.context * RowBytes(backend_->activation_dtype(), out_width()));
    return std::vector<std::vector<char>>(contexts_.size(), std::vector<char>(bytes));
  }

  // Every context alone, token by token.
  std::vector<std::vector<char>> Alone() {
    std::vector<std::vector<char>> out = NewOutputs();
    for (size_t c = 0; c < contexts_.size(); ++c) {
      for (int64_t p = 0; p < shape_.context; ++p) Step({{c, p, p + 1}}, out);
    }
    return out;
  }

  // All contexts together in random chunks of up to `max_chunk`, some idle at each step.
  std::vector<std::vector<char>> Mixed(uint32_t seed, int64_t max_chunk) {
    std::mt19937 random(seed);
    std::vector<std::vector<char>> out = NewOutputs();
    std::vector<int64_t> done(contexts_.size(), 0);
    while (*std::min_element(done.begin(), done.end()) < shape_.context) {
      std::vector<Piece> pieces;
      for (size_t c = 0; c < contexts_.size(); ++c) {
        if (random() % 4 == 0) continue;
        const int64_t chunk =
            random() % 2 == 0 ? 1 : 1 + static_cast<int64_t>(random()) % max_chunk;
        const int64_t end = std::min(shape_.context, done[c] + chunk);
        if (end > done[c]) pieces.push_back({c, done[c], end});
        done[c] = end;
      }
      std::shuffle(pieces.begin(), pieces.end(), random);
      if (!pieces.empty()) Step(pieces, out);
    }
    return out;
  }

 private:
  const Shape shape_;
  std::unique_ptr<CpuBackend> backend_;
  int64_t num_blocks_ = 0;
  std::vector<Context> contexts_;
  std::unique_ptr<KvStorage> kv_;
};

std::vector<std::string> IsasHere() {
  std::vector<std::string> names;
  for (Isa isa : {Isa::kScalar, Isa::kAvx2, Isa::kAvx512, Isa::kAmx}) {
    if (isa <= BestIsa()) names.emplace_back(NameOf(isa));
  }
  return names;
}

struct Setting {
  std::string isa;
  ComputeMode mode;
  Shape shape;
};

std::vector<Setting> Settings() {
  const Shape shapes[] = {
      {9, 3, 64, 0, 150},  {4, 4, 8, 0, 70},      {8, 1, 80, 0, 67},  {14, 2, 32, 33, 140},
      {2, 1, 16, 0, 1100}, {2, 2, 16, 530, 1100}, {15, 1, 20, 5, 90}, {9, 3, 64, 0, 150, 80},
  };
  std::vector<Setting> settings;
  for (const std::string& isa : IsasHere()) {
    for (ComputeMode mode : {ComputeMode::kF32, ComputeMode::kAuto}) {
      for (const Shape& shape : shapes) settings.push_back({isa, mode, shape});
    }
    for (KvFormat format : {KvFormat::kInt8, KvFormat::kInt4}) {
      for (const Shape& shape :
           {shapes[0], shapes[2], shapes[3], shapes[5], shapes[6], shapes[7]}) {
        settings.push_back({isa, ComputeMode::kAuto, shape});
        settings.back().shape.format = format;
      }
    }
  }
  return settings;
}

class AttentionInvarianceTest : public testing::TestWithParam<Setting> {};

TEST_P(AttentionInvarianceTest, ARowsBitsDependOnItsOwnContextAlone) {
  const Setting& setting = GetParam();
  World alone(setting.shape, {setting.mode, 1, setting.isa}, 3);
  const std::vector<std::vector<char>> want = alone.Alone();
  for (int num_threads : {1, 2, 3}) {
    World world(setting.shape, {setting.mode, num_threads, setting.isa}, 3);
    for (uint32_t seed : {1u, 2u}) {
      world.Clear(/*poison=*/true);
      world.Permute(seed);
      const int64_t max_chunk = seed == 1 ? 40 : setting.shape.context;
      const std::vector<std::vector<char>> got = world.Mixed(seed, max_chunk);
      for (size_t c = 0; c < want.size(); ++c) {
        EXPECT_TRUE(got[c] == want[c])
            << "threads " << num_threads << " seed " << seed << " context " << c;
      }
    }
  }
}

// One long context at a time: few tiles, so the spans of a decode are divided over the threads.
TEST_P(AttentionInvarianceTest, DividingALongContextOverThreadsChangesNothing) {
  const Setting& setting = GetParam();
  World one(setting.shape, {setting.mode, 1, setting.isa}, 1);
  World three(setting.shape, {setting.mode, 3, setting.isa}, 1);
  EXPECT_TRUE(one.Alone() == three.Alone());
}

INSTANTIATE_TEST_SUITE_P(All, AttentionInvarianceTest, testing::ValuesIn(Settings()),
                         [](const testing::TestParamInfo<Setting>& test) {
                           const Setting& s = test.param;
                           return s.isa + (s.mode == ComputeMode::kF32 ? "_f32_" : "_auto_") +
                                  std::to_string(s.shape.num_heads) + "x" +
                                  std::to_string(s.shape.head_dim) + "over" +
                                  std::to_string(s.shape.num_kv_heads) + "_window" +
                                  std::to_string(s.shape.window) + "_context" +
                                  std::to_string(s.shape.context) + "_gates" +
                                  std::to_string(s.shape.num_gates) + "_" +
                                  std::string(NameOf(s.shape.format));
                         });

}  // namespace
}  // namespace polyad::cpu
