// embed: out[t] = table[ids[t]]; add: out[t] += table[ids[t]]; gather: out[i] = x[rows[i]]

#include <algorithm>

#include "kernels/api/check.h"
#include "kernels/reference/reference_backend.h"

namespace polyad::ref {

void ReferenceBackend::Embed(const PackedMatrix& table, std::span<const int32_t> ids,
                             FloatRows out) {
  for (int64_t t = 0; t < out.rows; ++t) std::fill_n(out.Row(t), out.cols, 0.0f);
  AddRows(table, ids, out);
}

void ReferenceBackend::AddRows(const PackedMatrix& table, std::span<const int32_t> ids,
                               FloatRows out) {
  const auto& stored = static_cast<const StoredMatrix&>(table);
  KERNEL_CHECK(stored.in() == out.cols && out.rows == static_cast<int64_t>(ids.size()),
               "table width");
  for (int64_t t = 0; t < out.rows; ++t) {
    const std::vector<double> row = stored.Row(ids[static_cast<size_t>(t)]);
    for (int64_t i = 0; i < out.cols; ++i) {
      out.Row(t)[i] = static_cast<float>(out.Row(t)[i] + row[static_cast<size_t>(i)]);
    }
  }
}

void ReferenceBackend::GatherRows(FloatRows x, std::span<const int32_t> rows, FloatRows out) {
  for (size_t i = 0; i < rows.size(); ++i) {
    std::copy_n(x.Row(rows[i]), x.cols, out.Row(static_cast<int64_t>(i)));
  }
}

}  // namespace polyad::ref
