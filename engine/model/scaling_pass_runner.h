#pragma once

// The first pass of a step (engine/adapters/scaling_pass.h): takes the rows of adapters that have
// one as a batch of their own over their sequences' second caches, and makes of that batch's last
// hidden states the coefficients of the step's rows. All of it is row by row, so that chunks and
// batch mates change no bit. Working memory is sized once. Engine thread only.

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "engine/adapters/scaling_pass.h"
#include "engine/base/status.h"
#include "engine/model/step_batch.h"
#include "kernels/api/backend.h"

namespace polyad {

class ScalingPassRunner {
 public:
  explicit ScalingPassRunner(Backend& backend) : backend_(backend) {}
  Status AllocateWorkspace(int64_t max_step_tokens);

  // Coefficient c of row t is Row(c)[t]; rows are those of the batch that runs.
  FloatRows coefficients() const { return coefficients_; }

  // The batch of the first pass, valid until the next call; no rows: there is none. Coefficients
  // are then the first pass's.
  const StepBatch& MakeBatch(const StepBatch& step);
  // hidden: the last hidden states of that batch, normed. Coefficients are then the step's.
  void Classify(ActivationRows hidden);

 private:
  // Neighbouring rows of one adapter: `count` from `first_row` of the first pass and from
  // `step_row` of the step.
  struct Run {
    const AdapterVersion* adapter = nullptr;
    int64_t first_row = 0;
    int64_t step_row = 0;
    int64_t count = 0;
  };
  void AppendSequence(const StepBatch& step, const StepSequence& rows,
                      const AdapterVersion& adapter);
  FloatRows Logits(const ScalingPass& pass, ActivationRows hidden);

  Backend& backend_;
  std::vector<std::shared_ptr<void>> memory_;
  FloatRows coefficients_;    // [kMaxCoefficients, tokens]
  FloatRows wide_;            // [a few rows, kMaxClassifierWidth] a layer's outputs
  ActivationRows activated_;  // likewise, what the next one reads
  StepBatch batch_;
  std::vector<Run> runs_;
  std::vector<float> of_row_;  // one row's coefficients
};

// coefficients = rule(logits), both [rule.size()].
void ApplyRule(const CoefficientRule& rule, std::span<const float> logits,
               std::span<float> coefficients);

}  // namespace polyad
