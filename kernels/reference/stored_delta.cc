#include "kernels/reference/stored_delta.h"

#include "kernels/api/delta_check.h"
#include "kernels/api/dtype.h"
#include "kernels/api/precision_bytes.h"

namespace polyad::ref {

TensorView StoredDelta::Keep(const TensorView& view) {
  const auto size = static_cast<size_t>(view.rows * RowBytes(view.dtype, view.cols));
  TensorView kept = view;
  kept.data = Copy(std::span(static_cast<const unsigned char*>(view.data), size)).data();
  bytes_ += StoredBytes(view.dtype, static_cast<int64_t>(size));
  return kept;
}

struct StoredDelta::Keeper {
  StoredDelta& to;

  void operator()(LowRank& op) const {
    op.a = to.Keep(op.a);
    op.b = to.Keep(op.b);
    op.inner = to.Keep(op.inner);
    op.outer = to.Keep(op.outer);
  }
  void operator()(Dense& op) const { op.delta = to.Keep(op.delta); }
  void operator()(DenseRows& op) const {
    op.rows = to.Keep(op.rows);
    op.values = to.Keep(op.values);
  }
  void operator()(Sparse& op) const {
    op.row_begin = to.Keep(op.row_begin);
    op.columns = to.Keep(op.columns);
    op.values = to.Keep(op.values);
  }
  void operator()(SignBits& op) const {
    op.bits = to.Keep(op.bits);
    op.scale = to.Keep(op.scale);
  }
  void operator()(Kronecker& op) const {
    op.c = to.Keep(op.c);
    op.d = to.Keep(op.d);
  }
  void operator()(Bias& op) const { op.values = to.Keep(op.values); }
  void operator()(Bottleneck& op) const {
    op.norm.weight = to.Keep(op.norm.weight);
    op.norm.bias = to.Keep(op.norm.bias);
    op.down = to.Keep(op.down);
    op.down_bias = to.Keep(op.down_bias);
    op.up = to.Keep(op.up);
    op.up_bias = to.Keep(op.up_bias);
    op.scale = to.Keep(op.scale);
  }
  void operator()(InputScale& op) const { op.values = to.Keep(op.values); }
  void operator()(BlockRotation& op) const {
    op.order = to.Keep(op.order);
    op.blocks = to.Keep(op.blocks);
  }
  void operator()(OutputScale& op) const { op.values = to.Keep(op.values); }
  void operator()(PairRotation& op) const {
    op.f = to.Keep(op.f);
    op.g = to.Keep(op.g);
  }
  void operator()(EmbeddingRows& op) const {
    op.ids = to.Keep(op.ids);
    op.rows = to.Keep(op.rows);
  }
  void operator()(EmbeddingLowRank& op) const {
    op.a = to.Keep(op.a);
    op.b = to.Keep(op.b);
    op.column_scale = to.Keep(op.column_scale);
  }
};

StoredDelta::StoredDelta(const DeltaOp& op) : op_(op) { std::visit(Keeper{*this}, op_); }

DeltaCost StoredDelta::cost() const { return {bytes_, FlopsPerToken(op_)}; }

}  // namespace polyad::ref
