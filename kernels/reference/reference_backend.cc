#include "kernels/reference/reference_backend.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <limits>

#include "absl/strings/str_format.h"
#include "kernels/api/delta_check.h"
#include "kernels/api/kv_shape.h"
#include "kernels/reference/element.h"
#include "kernels/reference/stored_delta.h"

namespace polyad::ref {

StoredMatrix::StoredMatrix(std::span<const TensorView> parts) {
  view_ = parts.front();
  view_.rows = 0;
  const bool grouped = std::any_of(parts.begin(), parts.end(), [](const TensorView& part) {
    return part.dtype == DType::kGrouped;
  });
  if (grouped) {
    Dequantize(parts);
    return;
  }
  const int64_t row_bytes = RowBytes(view_.dtype, view_.cols);
  for (const TensorView& part : parts) {
    const auto* data = static_cast<const unsigned char*>(part.data);
    bytes_.insert(bytes_.end(), data, data + part.rows * row_bytes);
    view_.rows += part.rows;
  }
  view_.data = bytes_.data();
}

void StoredMatrix::Dequantize(std::span<const TensorView> parts) {
  std::vector<float> row_values(static_cast<size_t>(view_.cols));
  for (const TensorView& part : parts) {
    for (int64_t row = 0; row < part.rows; ++row) {
      if (part.dtype == DType::kGrouped) {
        DequantizeRow(*part.grouped, row, row_values.data());
      } else {
        for (int64_t col = 0; col < part.cols; ++col) {
          row_values[static_cast<size_t>(col)] = static_cast<float>(ReadElement(part, row, col));
        }
      }
      const auto* bytes = reinterpret_cast<const unsigned char*>(row_values.data());
      bytes_.insert(bytes_.end(), bytes, bytes + row_values.size() * sizeof(float));
    }
    view_.rows += part.rows;
  }
  view_.dtype = DType::kF32;
  view_.grouped = nullptr;
  view_.data = bytes_.data();
}

std::vector<double> StoredMatrix::Row(int64_t row) const {
  std::vector<double> values(static_cast<size_t>(view_.cols));
  for (int64_t col = 0; col < view_.cols; ++col) {
    values[static_cast<size_t>(col)] = ReadElement(view_, row, col);
  }
  return values;
}

StoredKv::StoredKv(const KvShape& shape, int64_t num_blocks)
    : shape_(shape), num_blocks_(num_blocks) {
  const size_t size = Index(shape.num_layers, 0, 0);
  k_.resize(size);
  v_.resize(size);
}

size_t StoredKv::Index(int64_t layer, int64_t slot, int64_t kv_head) const {
  const int64_t token = layer * num_blocks_ * kBlockTokens + slot;
  return static_cast<size_t>((token * shape_.num_kv_heads + kv_head) * shape_.head_dim);
}

// Layer by layer, a block's keys, then its values.
void StoredKv::Save(int64_t block, std::span<char> to) const {
  const size_t count = Index(0, kBlockTokens, 0);
  for (int64_t layer = 0; layer < shape_.num_layers; ++layer) {
    char* piece = to.data() + static_cast<size_t>(layer) * 2 * count * sizeof(float);
    std::memcpy(piece, K(layer, block * kBlockTokens, 0), count * sizeof(float));
    std::memcpy(piece + count * sizeof(float), V(layer, block * kBlockTokens, 0),
                count * sizeof(float));
  }
}

void StoredKv::Discard(int64_t begin, int64_t end) {
  const int64_t last = std::min(num_blocks_, (end + block_bytes() - 1) / block_bytes());
  for (int64_t layer = 0; layer < shape_.num_layers; ++layer) {
    for (int64_t slot = begin / block_bytes() * kBlockTokens; slot < last * kBlockTokens; ++slot) {
      for (int64_t head = 0; head < shape_.num_kv_heads; ++head) {
        const auto dim = static_cast<size_t>(shape_.head_dim);
        std::fill_n(K(layer, slot, head), dim, std::numeric_limits<float>::quiet_NaN());
        std::fill_n(V(layer, slot, head), dim, std::numeric_limits<float>::quiet_NaN());
      }
    }
  }
}

void StoredKv::Restore(int64_t block, std::span<const char> from) {
  const size_t count = Index(0, kBlockTokens, 0);
  for (int64_t layer = 0; layer < shape_.num_layers; ++layer) {
    const char* piece = from.data() + static_cast<size_t>(layer) * 2 * count * sizeof(float);
    std::memcpy(K(layer, block * kBlockTokens, 0), piece, count * sizeof(float));
    std::memcpy(V(layer, block * kBlockTokens, 0), piece + count * sizeof(float),
                count * sizeof(float));
  }
}

absl::StatusOr<std::shared_ptr<void>> ReferenceBackend::Allocate(int64_t bytes) {
  constexpr int64_t kAlignment = 64;
  if (bytes < 0 || bytes > std::numeric_limits<int64_t>::max() - kAlignment) {
    return absl::ResourceExhaustedError(absl::StrFormat("cannot allocate %d bytes", bytes));
  }
  const size_t size = static_cast<size_t>((bytes + kAlignment) / kAlignment * kAlignment);
  void* memory = std::aligned_alloc(kAlignment, size);
  if (memory == nullptr) {
    return absl::ResourceExhaustedError(absl::StrFormat("cannot allocate %d bytes", bytes));
  }
  std::memset(memory, 0, size);
  return std::shared_ptr<void>(memory, std::free);
}

absl::StatusOr<std::unique_ptr<PackedMatrix>> ReferenceBackend::PackMatrix(
    std::span<const TensorView> parts) {
  if (parts.empty()) return absl::InvalidArgumentError("packing a matrix of no parts");
  for (const TensorView& part : parts) {
    const bool mixed = part.dtype != parts[0].dtype && part.dtype != DType::kGrouped &&
                       parts[0].dtype != DType::kGrouped;
    if (part.cols != parts[0].cols || mixed) {
      return absl::InvalidArgumentError(absl::StrFormat(
          "stacked parts differ: expected %d columns of %s, got %d of %s", parts[0].cols,
          InfoOf(parts[0].dtype).name, part.cols, InfoOf(part.dtype).name));
    }
  }
  return std::make_unique<StoredMatrix>(parts);
}

absl::StatusOr<std::unique_ptr<PackedDelta>> ReferenceBackend::PackDelta(const DeltaOp& op,
                                                                         PackShare&) {
  if (absl::Status status = CheckDeltaOp(op); !status.ok()) return status;
  return std::make_unique<StoredDelta>(op);
}

absl::StatusOr<std::unique_ptr<KvStorage>> ReferenceBackend::AllocateKv(const KvShape& shape,
                                                                        int64_t num_blocks) {
  const absl::StatusOr<KvShape> settled = SettleKvShape(shape, mode_);
  if (!settled.ok()) return settled.status();
  return std::make_unique<StoredKv>(*settled, num_blocks);
}

absl::StatusOr<int64_t> ReferenceBackend::KvBlockBytes(const KvShape& shape) const {
  const absl::StatusOr<KvShape> settled = SettleKvShape(shape, mode_);
  if (!settled.ok()) return settled.status();
  return 2 * shape.num_layers * shape.num_kv_heads * shape.head_dim * kBlockTokens *
         static_cast<int64_t>(sizeof(float));
}

}  // namespace polyad::ref
