#pragma once

// Block types that no kernel takes, decoded to f32: each row of blocks by the formula beside its
// decoder in the .cc. Source: ggml's block layouts as gguf 0.19's quants module decodes them; tests
// compare with its output bit for bit.

#include <cstdint>
#include <span>

namespace polyad {

// Decodes whole blocks of GGUF tensor type `type_number` (gguf_types.h says which are decodable) to
// `out`, whose size is a multiple of the block's elements; `blocks` holds them all. CHECKs that the
// type has a decoder.
void DecodeGgufBlocks(uint32_t type_number, const uint8_t* blocks, std::span<float> out);

}  // namespace polyad
