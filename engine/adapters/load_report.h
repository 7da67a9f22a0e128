#pragma once

// What a load did, or what an adapter on disk would do (`polyad inspect`): what the file is, the
// ops it lowers to and where, what they cost, and how far they change the base. A plain value.

#include <cstdint>
#include <string>
#include <vector>

#include "engine/adapters/adapter_program.h"
#include "engine/adapters/adapter_source.h"
#include "engine/adapters/program_costs.h"
#include "engine/base/status.h"
#include "engine/spec/model_spec.h"
#include "kernels/api/precision_bytes.h"

namespace polyad {

// One kind of op at one kind of place, over all layers.
struct OpReport {
  std::string op;  // "LowRank"
  // "input", "output", "delta", "after", "sub_layer", "embedding", "attention", "prompt", "norm",
  // "scaling_pass"
  std::string stage;
  std::string target;    // "q_proj"; "attention", "mlp", "final" for hooks and norms
  int64_t count = 0;     // places it runs at, one a layer
  int64_t rank = 0;      // the largest; 0 where the op has none
  PrecisionBytes bytes;  // resident
  int64_t flops_per_token = 0;
};

struct LoadReport {
  std::string name;
  int64_t version = 0;
  std::string digest;  // hex SHA-256 of config and tensors
  std::string family;
  std::string exactness;             // zoo section 1.3: "E1" to "E4"
  std::vector<int64_t> ranks;        // distinct, ascending
  std::vector<std::string> targets;  // distinct module names, e.g. "q_proj"
  std::vector<OpReport> ops;         // in the order of the program
  int64_t num_virtual_tokens = 0;    // of a soft prompt
  int64_t max_context = 0;           // the longest context of its own rotary scaling; 0: the base's
  int64_t num_tensors_read = 0;
  int64_t file_bytes = 0;
  PrecisionBytes resident_bytes;  // those of all ops
  int64_t flops_per_token = 0;
  std::vector<double>
      layer_delta_norms;  // Frobenius norm of the summed change per layer: sqrt(sum |dW|^2)
  double load_ms = 0;
};

// Everything but name, version and load_ms. `costs` are what packing the program gave.
// INVALID_ARGUMENT where the program changes nothing.
StatusOr<LoadReport> ReportOf(const AdapterSource& source, const AdapterProgram& program,
                              const ModelSpec& spec, const ProgramCosts& costs);

}  // namespace polyad
