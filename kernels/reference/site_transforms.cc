// input scale:    x1 = a * x
// block rotation: u = x[order]; v_block = u_block R_block; x1[order] = v
// output scale:   y = c * y
// pair rotation:  y = f * y + g * rot(y), rot(first, second half) = (-second, first) per group
// embedding rows: e = rows[n] where ids[n] is the token
// embedding low rank: e = column_scale * (e + scale B A[:, token])

#include <algorithm>

#include "kernels/api/check.h"
#include "kernels/reference/delta_terms.h"
#include "kernels/reference/element.h"
#include "kernels/reference/reference_backend.h"
#include "kernels/reference/stored_delta.h"

namespace polyad::ref {
namespace {

std::vector<double> Rotated(const BlockRotation& op, const std::vector<double>& x) {
  const auto size = static_cast<size_t>(op.size);
  const bool shared = op.blocks.size() == size * size;
  const auto at = [&op](size_t i) {
    return op.order.empty() ? i : static_cast<size_t>(op.order[i]);
  };
  std::vector<double> y(x.size());
  for (size_t begin = 0; begin < x.size(); begin += size) {
    const float* block = op.blocks.data() + (shared ? 0 : begin * size);
    for (size_t j = 0; j < size; ++j) {
      double sum = 0.0;
      for (size_t i = 0; i < size; ++i) sum += x[at(begin + i)] * block[i * size + j];
      y[at(begin + j)] = sum;
    }
  }
  return y;
}

void ScaleOutput(const OutputScale& op, float* y) {
  for (size_t o = 0; o < op.values.size(); ++o) {
    y[o] = static_cast<float>(static_cast<double>(op.values[o]) * y[o]);
  }
}

void RotateOutput(const PairRotation& op, float* y) {
  const auto half = static_cast<size_t>(op.group / 2);
  for (size_t begin = 0; begin < op.f.size(); begin += 2 * half) {
    for (size_t i = begin; i < begin + half; ++i) {
      const double first = y[i];
      const double second = y[i + half];
      y[i] = static_cast<float>(op.f[i] * first - op.g[i] * second);
      y[i + half] = static_cast<float>(op.f[i + half] * second + op.g[i + half] * first);
    }
  }
}

void ReplaceRow(const EmbeddingRows& op, int32_t token, float* row) {
  const auto found = std::lower_bound(op.ids.begin(), op.ids.end(), token);
  if (found == op.ids.end() || *found != token) return;
  for (int64_t i = 0; i < op.rows.cols; ++i) {
    row[i] = static_cast<float>(ReadElement(op.rows, found - op.ids.begin(), i));
  }
}

void AddLowRank(const EmbeddingLowRank& op, int32_t token, float* row) {
  if (token < 0 || token >= op.a.cols) return;
  for (int64_t i = 0; i < op.b.rows; ++i) {
    double sum = 0.0;
    for (int64_t r = 0; r < op.a.rows; ++r) {
      sum += ReadElement(op.b, i, r) * ReadElement(op.a, r, token);
    }
    const double scale = op.column_scale.empty() ? 1.0 : op.column_scale[static_cast<size_t>(i)];
    row[i] = static_cast<float>(scale * (row[i] + op.scale * sum));
  }
}

const DeltaOp& OpOf(const DeltaSegment& segment) {
  return static_cast<const StoredDelta&>(*segment.op).op();
}

}  // namespace

std::vector<double> TransformedInput(const DeltaOp& op, const std::vector<double>& x) {
  if (const auto* rotation = std::get_if<BlockRotation>(&op)) return Rotated(*rotation, x);
  const auto* scale = std::get_if<InputScale>(&op);
  KERNEL_CHECK(scale != nullptr && scale->values.size() == x.size(), "an input op of this width");
  std::vector<double> y(x.size());
  for (size_t i = 0; i < x.size(); ++i) y[i] = scale->values[i] * x[i];
  return y;
}

void ReferenceBackend::TransformOutput(std::span<const DeltaSegment> segments, FloatRows y) {
  for (const DeltaSegment& segment : segments) {
    for (int64_t t = segment.row_begin; t < segment.row_end; ++t) {
      float* row = y.Row(t) + segment.y_column;
      if (const auto* scale = std::get_if<OutputScale>(&OpOf(segment))) {
        ScaleOutput(*scale, row);
      } else {
        RotateOutput(std::get<PairRotation>(OpOf(segment)), row);
      }
    }
  }
}

void ReferenceBackend::TransformEmbedding(std::span<const DeltaSegment> segments,
                                          std::span<const int32_t> ids, FloatRows rows) {
  for (const DeltaSegment& segment : segments) {
    for (int64_t t = segment.row_begin; t < segment.row_end; ++t) {
      const int32_t token = ids[static_cast<size_t>(t)];
      if (const auto* replaced = std::get_if<EmbeddingRows>(&OpOf(segment))) {
        ReplaceRow(*replaced, token, rows.Row(t));
      } else {
        AddLowRank(std::get<EmbeddingLowRank>(OpOf(segment)), token, rows.Row(t));
      }
    }
  }
}

}  // namespace polyad::ref
