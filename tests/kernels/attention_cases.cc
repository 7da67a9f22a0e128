#include "tests/kernels/attention_cases.h"

#include <algorithm>
#include <numeric>

#include "absl/strings/str_format.h"
#include "kernels/cpu/kv_layout.h"
#include "tests/kernels/op_inputs.h"

namespace polyad::test {
namespace {

// Sequences with scattered blocks; the whole of each context is stored, then the step's rows are
// set up again.
class AttentionRun : public OpRun {
 public:
  AttentionRun(Backend& backend, const AttentionShape& shape)
      : backend_(backend),
        shape_(shape),
        qkv_(StepRows(shape), Width(shape)),
        out_(backend, StepRows(shape), shape.num_heads * shape.head_dim),
        gates_(StepRows(shape), (shape.num_gates + kBlockTokens - 1) / kBlockTokens * kBlockTokens),
        q_norm_(RandomValues(shape.head_dim, 11)),
        k_norm_(RandomValues(shape.head_dim, 12, 0.5f)) {
    MakeRope();
    MakeBlocks();
    MakeGates();
    const auto num_blocks = static_cast<int64_t>(
        std::accumulate(blocks_.begin(), blocks_.end(), size_t{2},
                        [](size_t sum, const auto& blocks) { return sum + blocks.size(); }));
    const KvFormat format = InAuto() ? shape.format : KvFormat::kAuto;
    kv_ = *backend.AllocateKv({shape.num_layers, shape.num_kv_heads, shape.head_dim, format},
                              num_blocks);
    int64_t row = 0;
    for (size_t s = 0; s < shape.contexts.size(); ++s) {
      const auto [context, rows] = shape.contexts[s];
      FloatBuffer all(context, Width(shape),
                      RandomValues(context * Width(shape), static_cast<uint32_t>(20 + s)));
      std::copy_n(all.view().Row(context - rows), rows * Width(shape), qkv_.view().Row(row));
      std::vector<int32_t> positions(static_cast<size_t>(context));
      std::iota(positions.begin(), positions.end(), 0);
      RememberNorms(all.view());
      StoreEverywhere(all.view(), positions, SlotsOf(s, 0));
      if (shape.num_stored > 0) StoreAsTheyAre(all.view(), s);
      std::copy_n(all.view().Row(context - rows), rows * Width(shape), qkv_.view().Row(row));
      sequences_.push_back({row, row + rows, context, blocks_[s], shape.first_key, GatesOf(row)});
      row += rows;
    }
  }

  void Run() override {
    AttentionArgs args;
    args.qkv = qkv_.view();
    args.out = out_.rows();
    args.num_heads = shape_.num_heads;
    args.scale = 1.0f / std::sqrt(static_cast<float>(shape_.head_dim));
    args.sliding_window = shape_.window;
    args.sequences = sequences_;
    args.kv = kv_.get();
    args.layer = layer_;
    backend_.Attention(args);
    layer_ = (layer_ + 1) % shape_.num_layers;
  }
  std::vector<double> Output() const override { return out_.Values(); }

  // A score errs by eps |q| |k|, a weight by twice that, the output by as much of the largest
  // value. In auto mode the inputs of both products may be bf16: q, k after rotation, and the
  // weights.
  std::vector<double> Tolerance() const override {
    const double eps = InAuto() ? 2 * kEps16 : 8 * kEps32;
    const double score = eps * max_q_ * max_k_ / std::sqrt(static_cast<double>(shape_.head_dim));
    std::vector<double> tolerance = out_.Values();
    for (double& value : tolerance)
      value = RoundingOf(backend_, value) + max_v_ * (2 * score + 4 * eps);
    return tolerance;
  }
  // Those are the worst cases; independent roundings of thousands of inputs stay near one rounding
  // of the result.
  double NormTolerance() const override { return InAuto() ? 2 * kEps16 : 32 * kEps32; }

 protected:
  bool InAuto() const { return backend_.activation_dtype() == DType::kBF16; }
  static int64_t Width(const AttentionShape& shape) {
    return (shape.num_heads + 2 * shape.num_kv_heads) * shape.head_dim;
  }
  static int64_t StepRows(const AttentionShape& shape) {
    int64_t rows = 0;
    for (const auto& context : shape.contexts) rows += context.second;
    return rows;
  }

  QkvArgs StoreArgs(FloatRows rows, std::span<const int32_t> positions,
                    std::vector<int64_t> slots) {
    slots_ = std::move(slots);
    QkvArgs args;
    args.qkv = rows;
    args.num_heads = shape_.num_heads;
    if (shape_.head_norms) {
      args.q_norm = q_norm_.data();
      args.k_norm = k_norm_.data();
    }
    args.rope = {cos_.data(), sin_.data(), shape_.rotary_dim};
    args.positions = positions;
    args.slots = slots_;
    args.kv = kv_.get();
    args.layer = layer_;
    return args;
  }

  std::vector<int64_t> SlotsOf(size_t sequence, int64_t begin) const {
    std::vector<int64_t> slots;
    for (int64_t p = begin; p < shape_.contexts[sequence].first; ++p) {
      slots.push_back(blocks_[sequence][static_cast<size_t>(p / kBlockTokens)] * kBlockTokens +
                      p % kBlockTokens);
    }
    return slots;
  }

  Backend& backend_;
  const AttentionShape shape_;
  FloatBuffer qkv_;
  ActivationBuffer out_;
  FloatBuffer gates_;
  std::vector<AttentionSequence> sequences_;
  std::unique_ptr<KvStorage> kv_;
  double max_q_ = 0;

 private:
  void MakeRope() {
    int64_t longest = 0;
    for (const auto& context : shape_.contexts) longest = std::max(longest, context.first);
    for (int64_t p = 0; p < longest; ++p) {
      for (int64_t i = 0; i < shape_.rotary_dim / 2; ++i) {
        const double angle =
            static_cast<double>(p) * std::pow(10000.0, -2.0 * static_cast<double>(i) /
                                                           static_cast<double>(shape_.rotary_dim));
        cos_.push_back(static_cast<float>(std::cos(angle)));
        sin_.push_back(static_cast<float>(std::sin(angle)));
      }
    }
  }

  void MakeBlocks() {
    std::vector<int32_t> all;
    for (const auto& context : shape_.contexts) {
      for (int64_t b = 0; b * kBlockTokens < context.first; ++b)
        all.push_back(static_cast<int32_t>(all.size()));
    }
    std::shuffle(all.begin(), all.end(), std::mt19937(10));
    auto next = all.begin();
    for (const auto& context : shape_.contexts) {
      const int64_t count = (context.first + kBlockTokens - 1) / kBlockTokens;
      blocks_.emplace_back(next, next + count);
      next += count;
    }
  }

  // Between 0 and 1.
  void MakeGates() {
    const std::vector<float> random = RandomValues(StepRows(shape_) * shape_.num_gates, 13);
    std::fill(gates_.values.begin(), gates_.values.end(), 1.0f);
    for (int64_t row = 0; row < gates_.rows; ++row) {
      for (int64_t j = 0; j < shape_.num_gates; ++j) {
        const float value = random[static_cast<size_t>(row * shape_.num_gates + j)];
        gates_.view().Row(row)[j] = 1 / (1 + std::exp(-value));
      }
    }
  }

  // Those of the rows from `row` on.
  FloatRows GatesOf(int64_t row) {
    if (shape_.num_gates == 0) return {};
    return gates_.view().Slice(row, gates_.rows);
  }

  // Rotation keeps norms; a head norm gives sqrt(head_dim) times the largest weight at most.
  void RememberNorms(FloatRows rows) {
    const int64_t dim = shape_.head_dim;
    const int64_t kv_begin = shape_.num_heads;
    const int64_t v_begin = kv_begin + shape_.num_kv_heads;
    const double normed = shape_.head_norms ? 4 * std::sqrt(static_cast<double>(dim)) : 0;
    for (int64_t row = 0; row < rows.rows; ++row) {
      for (int64_t h = 0; h < v_begin + shape_.num_kv_heads; ++h) {
        const float* head = rows.Row(row) + h * dim;
        const double norm = std::max(normed, NormOf(head, dim));
        if (h < kv_begin) max_q_ = std::max(max_q_, norm);
        if (h >= kv_begin && h < v_begin) max_k_ = std::max(max_k_, norm);
        for (int64_t i = 0; h >= v_begin && i < dim; ++i)
          max_v_ = std::max(max_v_, std::abs(static_cast<double>(head[i])));
      }
    }
  }

  // The same keys and values in every layer; the rows are rotated in place, so each time from a
  // copy.
  void StoreEverywhere(FloatRows rows, std::span<const int32_t> positions,
                       const std::vector<int64_t>& slots) {
    const std::vector<float> initial(rows.data, rows.data + rows.rows * rows.cols);
    for (layer_ = 0; layer_ < shape_.num_layers; ++layer_) {
      std::copy(initial.begin(), initial.end(), rows.data);
      backend_.RotateAndStore(StoreArgs(rows, positions, slots));
    }
    layer_ = 0;
  }

  // Other numbers over the first tokens, not rotated and not normed.
  void StoreAsTheyAre(FloatRows rows, size_t sequence) {
    const int64_t width = 2 * shape_.num_kv_heads * shape_.head_dim;
    FloatBuffer kv(shape_.num_stored, width, RandomValues(shape_.num_stored * width, 40));
    FloatRows like = kv.view();
    for (int64_t row = 0; row < like.rows; ++row) {
      std::copy_n(like.Row(row), width, rows.Row(row) + shape_.num_heads * shape_.head_dim);
    }
    RememberNorms(rows.Slice(0, shape_.num_stored));
    const std::vector<int32_t> positions(static_cast<size_t>(shape_.num_stored), 0);
    std::vector<int64_t> slots = SlotsOf(sequence, 0);
    slots.resize(positions.size());
    QkvArgs args;
    args.qkv = like;
    args.positions = positions;
    args.slots = slots;
    args.kv = kv_.get();
    for (args.layer = 0; args.layer < shape_.num_layers; ++args.layer) {
      backend_.RotateAndStore(args);
    }
  }

  int64_t layer_ = 0;
  std::vector<float> q_norm_;
  std::vector<float> k_norm_;
  std::vector<float> cos_;
  std::vector<float> sin_;
  std::vector<std::vector<int32_t>> blocks_;
  std::vector<int64_t> slots_;
  double max_k_ = 0;
  double max_v_ = 0;
};

// Rotates the same rows anew each time, from a copy.
class RotateRun final : public AttentionRun {
 public:
  RotateRun(Backend& backend, const AttentionShape& shape)
      : AttentionRun(backend, shape), initial_(RandomValues(StepRows(shape) * Width(shape), 30)) {
    std::vector<int64_t> slots;
    for (size_t s = 0; s < shape.contexts.size(); ++s) {
      const auto [context, rows] = shape.contexts[s];
      for (int64_t slot : SlotsOf(s, context - rows)) slots.push_back(slot);
      for (int64_t p = context - rows; p < context; ++p)
        positions_.push_back(static_cast<int32_t>(p));
    }
    args_ = StoreArgs(qkv_.view(), positions_, std::move(slots));
    for (int64_t row = 0; row < qkv_.rows; ++row) {
      max_q_ = std::max(max_q_, NormOf(initial_.data() + row * qkv_.cols, qkv_.cols));
    }
  }
  void Run() override {
    qkv_.values = initial_;
    backend_.RotateAndStore(args_);
  }
  std::vector<double> Output() const override {
    std::vector<double> q;
    for (int64_t row = 0; row < qkv_.rows; ++row) {
      const float* values = qkv_.values.data() + row * qkv_.cols;
      q.insert(q.end(), values, values + shape_.num_heads * shape_.head_dim);
    }
    return q;
  }
  std::vector<double> Tolerance() const override {
    return std::vector<double>(Output().size(), 8 * kEps32 * max_q_);
  }
  double NormTolerance() const override { return 8 * kEps32; }

 private:
  const std::vector<float> initial_;
  std::vector<int32_t> positions_;
  QkvArgs args_;
};

class GatedPrefixRun final : public OpRun {
 public:
  GatedPrefixRun(Backend& backend, const AttentionShape& shape, int64_t rows, int64_t num_keys)
      : backend_(backend),
        shape_(shape),
        q_(rows, shape.num_heads * shape.head_dim,
           RandomValues(rows * shape.num_heads * shape.head_dim, 50)),
        kv_(num_keys, 2 * shape.num_kv_heads * shape.head_dim,
            RandomValues(num_keys * 2 * shape.num_kv_heads * shape.head_dim, 51)),
        before_(RandomValues(rows * q_.cols, 52)),
        gate_(RandomValues(shape.num_heads, 53)),
        out_(backend, rows, q_.cols) {}

  void Run() override {
    out_ = ActivationBuffer(backend_, q_.rows, q_.cols, before_);
    GatedPrefixArgs args;
    args.q = q_.view();
    args.kv = kv_.view();
    args.out = out_.rows();
    args.num_heads = shape_.num_heads;
    args.num_kv_heads = shape_.num_kv_heads;
    args.head_dim = shape_.head_dim;
    args.scale = 1.0f / std::sqrt(static_cast<float>(shape_.head_dim));
    args.gate = gate_.data();
    backend_.AddGatedPrefix(args);
  }
  std::vector<double> Output() const override { return out_.Values(); }

  // A score errs by eps |q| |k|, a weight by twice that, the sum by as much of the largest value.
  std::vector<double> Tolerance() const override {
    const double dim = static_cast<double>(shape_.head_dim);
    double largest = 0;
    for (const float value : kv_.values) {
      largest = std::max(largest, std::abs(static_cast<double>(value)));
    }
    const double score = NormOf(q_.values.data(), q_.rows * q_.cols) * largest;
    std::vector<double> tolerance = out_.Values();
    for (size_t i = 0; i < tolerance.size(); ++i) {
      const size_t head = i / static_cast<size_t>(shape_.head_dim) % gate_.size();
      tolerance[i] = RoundingOf(backend_, tolerance[i]) +
                     dim * kEps32 * (1 + std::abs(gate_[head]) * largest * (2 * score + 4));
    }
    return tolerance;
  }

 private:
  Backend& backend_;
  const AttentionShape shape_;
  FloatBuffer q_;
  FloatBuffer kv_;
  const std::vector<float> before_;
  const std::vector<float> gate_;
  ActivationBuffer out_;
};

std::string Describe(const char* op, const AttentionShape& shape) {
  const auto [context, rows] = shape.contexts.front();
  return absl::StrFormat(
      "%s/sequences:%d/context:%d/rows:%d/heads:%dx%dover%d/window:%d/stored:%d/first:%d/gates:%d/"
      "kv:%s",
      op, shape.contexts.size(), context, rows, shape.num_heads, shape.head_dim, shape.num_kv_heads,
      shape.window, shape.num_stored, shape.first_key, shape.num_gates, NameOf(shape.format));
}

// Bytes of k and v of one token and head, as a page of the CPU backend holds them in mode auto.
double BytesPerHead(const AttentionShape& shape) {
  const KvFormat format = shape.format == KvFormat::kAuto ? KvFormat::kBF16 : shape.format;
  return static_cast<double>(cpu::KvLayout::Of(format, shape.head_dim).page_bytes()) /
         static_cast<double>(kBlockTokens);
}

}  // namespace

OpCase AttentionCase(const AttentionShape& shape) {
  OpCase out;
  out.name = Describe("attention", shape);
  for (const auto& [context, rows] : shape.contexts) {
    const double keys = static_cast<double>(rows) *
                        (static_cast<double>(context) - static_cast<double>(rows - 1) / 2);
    out.flops += 4 * keys * static_cast<double>(shape.num_heads * shape.head_dim);
    out.bytes += static_cast<double>(context * shape.num_kv_heads) * BytesPerHead(shape);
  }
  out.make = [shape](Backend& backend) { return std::make_unique<AttentionRun>(backend, shape); };
  return out;
}

OpCase RotateCase(const AttentionShape& shape) {
  OpCase out;
  out.name = Describe("rotate_and_store", shape);
  for (const auto& context : shape.contexts) {
    out.bytes +=
        8 * static_cast<double>(context.second * (shape.num_heads + 2 * shape.num_kv_heads) *
                                shape.head_dim);
  }
  out.make = [shape](Backend& backend) { return std::make_unique<RotateRun>(backend, shape); };
  return out;
}

OpCase GatedPrefixCase(const AttentionShape& shape, int64_t rows, int64_t num_keys) {
  OpCase out;
  out.name = absl::StrFormat("gated_prefix/rows:%d/keys:%d/heads:%dx%dover%d", rows, num_keys,
                             shape.num_heads, shape.head_dim, shape.num_kv_heads);
  out.flops = 4 * static_cast<double>(rows * num_keys * shape.num_heads * shape.head_dim);
  out.make = [=](Backend& backend) {
    return std::make_unique<GatedPrefixRun>(backend, shape, rows, num_keys);
  };
  return out;
}

}  // namespace polyad::test
