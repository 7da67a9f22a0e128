// A .gguf file: metadata, weights, tokenizer and chat template in one.

#include <memory>
#include <utility>

#include "engine/io/gguf.h"
#include "engine/spec/gguf_spec.h"
#include "engine/spec/open_formats.h"

namespace polyad {

StatusOr<ModelFiles> OpenGgufModel(const std::string& path) {
  POLYAD_ASSIGN_OR_RETURN(GgufFile file, GgufFile::Open(path));
  auto source = std::make_unique<GgufFile>(std::move(file));
  POLYAD_ASSIGN_OR_RETURN(ModelSpec spec, SpecFromGguf(*source));
  TokenizerFiles tokenizer;
  POLYAD_ASSIGN_OR_RETURN(tokenizer.gguf, TokenizerFromGguf(*source));
  tokenizer.chat_template = tokenizer.gguf->chat_template;
  POLYAD_ASSIGN_OR_RETURN(ModelFiles files, ModelFiles::Create(std::move(spec), WeightFormat::kGguf,
                                                               std::move(source)));
  files.set_tokenizer(std::move(tokenizer));
  return files;
}

}  // namespace polyad
