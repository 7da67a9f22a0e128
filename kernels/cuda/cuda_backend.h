#pragma once

// The Backend over a Device: packs weights and ops into its memory, plans launches on the host and
// queues them. Calls return before their work is done; Finish waits for it. What a call brings
// along in host memory (ids, slots, plans, small vectors) is copied with it. The same code is the
// CUDA plugin and, over the emulator, what tests run whole models with.

#include <map>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "kernels/api/backend.h"
#include "kernels/cuda/device.h"
#include "kernels/cuda/device_memory.h"
#include "kernels/cuda/packed_op.h"
#include "kernels/cuda/plain_products.h"
#include "kernels/cuda/site_rows.cuh"

namespace polyad::cuda {

class CudaBackend : public Backend {
 public:
  // `products`: a library that multiplies by bf16 base weights where it may; null: own kernels do,
  // and `why_own`, where it is not empty, is said by info(). The exact mode has no library. Steps
  // of up to `graph_rows` rows go to the device as graphs (step_graphs.h).
  CudaBackend(ComputeMode mode, std::unique_ptr<Device> device,
              std::unique_ptr<PlainProducts> products = nullptr, std::string why_own = "",
              int64_t graph_rows = 0);
  ~CudaBackend() override;

  BackendInfo info() const override;
  DType activation_dtype() const override {
    return mode_ == ComputeMode::kF32 ? DType::kF32 : DType::kBF16;
  }
  absl::StatusOr<std::shared_ptr<void>> Allocate(int64_t bytes) override;
  absl::StatusOr<std::unique_ptr<PackedMatrix>> PackMatrix(
      std::span<const TensorView> parts) override;
  absl::StatusOr<std::unique_ptr<PackedDelta>> PackDelta(const DeltaOp& op,
                                                         PackShare& share) override;
  absl::StatusOr<int64_t> KvBlockBytes(const KvShape& shape) const override;
  absl::StatusOr<std::unique_ptr<KvStorage>> AllocateKv(const KvShape& shape,
                                                        int64_t num_blocks) override;
  void ProductOfRows(const PackedMatrix& weight, int64_t first_row, FloatRows x,
                     FloatRows y) override;
  void Embed(const PackedMatrix& table, std::span<const int32_t> ids, FloatRows out) override;
  void AddRows(const PackedMatrix& table, std::span<const int32_t> ids, FloatRows out) override;
  void Norm(const NormArgs& args, FloatRows x, ActivationRows y) override;
  void Gemm(const GemmArgs& args, ActivationRows x, FloatRows y) override;
  void RotateAndStore(const QkvArgs& args) override;
  void Attention(const AttentionArgs& args) override;
  void AddGatedPrefix(const GatedPrefixArgs& args) override;
  void Activate(ActivationKind kind, bool gated, FloatRows x, ActivationRows y) override;
  void GatherRows(FloatRows x, std::span<const int32_t> rows, FloatRows out) override;
  void ArgMax(FloatRows logits, std::span<TokenScore> best) override;
  void Draw(FloatRows logits, std::span<const DrawArgs> draws, std::span<int32_t> tokens) override;
  void Apply(std::span<const DeltaSegment> segments, ActivationRows x, FloatRows y) override;
  void TransformInput(std::span<const DeltaSegment> segments, ActivationRows x) override;
  void TransformOutput(std::span<const DeltaSegment> segments, FloatRows y) override;
  void TransformEmbedding(std::span<const DeltaSegment> segments, std::span<const int32_t> ids,
                          FloatRows rows) override;
  void Copy(FloatRows from, FloatRows to) override;
  void Copy(ActivationRows from, ActivationRows to) override;
  void Convert(FloatRows from, ActivationRows to) override;
  void Zero(FloatRows rows) override;
  void Accumulate(FloatRows x, FloatRows y) override;
  void Finish() override { queue_.Wait(); }

 protected:
  Device& device() { return *device_; }
  const StepGraphs::Counts& graph_counts() const { return queue_.graph_counts(); }

 private:
  // A vector that calls bring again and again (a norm's weights), with what it held when it was
  // copied: the memory may have become another's.
  struct KeptVector {
    std::vector<float> values;
    std::unique_ptr<DeviceMemory> memory;
    const float* on_device = nullptr;
  };
  bool exact() const { return mode_ == ComputeMode::kF32; }
  const float* Kept(const float* values, int64_t count);
  // Null where own kernels multiply by such a weight.
  absl::StatusOr<std::unique_ptr<PackedMatrix>> PackForLibrary(std::span<const TensorView> parts);
  void ApplySegments(std::span<const DeltaSegment> segments, ActivationRows x, FloatRows y);
  template <typename From, typename To>
  void MoveAll(Move move, DeviceRows<const From> from, DeviceRows<To> to);

  const ComputeMode mode_;
  const std::unique_ptr<Device> device_;
  const std::unique_ptr<PlainProducts> products_;  // or null
  const std::string why_own_;
  CallQueue queue_;
  std::mutex loader_mutex_;  // guards loader_queue_ and whatever else uses the loader's queue
  CallQueue loader_queue_;
  std::map<std::pair<const float*, int64_t>, KeptVector> kept_;
};

}  // namespace polyad::cuda
