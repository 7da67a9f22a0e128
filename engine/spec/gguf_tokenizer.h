#pragma once

// The tokenizer that a GGUF file carries, as plain data in the file's own words (gguf 0.19 keys
// "tokenizer.ggml.*"). engine/text turns it into a Tokenizer. Lists are parallel to token ids and
// equally long, or empty.

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace polyad {

struct GgufTokenizerMetadata {
  std::string model;  // "gpt2" (byte-level BPE), "llama" (SentencePiece-style BPE)
  std::string pre;    // name of the pre-tokeniser: "llama-bpe", "smollm", "qwen2"
  std::vector<std::string> tokens;
  std::vector<float> scores;  // empty for byte-level BPE
  std::vector<int32_t>
      token_types;  // 1 normal, 2 unknown, 3 control, 4 user defined, 5 unused, 6 byte
  std::vector<std::string> merges;  // "left right"; empty for SentencePiece
  std::optional<int32_t> bos_id;
  std::optional<int32_t> eos_id;
  std::optional<int32_t> eot_id;  // end of a turn, where it differs from eos
  std::optional<int32_t> unknown_id;
  std::optional<int32_t> padding_id;
  std::optional<bool> add_bos;
  std::optional<bool> add_eos;
  std::optional<bool> add_space_prefix;
  std::string chat_template;
};

}  // namespace polyad
