#pragma once

// A GGUF file's metadata as a ModelSpec and a tokenizer. Architectures: llama (which is also how
// Mistral files say it), qwen2, qwen3, gpt2. Whether biases and a separate head exist is read off
// the tensors; the rotary part is gguf_rope.h's. Keys: gguf 0.19 constants. What changes the maths
// and is not served (experts, per-layer heads) refuses the model with the key and its value.

#include "engine/base/status.h"
#include "engine/io/gguf.h"
#include "engine/spec/gguf_tokenizer.h"
#include "engine/spec/model_spec.h"

namespace polyad {

StatusOr<ModelSpec> SpecFromGguf(const GgufFile& file);
StatusOr<GgufTokenizerMetadata> TokenizerFromGguf(const GgufFile& file);

}  // namespace polyad
