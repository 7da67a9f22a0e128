#pragma once

// Block types that kernels do not take as stored, read into grouped rows (kernels/api): codes,
// scales and minima by the formula beside each reader in the .cc, without rounding. Source: ggml's
// block layouts as gguf 0.19's quants module decodes them; tests compare with its output bit for
// bit.

#include <cstdint>

#include "kernels/api/grouped_rows.h"

namespace polyad {

// `blocks` holds rows x cols elements of GGUF tensor type `type_number` (gguf_types.h says which
// are decodable), cols a multiple of the block's elements. CHECKs that the type has a reader.
GroupedRows ReadGgufGroups(uint32_t type_number, const uint8_t* blocks, int64_t rows, int64_t cols);

}  // namespace polyad
