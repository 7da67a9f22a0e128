#pragma once

// Adapters of several families for step_bench, lowered by hand to the ops their files would give,
// with random tensors at a model's shapes and about the resident bytes of a LoRA of rank 16 where
// the family can have them. Benchmark-only.

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "engine/adapters/adapter_version.h"
#include "engine/spec/model_spec.h"
#include "kernels/api/backend.h"

namespace polyad {

enum class BenchFamily { kLora, kDora, kIa3, kBottleneck, kSparse, kKronecker, kSoftPrompt };

const char* NameOf(BenchFamily family);

// `rank` is a LoRA's or DoRA's. Null for a soft prompt, whose rows run the base model.
std::shared_ptr<const AdapterVersion> MakeBenchAdapter(Backend& backend, const ModelSpec& spec,
                                                       BenchFamily family, int64_t rank,
                                                       uint32_t seed);

}  // namespace polyad
