#pragma once

// What a LoRA configuration says beyond the tensors: scales, and which of LoRA's variants runs.
// Exactly one variant is set at most, as PEFT has it. UNIMPLEMENTED for a key that changes the
// maths and is not served, by its name. Source: peft 0.21.2, tuners/lora/config.py.

#include <cstdint>
#include <string>
#include <vector>

#include "engine/adapters/peft_config.h"
#include "engine/base/status.h"
#include "engine/io/json.h"

namespace polyad {

// What the base's weight lost when training began, because the adapter started as a part of it.
enum class LoraStart { kUnchanged, kPissa, kOlora, kKasa };

struct LoraConfig {
  PatternValues ranks;
  PatternValues alphas;
  bool rank_stabilised = false;
  bool bias_of_b = false;
  bool dora = false;
  bool pools_inputs = false;  // QA-LoRA
  int64_t pool_size = 16;
  int64_t blocks = 1;          // more than one: BD-LoRA, where one factor is block-diagonal
  bool velora = false;         // files with what training alone reads
  bool monteclora = false;     // likewise
  bool on_parameters = false;  // some pairs change a parameter by its name (target_parameters)
  LoraStart start = LoraStart::kUnchanged;
  std::vector<int32_t> invocation_tokens;  // activated LoRA
  const OrderedJson* trained_tokens = nullptr;

  // alpha / r, or alpha / sqrt(r).
  double ScaleOf(const std::string& path, double rank) const;
};

// Borrows `json`. `base_digest` is what the directory records of its base (base_record.h): where it
// does, an adapter whose training began by changing the base belongs to those weights as they are.
StatusOr<LoraConfig> ReadLoraConfig(const OrderedJson& json, int64_t vocab_size,
                                    const std::string& base_digest);

}  // namespace polyad
