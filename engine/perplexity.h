#pragma once

// How well a served model foretells a text: exp of the mean of -log p over the text cut into
// windows, each window scored as one prompt of its own, its first token given. A last, shorter
// window is left out unless it is the only one. Waits for each window; any thread but the engine's.

#include <cstdint>
#include <string>
#include <vector>

#include "engine/base/status.h"
#include "engine/engine.h"

namespace polyad {

struct PerplexityText {
  std::vector<int32_t> tokens;
  int64_t window = 512;  // tokens
};

// `model` is an adapter's name, or empty for the base. INVALID_ARGUMENT: fewer than two tokens.
StatusOr<double> Perplexity(Engine& engine, const std::string& model, const PerplexityText& text);

}  // namespace polyad
