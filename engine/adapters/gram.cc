#include "engine/adapters/gram.h"

#include <algorithm>
#include <array>

#include "engine/base/check.h"
#include "engine/io/float_bits.h"
#include "kernels/api/round_up.h"
#include "kernels/api/wide_lanes.h"

namespace polyad {
namespace {

constexpr int64_t kLanes = 16;
typedef float Lanes __attribute__((vector_size(kLanes * sizeof(float)), aligned(4), may_alias));
constexpr int64_t kTile = 4;          // rows by rows whose sums of products stay in registers
constexpr int64_t kGramRows = 16;     // of a column gram, likewise, kLanes columns wide
constexpr int64_t kColumnRows = 256;  // so many rows are widened at a time
// A row's square, if no number's in fp32 was an infinity and the largest were normal ones.
constexpr double kMostSquare = 1e38;
constexpr double kLeastSquare = 1e-28;

struct Half {
  uint16_t bits;
};
struct BFloat16 {
  uint16_t bits;
};
__attribute__((always_inline)) inline float ToFloat(float value) { return value; }
__attribute__((always_inline)) inline float ToFloat(Half value) { return HalfToFloat(value.bits); }
__attribute__((always_inline)) inline float ToFloat(BFloat16 value) {
  return BFloat16ToFloat(value.bits);
}

template <typename T>
__attribute__((always_inline)) inline void Widen(const T* from, int64_t count, float* to) {
  for (int64_t i = 0; i < count; ++i) to[i] = ToFloat(from[i]);
}

// Adds kLanes numbers up, in place.
__attribute__((always_inline)) inline double Sum(float* parts) {
  for (int64_t half = kLanes / 2; half > 0; half /= 2) {
    for (int64_t i = 0; i < half; ++i) parts[i] += parts[i + half];
  }
  return parts[0];
}

// sums[i][j] = a's row i . b's row j, of `depth` numbers; rows are kGramPiece apart.
__attribute__((always_inline)) inline void DotTile(const float* a, const float* b, int64_t depth,
                                                   double sums[kTile][kTile]) {
  Lanes lanes[kTile][kTile] = {};
  for (int64_t k = 0; k < depth; k += kLanes) {
    for (int64_t i = 0; i < kTile; ++i) {
      const Lanes left = *reinterpret_cast<const Lanes*>(a + i * kGramPiece + k);
      for (int64_t j = 0; j < kTile; ++j) {
        lanes[i][j] += left * *reinterpret_cast<const Lanes*>(b + j * kGramPiece + k);
      }
    }
  }
  for (int64_t i = 0; i < kTile; ++i) {
    for (int64_t j = 0; j < kTile; ++j) {
      float parts[kLanes];
      *reinterpret_cast<Lanes*>(parts) = lanes[i][j];
      sums[i][j] = Sum(parts);
    }
  }
}

struct GramTask {
  int64_t rows;
  int64_t cols;
  std::vector<float> widened;
  double* gram;  // the upper triangle is filled, and more of it
};

template <typename T>
__attribute__((always_inline)) inline void RowLoop(const T* values, GramTask& task) {
  const int64_t whole = RoundUp(task.rows, kTile);
  task.widened.assign(static_cast<size_t>(whole * kGramPiece), 0.0f);
  float* rows = task.widened.data();
  for (int64_t begin = 0; begin < task.cols; begin += kGramPiece) {
    const int64_t count = std::min(kGramPiece, task.cols - begin);
    const int64_t depth = RoundUp(count, kLanes);
    for (int64_t i = 0; i < task.rows; ++i) {
      float* row = rows + i * kGramPiece;
      Widen(values + i * task.cols + begin, count, row);
      for (int64_t k = count; k < depth; ++k) row[k] = 0;
    }
    for (int64_t i = 0; i < task.rows; i += kTile) {
      for (int64_t j = i; j < task.rows; j += kTile) {
        double sums[kTile][kTile];
        DotTile(rows + i * kGramPiece, rows + j * kGramPiece, depth, sums);
        for (int64_t left = i; left < std::min(i + kTile, task.rows); ++left) {
          for (int64_t right = j; right < std::min(j + kTile, task.rows); ++right) {
            task.gram[left * task.rows + right] += sums[left - i][right - j];
          }
        }
      }
    }
  }
}

// The products of columns [i, i + kGramRows) by [j, j + kLanes) summed over rows of `stride`.
__attribute__((always_inline)) inline void OuterTile(const float* rows, int64_t count,
                                                     int64_t stride, int64_t i, int64_t j,
                                                     float products[kGramRows][kLanes]) {
  Lanes sums[kGramRows] = {};
  for (int64_t k = 0; k < count; ++k, rows += stride) {
    const Lanes right = *reinterpret_cast<const Lanes*>(rows + j);
    for (int64_t left = 0; left < kGramRows; ++left) sums[left] += right * rows[i + left];
  }
  for (int64_t left = 0; left < kGramRows; ++left) {
    *reinterpret_cast<Lanes*>(products[left]) = sums[left];
  }
}

template <typename T>
__attribute__((always_inline)) inline void ColumnLoop(const T* values, GramTask& task) {
  const int64_t stride = RoundUp(task.cols, kLanes);
  task.widened.assign(static_cast<size_t>(kColumnRows * stride), 0.0f);
  float* rows = task.widened.data();
  for (int64_t begin = 0; begin < task.rows; begin += kColumnRows) {
    const int64_t count = std::min(kColumnRows, task.rows - begin);
    for (int64_t k = 0; k < count; ++k) {
      Widen(values + (begin + k) * task.cols, task.cols, rows + k * stride);
    }
    for (int64_t i = 0; i < task.cols; i += kGramRows) {
      for (int64_t j = i; j < task.cols; j += kLanes) {
        float products[kGramRows][kLanes];
        OuterTile(rows, count, stride, i, j, products);
        for (int64_t left = i; left < std::min(i + kGramRows, task.cols); ++left) {
          double* gram = task.gram + left * task.cols;
          for (int64_t right = j; right < std::min(j + kLanes, task.cols); ++right) {
            gram[right] += static_cast<double>(products[left - i][right - j]);
          }
        }
      }
    }
  }
}

template <bool kOfRows, typename T>
__attribute__((always_inline)) inline void Loop(const T* values, GramTask& task) {
  if constexpr (kOfRows) {
    RowLoop(values, task);
  } else {
    ColumnLoop(values, task);
  }
}

#if defined(__x86_64__)
template <bool kOfRows, typename T>
__attribute__((target("avx512f"))) void LoopWide(const T* values, GramTask& task) {
  Loop<kOfRows>(values, task);
}
#endif

template <bool kOfRows, typename T>
void AddGram(const T* values, GramTask& task) {
#if defined(__x86_64__)
  if (UsesWideLanes()) return LoopWide<kOfRows>(values, task);
#endif
  Loop<kOfRows>(values, task);
}

// Calls f with the numbers as they lie.
template <typename Function>
void WithNumbers(const TensorView& m, Function f) {
  if (m.dtype == DType::kF32) return f(static_cast<const float*>(m.data));
  if (m.dtype == DType::kF16) return f(static_cast<const Half*>(m.data));
  POLYAD_CHECK(m.dtype == DType::kBF16, "adapter tensor dtype");
  f(static_cast<const BFloat16*>(m.data));
}

// Whether fp32 held the squares: no number's overflowed and those that count did not vanish.
bool Held(const std::vector<double>& gram, int64_t side) {
  double most = 0;
  for (int64_t i = 0; i < side; ++i) {
    const double square = gram[static_cast<size_t>(i * side + i)];
    if (!(square < kMostSquare)) return false;
    most = std::max(most, square);
  }
  return most > kLeastSquare;
}

template <typename T>
void SumInDouble(const T* values, int64_t side, std::array<int64_t, 3> step, double* gram) {
  const auto [depth, along, across] = step;
  for (int64_t i = 0; i < side; ++i) {
    for (int64_t j = i; j < side; ++j) {
      double sum = 0;
      for (int64_t k = 0; k < depth; ++k) {
        sum += static_cast<double>(ToFloat(values[i * across + k * along])) *
               static_cast<double>(ToFloat(values[j * across + k * along]));
      }
      gram[i * side + j] = sum;
    }
  }
}

bool IsZero(const TensorView& m) {
  bool zero = true;
  WithNumbers(m, [&](const auto* values) {
    zero = std::all_of(values, values + m.rows * m.cols,
                       [](const auto value) { return ToFloat(value) == 0.0f; });
  });
  return zero;
}

template <bool kOfRows>
std::vector<double> GramOf(const TensorView& m) {
  const int64_t side = kOfRows ? m.rows : m.cols;
  std::vector<double> gram(static_cast<size_t>(side * side));
  GramTask task{m.rows, m.cols, {}, gram.data()};
  WithNumbers(m, [&](const auto* values) { AddGram<kOfRows>(values, task); });
  if (!Held(gram, side) && !IsZero(m)) {
    const std::array<int64_t, 3> step =
        kOfRows ? std::array{m.cols, int64_t{1}, m.cols} : std::array{m.rows, m.cols, int64_t{1}};
    WithNumbers(m, [&](const auto* values) { SumInDouble(values, side, step, gram.data()); });
  }
  for (int64_t i = 0; i < side; ++i) {
    for (int64_t j = 0; j < i; ++j) {
      gram[static_cast<size_t>(i * side + j)] = gram[static_cast<size_t>(j * side + i)];
    }
  }
  return gram;
}

}  // namespace

std::vector<double> RowGram(const TensorView& m) { return GramOf<true>(m); }
std::vector<double> ColumnGram(const TensorView& m) { return GramOf<false>(m); }

}  // namespace polyad
