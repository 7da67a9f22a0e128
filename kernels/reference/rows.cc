// embed: out[t] = table[ids[t]]; add: out[t] += table[ids[t]]; gather: out[i] = x[rows[i]];
// copy: to = from; convert: to = from, rounded; zero: rows = 0; accumulate: y += x

#include <algorithm>

#include "kernels/api/check.h"
#include "kernels/reference/element.h"
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

void ReferenceBackend::Copy(FloatRows from, FloatRows to) {
  KERNEL_CHECK(from.rows == to.rows && from.cols == to.cols, "copy shapes");
  for (int64_t t = 0; t < from.rows; ++t) std::copy_n(from.Row(t), from.cols, to.Row(t));
}

void ReferenceBackend::Copy(ActivationRows from, ActivationRows to) {
  KERNEL_CHECK(from.rows == to.rows && from.cols == to.cols, "copy shapes");
  for (int64_t t = 0; t < from.rows; ++t) {
    for (int64_t i = 0; i < from.cols; ++i) WriteElement(to, t, i, ReadElement(from, t, i));
  }
}

void ReferenceBackend::Convert(FloatRows from, ActivationRows to) {
  KERNEL_CHECK(from.rows == to.rows && from.cols == to.cols, "convert shapes");
  for (int64_t t = 0; t < from.rows; ++t) {
    for (int64_t i = 0; i < from.cols; ++i) WriteElement(to, t, i, from.Row(t)[i]);
  }
}

void ReferenceBackend::Zero(FloatRows rows) {
  for (int64_t t = 0; t < rows.rows; ++t) std::fill_n(rows.Row(t), rows.cols, 0.0f);
}

void ReferenceBackend::Accumulate(FloatRows x, FloatRows y) {
  KERNEL_CHECK(x.rows == y.rows && x.cols == y.cols, "accumulate shapes");
  for (int64_t t = 0; t < x.rows; ++t) {
    for (int64_t i = 0; i < x.cols; ++i) y.Row(t)[i] += x.Row(t)[i];
  }
}

}  // namespace polyad::ref
