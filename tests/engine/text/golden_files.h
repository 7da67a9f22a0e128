#pragma once

// Reads what tests/golden/text/make_text_goldens.py wrote (its docstring has the formats) and
// builds the tokenizers. Tests only; a missing or short file aborts the test with its name.

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "engine/text/gguf_tokenizer.h"
#include "engine/text/tokenizer.h"

namespace polyad {

// The calling thread's processor time: what a bound on work means, however busy the machine is.
double ThreadCpuSeconds();

std::string ReadGoldenFile(const std::string& name);

// The bytes that are stored as `name`.gz.
std::string ReadGzippedGoldenFile(const std::string& name);

class GoldenReader {
 public:
  explicit GoldenReader(std::string data) : data_(std::move(data)) {}
  uint64_t Varint();
  std::string Text();
  std::vector<int32_t> Ids();
  bool AtEnd() const { return at_ == data_.size(); }

 private:
  std::string data_;
  size_t at_ = 0;
};

std::vector<std::string> ReadCorpus();

// A tokenizer by its golden's name; "smollm2" is made from the compact vocabulary.
std::unique_ptr<Tokenizer> LoadGoldenTokenizer(const std::string& name);

// The demo model's tokenizer as its GGUF file has it.
GgufTokenizerData SmolLm2GgufData();

// The same data in the form of a tokenizer.json.
std::string SmolLm2Json();

// A small tokenizer.json's vocabulary as GGUF metadata; `pre` names the pre-tokeniser, empty for
// SentencePiece.
GgufTokenizerData GgufDataOf(const std::string& tokenizer_json, const std::string& pre);

}  // namespace polyad
