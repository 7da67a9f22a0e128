#pragma once

// A tokenizer from a GGUF file's metadata (tokenizer.ggml.*). GGUF names the pre-tokeniser instead
// of spelling it out, so the patterns of the names we serve stand here, as the models' own
// tokenizer.json have them; the result equals the one loaded from that file, token for token.
// Called once at load. Source: GGUF's specification, "Tokenizer".

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "engine/base/status.h"
#include "engine/text/tokenizer.h"

namespace polyad {

struct GgufTokenizerData {
  std::string model = {};  // gpt2: byte-level BPE; llama: SentencePiece with scores
  std::string pre = {};    // gpt2's pre-tokeniser; empty is "default"
  std::vector<std::string> tokens = {};
  std::vector<float> scores = {};  // llama: one per token
  std::vector<int32_t> token_types =
      {};  // empty, or one per token: 1 normal, 2 unknown, 3 control, 4 user-defined, 6 byte
  std::vector<std::string> merges = {};  // gpt2: "left right"
  std::optional<int32_t> bos = {}, eos = {}, unk = {}, pad = {};
  bool add_bos = false;
  bool add_eos = false;
  bool add_space_prefix = true;  // llama
};

// UNIMPLEMENTED for a model or a pre-tokeniser without an entry here, by its name.
StatusOr<std::unique_ptr<Tokenizer>> MakeGgufTokenizer(GgufTokenizerData data);

}  // namespace polyad
