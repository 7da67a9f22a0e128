#pragma once

// A fine-tune as an adapter of its base: what it changed of every linear weight as 1-bit planes
// (sign_planes.h), of norms and biases as they are, of embedding and head as rows, and nothing of
// what it left alone. Written as our container (docs/container.md) with the digest of the base that
// it was taken from; the directory has its name once it is whole. Weight by weight: no more than
// one pair and its result are held. One thread. INVALID_ARGUMENT: an option. FAILED_PRECONDITION:
// two different models. UNIMPLEMENTED: a change that no op carries. INTERNAL: the system refused a
// write.

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "engine/adapters/model_delta.h"
#include "engine/adapters/sign_planes.h"
#include "engine/base/status.h"

namespace polyad {

enum class RestFormat : uint8_t { kF32, kBF16, kInt8 };

struct CompressOptions {
  std::string out;  // a directory that does not exist yet
  PlaneOptions planes;
  RestFormat rest = RestFormat::kBF16;  // of changed rows of embedding and head
};

struct CompressReport {
  struct Layer {
    int64_t layer = 0;
    double squared_error = 0;  // of its planes
    double squares = 0;        // of what they stand for
    int64_t bytes = 0;         // of all its parts in the file
  };
  std::vector<Layer> layers;
  int64_t num_matrices = 0;     // that changed
  int64_t num_token_rows = 0;   // of embedding and head that changed
  int64_t bytes = 0;            // of the file
  int64_t bytes_of_layers = 0;  // of it, but for embedding and head
  int64_t bf16_bytes = 0;       // of the base's weights in bf16, but for embedding and head
};

using CompressProgress = std::function<void(int64_t done, int64_t total)>;  // pairs of weights

// Runs on the finished directory before it gets its name: calibration rewrites its scales there.
using CompressStep = std::function<Status(const std::string& directory)>;

StatusOr<CompressReport> CompressModel(const ModelDelta& models, const CompressOptions& options,
                                       const CompressProgress& progress,
                                       const CompressStep& finish = nullptr);

}  // namespace polyad
