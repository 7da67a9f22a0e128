#pragma once

// X-LoRA's adapter_config.json: several LoRAs, each in a folder of the directory that is called as
// its key, weighed by a classifier. PEFT numbers the LoRAs it loads and runs those alone whose key
// is such a number, so that the keys are "0", "1", .. in order; the paths it was trained from mean
// nothing here. Source: zoo sections 4.1, 5.6 and 10; peft 0.21.2, tuners/xlora/config.py.

#include <string>
#include <vector>

#include "engine/adapters/adapter_program.h"
#include "engine/adapters/scaling_pass.h"
#include "engine/base/status.h"
#include "engine/io/json.h"

namespace polyad {

struct XloraConfig {
  int64_t num_experts = 0;
  int64_t depth = 1;
  int64_t width = 0;         // between the classifier's layers
  bool has_dropout = false;  // between them in training, which their names count
  bool per_module = false;   // a distribution for each adapted module, else one for all
  float weight = 1.0f;       // of every term
  CoefficientRule rule;      // but for its number of groups
};

// Whether a PEFT configuration is an X-LoRA's.
bool IsXlora(const OrderedJson& config);
// The folders of its LoRAs, in order.
StatusOr<std::vector<std::string>> XloraFolders(const OrderedJson& config);
// UNIMPLEMENTED where a key that changes the maths is not served, FAILED_PRECONDITION where the
// base's hidden size is another.
StatusOr<XloraConfig> ReadXloraConfig(const OrderedJson& config, int64_t hidden_size);

}  // namespace polyad
