#pragma once

// One linear site group of one layer for a mixed batch (zoo section 1.1): the shared base product
// once for every row, then each adapter's ops on its own rows. Rows of the base model skip all of
// it. Rows whose adapter changes the product's input or output, or hooks onto the sub-layer, are
// decorated: their input is transformed in place around the shared product, and where they are
// added to the residual stream their own output is kept apart until it is finished.
//
// A row's arithmetic depends on its own adapter alone, never on what else is in the batch; a gate
// reads all rows of its segment, which are then one request's (StepSegment).

#include <cstdint>
#include <deque>
#include <memory>
#include <span>
#include <vector>

#include "engine/adapters/adapter_version.h"
#include "engine/base/status.h"
#include "engine/model/step_batch.h"
#include "engine/model/weights.h"
#include "kernels/api/backend.h"

namespace polyad {

class AdaptedLinear {
 public:
  explicit AdaptedLinear(Backend& backend) : backend_(backend) {}

  // Widest rows that will come, for the working memory of decorated rows.
  struct Widths {
    int64_t rows = 0;
    int64_t hidden = 0;
    int64_t input = 0;   // of any group
    int64_t output = 0;  // of the groups with several sites
  };
  Status AllocateWorkspace(const Widths& widths);

  struct Target {
    int64_t layer = 0;
    SiteGroup group = SiteGroup::kQkv;
    bool accumulate = false;  // y is the residual stream: y += instead of y =
    ActivationRows normed;    // the sub-layer's normed input, for hooks that tap it
  };
  struct Product {
    const PackedMatrix* matrix = nullptr;
    const std::vector<float>* bias = nullptr;  // null or empty: none
  };
  // x and y have the rows of the segments.
  void Apply(const Product& product, const Target& target, std::span<const StepSegment> segments,
             ActivationRows x, FloatRows y);

  // What scaling passes found: coefficient c of row t is table.Row(c)[t].
  void SetCoefficients(FloatRows table) { coefficients_ = table; }

  // Invertible adapters of embedded text, in place (EmbeddingCoupling).
  void Couple(std::span<const StepSegment> segments, FloatRows rows);

 private:
  struct Decorated {
    const GroupOps* ops;
    int64_t row_begin;
    int64_t row_end;
    int64_t text_begin;
  };
  // The stream that entered a sub-layer, that stream normed, and what stands as its output.
  struct HookInputs {
    FloatRows residual;
    ActivationRows normed;
    FloatRows output;
  };

  static void FetchOps(const Target& target, std::span<const StepSegment> segments);
  void FindDecorated(const Target& target, std::span<const StepSegment> segments);
  void BeforeProduct(const Decorated& rows, const Target& target, ActivationRows x, FloatRows y);
  void AfterProduct(const Decorated& rows, const Product& product, const Target& target,
                    ActivationRows x, FloatRows y);
  void CollectDeltas(const Target& target, std::span<const StepSegment> segments, ActivationRows x);
  void AddMixtures(const GroupOps& ops, const StepSegment& segment, ActivationRows x);
  void Finish(const Decorated& rows, const Target& target, FloatRows y);
  void RunHooks(std::span<const PackedHook> hooks, const HookInputs& inputs);
  void RunHook(const PackedHook& hook, const HookInputs& inputs, FloatRows sum);
  void AddTap(Tap tap, const HookInputs& inputs, FloatRows to);
  ActivationRows ReadTap(Tap tap, const HookInputs& inputs);
  void ReadQuery(const PackedFusion& fusion, const HookInputs& inputs);
  void Fuse(const PackedHook& hook, ActivationRows input, FloatRows sum);
  void TransformInput(const InputOps& inputs, ActivationRows rows);
  GemmArgs ArgsOf(const Product& product, bool accumulate) const;

  Backend& backend_;
  std::vector<std::shared_ptr<void>> memory_;
  ActivationRows raw_;  // [rows, input] a decorated row's own input, or a transformed copy of it
  FloatRows residual_;  // [rows, hidden] the stream that a decorated row's output will join
  FloatRows wide_;      // [rows, output] a product of transformed rows
  FloatRows sum_;       // [rows, hidden] a hook's sum
  FloatRows total_;     // [rows, hidden] that of several
  FloatRows query_;     // [rows, hidden] a fusion's
  FloatRows fused_;     // [a few rows, keys and values of hidden] likewise
  FloatRows tapped_;    // [rows, hidden] what a hook reads, in fp32
  ActivationRows tap_;  // [rows, output or hidden] what an op on outputs reads
  FloatRows coefficients_;                   // of the scaling pass
  std::vector<Decorated> decorated_;         // reused between calls
  std::vector<DeltaSegment> segments_;       // likewise
  FloatRows scores_;                         // [rows, experts] of one mixture
  std::deque<std::vector<float>> mixtures_;  // a call's coefficients, which segments_ points to
  size_t num_mixtures_ = 0;                  // of them this call's
};

}  // namespace polyad
