#pragma once

// A loaded base model, ready to run steps: spec (data, not subclasses), packed weights, decoder and
// its K/V pages. Const after Load but for the workspace and the cache that Run writes; engine
// thread only.

#include <cstdint>
#include <memory>
#include <span>

#include "engine/base/status.h"
#include "engine/model/decoder.h"
#include "engine/model/step_runner.h"
#include "engine/model/weights.h"
#include "engine/spec/model_files.h"
#include "engine/spec/sites.h"
#include "kernels/api/backend.h"

namespace polyad {

struct ModelOptions {
  int64_t kv_bytes = int64_t{512} << 20;  // rounded down to whole blocks, at least one context
  KvFormat kv_format = KvFormat::kAuto;
  KvPlacement kv_placement = KvPlacement::kByLayer;
  int64_t max_step_tokens = 512;
  int64_t max_context = 0;  // 0: the model's own maximum
};

class Model final : public StepRunner {
 public:
  // `backend` must outlive the model. Errors name the file's tensor or key.
  static StatusOr<std::unique_ptr<Model>> Load(const ModelFiles& files, Backend& backend,
                                               const ModelOptions& options);

  const ModelSpec& spec() const { return spec_; }
  int64_t max_context() const { return max_context_; }
  // How many tokens back the farthest-seeing layer sees; 0: all.
  int64_t sliding_window() const;
  // By which a sequence's rotary tables are chosen (RopeTables::reaches).
  const std::vector<int64_t>& rope_reaches() const { return decoder_->rope().reaches(); }
  int64_t num_kv_blocks() const { return kv_->num_blocks(); }
  int64_t kv_bytes() const { return kv_->bytes(); }
  KvFormat kv_format() const { return kv_->format(); }
  int64_t kv_block_stride() const { return kv_->block_stride(); }
  const Weights& weights() const { return weights_; }
  WeightBytes weight_bytes() const { return weights_.bytes(); }
  int64_t num_parameters() const { return num_parameters_; }

  // Shows every product's input from now on; null: to nobody. It outlives what it sees.
  void Observe(InputObserver* observer) { decoder_->Observe(observer); }

  StatusOr<FloatRows> Run(const StepBatch& batch) override;
  FloatRows hidden_states() const override { return decoder_->hidden_states(); }
  int64_t kv_block_bytes() const override { return kv_->block_bytes(); }
  void SaveBlock(int64_t block, std::span<char> to) const override { kv_->Save(block, to); }
  void RestoreBlock(int64_t block, std::span<const char> from) override {
    kv_->Restore(block, from);
  }
  void DiscardKv(int64_t begin, int64_t end) override { kv_->Discard(begin, end); }
  void ArgMax(FloatRows logits, std::span<TokenScore> best) override;
  void Draw(FloatRows logits, std::span<const DrawArgs> draws, std::span<int32_t> tokens) override;

 private:
  Model(ModelSpec spec, Backend& backend) : spec_(std::move(spec)), backend_(backend) {}
  Status AllocateKv(const ModelOptions& options);

  const ModelSpec spec_;
  Backend& backend_;
  Weights weights_;
  std::unique_ptr<KvStorage> kv_;
  std::unique_ptr<Decoder> decoder_;
  int64_t max_context_ = 0;
  int64_t num_parameters_ = 0;
};

}  // namespace polyad
