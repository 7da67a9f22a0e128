// sparse: y[t][o] += w[t] sum over the stored (o, i), ascending, of value x[t][i]. Lanes are the 16
// outputs of a group, or the 16 rows of a task: each sum has the same order and roundings either
// way.

#include "kernels/cpu/isa_functions.h"
#include "kernels/cpu/lanes.h"

namespace polyad::cpu::POLYAD_ISA {
namespace {

// From here on turning x over costs less than gathering from it row by row.
constexpr int64_t kTurnedRows = 6;

inline int64_t OutputsOf(const SparseGroups& matrix, int64_t group) {
  const int64_t left = matrix.num_outputs - group * kLanes;
  return left < kLanes ? left : kLanes;
}

template <int64_t kRows, typename Column>
void GatherRows(const SparseGroups& matrix, const Column* columns, const SiteTask& task,
                int64_t row) {
  const float* x = task.x + row * task.x_stride;
  for (int64_t group = 0; group < matrix.groups; ++group) {
    Lanes sums[kRows];
    for (int64_t r = 0; r < kRows; ++r) sums[r] = Zero();
    for (int64_t e = matrix.group_begin[group]; e < matrix.group_begin[group + 1]; ++e) {
      const Lanes values = Load(matrix.values + e * kLanes);
      for (int64_t r = 0; r < kRows; ++r) {
        sums[r] = Fma(values, Gather(x + r * task.x_stride, columns + e * kLanes), sums[r]);
      }
    }
    const int32_t* outputs = matrix.outputs + group * kLanes;
    const int64_t valid = OutputsOf(matrix, group);
    for (int64_t r = 0; r < kRows; ++r) {
      float weighted[kLanes];
      Store(weighted, Set(task.weights[row + r]) * sums[r]);
      float* y = task.y + (row + r) * task.y_stride;
      for (int64_t lane = 0; lane < valid; ++lane) y[outputs[lane]] += weighted[lane];
    }
  }
}

void TurnRows(const SiteTask& task, float* turned) {
  for (int64_t i = 0; i < task.in; ++i) {
    for (int64_t row = 0; row < kSiteRows; ++row) {
      turned[i * kSiteRows + row] = row < task.rows ? task.x[row * task.x_stride + i] : 0.0f;
    }
  }
}

// turned is [in][16 rows].
template <typename Column>
void TurnedRows(const SparseGroups& matrix, const Column* columns, const SiteTask& task,
                const float* turned) {
  constexpr int64_t kOutputs = 8;  // sums at a time
  const Lanes weights = LoadFirst(task.weights, task.rows);
  for (int64_t group = 0; group < matrix.groups; ++group) {
    const int32_t* outputs = matrix.outputs + group * kLanes;
    const int64_t valid = OutputsOf(matrix, group);
    for (int64_t first = 0; first < valid; first += kOutputs) {
      Lanes sums[kOutputs];
      for (int64_t o = 0; o < kOutputs; ++o) sums[o] = Zero();
      for (int64_t e = matrix.group_begin[group]; e < matrix.group_begin[group + 1]; ++e) {
        const float* values = matrix.values + e * kLanes + first;
        const Column* column = columns + e * kLanes + first;
        for (int64_t o = 0; o < kOutputs; ++o) {
          sums[o] = Fma(Set(values[o]), Load(turned + int64_t{column[o]} * kSiteRows), sums[o]);
        }
      }
      const int64_t last = first + kOutputs < valid ? kOutputs : valid - first;
      for (int64_t o = 0; o < last; ++o) {
        float weighted[kLanes];
        Store(weighted, weights * sums[o]);
        float* y = task.y + outputs[first + o];
        for (int64_t row = 0; row < task.rows; ++row) y[row * task.y_stride] += weighted[row];
      }
    }
  }
}

template <typename Column>
void AddSparseAs(const SparseGroups& matrix, const Column* columns, const SiteTask& task,
                 float* turned) {
  if (task.rows >= kTurnedRows) {
    TurnRows(task, turned);
    return TurnedRows(matrix, columns, task, turned);
  }
  int64_t row = 0;
  for (; row + 2 <= task.rows; row += 2) GatherRows<2>(matrix, columns, task, row);
  if (row < task.rows) GatherRows<1>(matrix, columns, task, row);
}

}  // namespace

void AddSparse(const SparseGroups& matrix, const SiteTask& task, float* transposed) {
  if (matrix.wide_columns != nullptr) {
    return AddSparseAs(matrix, matrix.wide_columns, task, transposed);
  }
  AddSparseAs(matrix, matrix.columns, task, transposed);
}

}  // namespace polyad::cpu::POLYAD_ISA
